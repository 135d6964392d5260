"""Labels in words, in many ways: sentences, lists of tags, or one fact alone. Never a word that is not true."""

from __future__ import annotations

from training.scenes.brush import Rng, chance, pick
from training.scenes.labels import PLAIN, Item, Labels
from training.scenes.objects import COLOURS, THINGS
from training.scenes.places import BACKDROPS

# place: where something is; what the place itself is called
_PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "beach": (("on a beach", "on the beach", "at the seaside"), ("a beach", "a sandy beach", "the seaside")),
    "forest": (("in a forest", "in the forest", "in the woods"), ("a forest", "a green forest", "the woods")),
    "autumn forest": (
        ("in an autumn forest", "in a forest in autumn"),
        ("an autumn forest", "a forest in autumn", "a forest in fall colors"),
    ),
    "mountains": (
        ("in the mountains", "in front of mountains", "with mountains behind"),
        ("mountains", "a mountain landscape", "a mountain range"),
    ),
    "lake": (("by a lake", "at a lake"), ("a lake", "a mountain lake", "a lake with mountains")),
    "meadow": (
        ("in a meadow", "in a field", "on green grass"),
        ("a meadow", "a green field", "rolling hills", "a landscape"),
    ),
    "desert": (("in the desert", "in a desert", "on sand dunes"), ("a desert", "sand dunes", "a sandy desert")),
    "city": (
        ("in a city", "in the city", "in front of skyscrapers", "on a city street"),
        ("a city", "a city skyline", "skyscrapers", "a city street"),
    ),
    "road": (("on a road", "on the road", "on a highway"), ("a road", "a country road", "a highway")),
    "snow": (
        ("in the snow", "in a snowy landscape", "in a winter landscape"),
        ("a snowy landscape", "snow", "a winter landscape", "a snowy field"),
    ),
    "sea": (("on the sea", "at sea", "on the ocean", "on the water"), ("the sea", "the ocean", "the open sea")),
    "space": (("in space", "in outer space", "among the stars"), ("space", "outer space", "a planet in space")),
}
# time: within a sentence ("" says nothing, which by day is usual); as a tag
_TIMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "day": (("", "", "", "during the day", "in daylight", "on a sunny day"), ("day", "daylight", "sunny")),
    "sunset": (("at sunset", "at sunset", "at dusk", "in the evening sun"), ("sunset", "dusk", "golden hour")),
    "night": (("at night", "at night", "by night", "in the dark"), ("night", "dark night", "night time")),
    "overcast": (("", "on a cloudy day", "under a gray sky"), ("cloudy", "overcast", "gray sky")),
}
_WEATHERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "snow": (("in winter", "covered in snow", "with snow"), ("snow", "winter", "snowy")),
    "snowfall": (("in falling snow", "while it is snowing", "in a snowstorm"), ("snowing", "snowfall", "snowstorm")),
    "rain": (("in the rain", "in heavy rain", "on a rainy day"), ("rain", "rainy")),
    "fog": (("in the fog", "in thick fog", "in the mist"), ("fog", "foggy", "mist")),
}
_STYLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "photo": (("a photo of", "a photograph of", "", "", "a picture of"), ("photo", "photograph", "realistic")),
    "watercolor": (
        ("a watercolor painting of", "a watercolour of", "a watercolor of"),
        ("watercolor", "watercolor painting", "watercolour"),
    ),
    "oil painting": (("an oil painting of", "a painting of"), ("oil painting", "painting", "oil on canvas")),
    "pencil sketch": (
        ("a pencil sketch of", "a pencil drawing of", "a sketch of"),
        ("pencil sketch", "pencil drawing", "sketch"),
    ),
    "pixel art": (("pixel art of", "a pixel art picture of"), ("pixel art", "8-bit")),
    "flat": (("a flat illustration of", "a cartoon of"), ("flat illustration", "cartoon", "vector art")),
    "black and white": (("a black and white photo of", "a monochrome photo of"), ("black and white", "monochrome")),
}
_COLOURLESS = ("pencil sketch", "black and white")
_PRAISE = ("highly detailed", "high quality", "best quality", "masterpiece", "4k", "beautiful", "detailed")
_BLAME = ("blurry", "low quality", "out of focus")


def phrases() -> tuple[str, ...]:
    """Everything a caption is put together from."""
    tables = (_PLACES, _TIMES, _WEATHERS, _STYLES)
    found = [phrase for table in tables for pair in table.values() for phrases in pair for phrase in phrases]
    found += [word for thing in THINGS.values() for word in thing.words]
    found += [*tables[0], *COLOURS, *BACKDROPS, *_PRAISE, *_BLAME, "a background", "an", "and", ","]
    return tuple(dict.fromkeys(found))


def caption(labels: Labels, rng: Rng) -> str:
    """One way to say it."""
    way = rng.random()
    say = _sentence if way < 0.58 else _tags if way < 0.86 else _one_fact
    text = say(labels, rng)
    if labels.blurry:
        return f"{text}, {pick(rng, _BLAME)}"
    return f"{text}, {pick(rng, _PRAISE)}" if chance(rng, 0.08) else text


