"""A request against the bounds of a server: sizes, counts, texts, and names where no file is needed to judge them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from overpaint.errors import RequestError
from overpaint.extras import ExtrasRequest
from overpaint.files.recipe import PAINTING_OPTIONS
from overpaint.heic import can_write_heic
from overpaint.planning.canvas import geometry_of
from overpaint.planning.hires import hires_sizes
from overpaint.request import PaintRequest
from overpaint.sampler_table import normalise
from overpaint.service.limits import Limits
from overpaint.service.prompt_rows import check_prompt_rows
from overpaint.settings import OPTION_NAMES, Settings, inert_options
from overpaint.text.prompt import take_network_tags

OPTIONS_OF_FILES = frozenset({"samples_format", "jpeg_quality", "webp_lossless"})
OPTIONS_OF_A_JOB = PAINTING_OPTIONS | {"return_mask", "return_mask_composite", "return_grid"} | OPTIONS_OF_FILES
PICTURES_TOGETHER = 4  # times the pixels of one: all of a request's pictures are in memory at once

_DEFAULT_SETTINGS = Settings()
_LONGEST_NAME = 500
_LISTED = "give a name that GET /v1/models lists"


def job_settings(settings: Settings, limits: Limits) -> Settings:
    """A site's settings within this server's limits: what its jobs run under."""
    changes = {
        "max_source_pixels": min(settings.max_source_pixels, limits.source_pixels),
        "max_pixels_per_pass": min(settings.max_pixels_per_pass, limits.pass_pixels),
        "max_steps": min(settings.max_steps, limits.steps),
        "max_images": min(settings.max_images, limits.images),
        "max_prompt_chars": min(settings.max_prompt_chars, limits.prompt_chars),
    }
    return settings.with_changes(changes)


def check_together(name: str, pixels: int, total: int, limits: Limits) -> None:
    """All pictures of a request are in memory at once; to be asked before the first of them is decoded."""
    if total > (most := PICTURES_TOGETHER * limits.source_pixels):
        raise RequestError(name, f"{pixels} pixels more", f"all pictures may have {most} pixels at most")


def check_request(request: PaintRequest, limits: Limits, settings: Settings = _DEFAULT_SETTINGS) -> None:
    """A painting job against this server's bounds, and its names as far as no file is needed to judge them."""
    hires = request.hires
    _at_most("steps", request.steps or 0, limits.steps)
    _at_most("batch_size x iterations", request.batch_size * request.iterations, limits.images)
    for name in ("cfg_scale", "image_cfg_scale"):
        if (value := getattr(request, name)) is not None and not 0 <= value <= limits.cfg_scale:
            raise RequestError(name, value, f"give a value from 0 to {limits.cfg_scale:g}")
    _check_texts(request, limits)
    _check_names(request)
    normalise(request.sampler, request.scheduler, quirks=settings.quirks)
    if hires is not None:
        _at_most("hires.steps", hires.steps or 0, limits.steps)
        names = (hires.sampler or request.sampler, hires.scheduler or request.scheduler)
        normalise(*names, quirks=settings.quirks)
    _check_overrides(request, settings)
    check_prompt_rows(request, limits, settings)
    _check_passes(request, job_settings(settings, limits))


def _at_most(name: str, value: float, limit: float) -> None:
    if value > limit:
        raise RequestError(name, value, f"give at most {limit}")


def _texts_of(request: PaintRequest) -> dict[str, tuple[str, ...]]:
    """Every prompt by its field's name."""
    parts: dict[str, Any] = {"": request, "hires.": request.hires}
    found = {
        prefix + name: getattr(part, name)
        for prefix, part in parts.items()
        if part is not None
        for name in ("prompt", "negative_prompt")
    }
    return {name: (value,) if isinstance(value, str) else value for name, value in found.items()}


