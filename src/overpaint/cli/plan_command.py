"""`overpaint plan`: what a job would do, decided and shown without loading a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli.options import JOB_OPTIONS, REQUEST_OPTIONS, Asked, takes
from overpaint.cli.output import say, say_json, table, warn
from overpaint.cli.paint import AsJson, Mask, Quiet, job_of

if TYPE_CHECKING:
    from overpaint.models.families import ModelSpec
    from overpaint.planning import Plan
    from overpaint.sampler_plan import SamplerPlan


@takes(*REQUEST_OPTIONS, *JOB_OPTIONS)
def plan(
    *,
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture to paint over.", show_default=False)],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What it should show.", show_default=False)] = "",
    mask: Mask = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: Asked,
) -> int:
    """Show what `paint` would do with the same options: crop, sizes, steps, seeds and warnings. Loads no model."""
    from overpaint.planning import plan as make_plan
    from overpaint.styles import load_styles

    job = job_of(picture, prompt, mask, asked)
    styles = load_styles(job.settings.styles_file) if job.settings.styles_file else ()
    decided = make_plan(job.request, job.settings, _spec(asked), styles=styles)
    if as_json:
        say_json(account_of(decided))
        return 0
    say(table([(name, _shown(value)) for name, value in _rows(account_of(decided)).items()]))
    warn(decided.warnings, quiet)
    return 0


def _spec(asked: Asked) -> ModelSpec:
    """The model's header decides only if a model is named; otherwise SD 1.x is meant."""
    from overpaint.models.families import SD1_SPEC

    if not asked.text("model"):
        return SD1_SPEC
    from overpaint.cli.info import spec_of
    from overpaint.models.find import find_checkpoint

    return spec_of(find_checkpoint(asked.text("model"), asked.settings()))


def account_of(plan: Plan) -> dict[str, Any]:
    """A plan in plain values."""
    geometry, mask, sampler = plan.geometry, plan.mask, plan.sampler
    return {
        "model": plan.spec.title,
        "source": list(plan.request.images[0].size),
        "size": [geometry.width, geometry.height],
        "network_size": [geometry.pass_width, geometry.pass_height],
        "crop": list(mask.crop) if mask is not None and mask.crop is not None else None,
        "repainted": _repainted(plan),
        "sampler": sampler.spec.name,
        "scheduler": sampler.scheduler,
        "steps": 0 if plan.unchanged else sampler.evaluations,
        "start": sampler.start,
        "network_calls": network_calls(plan),
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


def network_calls(plan: Plan) -> int | None:
    """Calls of the denoising network, a whole batch in each; None where the sampler decides on the way."""
    if plan.unchanged:
        return 0
    calls = _calls_of_one_batch(plan.sampler)
    return None if calls is None else calls * len(plan.batches)


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


def _rows(account: dict[str, Any]) -> dict[str, Any]:
    """The account for people: sizes as products, one line of seeds, nothing that is not there."""
    rows = {
        name: value for name, value in account.items() if name not in ("pictures", "warnings", "comments", "batches")
    }
    for name in ("source", "size", "network_size"):
        rows[name] = "x".join(map(str, account[name]))
    rows["repainted"] = f"{account['repainted']} %"
    seeds = [each["seed"] for each in account["pictures"]]
    rows["seeds"] = "a new one each time" if seeds[0] is None else ", ".join(map(str, seeds))
    rows["network_calls"] = "as many as the sampler needs" if rows["network_calls"] is None else rows["network_calls"]
    return {name.replace("_", " "): value for name, value in rows.items() if value is not None}


def _shown(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
