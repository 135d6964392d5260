"""From a body of the reference's API to a stored request and the settings it runs under."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal

from overpaint.contract.requests import img2img_fields, txt2img_fields
from overpaint.contract.scripts import soft_inpainting
from overpaint.errors import RequestError
from overpaint.models.catalog import find_file
from overpaint.models.hashes import CheckpointFile
from overpaint.service.byproducts import without_byproducts
from overpaint.service.doors.webui.bodies import PaintingBody, StableDiffusionProcessingImg2Img
from overpaint.service.doors.webui.control_units import Unit, fitted_picture, units_of
from overpaint.service.doors.webui.errors import Refusal, http_refusal
from overpaint.service.doors.webui.infotext import Filled, filled_by
from overpaint.service.doors.webui.options_book import CHECKPOINT, OptionsBook, Overrides
from overpaint.service.doors.webui.pictures import decoded
from overpaint.service.doors.webui.progress import task_name
from overpaint.service.doors.webui.replaced import replaced_names
from overpaint.service.doors.webui.saving import SavingOptions
from overpaint.service.doors.webui.scripts import ScriptsAsked, always_on, check_script_name
from overpaint.service.doors.webui.unoffered import warns, without_unoffered
from overpaint.service.intake.jobs import Intake, NewJob
from overpaint.service.jobs import Job
from overpaint.service.known_models import KnownModels
from overpaint.service.store.forms import plain
from overpaint.settings import Settings
from overpaint.text.styles import load_styles

_NOTHING_FILLED = Filled({}, {})
_NO_MODEL = (None, "", "None", "none", "Use same checkpoint")


@dataclass(frozen=True)
class Pictures:
    """The sources of a job as bytes."""

    images: tuple[bytes, ...] = ()
    mask: bytes | None = None
    latent_mask: bytes | None = None
    controls: tuple[bytes | None, ...] = ()  # of the units, in their order; None: the source
    control_masks: tuple[bytes | None, ...] = ()

    def with_nothing_for(self, units: Sequence[Unit]) -> Pictures:
        """More units, whose pictures are the source."""
        none = (None,) * len(units)
        return replace(self, controls=self.controls + none, control_masks=self.control_masks + none)

    def fields(self) -> dict[str, Any]:
        given = {"images": list(self.images), "mask": self.mask, "latent_mask": self.latent_mask}
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True)
class JobOrder:
    """A job that was asked for, and what its client is told of it."""

    parameters: Mapping[str, Any]
    job: Job
    warnings: tuple[str, ...]
    saving: SavingOptions  # what is to be saved
    sends: bool = True
    returns_grid: bool = True


@dataclass(frozen=True)
class Reader:
    """Reads bodies with what this server has and how it is set. It waits for disks, so it belongs in a thread."""

    intake: Intake
    book: OptionsBook
    models: KnownModels

    def scripts(self, body: PaintingBody) -> ScriptsAsked:
        """I2I-1: what is judged before the sources are decoded."""
        is_img2img = isinstance(body, StableDiffusionProcessingImg2Img)
        check_script_name(body.script_name, is_img2img=is_img2img)
        has_any = self.models.has_controlnets
        return always_on(
            body.alwayson_scripts, is_img2img=is_img2img, has_controlnets=has_any, is_strict=not warns(self.book.base)
        )

    def asked(self, body: PaintingBody, pictures: Pictures, scripts: ScriptsAsked, client: str) -> JobOrder:
        """The job; its pictures are kept when this returns."""
        is_img2img = isinstance(body, StableDiffusionProcessingImg2Img)
        filled = self._filled(body, is_img2img)
        fields, unoffered = without_unoffered({**body.effective(), **filled.fields}, self.book.settings())
        given = {**filled.overrides, **fields["override_settings"]}
        overrides = self.book.overridden(given, self.models.vaes())
        saves = bool(fields["save_images"])
        settings = self._settings(overrides.settings, saves)
        script = _script(body)
        if script:  # its sheet is its own affair, not the saving's
            settings = replace(settings, return_grid=overrides.settings.return_grid)
        soft = _soft(scripts, filled)
        values = self._values(fields, soft, overrides, pictures)
        told, said = _told_units(scripts, filled, has_source=bool(pictures.images))
        controls = self._controls(values, pictures.with_nothing_for(told), (*scripts.units, *told))
        kind: Literal["img2img", "txt2img"] = "img2img" if is_img2img else "txt2img"
        new = NewJob(
            values={**script, **values, **pictures.fields(), **controls},
            settings=settings,
            origin="sdapi",
            client=client,
            # It is always written down: the one in force may be another when the job's turn comes.
            checkpoint=str(self._checkpoint(overrides).path),
            task=fields["force_task_id"] or task_name(kind),
        )
        job = self.intake.judged(new)
        echoed = given if filled.overrides else body.override_settings
        parameters = {**body.known(), **filled.fields, "override_settings": echoed}
        return JobOrder(
            parameters=_without_pictures(parameters),
            job=job,
            warnings=(
                *_unread(body),
                *replaced_names(fields, settings, _lora_names(self.models)),
                *unoffered,
                *overrides.warnings,
                *scripts.warnings,
                *said,
                *self._dropped(overrides),
            ),
            saving=SavingOptions(kind=kind, pictures=saves, sources=bool(settings.save_init_img)),
            sends=bool(fields["send_images"]),
            returns_grid=overrides.settings.return_grid,
        )

    def _filled(self, body: PaintingBody, is_img2img: bool) -> Filled:
        if not body.infotext:
            return _NOTHING_FILLED
        settings = self.book.settings()
        styles = load_styles(settings.styles_file) if settings.styles_file else ()
        return filled_by(
            body.infotext, frozenset(body.model_fields_set), settings, is_img2img=is_img2img, styles=styles
        )

    def _settings(self, settings: Settings, saves: bool) -> Settings:
        """I2I-2: without `save_images` no sheet is made; with it one is, if it is to be shown or kept."""
        sheet = saves and (settings.return_grid or settings.grid_save)
        return replace(settings if saves else without_byproducts(settings), return_grid=sheet)

    def _values(
        self, fields: Mapping[str, Any], soft: tuple[Any, ...], overrides: Overrides, pictures: Pictures
    ) -> dict[str, Any]:
        """The request in our own words, without its pictures."""
        job = SimpleNamespace(**{**fields, "seed_enable_extras": True, "override_settings": dict(overrides.painting)})
        job.sampler_name = fields["sampler_name"] or fields["sampler_index"]
        if "init_images" not in fields:
            job.denoising_strength = 0.75 if fields["denoising_strength"] is None else fields["denoising_strength"]
            found = txt2img_fields(job)
        else:
            if fields["mask_blur"] is not None:
                job.mask_blur_x = job.mask_blur_y = fields["mask_blur"]
            count = len(pictures.images)
            if count > job.batch_size > 0:  # IMG-3
                said = f"bad number of images passed: {count}; expecting {job.batch_size} or less"
                raise Refusal(500, "RuntimeError", said)
            found = img2img_fields(job, soft_inpainting(soft), masked=pictures.mask is not None)
        self._check_names(found)
        values: dict[str, Any] = plain(found)
        return values

    def _controls(self, values: Mapping[str, Any], pictures: Pictures, units: Sequence[Unit]) -> dict[str, Any]:
        """ControlNets, each with its picture in the shape of what is painted."""
        found: list[dict[str, Any]] = []
        for unit, given, mask in zip(units, pictures.controls, pictures.control_masks, strict=True):
            model = None if unit.model is None else self.models.controlnet(unit.model)
            if model is None and unit.model is not None:
                raise RequestError(f"{unit.place}.model", unit.model, "GET /controlnet/model_list lists what there is")
            data = given or next(iter(pictures.images), None)
            if data is None:
                raise RequestError(unit.picture_place, None, "give the picture that the ControlNet should follow")
            size = self._size_to_follow(values, pictures)
            if size is not None:
                data = fitted_picture(unit.picture_place, data, unit.resize_mode, size)
                mask = None if mask is None else fitted_picture(f"{unit.place}.mask", mask, unit.resize_mode, size)
            found.append(unit.fields(model, data, mask))
        return {"controls": found} if found else {}

    def _size_to_follow(self, values: Mapping[str, Any], pictures: Pictures) -> tuple[int, int] | None:
        """Where only a part is painted, a control picture is cut as the source is; so it has to have its shape.

        None for a size that no pass may have: that is refused later, in better words than a resize would find.
        """
        if pictures.mask is None or not values["only_masked"]:
            wide, high = values["width"] or 0, values["height"] or 0
            return (
                (wide, high) if min(wide, high) > 0 and wide * high <= self.intake.config.limits.pass_pixels else None
            )
        with decoded("init_images[0]", pictures.images[0]) as source:
            return source.size

    def _checkpoint(self, overrides: Overrides) -> CheckpointFile:
        """The job's own if it is known, else the one in force (JOB-1)."""
        named = self.models.checkpoint(overrides.checkpoint) if overrides.checkpoint else None
        return named or self.book.checkpoint_in_force(self.models)

    def _dropped(self, overrides: Overrides) -> tuple[str, ...]:
        name = overrides.checkpoint
        if not name or self.models.checkpoint(name) is not None:
            return ()
        return (f"override_settings.{CHECKPOINT}={name!r}: there is no such model; the one in force was used",)

    def _check_names(self, found: Mapping[str, Any]) -> None:
        """Models are named, not pointed at."""
        hires = found.get("hires")
        for field_name, name in (
            ("refiner_checkpoint", found["refiner"]),
            ("hr_checkpoint_name", None if hires is None else hires.checkpoint),
        ):
            if name not in _NO_MODEL and self.models.closest(name) is None:
                raise RequestError(field_name, name, "there is no such model; GET /sdapi/v1/sd-models lists them")


