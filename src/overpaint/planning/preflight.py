"""What a job would do, judged by folders and file headers alone: no model is opened. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from overpaint.adapters.wanted import HypernetUse, LoraUse
from overpaint.errors import CheckpointError
from overpaint.files.recipe import network_name
from overpaint.models.catalog import HYPERNETWORK, LORA, files_of, find_controlnet
from overpaint.models.companions import text_encoders_for
from overpaint.models.families import SD1_SPEC, ModelSpec
from overpaint.models.find import check_backend, check_machine, find_checkpoint, find_refiner, find_vae, model_folders
from overpaint.models.hashes import checkpoint_file
from overpaint.models.upscaler_names import upscaler_files
from overpaint.models.what_is import UntoldError, spec_of
from overpaint.pixels.resize import UPSCALERS, Upscaler
from overpaint.planning.canvas import selected
from overpaint.planning.images import names_networks, plan_images
from overpaint.planning.plan import effective_settings
from overpaint.planning.plan import plan as make_plan
from overpaint.planning.plans import OtherModel, Plan, Surroundings
from overpaint.planning.sampler_plan import SamplerPlan
from overpaint.planning.strength_levels import told
from overpaint.planning.weights import placement_account, weights_of
from overpaint.request import PICTURE_FIELDS, PICTURE_LISTS, PaintRequest, Picture
from overpaint.sampler_table import normalise
from overpaint.settings import Settings
from overpaint.text.styles import load_styles

_ENOUGH = 1_000_000  # pixels of a source, to see whether a plan holds
SpecReader = Callable[[Path], ModelSpec]


def check(
    request: PaintRequest,
    settings: Settings,
    checkpoint: str | Path | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
) -> None:
    """Refuse a job that cannot be, before torch is imported and a model is read; an engine refuses it alike.

    NOTE: a model that its header alone does not tell apart leaves what depends on it for later: the names are checked.
    """
    check_machine(device, dtype)
    check_backend(settings.backend)
    effective = effective_settings(request, settings)
    path = _checkpoint_of(request, effective, checkpoint)
    find_vae(path, effective)
    try:
        spec = spec_of(path, text_encoders_for(path, effective.text_encoder_files), header_only=True)
        known = replace(surroundings_of(request, settings, partial(spec_of, header_only=True)), checkpoint=path)
    except UntoldError:
        _check_names(request, effective)
        return
    _controls(make_plan(_lighter(request), settings, spec, known))


def _lighter(request: PaintRequest) -> PaintRequest:
    """The same job with small pictures. The same mistakes are found in it, but faster."""
    pixels = max((each.width * each.height for each in request.images), default=0)
    if pixels <= _ENOUGH:
        return request
    scale = (_ENOUGH / pixels) ** 0.5

    def small(picture: Picture) -> Picture:
        sides = [max(1, round(each * scale)) for each in picture.size]
        return picture.resize((sides[0], sides[1]), Image.Resampling.NEAREST)

    changes: dict[str, Any] = {"images": tuple(map(small, request.images))}
    changes |= {
        name: small(getattr(request, name)) for name in PICTURE_FIELDS - PICTURE_LISTS if getattr(request, name)
    }
    if request.mask is not None and not request.only_masked and request.width is request.height is None:
        changes |= dict(zip(("width", "height"), request.images[0].size, strict=True))
    return request.with_changes(**changes)


def _checkpoint_of(request: PaintRequest, settings: Settings, own: str | Path | None) -> Path:
    """The one that a job names, else the engine's."""
    name = request.checkpoint or request.overrides.get("sd_model_checkpoint")
    try:
        return find_checkpoint(str(name), settings) if name else find_checkpoint(own, settings)
    except CheckpointError:
        if name and settings.quirks.unknown_names_fall_back:  # JOB-1
            return find_checkpoint(own, settings)
        raise


def _told_or_usual(path: Path) -> ModelSpec:
    """What a header says; of one that says nothing, the engine will say what is wrong with it."""
    try:
        return spec_of(path, header_only=True)
    except UntoldError:
        return SD1_SPEC


def _check_names(request: PaintRequest, settings: Settings) -> None:
    """What of a job does not depend on its model."""
    normalise(request.sampler, request.scheduler, quirks=settings.quirks)
    plan_images(request, settings, surroundings_of(request, settings, _told_or_usual))
    for number, each in enumerate(request.controls):
        if each.model is not None:
            find_controlnet(each.model, settings.controlnet_dir, f"controls[{number}].model")


