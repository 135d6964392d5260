"""What a picture shows, decided before it is painted: painter, captions and evaluation all read the same labels."""

from __future__ import annotations

from dataclasses import dataclass

from training.scenes.brush import Rng, chance, pick
from training.scenes.light import TIMES
from training.scenes.objects import COLOURS, HUES, THINGS, Thing
from training.scenes.places import BACKDROPS

PLAIN = "plain"
_PLACES: dict[str, float] = {
    "beach": 1.3,
    "forest": 1.5,
    "autumn forest": 0.8,
    "mountains": 1.2,
    "lake": 0.9,
    "meadow": 1.2,
    "desert": 1.0,
    "city": 1.2,
    "road": 1.2,
    "snow": 1.1,
    "sea": 1.1,
    "space": 0.7,
    PLAIN: 3.2,
}
PLACES_AND_PLAIN = tuple(_PLACES)
WEATHERS_AND_SNOW = ("snow", "snowfall", "rain", "fog")
_STYLES: dict[str, float] = {
    "photo": 5.5,
    "watercolor": 1.5,
    "oil painting": 1.0,
    "pencil sketch": 1.2,
    "pixel art": 0.9,
    "flat": 1.0,
    "black and white": 0.6,
}
_TIME_WEIGHTS = (0.5, 0.19, 0.21, 0.10)
_SNOWY_PLACES = ("forest", "mountains", "lake", "meadow", "city", "road")
_DRY_PLACES = ("space", PLAIN)
_WARM_PLACES = ("beach", "desert", "sea")
_FAVOURITES: dict[str, tuple[str, ...]] = {
    "sea": ("sailboat", "duck"),
    "space": ("rocket", "robot"),
    "road": ("car", "sports car", "bus"),
    "city": ("car", "sports car", "bus"),
    "snow": ("snowman", "penguin"),
    "beach": ("palm tree", "umbrella"),
}


@dataclass(frozen=True)
class Item:
    name: str
    paint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Labels:
    place: str
    time: str = "day"
    weather: str | None = None  # "snow" lies on the ground; "snowfall", "rain" and "fog" are in the air
    style: str = "photo"
    backdrop: str | None = None  # the colour behind a `plain` picture
    items: tuple[Item, ...] = ()
    blurry: bool = False

    @property
    def outdoors(self) -> bool:
        return self.place not in _DRY_PLACES


def draw_labels(rng: Rng) -> Labels:
    """Whatever may come."""
    place = pick(rng, tuple(_PLACES), tuple(_PLACES.values()))
    style = pick(rng, tuple(_STYLES), tuple(_STYLES.values()))
    blurry = chance(rng, 0.025)
    if place == PLAIN:
        backdrop = pick(rng, tuple(BACKDROPS))
        return Labels(place=place, style=style, backdrop=backdrop, items=_items(rng, place, backdrop), blurry=blurry)
    time = "night" if place == "space" else pick(rng, TIMES, _TIME_WEIGHTS)
    weather, items = _weather(rng, place), _items(rng, place, None)
    return Labels(place=place, time=time, weather=weather, style=style, items=items, blurry=blurry)


def _weather(rng: Rng, place: str) -> str | None:
    if place in _SNOWY_PLACES and chance(rng, 0.12):
        return "snow"
    if place in _DRY_PLACES or not chance(rng, 0.15):
        return None
    return pick(rng, ("rain", "fog") if place in _WARM_PLACES else ("snowfall", "rain", "fog"))


def _items(rng: Rng, place: str, backdrop: str | None) -> tuple[Item, ...]:
    fate = rng.random()
    count = 1 if place == PLAIN else 0 if fate < 0.25 else 1 if fate < 0.93 else 2
    allowed = [name for name, thing in THINGS.items() if _fits(thing, name, place)]
    weights = [THINGS[name].weight * (3 if name in _FAVOURITES.get(place, ()) else 1) for name in allowed]
    names = dict.fromkeys(pick(rng, allowed, weights) for _ in range(count))
    return tuple(Item(name, _paint(rng, THINGS[name], name, backdrop)) for name in names)


def _fits(thing: Thing, name: str, place: str) -> bool:
    if place == PLAIN:
        return True
    if place in ("sea", "lake") and thing.home == "water":
        return True
    if place == "space":
        return name in ("rocket", "robot", "airplane", "balloon")
    if thing.home == "air":
        return place not in ("forest", "autumn forest")
    return thing.home == "ground" and place != "sea"


def _paint(rng: Rng, thing: Thing, name: str, backdrop: str | None) -> str | None:
    """A colour of its own for what can have one, and one that stands out from a plain backdrop."""
    if thing.hue is None or not (name == "sports car" or chance(rng, 0.85)):
        return None
    colours = COLOURS if "car" in name else tuple(HUES)
    return pick(rng, [each for each in colours if each != backdrop])
