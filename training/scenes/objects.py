"""The things in the pictures: what they are called, where they belong, how large they are."""

from __future__ import annotations

from typing import Literal, NamedTuple

Home = Literal["ground", "water", "air"]


class Thing(NamedTuple):
    art: str  # the code point of its emoji, or "own" where drawings.py draws it
    home: Home
    height: float  # of the picture's side, when alone
    words: tuple[str, ...]
    hue: float | None = None  # of the part that can be painted over, 0..1 round the colour wheel
    weight: float = 1.0


THINGS: dict[str, Thing] = {
    "fox": Thing("own", "ground", 0.46, ("fox", "red fox"), weight=2.0),
    "dog": Thing("1f415", "ground", 0.48, ("dog", "puppy"), weight=1.6),
    "cat": Thing("1f408", "ground", 0.46, ("cat", "kitten"), weight=1.6),
    "horse": Thing("1f40e", "ground", 0.50, ("horse",)),
    "rabbit": Thing("1f407", "ground", 0.42, ("rabbit", "bunny"), weight=0.8),
    "penguin": Thing("1f427", "ground", 0.46, ("penguin",)),
    "duck": Thing("1f986", "water", 0.38, ("duck",), weight=0.8),
    "car": Thing("1f697", "ground", 0.44, ("car", "automobile"), 0.99, 2.6),
    "sports car": Thing("own", "ground", 0.32, ("sports car", "sportscar", "fast car"), 0.99, 2.2),
    "bus": Thing("1f68c", "ground", 0.46, ("bus",), weight=0.8),
    "sailboat": Thing("26f5", "water", 0.48, ("sailboat", "boat", "sailing boat"), weight=1.6),
    "airplane": Thing("2708-fe0f", "air", 0.44, ("airplane", "plane")),
    "balloon": Thing("1f388", "air", 0.50, ("balloon",), 0.99, 1.3),
    "rocket": Thing("1f680", "air", 0.46, ("rocket", "spaceship")),
    "house": Thing("1f3e0", "ground", 0.54, ("house", "cottage", "home"), weight=2.0),
    "castle": Thing("1f3f0", "ground", 0.58, ("castle",), weight=1.3),
    "tree": Thing("1f333", "ground", 0.58, ("tree", "oak tree"), weight=1.6),
    "palm tree": Thing("1f334", "ground", 0.60, ("palm tree", "palm")),
    "snowman": Thing("26c4", "ground", 0.50, ("snowman",)),
    "robot": Thing("1f916", "ground", 0.46, ("robot",)),
    "apple": Thing("1f34e", "ground", 0.44, ("apple",), 0.99, 1.2),
    "umbrella": Thing("2602-fe0f", "ground", 0.50, ("umbrella",), 0.77, 0.9),
}

# Hue round the wheel, or the lightness of a colour without hue.
HUES: dict[str, float] = {
    "red": 0.99,
    "orange": 0.07,
    "yellow": 0.14,
    "green": 0.36,
    "blue": 0.60,
    "purple": 0.77,
    "pink": 0.92,
}
NEUTRALS = ("white", "black")
COLOURS = (*HUES, *NEUTRALS)
