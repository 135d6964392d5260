"""`overpaint plan`: what a job would do, decided and shown without loading a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli.arguments import AsJson, Mask, Quiet, StrengthMap
from overpaint.cli.jobs import CommandJob, Files, job_of
from overpaint.cli.options import HIRES_OPTIONS, JOB_OPTIONS, REQUEST_OPTIONS, GivenOptions, takes
from overpaint.cli.output import say, say_json, table, warn
from overpaint.cli.webui_told import tell_webui
from overpaint.errors import RequestError

if TYPE_CHECKING:
    from overpaint.planning.plans import Plan

New = Annotated[bool, typer.Option("--txt2img", help="Plan a new picture: give a PROMPT and no PICTURE.")]


@takes(*REQUEST_OPTIONS, *HIRES_OPTIONS, *JOB_OPTIONS)
def plan(
    *,
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="The picture to paint over.", show_default=False)],
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="What it should show.")] = None,
    new: New = False,
    mask: Mask = None,
    strength_map: StrengthMap = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: GivenOptions,
) -> int:
    """Show what `paint` or `txt2img` would do; loads no model.

    The options are the same; it tells sizes, steps, files and warnings.
    `plan outpaint`, `plan enlarge`, `plan loopback` and `plan grid`, with the
    arguments of these commands, show what a tool would do, step by step.
    """
    from overpaint.cli.surroundings import path_asked_for, surroundings_of
    from overpaint.models.companions import text_encoders_for
    from overpaint.models.what_is import spec_of
    from overpaint.planning.plan import plan as make_plan
    from overpaint.planning.preflight import account_of

    if new:
        job = _new_job(picture, prompt, mask or strength_map, asked)
    else:
        job = job_of(Files(Path(picture), mask, strength_map), prompt or "", asked)
    path = path_asked_for(asked.with_model(job.model), job.settings)
    known = surroundings_of(job.request, job.settings, path)
    decided = make_plan(
        job.request, job.settings, spec_of(path, text_encoders_for(path, job.settings.text_encoder_files)), known
    )
    account = account_of(decided, _room(decided, asked))
    if as_json:
        say_json(account)
        return 0
    tell_webui(asked, quiet, tab=job.tab)
    say(table([(name, _shown(value)) for name, value in _rows(account)]))
    warn(decided.warnings, quiet)
    return 0


def _new_job(prompt: str, too_much: str | None, mask: str | None, asked: GivenOptions) -> CommandJob:
    """With --txt2img the first text is the prompt."""
    if too_much is not None:
        raise RequestError("PROMPT", too_much, "with --txt2img give one text, the prompt, and no picture")
    if mask is not None:
        raise RequestError("--mask", mask, "a new picture has no mask; leave it out")
    return job_of(Files(), prompt, asked)


_TOLD_OTHERWISE = (
    "pictures",
    "warnings",
    "comments",
    "batches",
    "networks",
    "controls",
    "hires",
    "refiner",
    "strengths",
    "memory",
    "placement",
)


def _rows(account: dict[str, Any]) -> list[tuple[str, object]]:
    """The account for people: sizes as products, one line of seeds, nothing that is not there."""
    rows = {name: value for name, value in account.items() if name not in _TOLD_OTHERWISE and value is not None}
    for name in ("source", "size", "network_size"):
        if name in rows:
            rows[name] = _product(rows[name])
    if "repainted" in rows:
        rows["repainted"] = f"{account['repainted']} %"
    seeds = [each["seed"] for each in account["pictures"]]
    rows["seeds"] = "a new one each time" if seeds[0] is None else ", ".join(map(str, seeds))
    rows.setdefault("network_calls", "as many as the sampler needs")
    named = [(name.replace("_", " "), value) for name, value in rows.items()]
    if account["memory"]:
        named.append(("weights in 16 bits", _sizes(account["memory"])))
        named += _placement_rows(account["placement"])
    return [*named, *_strength_rows(account["strengths"]), *_hires_rows(account["hires"]), *_file_rows(account)]


def _room(decided: Plan, asked: GivenOptions) -> int | None:
    """What is free on the device that would paint; for a flow model alone, which had torch loaded already."""
    if not decided.spec.is_flow or decided.settings.device_memory:
        return None
    import torch

    from overpaint.models.find import choose_device
    from overpaint.models.memory import room_on

    return room_on(torch.device(choose_device(asked.text("device") or "auto")))


def _placement_rows(placement: dict[str, Any] | None) -> Iterator[tuple[str, object]]:
    if placement is None:
        return
    if placement["in_files"]:
        yield "weights in files", _sizes({**placement["in_files"], "total": sum(placement["in_files"].values())})
    yield "work beside them", f"{placement['working'] / 1e9:.3g} GB"
    yield "device", f"{placement['device_memory'] / 1e9:.3g} GB, of which {placement['needed'] / 1e9:.3g} GB are needed"
    for reason in placement["reasons"]:
        yield "", reason


_MOST_STRENGTHS = 12


def _strength_rows(levels: list[dict[str, Any]]) -> Iterator[tuple[str, object]]:
    """Each strength of a map; of very many, those of the larger parts."""
    shown = sorted(levels, key=lambda each: each["share"], reverse=True)[:_MOST_STRENGTHS]
    for each in levels:
        if each in shown:
            steps = f"{each['steps']} step{'' if each['steps'] == 1 else 's'}" if each["steps"] else "stays as it is"
            yield f"strength {_shown(each['strength'])}", f"{steps}, {each['share']} % of the picture"
    if len(levels) > len(shown):
        yield "strengths", f"and {len(levels) - len(shown)} more, on smaller parts"


def _hires_rows(hires: dict[str, Any] | None) -> Iterator[tuple[str, object]]:
    if hires is None:
        return
    cut = f", cut to {_product(hires['size'])}" if hires["size"] != hires["enlarged"] else ""
    walk = f"{hires['sampler']}, {hires['steps']} steps" if hires["steps"] else "enlarged only"
    yield "hires size", f"{_product(hires['enlarged'])} by {hires['upscaler']}{cut}"
    yield "hires pass", f"strength {_shown(hires['strength'])}, {walk}"
    if hires["model"]:
        yield "hires model", hires["model"]


def _file_rows(account: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """What else is read for the job."""
    if refiner := account["refiner"]:
        passes = " and ".join(refiner["passes"])
        yield "refiner", f"{refiner['model']} from {_shown(refiner['at'])} on, in the {passes} pass"
    for each in account["networks"]:
        differs = each.get("text_weight", each["weight"]) != each["weight"]
        text = f", text {_shown(each['text_weight'])}" if differs else ""
        yield each["name"], f"weight {_shown(each['weight'])}{text}: {each['path']}"
    for number, each in enumerate(account["controls"], 1):
        part = f"weight {_shown(each['weight'])}, {_shown(each['start'])} to {_shown(each['end'])}"
        yield f"control {number}", f"{each['model']}, {part}: {each['path']}"


def _sizes(memory: dict[str, int]) -> str:
    """In GB, the whole first."""
    told = {name.replace("_", " "): f"{size / 1e9:.3g} GB" for name, size in memory.items()}
    whole = told.pop("total")
    return f"{whole}: {', '.join(f'{name} {size}' for name, size in told.items())}"


def _product(size: list[int]) -> str:
    return "x".join(map(str, size))


def _shown(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
