"""Frozen values whose fields are given by name: wrong names are errors of ours, not plain ones of Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import wraps
from typing import Any, Protocol, TypeVar

from overpaint.errors import RequestTypeError


class _Named(Protocol):
    @classmethod
    def _refuse_unknown(cls, given: Mapping[str, Any]) -> None: ...


_C = TypeVar("_C", bound=type[_Named])


def by_name(cls: _C) -> _C:
    """Stands above `@dataclass`. Unknown names go to the class's own `_refuse_unknown`."""
    made: Any = cls.__init__

    @wraps(made)
    def checked(self: Any, *args: object, **given: Any) -> None:
        kind = type(self)
        if args:
            shown = f"{kind.__name__}({fields(kind)[0].name}=...)"
            raise RequestTypeError(kind.__name__, args[0], f"give its fields by name, as in {shown}")
        kind._refuse_unknown(given)
        if lacking := missing(kind, given):
            raise RequestTypeError(f"{kind.__name__}.{lacking[0]}", None, "it is missing; give it by name")
        made(self, **given)

    cls.__init__ = checked  # type: ignore[method-assign]
    return cls


def missing(kind: Any, given: Mapping[str, Any]) -> list[str]:
    """The fields that have no default and were not given."""
    needed = (each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING)
    return [name for name in needed if name not in given]
