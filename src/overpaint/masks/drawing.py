"""From a mask in text to the mask itself, on a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from overpaint.errors import MaskTextError, PictureError, RequestError
from overpaint.masks import algebra
from overpaint.masks.language import Group, MaskText, MaskToken, Phrase, is_expression, parse
from overpaint.masks.vocabulary import Kind, Scene, WordArguments
from overpaint.stores import AnyFile, below, content_of

NameReader = Callable[[str], Image.Image]
"""What a name in a text stands for: a file's picture, or one that was sent along."""

_JOIN: Mapping[str, Callable[[Image.Image, Image.Image], Image.Image]] = {
    "+": algebra.union,
    "-": algebra.subtract,
    "&": algebra.intersect,
}


def draw(text: str | MaskText, picture: Image.Image, read: NameReader | None = None) -> Image.Image:
    """The mask that a text means on a picture: gray, 8 bits, of the picture's size.

    `read` opens what the text names; without it, names are files.
    """
    return _drawn(parse(text) if isinstance(text, str) else text, Scene(picture, read or files_in(Path())))


def means_mask(value: object, folder: AnyFile | None = None) -> bool:
    """Whether a text that stands where a mask's file is expected is a mask in words: no file has that name."""
    return isinstance(value, str) and is_expression(value) and not _is_there(folder or Path(), value)


def files_in(folder: AnyFile, max_pixels: int | None = None) -> NameReader:
    """Names are files, relative ones of this folder."""
    from overpaint.pictures import DEFAULT_MAX_PIXELS, open_picture

    return lambda name: open_picture(content_of(below(folder, name)), max_pixels=max_pixels or DEFAULT_MAX_PIXELS)


def names_in(mask: str | MaskText | Phrase) -> list[str]:
    """What a text names: the files, or other pictures, that it depends on."""
    if isinstance(mask, str):
        mask = parse(mask)
    if isinstance(mask, MaskText):
        return [name for each in (mask.first, *(part for _, part in mask.rest)) for name in names_in(each)]
    return [group[0].text.strip("\"'") for group in mask.groups if mask.word.takes == "name"]


def _is_there(folder: AnyFile, name: str) -> bool:
    try:
        return below(folder, name).exists()
    except (OSError, ValueError):  # too long for a name, or none
        return False


def _drawn(mask: MaskText, scene: Scene) -> Image.Image:
    drawn = _operand(mask.first, mask.text, scene)
    for sign, each in mask.rest:
        if sign == "|":
            assert isinstance(each, Phrase)
            drawn = _changed(drawn, each, mask.text, scene)
        else:
            drawn = _JOIN[sign](drawn, _operand(each, mask.text, scene))
    return drawn


def _operand(operand: Phrase | MaskText, text: str, scene: Scene) -> Image.Image:
    if isinstance(operand, MaskText):
        return _drawn(operand, scene)
    assert operand.word.make is not None
    try:
        return operand.word.make(scene, _said(operand, text, scene.picture.size))
    except MaskTextError:
        raise
    except RequestError as error:
        raise MaskTextError(text, operand.start, operand.end, error.remedy) from error
    except PictureError as error:
        raise MaskTextError(text, operand.start, operand.end, str(error)) from error


def _changed(mask: Image.Image, step: Phrase, text: str, scene: Scene) -> Image.Image:
    assert step.word.change is not None
    try:
        return step.word.change(mask, _said(step, text, scene.picture.size))
    except MaskTextError:
        raise
    except RequestError as error:
        raise MaskTextError(text, step.start, step.end, error.remedy) from error


def _said(phrase: Phrase, text: str, size: tuple[int, int]) -> WordArguments:
    def values(kind: Kind, groups: tuple[Group, ...]) -> list[Any]:
        return [_value(kind, each, text, size) for each in groups]

    options = {name: values(phrase.word.options[name] or "number", each) for name, each in phrase.options.items()}
    return WordArguments(values(phrase.word.takes, phrase.groups), options)


def _value(kind: Kind, group: Group, text: str, size: tuple[int, int]) -> Any:
    if kind in ("colour", "name"):
        return group[0].text.strip("\"'")
    if kind in ("box", "point"):
        return tuple(_number(each, size[i % 2]) for i, each in enumerate(group))
    whole = {"level": 255.0, "part": 1.0}.get(kind)
    if whole is None and group[0].text.endswith("%"):
        raise MaskTextError(text, group[0].start, group[0].end, "give a number of pixels, not a part")
    return _number(group[0], whole or 0)


def _number(token: MaskToken, whole: float) -> float:
    return float(token.text[:-1]) / 100 * whole if token.text.endswith("%") else float(token.text)
