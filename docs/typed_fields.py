"""The fields of a request as Python programs give them: typed keywords for a checker, and a text for `help()`.

Both follow from the request's own fields and from docs/meanings.yaml, so that a field is added in one place.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from overpaint.request import SOURCE_FIELDS, MaskedContent, PaintRequest, ResizeMode

BY_PLACE = ("prompt", "checkpoint")  # parameters of their own of img2img and txt2img
PICTURES = ("images", "mask")  # and of img2img
NEEDED = ("images",)  # of a request that has a source
COUNTS = ("batch_size", "iterations")  # decide whether one picture comes back, or a list


class Line(Protocol):
    """A field as its source says it."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def default(self) -> str: ...
    @property
    def comment(self) -> str: ...


def _words(kind: type[ResizeMode] | type[MaskedContent]) -> str:
    return "Literal[" + ", ".join(f'"{each.value}"' for each in kind) + "]"


# What is kept -> what may be given for it.
WIDER = {
    "tuple[Picture, ...]": "PictureLike | Sequence[PictureLike]",
    "Picture | None": "PictureLike | None",
    "str | tuple[str, ...]": "str | list[str] | tuple[str, ...]",
    "tuple[str, ...]": "list[str] | tuple[str, ...]",
    "int | tuple[int, ...]": "int | list[int] | tuple[int, ...]",
    "tuple[Lora, ...]": "list[Lora] | tuple[Lora, ...]",
    "tuple[ControlUnit, ...]": "list[ControlUnit] | tuple[ControlUnit, ...]",
    "ResizeMode": f"ResizeMode | {_words(ResizeMode)}",
    "MaskedContent": f"MaskedContent | {_words(MaskedContent)}",
}

HEAD = '''\
"""Typed keywords: the fields of a request as they may be given. For type checkers alone.

Written by docs/generate.py from the request's fields and docs/meanings.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from typing_extensions import Required

    from overpaint.parts import Blend, ControlUnit, Hires, Lora, SoftInpainting
    from overpaint.request import MaskedContent, ResizeMode
    from overpaint.taking import PictureLike
'''


def typed_keywords(lines: Callable[[type], Iterable[Line]], meanings: Mapping[str, str]) -> str:
    """The module `overpaint.request_fields`."""
    own = {each.name: each for each in lines(PaintRequest)}
    hires = own.pop("hires")
    apart = {*BY_PLACE, *PICTURES, *COUNTS}
    both = [own[name] for name in own if name not in SOURCE_FIELDS | apart]
    source = [own[name] for name in own if name in SOURCE_FIELDS - apart]

    def named(*names: str) -> list[Line]:
        return [own[name] for name in names]

    classes: tuple[tuple[str, str, str, list[Line]], ...] = (
        ("_BothOptions", "TypedDict, total=False", "Of both kinds of job.", both),
        ("Img2ImgOptions", "_BothOptions, total=False", "What img2img takes beside its own parameters.", source),
        ("Txt2ImgOptions", "_BothOptions, total=False", "What txt2img takes beside its own parameters.", [hires]),
        ("_Rest", "TypedDict, total=False", "Parameters of the functions.", named(*BY_PLACE, *COUNTS)),
        ("Txt2ImgFields", "Txt2ImgOptions, _Rest, total=False", "Of a Txt2ImgRequest.", []),
        ("Img2ImgFields", "Img2ImgOptions, _Rest, total=False", "Of an Img2ImgRequest.", named(*PICTURES)),
        (
            "PaintFields",
            "Img2ImgOptions, _Rest, total=False",
            "Of a PaintRequest of either kind.",
            [*named(*PICTURES), hires],
        ),
    )
    return HEAD + "".join(
        _typed(name, bases, told, fields, meanings, required=name == "Img2ImgFields")
        for name, bases, told, fields in classes
    )


def _typed(
    name: str, bases: str, told: str, fields: Iterable[Line], meanings: Mapping[str, str], *, required: bool
) -> str:
    rows = [f'\n\nclass {name}({bases}):\n    """{told}"""\n']
    for each in fields:
        kind = WIDER.get(each.kind, each.kind)
        kind = f"Required[{kind}]" if required and each.name in NEEDED else kind
        text = textwrap.fill(meaning(each, meanings), 110, subsequent_indent="    ")
        end = "\n    " if "\n" in text else ""
        rows.append(f'\n    {each.name}: {kind}\n    """{text}{end}"""\n')
    return "".join(rows)


def help_texts(lines: Callable[[type], Iterable[Line]], meanings: Mapping[str, str]) -> str:
    """The module `overpaint.request_help`."""
    every = tuple(lines(PaintRequest))
    own = tuple(each for each in every if each.name != "hires")
    new = tuple(each for each in every if each.name not in SOURCE_FIELDS)
    texts = {
        "PAINT_HELP": _told(every, meanings),
        "IMG2IMG_HELP": _told(own, meanings, needed=NEEDED),
        "TXT2IMG_HELP": _told(new, meanings),
    }
    return (
        '"""What `help()` tells of a request. Written by docs/generate.py, from docs/meanings.yaml."""\n'
    ) + "".join(f'\n{name} = """\\\n{text}"""\n' for name, text in texts.items())


def _told(lines: Iterable[Line], meanings: Mapping[str, str], needed: Collection[str] = ()) -> str:
    rows = ["Fields:"]
    for each in lines:
        has_default = each.default and not each.default.startswith("field(") and each.name not in needed
        default = f" = {each.default}" if has_default else ""
        rows.append(f"    {each.name}: {each.kind}{default}")
        rows.append(textwrap.fill(meaning(each, meanings), 110, initial_indent=" " * 8, subsequent_indent=" " * 8))
    return "\n".join(rows).replace("\\", "\\\\") + "\n"


def meaning(line: Line, meanings: Mapping[str, str]) -> str:
    """What it is for, and the comment beside it."""
    return meanings[line.name] + (f" {line.comment[0].upper()}{line.comment[1:]}." if line.comment else "")
