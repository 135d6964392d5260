"""The words of a mask in text, each with its form and with what it does. Python's functions have the same names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from PIL import Image

from overpaint.masks import algebra, colours, cutout, edges, regions, shapes

Kind = Literal["box", "point", "pixels", "level", "part", "number", "colour", "name"]
"""What a group is: 4 or 2 numbers along the picture's sides, one number by its meaning, or a text."""


@dataclass(frozen=True)
class Scene:
    """What a shape may look at: the picture, and others by name."""

    picture: Image.Image
    read: Callable[[str], Image.Image]


@dataclass(frozen=True)
class WordArguments:
    """What was said to a word, as values: its groups, and those of its options."""

    groups: Sequence[Any]
    options: Mapping[str, Sequence[Any]]

    @property
    def first(self) -> Any:
        return self.groups[0]

    def option(self, name: str, default: float) -> float:
        return float(self.options[name][0]) if name in self.options else default

    def points(self, name: str) -> Sequence[Any]:
        return self.options.get(name, ())


Maker = Callable[[Scene, WordArguments], Image.Image]
Changer = Callable[[Image.Image, WordArguments], Image.Image]


@dataclass(frozen=True)
class MaskWord:
    """One word."""

    usage: str
    meaning: str
    takes: Kind = "number"
    least: int = 0  # groups
    most: int = 0
    options: Mapping[str, Kind | None] = field(default_factory=dict)  # None: it stands alone
    make: Maker | None = None  # of a shape
    change: Changer | None = None  # of a step


def _size(scene: Scene) -> shapes.Size:
    return scene.picture.size


_MANY = shapes.MOST_POINTS
_TOLERANCE: Mapping[str, Kind | None] = {"tolerance": "level"}


def _tolerance(said: WordArguments) -> float:
    return said.option("tolerance", colours.DEFAULT_TOLERANCE)


def _cut_out(scene: Scene, said: WordArguments) -> Image.Image:
    return cutout.cut_out(
        scene.picture,
        said.first if said.groups else None,
        inside=said.points("inside"),
        outside=said.points("outside"),
        radius=said.option("radius", cutout.SCRIBBLE),
    )


def _feather(mask: Image.Image, said: WordArguments) -> Image.Image:
    inwards, outwards = "in" in said.options, "out" in said.options
    if inwards == outwards:
        return edges.feather(mask, said.first)
    return (edges.feather_in if inwards else edges.feather_out)(mask, said.first)


SHAPES: Mapping[str, MaskWord] = MappingProxyType(
    {
        "all": MaskWord("all", "White all over.", make=lambda scene, said: shapes.everything(_size(scene))),
        "none": MaskWord("none", "Black all over.", make=lambda scene, said: shapes.nothing(_size(scene))),
        "rectangle": MaskWord(
            "rectangle LEFT,TOP,RIGHT,BOTTOM",
            "An upright box; right and bottom are outside.",
            takes="box",
            least=1,
            most=1,
            make=lambda scene, said: shapes.rectangle(_size(scene), said.first),
        ),
        "ellipse": MaskWord(
            "ellipse LEFT,TOP,RIGHT,BOTTOM",
            "The largest ellipse in a box.",
            takes="box",
            least=1,
            most=1,
            make=lambda scene, said: shapes.ellipse(_size(scene), said.first),
        ),
        "polygon": MaskWord(
            "polygon X,Y X,Y X,Y ...",
            "The area between its corners.",
            takes="point",
            least=3,
            most=_MANY,
            make=lambda scene, said: shapes.polygon(_size(scene), said.groups),
        ),
        "stroke": MaskWord(
            "stroke X,Y X,Y ... [radius PIXELS] [softness PART]",
            "What a round brush leaves along a line (radius 16, softness 0).",
            takes="point",
            least=1,
            most=_MANY,
            options={"radius": "pixels", "softness": "part"},
            make=lambda scene, said: shapes.stroke(
                _size(scene), said.groups, said.option("radius", 16), said.option("softness", 0)
            ),
        ),
        "colour": MaskWord(
            "colour #RRGGBB [tolerance LEVELS]",
            "Everything of nearly this colour (tolerance 24 of 255).",
            takes="colour",
            least=1,
            most=1,
            options=_TOLERANCE,
            make=lambda scene, said: colours.from_colour(scene.picture, said.first, _tolerance(said)),
        ),
        "wand": MaskWord(
            "wand X,Y [tolerance LEVELS]",
            "What is connected with a point and of nearly its colour.",
            takes="point",
            least=1,
            most=1,
            options=_TOLERANCE,
            make=lambda scene, said: colours.wand(scene.picture, said.first, _tolerance(said)),
        ),
        "cut-out": MaskWord(
            "cut-out [LEFT,TOP,RIGHT,BOTTOM] [inside X,Y ...] [outside X,Y ...] [radius PIXELS]",
            "The thing in a box, or under strokes inside it and not under those outside it.",
            takes="box",
            least=0,
            most=1,
            options={"inside": "point", "outside": "point", "radius": "pixels"},
            make=_cut_out,
        ),
        "alpha": MaskWord(
            "alpha",
            "Where the picture is opaque.",
            make=lambda scene, said: colours.from_alpha(scene.picture),
        ),
        "difference": MaskWord(
            "difference FILE [tolerance LEVELS]",
            "Where the picture differs from another of its size.",
            takes="name",
            least=1,
            most=1,
            options=_TOLERANCE,
            make=lambda scene, said: colours.from_difference(scene.picture, scene.read(said.first), _tolerance(said)),
        ),
        "file": MaskWord(
            "file FILE",
            "A mask file of the picture's size: its gray, or its alpha where it has one.",
            takes="name",
            least=1,
            most=1,
            make=lambda scene, said: colours.from_gray(scene.read(said.first), scene.picture.size),
        ),
    }
)
STEPS: Mapping[str, MaskWord] = MappingProxyType(
    {
        "invert": MaskWord("invert", "White for black.", change=lambda mask, said: algebra.invert(mask)),
        "grow": MaskWord(
            "grow PIXELS",
            "Wider by so much on every side.",
            takes="pixels",
            least=1,
            most=1,
            change=lambda mask, said: edges.grow(mask, said.first),
        ),
        "shrink": MaskWord(
            "shrink PIXELS",
            "Narrower by so much on every side.",
            takes="pixels",
            least=1,
            most=1,
            change=lambda mask, said: edges.shrink(mask, said.first),
        ),
        "feather": MaskWord(
            "feather [in|out] PIXELS",
            "A soft edge, so wide to both sides, or to one.",
            takes="pixels",
            least=1,
            most=1,
            options={"in": None, "out": None},
            change=_feather,
        ),
        "fill-holes": MaskWord(
            "fill-holes", "White in what white encloses.", change=lambda mask, said: regions.fill_holes(mask)
        ),
        "drop-specks": MaskWord(
            "drop-specks PIXELS",
            "Without spots of fewer pixels.",
            takes="number",
            least=1,
            most=1,
            change=lambda mask, said: regions.drop_specks(mask, said.first),
        ),
        "threshold": MaskWord(
            "threshold [LEVEL]",
            "White from this gray on (128), black below.",
            takes="level",
            least=0,
            most=1,
            change=lambda mask, said: algebra.threshold(mask, said.first if said.groups else 128),
        ),
    }
)
ALIASES: Mapping[str, str] = MappingProxyType({"rect": "rectangle", "color": "colour", "cutout": "cut-out"})
