"""A mistyped command line in words that help: what was meant, and which help page says more.

NOTE: typer carries click's classes with it or imports them, depending on its version, so they are known by their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# What other programs call an option -> what it is called here, where the nearest name would not tell.
INSTEAD: Mapping[str, str] = {
    "--denoise": "--strength",
    "--denoising": "--strength",
    "--denoising-strength": "--strength",
    "--width": "--size WIDTHxHEIGHT",
    "--height": "--size WIDTHxHEIGHT",
    "--resolution": "--size WIDTHxHEIGHT",
    "-W": "--size WIDTHxHEIGHT",
    "-H": "--size WIDTHxHEIGHT",
    "--ckpt": "--model",
    "--ckpt-dir": "--models",
    "--checkpoint": "--model",
    "--checkpoints": "--models",
    "--model-dir": "--models",
    "--data-dir": "--models",
    "--cfg-scale": "--cfg",
    "--guidance-scale": "--cfg",
    "--num-inference-steps": "--steps",
    "--sampling-steps": "--steps",
    "--negative-prompt": "--negative",
    "--neg": "--negative",
    "--sampler-name": "--sampler",
    "--sampling-method": "--sampler",
    "--schedule": "--scheduler",
    "--n-iter": "--count",
    "--num-images": "--count",
    "--batch-count": "--count",
    "-n": "--count",
    "--subseed": "--variation-seed",
    "--subseed-strength": "--variation-strength",
    "--mask-image": "--mask",
    "--inpaint-full-res": "--only-masked",
    "--inpainting-fill": "--fill",
    "--masked-content": "--fill",
    "--mask-round": "--round-mask",
    "--soft-inpainting": "--soft",
    "--resize-mode": "--resize",
    "--out": "--output",
    "--outdir": "--output",
    "--output-dir": "--output",
    "--save": "--output",
    "--force": "--overwrite",
    "--controlnet": "--control",
    "--enable-hr": "--hires",
    "--hr-scale": "--hires-scale",
    "--hr-upscaler": "--hires-upscaler",
    "--override-settings": "--set OPTION=VALUE",
    "--option": "--set OPTION=VALUE",
    "--gpu": "--device cuda",
    "--cuda": "--device cuda",
    "--cpu": "--device cpu",
    "--fp16": "--dtype float16",
    "--no-half": "--dtype float32",
    "--precision": "--dtype",
}
_AS_ARGUMENT = {
    **dict.fromkeys(("--image", "--input", "--init-image", "--init-img", "--init-images", "-i"), "PICTURE"),
    **dict.fromkeys(("--prompt", "--text", "-p"), "PROMPT"),
}
# "integer" or "int", as typer has it.
_KINDS = (("valid int", "give a whole number"), ("number", "give a number"), ("float", "give a number"))


def told(error: BaseException, given: Sequence[str]) -> str:
    """One sentence for a complaint of the parser about a command line."""
    formatted: str = error.format_message()  # type: ignore[attr-defined]
    kind = type(error).__name__
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context is not None else " ".join(("overpaint", *_command_of(given)))
    if kind == "NoSuchOption":
        sentence, said = _no_such_option(error, context)
    elif kind == "BadParameter" and (wrong := _wrong_value(error, formatted, given)) is not None:
        sentence, said = wrong, "says more"
    elif formatted.startswith("No such command"):
        sentence, said = _no_such_command(formatted, context), "lists them"
    elif formatted.startswith("Got unexpected extra argument"):
        sentence, said = _too_much(formatted, context), "shows how"
    else:
        sentence, said = _plain(formatted), "shows how"
    return f"{sentence}; `{path} --help` {said}" if not sentence.endswith("?") else f"{sentence} `{path} --help` {said}"


def _command_of(given: Sequence[str]) -> Sequence[str]:
    return [each for each in given[:1] if not each.startswith("-")]


def _no_such_option(error: Any, context: Any) -> tuple[str, str]:
    """The nearest name, or the one for what another program calls so."""
    from overpaint.hints import closest

    name = str(error.option_name)
    arguments: list[str] = []
    known: dict[str, str] = {}
    for each in context.command.params if context is not None else ():
        if each.param_type_name == "argument":
            arguments.append(str(each.metavar or each.name.upper()).strip("[]"))
        else:
            known |= {flag: flag for flag in (*each.opts, *each.secondary_opts)}
    said = "lists all of them"
    place = _AS_ARGUMENT.get(name, "")
    if place and (found := next((each for each in arguments if each.startswith(place)), None)):
        return f"{name}: there is no such option; {found} is an argument, without a name before it", "shows its place"
    if others := _commands_with(name, context):
        have = f"{' and '.join(others)} {'have' if len(others) > 1 else 'has'}"
        return f"{name}: `{context.command_path}` has no such option, {have}", said
    instead = INSTEAD.get(name) or INSTEAD.get(name.replace("_", "-"))
    if instead is None or instead.split()[0] not in known:
        instead = closest(name, {flag: flag for flag in known if flag.startswith("--")}) if len(name) > 2 else None
    return f"{name}: there is no such option" + (f"; did you mean {instead}?" if instead else ""), said


def _commands_with(name: str, context: Any) -> list[str]:
    """The commands that do have an option; only names that few have say something."""
    group = context.parent.command.commands if context is not None and context.parent is not None else {}
    return [f"`{each}`" for each, command in group.items() if any(name in one.opts for one in command.params)][:3]


def _no_such_command(formatted: str, context: Any) -> str:
    from overpaint.hints import did_you_mean

    name = formatted.split("'")[1]
    near = did_you_mean(name, list(context.command.commands)) if context is not None else ""
    if not near and ("." in name or "/" in name):
        near = f"did you mean `overpaint paint {name}`?"
    return f"{name!r}: there is no such command" + (f"; {near}" if near else "")


def _wrong_value(error: Any, formatted: str, given: Sequence[str]) -> str | None:
    """ "--steps 'many': give a whole number"."""
    message = str(error.message)
    remedy = next((remedy for word, remedy in _KINDS if word in message), None)
    parameter = error.param
    if remedy is None or parameter is None:
        return None
    return f"{parameter.opts[0]} {_value_of(parameter.opts, given)!r}: {remedy}"


def _value_of(flags: Sequence[str], given: Sequence[str]) -> str:
    for number, each in enumerate(given):
        flag, equals, value = each.partition("=")
        if flag in flags:
            return value if equals else given[number + 1] if number + 1 < len(given) else ""
    return ""


def _too_much(formatted: str, context: Any) -> str:
    found = re.search(r"\(([^()]*)\)\W*$", formatted)
    rest = found[1] if found else ""
    takes_prompt = (
        any("PROMPT" in str(each.metavar) for each in context.command.params) if context is not None else False
    )
    if takes_prompt:
        return f"{rest!r} is too much: a prompt of several words stands in quotes"
    return f"{rest!r} is too much"


def _plain(formatted: str) -> str:
    """The parser's own words, shorter."""
    text = " ".join(formatted.split()).rstrip(".")
    for pattern, replacement in (
        (r"^Missing argument '(.+)'$", r"\1: it is missing"),
        (r"^Missing option '(.+)'$", r"\1: it is missing"),
        (r"^Option '(.+)' requires (an argument|\d+ arguments)$", r"\1: a value belongs behind it"),
        (r"^Option '(.+)' does not take a value$", r"\1: it takes no value"),
        (r"^Invalid value for '(.+?)': (.*)$", r"\1: \2"),
    ):
        text = re.sub(pattern, replacement, text)
    return text
