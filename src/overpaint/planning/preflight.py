"""What a job would do and what it may name, told from folders and headers alone: no model is opened. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from overpaint.adapters.wanted import HypernetUse, LoraUse, list_adapters
from overpaint.errors import CheckpointError
from overpaint.files.recipe import network_name
from overpaint.models.control_names import find_controlnet
from overpaint.models.detect import detect
from overpaint.models.families import UNET_PREFIX, ModelSpec
from overpaint.models.find import find_refiner, model_folders
from overpaint.models.hashes import checkpoint_file
from overpaint.models.header import read_sidecar, safetensors_shapes
from overpaint.models.upscaler_names import list_upscalers
from overpaint.pixels.resize import UPSCALERS, Upscaler
from overpaint.planning.plan import effective_settings
from overpaint.planning.plans import OtherModel, Plan, Surroundings
from overpaint.planning.sampler_plan import SamplerPlan
from overpaint.request import Img2ImgRequest, Txt2ImgRequest
from overpaint.settings import Settings
from overpaint.text.styles import load_styles

SpecReader = Callable[[Path], ModelSpec]


def spec_from_header(path: Path) -> ModelSpec:
    """What a checkpoint is, by the header of its safetensors file; to know others takes torch, and is refused."""
    is_readable = path.suffix.lower() == ".safetensors" and path.is_file()
    shapes, metadata = safetensors_shapes(path) if is_readable else ({}, {})
    if not any(key.startswith(UNET_PREFIX) for key in shapes):
        raise CheckpointError(f"{path.name}: its header alone does not tell what it is; plan it with `overpaint plan`")
    try:
        return detect(shapes, metadata, read_sidecar(path))
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error


def surroundings_of(request: Img2ImgRequest, settings: Settings, spec_of: SpecReader) -> Surroundings:
    """For planning only: upscalers are known by name, and resample."""
    settings = effective_settings(request, settings)
    hires = request.hires if isinstance(request, Txt2ImgRequest) else None
    second = hires.checkpoint if hires is not None else None
    return Surroundings(
        styles=load_styles(settings.styles_file) if settings.styles_file else (),
        loras=list_adapters([Path(settings.lora_dir)]) if settings.lora_dir else (),
        hypernets=list_adapters([Path(settings.hypernetwork_dir)]) if settings.hypernetwork_dir else (),
        upscalers=_upscalers(settings),
        refiner=_other(request.refiner, settings, "refiner", spec_of) if request.refiner else None,
        hires_model=_other(second, settings, "hires.checkpoint", spec_of) if second else None,
    )


def _upscalers(settings: Settings) -> Mapping[str, Upscaler]:
    resample = UPSCALERS["Lanczos"]
    assert resample is not None
    return {each.name: resample for each in list_upscalers(settings) if each.path is not None}


def _other(name: str, settings: Settings, argument: str, spec_of: SpecReader) -> OtherModel:
    path = find_refiner(name, settings, argument=argument)
    return OtherModel(path, checkpoint_file(path, model_folders(settings)).short_title, spec_of(path))


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
    passes = (plan, plan.hires.plan) if plan.hires is not None else (plan,)
    found = dict.fromkeys(each for one in passes for image in one.images for each in image.networks)
    return [{"name": network_name(each), "path": str(each.file.path), **_weights(each.use)} for each in found]


def _weights(use: LoraUse | HypernetUse) -> dict[str, Any]:
    if isinstance(use, LoraUse):
        return {"weight": use.unet, "text_weight": use.te}
    return {"weight": use.multiplier}


def _controls(plan: Plan) -> list[dict[str, Any]]:
    """Every ControlNet with its file; a name that nobody knows is an error."""
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
    visits = sampler.parameterization.visits(sampler.used)
    ends_in_zero = sampler.used[-1] == 0
    return 2 * visits - ends_in_zero if sampler.spec.second_order else visits


def _repainted(plan: Plan) -> float:
    """The part of the picture, in percent, that the mask lets change."""
    if plan.unchanged:
        return 0.0
    if plan.mask is None:
        return 100.0
    histogram = plan.mask.overlay.convert("L").histogram()
    return round(100 * sum(histogram[1:]) / sum(histogram), 1)
