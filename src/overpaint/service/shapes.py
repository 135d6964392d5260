"""JSON from outside against the types of our requests: one walk that checks, and names what belongs where.

The types are those of the dataclasses themselves, so a field that is added there needs no line here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from overpaint.errors import RequestError
from overpaint.request import Picture

PictureReader = Callable[[str, Any], Any]  # (name of the field, what stands there) -> what shall stand there

_LARGEST_WHOLE = 2**63
_LONGEST_NAME = 100
_DEEPEST = 8  # of what stands in an option


@cache
def hints_of(kind: type) -> Mapping[str, Any]:
    """A dataclass's fields with their types."""
    return get_type_hints(kind)


def shaped(name: str, value: Any, hint: Any, picture: PictureReader) -> Any:
    """The value in plain types, with its pictures read; one of another shape is a `RequestError`."""
    kinds = alternatives(hint)
    if value is None and NoneType in kinds:
        return None
    for kind in kinds:
        if kind is Picture:
            return picture(name, value)
        if _could_be(value, kind):
            return _inside(name, value, kind, picture)
    raise RequestError(name, value, f"give {described(hint)}")


def shaped_fields(prefix: str, values: Mapping[str, Any], kind: type, picture: PictureReader) -> dict[str, Any]:
    """A dataclass's fields; names that it does not have are left for it to refuse."""
    hints = hints_of(kind)
    result: dict[str, Any] = {}
    for name, value in values.items():
        _check_key(prefix, name)
        result[name] = shaped(prefix + name, value, hints[name], picture) if name in hints else value
    return result


def alternatives(hint: Any) -> tuple[Any, ...]:
    """`int | None` as (int, None's type); any other type as itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def described(hint: Any) -> str:
    """What belongs there, in words."""
    return " or ".join(_word(kind) for kind in alternatives(hint))


def plain(name: str, value: Any, depth: int = 0) -> Any:
    """A value of any shape, if it is finite, flat enough, and its texts can be written down."""
    if depth > _DEEPEST:
        raise RequestError(name, "...", "it is nested too deeply; give plain values")
    if isinstance(value, bool | NoneType):
        return value
    if isinstance(value, str):
        return _text(name, value)
    if isinstance(value, int | float):
        return _number(name, value)
    if isinstance(value, list | tuple):
        return [plain(name, each, depth + 1) for each in value]
    if isinstance(value, Mapping):
        for key in value:
            _check_key(f"{name}.", key)
        return {key: plain(f"{name}.{key}", each, depth + 1) for key, each in value.items()}
    raise RequestError(name, type(value).__name__, "give a value that JSON knows")


def _could_be(value: Any, kind: Any) -> bool:
    """By its outer shape; what is inside may still be wrong."""
    origin = get_origin(kind) or kind
    if kind is Any:
        return True
    if kind in (int, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if origin is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if origin is tuple:
        return isinstance(value, list | tuple)
    if origin is Mapping or dataclasses.is_dataclass(kind):
        return isinstance(value, Mapping)
    return isinstance(value, str if isinstance(kind, type) and issubclass(kind, Enum) else kind)


def _inside(name: str, value: Any, kind: Any, picture: PictureReader) -> Any:
    origin = get_origin(kind) or kind
    if origin is tuple:
        return _listed(name, value, kind, picture)
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        return shaped_fields(f"{name}.", value, kind, picture)
    if origin is Mapping or kind is Any:
        return plain(name, value)
    if isinstance(value, str):
        return _text(name, value)
    return _number(name, value, whole=kind is int) if kind in (int, float) else value


def _listed(name: str, value: Any, kind: Any, picture: PictureReader) -> list[Any]:
    members = get_args(kind)
    if members[-1] is not Ellipsis and len(members) != len(value):
        raise RequestError(name, value, f"give {described(kind)}")
    return [shaped(f"{name}[{i}]", each, members[0], picture) for i, each in enumerate(value)]


def _text(name: str, value: str) -> str:
    """NOTE: JSON can name half a character, which no file can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RequestError(name, value, "it holds half of a character; give valid Unicode") from None
    return value


def _number(name: str, value: float, *, whole: bool = False) -> float:
    """To JSON 20.0 and 20 are one number."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RequestError(name, value, "give a finite number")
    if abs(value) > _LARGEST_WHOLE and isinstance(value, int):
        raise RequestError(name, "a number of more than 63 bits", "give a smaller one")
    if whole and isinstance(value, float):
        if not value.is_integer():
            raise RequestError(name, value, "give a whole number")
        return int(value) if abs(value) <= _LARGEST_WHOLE else value
    return value


def _check_key(prefix: str, key: Any) -> None:
    if not isinstance(key, str) or len(key) > _LONGEST_NAME:
        raise RequestError(prefix.rstrip(".") or "request", str(key)[:_LONGEST_NAME], "there is no such field")
    _text(prefix.rstrip(".") or "request", key)


def _word(kind: Any) -> str:
    origin = get_origin(kind) or kind
    if origin is tuple:
        members = get_args(kind)
        many = "" if members[-1] is Ellipsis else f"{len(members)} "
        return f"a list of {many}{_word(members[0]).removeprefix('a ').removeprefix('an ')}s"
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(str(each.value) for each in kind)
    return _WORDS.get(origin, "an object")


_WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "null",
    Picture: "a picture",
    Mapping: "an object",
}