def surroundings_of(request: PaintRequest, settings: Settings, read: SpecReader) -> Surroundings:
    """For planning only: upscalers are known by name, and resample."""
    settings = effective_settings(request, settings)
    wants_networks = names_networks(request, settings)
    hires = request.hires
    second = hires.checkpoint if hires is not None else None
    return Surroundings(
        styles=load_styles(settings.styles_file) if request.styles and settings.styles_file else (),
        loras=files_of(settings.lora_dir, LORA) if wants_networks else (),
        hypernets=files_of(settings.hypernetwork_dir, HYPERNETWORK) if wants_networks else (),
        upscalers=stand_in_upscalers(settings),
        refiner=_other(request.refiner, settings, "refiner", read) if request.refiner else None,
        hires_model=_other(second, settings, "hires.checkpoint", read) if second else None,
    )


def stand_in_upscalers(settings: Settings) -> Mapping[str, Upscaler]:
    """Those of the site by name; each only resamples."""
    resample = UPSCALERS["Lanczos"]
    assert resample is not None
    return dict.fromkeys(upscaler_files(settings), resample)


def _other(name: str, settings: Settings, argument: str, read: SpecReader) -> OtherModel:
    path = find_refiner(name, settings, argument=argument)
    return OtherModel(path, checkpoint_file(path, model_folders(settings)).short_title, read(path))


def account_of(plan: Plan, room: int | None = None) -> dict[str, Any]:
    """A plan as plain JSON values; `room` are the bytes that the device has free, where they are known."""
    geometry, mask, images = plan.geometry, plan.mask, plan.request.images
    return {
        "model": plan.spec.title,
        "source": list(images[0].size) if images else None,
        "size": [geometry.width, geometry.height],
        "network_size": [geometry.pass_width, geometry.pass_height],
        "crop": list(mask.crop) if mask is not None and mask.crop is not None else None,
        "repainted": _repainted(plan) if images else None,
        "strengths": list(told(plan.levels)),
        **_walk(plan),
        "network_calls": network_calls(plan),
        "memory": weights_of(plan.spec),
        "placement": placement_account(plan, room),
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
    hires, request = plan.hires, plan.request
    if hires is None or request.hires is None:
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
    passes = (plan, plan.hires.plan) if plan.hires is not None else (plan,)
    found = dict.fromkeys(each for one in passes for image in one.images for each in image.networks)
    return [{"name": network_name(each), "path": str(each.file.path), **_weights(each.use)} for each in found]


def _weights(use: LoraUse | HypernetUse) -> dict[str, Any]:
    if isinstance(use, LoraUse):
        return {"weight": use.unet, "text_weight": use.te}
    return {"weight": use.multiplier}


def _controls(plan: Plan) -> list[dict[str, Any]]:
    """Every ControlNet with its file. An unknown name is an error."""
    folder = plan.settings.controlnet_dir
    return [
        {
            "model": each.model,
            "path": _path_of(each.model, folder, number),
            "weight": each.weight,
            "start": each.start,
            "end": each.end,
        }
        for number, each in enumerate(plan.controls)
    ]


def _path_of(model: str | None, folder: str, number: int) -> str | None:
    return None if model is None else str(find_controlnet(model, folder, f"controls[{number}].model"))


_OWN_STEPS = ("DPM fast", "PLMS")


def network_calls(plan: Plan) -> int | None:
    """Calls of the denoising network, a whole batch in each; None where the sampler decides on the way."""
    if plan.unchanged:
        return 0
    passes = [plan.sampler, *([plan.hires.plan.sampler] if plan.hires is not None and plan.hires.paints else ())]
    if plan.levels and (plan.sampler.spec.name in _OWN_STEPS or plan.sampler.s_churn > 0):
        return None  # the levels of a strength map do not meet at every step
    calls = [each for each in map(_calls_of_one_batch, passes) if each is not None]
    return sum(calls) * len(plan.batches) if len(calls) == len(passes) else None


def _calls_of_one_batch(sampler: SamplerPlan) -> int | None:
    if not sampler.takes_steps:
        return 0
    if sampler.spec.adaptive or sampler.spec.name == "Restart":
        return None
    visits = sampler.parameterization.visits(sampler.used)
    ends_in_zero = sampler.used[-1] == 0
    return 2 * visits - ends_in_zero if sampler.spec.second_order else visits


def _repainted(plan: Plan) -> float:
    """The part of the picture, in percent, that the mask lets change."""
    if plan.unchanged:
        return 0.0
    if plan.mask is None:
        return 100.0
    return selected(plan.mask)
