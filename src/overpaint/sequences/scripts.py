"""From the title and the arguments of a script of the reference to the sequence that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from overpaint.errors import RequestError
from overpaint.hints import did_you_mean
from overpaint.models.upscaler_names import list_upscalers
from overpaint.request import MaskedContent, PaintRequest
from overpaint.seeds import fix_seed
from overpaint.sequences.alternative import AlternativeTest
from overpaint.sequences.axes import REFERENCE_AXES, GridAxis, axis_from_text
from overpaint.sequences.grid import PictureGrid
from overpaint.sequences.loopback import Loopback
from overpaint.sequences.outpaint_mk2 import OutpaintingMk2
from overpaint.sequences.outpaint_tiles import OutpaintedTiles
from overpaint.sequences.prompt_tools import PromptMatrix, PromptsFromText
from overpaint.sequences.reference_upscale import PastedTiles
from overpaint.sequences.script_arguments import SCRIPTS, ScriptEntry, axis_types
from overpaint.sequences.story import PaintingSequence
from overpaint.settings import Settings

Values = dict[str, Any]


def find_script(title: object, field: str = "title") -> ScriptEntry:
    """The script of this title, in upper or lower case."""
    titles = [each.title for each in SCRIPTS]
    for each in SCRIPTS:
        if isinstance(title, str) and each.title.lower() == title.lower():
            return each
    near = did_you_mean(title, titles) if isinstance(title, str) else None
    raise RequestError(field, title, f"{near}; there are {', '.join(titles)}" if near else f"give one of {titles}")


def script_sequence(
    title: str,
    arguments: Sequence[Any],
    request: PaintRequest,
    settings: Settings,
    field: str = "script_args",
) -> PaintingSequence:
    """The sequence of a script with its arguments by position; none at all are its defaults."""
    script = find_script(title)
    given = tuple(arguments) or tuple(each.value for each in script.arguments)
    if len(given) != len(script.arguments):
        names = ", ".join(repr(each.label or "(shown only)") for each in script.arguments)
        remedy = f"{script.title!r} takes {len(script.arguments)}, by position: {names}"
        raise RequestError(field, f"{len(given)} arguments", remedy)
    if not request.has_source and not script.in_txt2img:
        raise RequestError("title", script.title, "it works in img2img only; choose another")
    values = {each.name: value for each, value in zip(script.arguments, given, strict=True) if each.name}
    return _MAKERS[script.title](request, values, settings)


def _loopback(request: PaintRequest, values: Values, settings: Settings) -> PaintingSequence:
    if values.pop("interrogation") not in ("None", None, ""):
        raise RequestError("Append interrogated prompt", True, "pictures are not interrogated here; give 'None'")
    return Loopback(request=request, **_whole(values, "loops"))


def _mk2(request: PaintRequest, values: Values, settings: Settings) -> PaintingSequence:
    return OutpaintingMk2(request=request, **_whole(values, "pixels", "mask_blur"))


def _poor_man(request: PaintRequest, values: Values, settings: Settings) -> PaintingSequence:
    content = _masked_content(values.pop("masked_content"))
    return OutpaintedTiles(
        request=request,
        masked_content=content,
        **_whole(values, "pixels", "mask_blur"),
    )


def _upscale(request: PaintRequest, values: Values, settings: Settings) -> PaintingSequence:
    upscaler = _upscaler_name(values.pop("upscaler"), settings)
    return PastedTiles(request=request, upscaler=upscaler, **_whole(values, "overlap"))


def _alternative(request: PaintRequest, values: Values, settings: Settings) -> PaintingSequence:
    return AlternativeTest(request=request, **_whole(values, "decode_steps"))


def _matrix(request: PaintRequest, values: Values, settings: Settings) -> PaintingSequence:
    return PromptMatrix(request=request, **_whole(values, "margin"))


def _lines(request: PaintRequest, values: Values, settings: Settings) -> PaintingSequence:
    return PromptsFromText(request=request, **values)


def _plot(request: PaintRequest, values: Values, settings: Settings) -> PaintingSequence:
    fixed = not values["keep_random_seeds"]
    types = axis_types(is_img2img=request.has_source)
    x, y, z = (_axis(values, letter, fixed, types) for letter in "xyz")
    each_its_own = not fixed and request.seed == -1
    return PictureGrid(
        request=request.with_changes(iterations=1),
        x=x,
        y=y,
        z=z,
        labels=bool(values["legend"]),
        legend=False,
        margin=_whole(values, "margin")["margin"],
        with_cells=bool(values["with_cells"]),
        with_sheets=bool(values["with_sheets"]),
        vary_seeds=tuple(each_its_own or bool(values[f"vary_seeds_{letter}"]) for letter in "xyz"),
        script="X/Y/Z plot",
    )


def _axis(values: Values, letter: str, fixed: bool, types: Sequence[str]) -> GridAxis | None:
    """The type by name or by its number on the page; values as text, or as a list."""
    label, text, listed = (values[f"{letter}_{part}"] for part in ("type", "values", "list"))
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(types):
        label = types[label]
    if label in ("Nothing", None, ""):
        return None
    if label not in REFERENCE_AXES or label not in types:
        offered = ", ".join(each for each in types if each in REFERENCE_AXES)
        raise RequestError(f"{letter.upper()} type", label, f"it is not offered here; choose one of {offered}")
    given = text if isinstance(text, str) and text.strip() else ", ".join(map(_quoted, listed or ()))
    axis = axis_from_text(REFERENCE_AXES[label], given, label)
    if axis.field in ("seed", "variation_seed") and fixed:
        axis = replace(axis, values=tuple(fix_seed(each) for each in axis.values))
    return axis


def _quoted(value: Any) -> str:
    return f'"{value}"' if "," in str(value) else str(value)


_MAKERS: Mapping[str, Callable[[PaintRequest, Values, Settings], PaintingSequence]] = MappingProxyType(
    {
        "img2img alternative test": _alternative,
        "Loopback": _loopback,
        "Outpainting mk2": _mk2,
        "Poor man's outpainting": _poor_man,
        "Prompt matrix": _matrix,
        "Prompts from file or textbox": _lines,
        "SD upscale": _upscale,
        "X/Y/Z plot": _plot,
    }
)


def _whole(values: Values, *names: str) -> Values:
    """Clients send 64.0 for 64."""
    return {
        name: int(value) if name in names and isinstance(value, float) and value.is_integer() else value
        for name, value in values.items()
    }


def _masked_content(value: Any) -> MaskedContent:
    """By the number that the page sends, or by name."""
    options = list(MaskedContent)
    names = ("fill", "original", "latent noise", "latent nothing")
    if isinstance(value, str) and value.lower() in names:
        return options[names.index(value.lower())]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(options):
        return options[value]
    raise RequestError("Masked content", value, f"choose one of {', '.join(names)}, or its number from 0")


def _upscaler_name(value: Any, settings: Settings) -> str:
    """By the number in the list of upscalers, or by name in any case."""
    names = [each.name for each in list_upscalers(settings)]
    if isinstance(value, str):
        return next((each for each in names if each.lower() == value.lower()), value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[int(value)]
    raise RequestError("Upscaler", value, f"choose one of {', '.join(names)}, or its number from 0")