def _check_texts(request: PaintRequest, limits: Limits) -> None:
    for name, texts in _texts_of(request).items():
        _at_most(f"{name} (texts)", len(texts), limits.images)
        for text in texts:
            if len(text) > limits.prompt_chars:
                raise RequestError(name, f"{len(text)} characters", f"give at most {limits.prompt_chars}")
            tags = [each for each in take_network_tags(text)[1] if each.name in ("lora", "lyco")]
            if len(tags) + len(request.loras) > limits.loras:
                raise RequestError(name, f"{len(tags) + len(request.loras)} LoRAs", f"give at most {limits.loras}")
    _at_most("loras", len(request.loras), limits.loras)


def _check_names(request: PaintRequest) -> None:
    """Names only: a path would let a stranger point at any file of this machine."""
    hires = request.hires
    named = {name: getattr(request, name) for name in ("checkpoint", "refiner", "sampler", "scheduler")}
    named |= {f"styles[{i}]": each for i, each in enumerate(request.styles)}
    named |= {f"loras[{i}].name": each.name for i, each in enumerate(request.loras)}
    named |= {f"controls[{i}].model": each.model for i, each in enumerate(request.controls)}
    named |= {f"overrides.{name}": request.overrides.get(name) for name in ("sd_vae", "upscaler_for_img2img")}
    if hires is not None:
        named |= {f"hires.{each.name}": getattr(hires, each.name) for each in fields(hires) if _is_name(each.name)}
    for name, value in named.items():
        if isinstance(value, str):
            check_name(name, value)


def _is_name(field_name: str) -> bool:
    return field_name in ("checkpoint", "upscaler", "sampler", "scheduler")


def check_name(field_name: str, value: str) -> None:
    """A model, or whatever else has a name, may not be named by a path that leads out of its folder."""
    posix, windows = PurePosixPath(value), PureWindowsPath(value)
    leads_out = posix.is_absolute() or windows.drive or windows.root or ".." in (*posix.parts, *windows.parts)
    if len(value) > _LONGEST_NAME or leads_out or value.startswith("~") or "\0" in value:
        raise RequestError(field_name, value, _LISTED)


def _check_overrides(request: PaintRequest, settings: Settings) -> None:
    """Folders, files and limits belong to the site."""
    given = {name: value for name, value in request.overrides.items() if name not in inert_options()}
    for name in sorted(given.keys() & OPTION_NAMES - OPTIONS_OF_A_JOB):
        raise RequestError(f"overrides.{name}", given[name], "this option belongs to the server; leave it out")
    if settings.with_changes(given).samples_format == "heic" and not can_write_heic():
        raise RequestError("overrides.samples_format", "heic", "this server writes no HEIC; choose another format")


def _check_passes(request: PaintRequest, settings: Settings) -> None:
    size = _size_of_pass(request)
    if size is None:
        return
    geometry = geometry_of(*size, settings)
    hires = request.hires
    for each in hires_sizes(geometry, hires) if hires is not None else ():
        geometry_of(*each, settings)


def _size_of_pass(request: PaintRequest) -> tuple[int, int] | None:
    """None where the model or the mask decides: then planning judges it."""
    if request.width is not None and request.height is not None:
        return request.width, request.height
    if not request.images or request.only_masked:
        return None
    wide, high = request.images[0].size
    if request.width is not None:
        return request.width, max(1, round(request.width * high / wide))
    if request.height is not None:
        return max(1, round(request.height * wide / high)), request.height
    return wide, high


def check_extras(request: ExtrasRequest, limits: Limits) -> None:
    _at_most("images", len(request.images), limits.images)
    for name in ("upscaler", "second_upscaler"):
        check_name(name, getattr(request, name))
    for index, picture in enumerate(request.images):
        if request.size is None:
            pixels = picture.width * picture.height * request.scale**2
        else:
            scale = max(request.size[0] / picture.width, request.size[1] / picture.height)
            pixels = picture.width * picture.height * scale**2
        if pixels > limits.source_pixels:
            shown = request.scale if request.size is None else request.size
            remedy = f"images[{index}] would have more than {limits.source_pixels} pixels; ask for less"
            raise RequestError("scale" if request.size is None else "size", shown, remedy)
