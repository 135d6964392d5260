"""Masks in words from clients: drawn on the picture that they are for, and from then on pictures like any other."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from overpaint import masks
from overpaint.errors import RequestError
from overpaint.request import PICTURE_FIELDS, PICTURE_LISTS, Picture
from overpaint.service.guard.budgets import room_for

MASK_FIELDS = PICTURE_FIELDS - PICTURE_LISTS  # of a request, in which words may stand for a picture
MOST_PHRASES = 64  # shapes and steps; each may take a moment
_FIELDS = frozenset({"expression", "pictures"})


@dataclass(frozen=True)
class MaskInWords:
    """An expression, and the pictures that it names."""

    field: str
    text: masks.MaskText
    pictures: Mapping[str, Any]

    @classmethod
    def read(cls, field: str, value: Mapping[str, Any]) -> MaskInWords:
        """What a client sent, its expression understood and every name in it explained."""
        unknown = sorted(set(value) - _FIELDS)
        if unknown:
            raise RequestError(f"{field}.{unknown[0]}", value[unknown[0]], "give an expression, and pictures by name")
        text, pictures = value.get("expression"), value.get("pictures") or {}
        if not isinstance(text, str):
            raise RequestError(f"{field}.expression", text, "give a text such as 'ellipse 10,10,90,90 | feather 8'")
        if not isinstance(pictures, Mapping):
            raise RequestError(f"{field}.pictures", pictures, "give an object of pictures by name")
        understood = masks.parse(text, MOST_PHRASES)
        for name in masks.names_in(understood):
            if name not in pictures:
                raise RequestError(
                    f"{field}.pictures", name, "the expression names it; give the picture under this name"
                )
        return cls(field, understood, pictures)

    def others(self, sources: PicturesGiven) -> Callable[[str], Picture]:
        """The pictures that it names, each fit to be decoded."""
        held = {name: sources.reference(f"{self.field}.pictures.{name}", each) for name, each in self.pictures.items()}
        return lambda name: sources.opened(name, held[name])

    def drawn(self, picture: Picture, opened: Callable[[str], Picture]) -> Picture:
        """The mask on a picture; `opened` has the others by name."""
        return masks.draw(self.text, picture, opened)


class PicturesGiven(Protocol):
    """What is known of a request's pictures while it is judged."""

    first: str | None
    pixels: int

    def reference(self, name: str, value: Any) -> str: ...
    def opened(self, name: str, reference: Any) -> Picture: ...


def drawn_for(sources: PicturesGiven, mask: MaskInWords) -> bytes:
    """The mask as a file; nothing is decoded before all that it needs is known to be fit for it."""
    if sources.first is None:
        raise RequestError(mask.field, mask.text.text, "a mask in words is drawn on a source picture; give one")
    first = sources.first
    others = mask.others(sources)
    with room_for(sources.pixels):
        return as_png(mask.drawn(sources.opened("images[0]", first), others))


def as_png(picture: Picture) -> bytes:
    """The bytes of a mask, as they are kept and sent."""
    data = io.BytesIO()
    picture.save(data, format="PNG", compress_level=1)
    return data.getvalue()
