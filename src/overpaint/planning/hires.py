"""The second pass of a hires fix, and what ControlNets see: plans that follow from a first pass's plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType

from overpaint.errors import RequestError, SettingError
from overpaint.hints import did_you_mean
from overpaint.pixels.control import Frame, control_picture, control_region
from overpaint.pixels.resize import Upscaler, find_upscaler
from overpaint.planning.canvas import Canvases, geometry_of
from overpaint.planning.canvas_pixels import CanvasInputs, Geometry
from overpaint.planning.images import image_networks, plan_batches, plan_texts
from overpaint.planning.notes import sampling_notes
from overpaint.planning.plans import ControlPlan, HiresPlan, ImagePlan, LatentUpscale, Plan, RefinerPlan, Surroundings
from overpaint.planning.prompt_weights import check_texts
from overpaint.planning.references import plan_references
from overpaint.planning.sampler_plan import Start, plan_sampler
from overpaint.planning.shortcuts import shortcuts_of
from overpaint.planning.sizes import check_side
from overpaint.request import ControlUnit, Hires, PaintRequest, ResizeMode
from overpaint.settings import Settings

LATENT_UPSCALES: Mapping[str, LatentUpscale] = MappingProxyType(
    {
        "Latent": LatentUpscale("bilinear", False),
        "Latent (antialiased)": LatentUpscale("bilinear", True),
        "Latent (bicubic)": LatentUpscale("bicubic", False),
        "Latent (bicubic antialiased)": LatentUpscale("bicubic", True),
        "Latent (nearest)": LatentUpscale("nearest", False),
        "Latent (nearest-exact)": LatentUpscale("nearest-exact", False),
    }
)


def plan_hires(first: Plan, hires: Hires, known: Surroundings) -> Plan:
    """The first pass's plan with the second inside it."""
    with _named_as_hires():
        second, scaled, comments = _second_pass(first, hires, known)
    return replace(
        first,
        batches=plan_batches(first.images, second.request, first.settings, second.images),
        hires=HiresPlan(second, _upscaler(hires.upscaler or "Latent", first.settings, known), scaled, hires.strength),
        refiner=_in_pass("first pass", first.refiner, first.settings),
        controls=tuple(each for each in first.controls if each.passes != "second"),
        notes=MappingProxyType({**first.notes, **_notes(first, second, hires, known)}),
        comments=first.comments + tuple(each for each in comments if each not in first.comments),
    )


@contextmanager
def _named_as_hires() -> Iterator[None]:
    """A field that is wrong in the second pass only is one of `hires`."""
    try:
        yield
    except RequestError as error:
        if isinstance(error, SettingError):
            raise
        sized = error.field == "width x height"
        remedy = "give a smaller scale, width or height (the option max_pixels_per_pass)" if sized else error.remedy
        raise RequestError(f"hires.{error.field}", error.value, remedy) from error


def _second_pass(first: Plan, hires: Hires, known: Surroundings) -> tuple[Plan, tuple[int, int], tuple[str, ...]]:
    """Its plan, the size that the picture is enlarged to, and comments."""
    settings = first.settings
    scaled, target = hires_sizes(first.geometry, hires)
    spec = known.hires_model.spec if known.hires_model is not None else first.spec
    if spec.conditioning == "edit" and not spec.sees_pictures:
        raise RequestError("checkpoint", hires.checkpoint, "an edit model cannot refine a picture; choose another one")
    request = first.request.with_changes(
        hires=None,
        width=target[0],
        height=target[1],
        prompt=hires.prompt or first.request.prompt,
        negative_prompt=hires.negative_prompt or first.request.negative_prompt,
        sampler=hires.sampler or first.request.sampler,
        scheduler=hires.scheduler or first.request.scheduler,
        steps=hires.steps or first.request.steps,
    )
    geometry = geometry_of(*target, settings, spec.latent.factor)
    start = Start(strength=hires.strength, every_step=True, steps_before=first.sampler.prompt_steps)
    check_side(geometry.latent_size, spec)
    sampler, schedule_notes = plan_sampler(request, settings, spec, settings, start, spec.tokens(geometry.latent_size))
    # The schedule type of the infotext is the first pass's; "Hires schedule type" is this one's.
    schedule_notes = {name: value for name, value in schedule_notes.items() if name != "Schedule type"}
    geometry_of(*scaled, settings, spec.latent.factor)  # the enlarged picture has to fit the limits as well
    images, comments = _second_images(first, request, settings, known)
    shortcuts, _ = shortcuts_of(request, settings, spec, second=True)
    check_texts(images, settings, sampler.prompt_steps, start.steps_before)
    second = Plan(
        request=request,
        settings=settings,
        spec=spec,
        geometry=geometry,
        canvases=(),
        mask=None,
        images=images,
        batches=plan_batches(images, request, settings, first.images),
        sampler=sampler,
        sampling_notes=MappingProxyType(sampling_notes(request, settings, sampler, schedule_notes)),
        refiner=_in_pass("second pass", first.refiner, settings),
        controls=_of_second_pass(
            plan_controls(CanvasInputs(request, settings, factor=spec.latent.factor), Canvases(geometry, (), None))
        ),
        checkpoint=known.hires_model.path if known.hires_model is not None else first.checkpoint,
        shortcuts=shortcuts,
        references=plan_references(request, settings, spec) if spec.sees_pictures else (),
    )
    return second, scaled, comments