def statement(labels: Labels) -> str:
    """Everything there is to say, in the plainest words: what evaluation asks for."""
    style, _ = _STYLES[labels.style]
    things = " and ".join(
        with_article(f"{item.paint or ''} {THINGS[item.name].words[0]}".strip()) for item in labels.items
    )
    if labels.place == PLAIN:
        where = bare = with_article(f"{labels.backdrop} background")
        where = f"on {where}"
    else:
        where, bare = (phrases[0] for phrases in _PLACES[labels.place])
    parts = [style[0], f"{things} {where}" if things else bare]
    if labels.outdoors:
        parts.append(next(phrase for phrase in reversed(_TIMES[labels.time][0]) if phrase))
    if labels.weather:
        parts.append(_WEATHERS[labels.weather][0][0])
    return " ".join(parts)


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _sentence(labels: Labels, rng: Rng) -> str:
    style, _ = _STYLES[labels.style]
    parts = [pick(rng, style), _subject(labels, rng)]
    if labels.outdoors:
        parts += [pick(rng, _TIMES[labels.time][0])]
    if labels.weather:
        parts += [pick(rng, _WEATHERS[labels.weather][0])]
    return " ".join(part for part in parts if part)


def _subject(labels: Labels, rng: Rng) -> str:
    things = " and ".join(with_article(_called(item, labels, rng)) for item in labels.items)
    where, bare = _where(labels, rng)
    if not things:
        return bare
    return things if chance(rng, 0.12) else f"{things} {where}"


def _where(labels: Labels, rng: Rng) -> tuple[str, str]:
    """Where something is, and what the place itself is called."""
    if labels.place == PLAIN:
        backdrop = with_article(f"{labels.backdrop} background")
        return f"on {backdrop}", backdrop
    where, bare = _PLACES[labels.place]
    return pick(rng, where), pick(rng, bare)


def _called(item: Item, labels: Labels, rng: Rng) -> str:
    words = THINGS[item.name].words
    noun = words[0] if chance(rng, 0.75) else pick(rng, words)
    return f"{item.paint} {noun}" if item.paint and labels.style not in _COLOURLESS else noun


def _tags(labels: Labels, rng: Rng) -> str:
    things = [_called(item, labels, rng) for item in labels.items]
    if chance(rng, 0.5):
        things = [with_article(each) for each in things]
    rest = [_bare_place(labels, rng)]
    if labels.outdoors and (labels.time != "day" or chance(rng, 0.4)):
        rest.append(pick(rng, _TIMES[labels.time][1]))
    if labels.weather:
        rest.append(pick(rng, _WEATHERS[labels.weather][1]))
    if chance(rng, 0.3):
        rng.shuffle(rest)
    style = [pick(rng, _STYLES[labels.style][1])] if labels.style != "photo" or chance(rng, 0.4) else []
    return ", ".join([*things, *rest, *style] if chance(rng, 0.7) else [*style, *things, *rest])


def _bare_place(labels: Labels, rng: Rng) -> str:
    if labels.place == PLAIN:
        return f"{labels.backdrop} background"
    return labels.place if chance(rng, 0.6) else pick(rng, _PLACES[labels.place][1])


def _one_fact(labels: Labels, rng: Rng) -> str:
    facts = [_bare_place(labels, rng)]
    if labels.style != "photo":
        facts.append(pick(rng, _STYLES[labels.style][1]))
    if labels.outdoors and labels.time != "day":
        facts.append(pick(rng, _TIMES[labels.time][1]))
    if labels.weather:
        facts.append(pick(rng, _WEATHERS[labels.weather][1]))
    facts += [_called(item, labels, rng) for item in labels.items]
    return pick(rng, facts)


def command(before: Labels, after: Labels, rng: Rng) -> str:
    """What to do to one picture so that it becomes another, from which it differs in one facet.

    NOTE: "make", "turn" and "into" are in no caption; to the text encoder they are the one unknown word.
    """
    if before.style != after.style:
        picture = pick(rng, [phrase for phrase in _STYLES[after.style][0] if phrase])
        return _become("it", picture.removesuffix(" of"), rng)
    if before.backdrop != after.backdrop:
        return f"make the background {after.backdrop}"
    if before.time != after.time:
        return f"make it {pick(rng, _TIMES[after.time][1])}"
    if after.weather and before.weather != after.weather:
        return f"make it {pick(rng, _WEATHERS[after.weather][1])}"
    if before.place != after.place:
        return _become("it", pick(rng, _PLACES[after.place][1]), rng)
    for old, new in zip(before.items, after.items, strict=False):
        old_name, new_name = (THINGS[item.name].words[0] for item in (old, new))
        if old_name != new_name:
            return _become(f"the {old_name}", with_article(f"{new.paint or ''} {new_name}".strip()), rng)
        if old.paint != new.paint:
            return f"{pick(rng, ('make', 'turn'))} the {old_name} {new.paint}"
    raise ValueError(f"{after}: nothing in it can be asked for that is not in {before}; change one facet")


def _become(what: str, new: str, rng: Rng) -> str:
    return f"make {what} {new}" if chance(rng, 0.5) else f"turn {what} into {new}"