def _lora_names(models: KnownModels) -> Callable[[str], bool]:
    known = models.loras()
    return lambda name: find_file(known, name) is not None


def check_sources(body: StableDiffusionProcessingImg2Img) -> None:
    """I2I-1: what is asked first."""
    if not body.init_images:
        raise http_refusal(404, "Init image not found")


def _script(body: PaintingBody) -> dict[str, Any]:
    """I2I-4: the selectable script of a job, as a stored request names it."""
    if not body.script_name:
        return {}
    return {"kind": "script", "title": body.script_name, "args": list(body.script_args or ())}


def _soft(scripts: ScriptsAsked, filled: Filled) -> tuple[Any, ...]:
    return scripts.soft or filled.soft


def _told_units(scripts: ScriptsAsked, filled: Filled, *, has_source: bool) -> tuple[tuple[Unit, ...], tuple[str, ...]]:
    """I2I-6: units that only the infotext speaks of. They follow the source, as units without a picture do."""
    if scripts.units or not filled.units:
        return (), ()
    if not has_source:
        return (), ("infotext: not obeyed, it speaks of a ControlNet but does not hold its picture; send the unit",)
    return units_of("infotext", filled.units)


def _unread(body: PaintingBody) -> tuple[str, ...]:
    """Keys that no field has, and fields that change nothing."""
    cut = (f"{name}: a whole number is wanted, so what is behind the point was cut off" for name in body.cut())
    unknown = (*(f"{name}: not obeyed, there is no such field" for name in body.unknown()), *cut)
    if isinstance(body, StableDiffusionProcessingImg2Img) and body.latent_mask and not body.mask:
        unknown = (*unknown, "latent_mask: not obeyed, it does nothing without a mask")
    if body.override_settings and body.override_settings_restore_afterwards is False:
        said = "not obeyed, overrides are for one job; POST /sdapi/v1/options changes options"
        return (*unknown, f"override_settings_restore_afterwards: {said}")
    return unknown


def _without_pictures(parameters: dict[str, Any]) -> dict[str, Any]:
    """I2I-7."""
    if parameters.get("include_init_images"):
        return parameters
    return {name: None if name in ("init_images", "mask") else value for name, value in parameters.items()}
