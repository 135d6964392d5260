"""`overpaint plan`: what a job would do, decided and shown without loading a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli.jobs import Files, Job, job_of
from overpaint.cli.options import HIRES_OPTIONS, JOB_OPTIONS, REQUEST_OPTIONS, Asked, takes
from overpaint.cli.output import say, say_json, table, warn
from overpaint.cli.paint import AsJson, Mask, Quiet
from overpaint.errors import RequestError

if TYPE_CHECKING:
    from overpaint.adapters.wanted import HypernetUse, LoraUse
    from overpaint.plans import Plan
    from overpaint.sampler_plan import SamplerPlan

New = Annotated[bool, typer.Option("--txt2img", help="Plan a new picture: give a PROMPT and no PICTURE.")]


@takes(*REQUEST_OPTIONS, *HIRES_OPTIONS, *JOB_OPTIONS)
def plan(
    *,
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="The picture to paint over.", show_default=False)],
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="What it should show.")] = None,
    new: New = False,
    mask: Mask = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: Asked,
) -> int:
    """Show what `paint` or `txt2img` would do with the same options: sizes, steps, files, warnings. Loads no model."""
    from overpaint.cli.surroundings import spec_asked_for, surroundings_of
    from overpaint.planning import plan as make_plan

    job = _new_job(picture, prompt, mask, asked) if new else job_of(Files(Path(picture), mask), prompt or "", asked)
    known = surroundings_of(job.request, job.settings)
    decided = make_plan(job.request, job.settings, spec_asked_for(asked, job.settings), known)
    account = account_of(decided)
    if as_json:
        say_json(account)
        return 0
    say(table([(name, _shown(value)) for name, value in _rows(account)]))
    warn(decided.warnings, quiet)
    return 0


def _new_job(prompt: str, too_much: str | None, mask: Path | None, asked: Asked) -> Job:
    """With --txt2img the first text is the prompt."""
    if too_much is not None:
        raise RequestError("PROMPT", too_much, "with --txt2img give one text, the prompt, and no picture")
    if mask is not None:
        raise RequestError("--mask", str(mask), "a new picture has no mask; leave it out")
    return job_of(Files(), prompt, asked)


def account_of(plan: Plan) -> dict[str, Any]:
    """A plan in plain values."""
    geometry, mask, images = plan.geometry, plan.mask, plan.request.images
    return {
        "model": plan.spec.title,
        "source": list(images[0].size) if images else None,
        "size": [geometry.width, geometry.height],
        "network_size": [geometry.pass_width, geometry.pass_height],
        "crop": list(mask.crop) if mask is not None and mask.crop is not None else None,
        "repainted": _repainted(plan) if images else None,
        **_walk(plan),
        "network_calls": network_calls(plan),
        "hires": _hires(plan),
        "refiner": _refiner(plan),
        "networks": _networks(plan),
        "controls": _controls(plan),
        "pictures": [
            {
                "seed": None if plan.request.seed == -1 else each.seed,
                "prompt": each.prompt,
                "negative_prompt": each.negative_prompt,
            }
            for each in plan.images
        ],
        "batches": len(plan.batches),
        "unchanged": plan.unchanged,
        "comments": list(plan.comments),
        "warnings": list(plan.warnings),
    }


def _walk(plan: Plan) -> dict[str, Any]:
    """Which way one pass takes through the noise."""
    sampler = plan.sampler
    return {
        "sampler": sampler.spec.name,
        "scheduler": sampler.scheduler,
        "steps": 0 if plan.unchanged else sampler.evaluations,
        "start": sampler.start,
    }


def _hires(plan: Plan) -> dict[str, Any] | None:
    from overpaint.request import Txt2ImgRequest

    hires, request = plan.hires, plan.request
    if hires is None or not isinstance(request, Txt2ImgRequest) or request.hires is None:
        return None
    second = hires.plan
    return {
        "upscaler": request.hires.upscaler or "Latent",
        "enlarged": list(hires.scaled),
        "size": [second.geometry.width, second.geometry.height],
        "strength": hires.strength,
        "model": second.spec.title if request.hires.checkpoint else None,
        **(_walk(second) if hires.paints else {"steps": 0}),
    }


def _refiner(plan: Plan) -> dict[str, Any] | None:
    """Of whichever pass has one."""
    second = plan.hires.plan.refiner if plan.hires is not None else None
    if (found := plan.refiner or second) is None:
        return None
    passes = [name for name, has in (("first", plan.refiner), ("second", second)) if has is not None]
    return {"model": found.model.title, "path": str(found.model.path), "at": found.switch_at, "passes": passes}


def _networks(plan: Plan) -> list[dict[str, Any]]:
    """Every LoRA and hypernetwork of any picture, once."""
    from overpaint.recipe import network_name

    passes = (plan, plan.hires.plan) if plan.hires is not None else (plan,)
    found = dict.fromkeys(each for one in passes for image in one.images for each in image.networks)
    return [{"name": network_name(each), "path": str(each.file.path), **_weights(each.use)} for each in found]


def _weights(use: LoraUse | HypernetUse) -> dict[str, Any]:
    from overpaint.adapters.wanted import LoraUse

    if isinstance(use, LoraUse):
        return {"weight": use.unet, "text_weight": use.te}
    return {"weight": use.multiplier}


def _controls(plan: Plan) -> list[dict[str, Any]]:
    """Every ControlNet with its file; a name that nobody knows is an error."""
    from overpaint.models.control_names import find_controlnet

    folder = plan.settings.controlnet_dir
    return [
        {
            "model": each.model,
            "path": str(find_controlnet(each.model, folder, f"controls[{number}].model")),
            "weight": each.weight,
            "start": each.start,
            "end": each.end,
        }
        for number, each in enumerate(plan.controls)
    ]


def network_calls(plan: Plan) -> int | None:
    """Calls of the denoising network, a whole batch in each; None where the sampler decides on the way."""
    if plan.unchanged:
        return 0
    passes = [plan.sampler, *([plan.hires.plan.sampler] if plan.hires is not None and plan.hires.paints else ())]
    calls = [each for each in map(_calls_of_one_batch, passes) if each is not None]
    return sum(calls) * len(plan.batches) if len(calls) == len(passes) else None


def _calls_of_one_batch(sampler: SamplerPlan) -> int | None:
    if sampler.spec.adaptive or sampler.spec.name == "Restart":
        return None
    if sampler.spec.family == "timestep":
        return len(sampler.used)
    steps = len(sampler.used) - 1
    ends_in_zero = sampler.used[-1] == 0
    return 2 * steps - ends_in_zero if sampler.spec.second_order else steps


def _repainted(plan: Plan) -> float:
    """The part of the picture, in percent, that the mask lets change."""
    if plan.unchanged:
        return 0.0
    if plan.mask is None:
        return 100.0
    histogram = plan.mask.overlay.convert("L").histogram()
    return round(100 * sum(histogram[1:]) / sum(histogram), 1)


_TOLD_OTHERWISE = ("pictures", "warnings", "comments", "batches", "networks", "controls", "hires", "refiner")


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
    return [*named, *_hires_rows(account["hires"]), *_file_rows(account)]


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


def _product(size: list[int]) -> str:
    return "x".join(map(str, size))


def _shown(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