def hires_sizes(geometry: Geometry, hires: Hires) -> tuple[tuple[int, int], tuple[int, int]]:
    """(what the picture is enlarged to, what is kept of it): given both sides, it covers them and is cut."""
    width, height = geometry.width, geometry.height
    wide, high = hires.width, hires.height
    if wide is None and high is None:
        size = int(width * hires.scale), int(height * hires.scale)
        return size, size
    if high is None and wide is not None:
        size = wide, max(1, wide * height // width)
        return size, size
    if wide is None and high is not None:
        size = max(1, high * width // height), high
        return size, size
    assert wide is not None
    assert high is not None
    if width * high < wide * height:  # the picture is slimmer than asked
        return (wide, wide * height // width), (wide, high)
    return (high * width // height, high), (wide, high)


def plan_controls(job: CanvasInputs, prepared: Canvases) -> tuple[ControlPlan, ...]:
    """The control pictures, taken the way of the source."""
    geometry, crop = prepared.geometry, prepared.mask.crop if prepared.mask is not None else None
    wide, high = geometry.covered
    frame = Frame(
        width=geometry.width,
        height=geometry.height,
        pass_width=wide,
        pass_height=high,
        mode=list(ResizeMode).index(job.request.resize_mode),
        source_size=prepared.canvases[0].source.size if crop is not None else None,
        crop=crop,
    )
    return tuple(_control(each, frame, job.settings) for each in job.request.controls)


def _control(unit: ControlUnit, frame: Frame, settings: Settings) -> ControlPlan:
    hint = control_picture(
        unit.image,
        frame,
        unit.preprocessor,
        amount=unit.amount,
        canny_low=unit.canny_low,
        canny_high=unit.canny_high,
        background=settings.img2img_background_color,
        quirks=settings.quirks,
    )
    return ControlPlan(
        model=unit.model,
        hint=hint,
        weight=unit.weight,
        start=unit.start,
        end=unit.end,
        mode=unit.mode,
        passes=unit.passes,
        region=None if unit.mask is None else control_region(unit.mask, frame, settings.quirks),
        is_shown=unit.return_map,
    )


def _of_second_pass(controls: tuple[ControlPlan, ...]) -> tuple[ControlPlan, ...]:
    return tuple(each for each in controls if each.passes != "first")


def _second_images(
    first: Plan, request: PaintRequest, settings: Settings, known: Surroundings
) -> tuple[tuple[ImagePlan, ...], tuple[str, ...]]:
    """The first pass's pictures with the second's texts; seeds stay."""
    prompts, negatives = plan_texts(request, settings, known)
    if len(prompts) != len(first.images):
        name = "prompt" if isinstance(request.prompt, tuple) else "negative_prompt"
        raise RequestError(name, f"{len(prompts)} texts", f"give {len(first.images)}, one for each picture")
    networks, comments = image_networks(prompts, request, settings, known)
    changed = zip(first.images, prompts, negatives, networks, strict=True)
    return tuple(
        replace(each, prompt=prompt, negative_prompt=negative, networks=own) for each, prompt, negative, own in changed
    ), comments


def _in_pass(which: str, refiner: RefinerPlan | None, settings: Settings) -> RefinerPlan | None:
    return refiner if settings.hires_fix_refiner_pass in (which, "both passes") else None


def _upscaler(name: str, settings: Settings, known: Surroundings) -> LatentUpscale | Upscaler | None:
    if name in LATENT_UPSCALES:
        return LATENT_UPSCALES[name]
    try:
        return find_upscaler(name, replace(settings.quirks, unknown_names_fall_back=False), known.upscalers)
    except RequestError:
        names = (*LATENT_UPSCALES, "None", "Lanczos", "Nearest", *known.upscalers)
        told = did_you_mean(name, names) or f"known: {', '.join(names)}"
        raise RequestError("hires.upscaler", name, f"there is no such upscaler; {told}") from None


def _notes(first: Plan, second: Plan, hires: Hires, known: Surroundings) -> dict[str, object]:
    """Infotext fields of the second pass, in the reference's order; texts are those of each picture."""
    sampler = second.sampler.spec.name
    sized = hires.width is not None or hires.height is not None
    prompts = [b.prompt if b.prompt != a.prompt else None for a, b in zip(first.images, second.images, strict=True)]
    negatives = [
        b.negative_prompt if b.negative_prompt != a.negative_prompt else None
        for a, b in zip(first.images, second.images, strict=True)
    ]
    return {
        "Denoising strength": hires.strength,
        "Hires checkpoint": known.hires_model.title if known.hires_model is not None else None,
        "Hires sampler": sampler if hires.sampler and sampler != first.sampler.spec.name else None,
        "Hires prompt": prompts,
        "Hires negative prompt": negatives,
        "Hires schedule type": second.sampler.scheduler if hires.scheduler else None,
        **({"Hires resize": f"{hires.width or 0}x{hires.height or 0}"} if sized else {"Hires upscale": hires.scale}),
        "Hires steps": hires.steps or None,
        "Hires upscaler": hires.upscaler,
        **second.shortcuts.second_notes(),
    }
