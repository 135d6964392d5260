"""What a job gives back: the pictures, and an exact account of how each was made. Torch-free."""

from __future__ import annotations

import hashlib
import html
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from overpaint.finish import FinishedPicture
from overpaint.painted import save
from overpaint.pixels.grid import grid_shape, image_grid
from overpaint.pixels.seams import Seam
from overpaint.planning.plans import ImagePlan, Plan
from overpaint.request import Picture, decided
from overpaint.text.infotext import fields_of_image, format_infotext, ordered_fields
from overpaint.version import __version__

_SHOWN, _SHOWN_TEXT, _SHOWN_SIDE = 8, 80, 512  # pictures and seeds, characters, pixels


@dataclass(frozen=True)
class ModelIdentity:
    """How a model is named in infotexts."""

    name: str = ""
    hash: str = ""
    vae_name: str | None = None
    vae_hash: str | None = None


@dataclass(frozen=True)
class FinishedBatch:
    """The pictures of one iteration, and what it adds to their infotexts; one that was cut short is not complete."""

    batch: tuple[ImagePlan, ...]
    pictures: tuple[FinishedPicture, ...]
    notes: Mapping[str, object] = field(default_factory=dict)
    complete: bool = True
    comments: tuple[str, ...] = ()  # of the last iteration: what the reference says at the end of a job
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncodingsUsed:
    """How often a job's texts and pictures were encoded, and how often an earlier encoding served."""

    made: int = 0
    reused: int = 0
    kept_bytes: int = 0  # what the engine keeps of them for later jobs


@dataclass(frozen=True, repr=False)
class Processed:
    """The result of a job. `images[0]` is the picture; with a returned grid it is `images[index_of_first_image]`."""

    plan: Plan
    model: ModelIdentity
    images: tuple[Picture, ...]
    infotexts: tuple[str, ...]
    index_of_first_image: int = 0
    extra_generation_params: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    stopped: bool = False  # ended early on request; what was finished is here
    job_timestamp: str = "0"
    seams: tuple[Seam | None, ...] = ()  # of each picture, as many as there are infotexts of pictures
    later_comments: tuple[str, ...] = ()  # those that only painting brought about
    encodings: EncodingsUsed = field(default=EncodingsUsed(), compare=False)  # what was done before, not what was made

    def save(
        self, path: str | os.PathLike[str], *, overwrite: bool = False, quality: int | None = None
    ) -> tuple[Path, ...]:
        """Write the pictures with recipe, infotext, EXIF and colour profile, as `overpaint.save` does."""
        return save(self, path, overwrite=overwrite, quality=quality)

    def __repr__(self) -> str:
        count = len(self.images)
        seeds = ", ".join(map(str, self.all_seeds[:_SHOWN])) + (", ..." if len(self.all_seeds) > _SHOWN else "")
        pictures = f"{count} picture{'' if count == 1 else 's'} of {self.width}x{self.height}"
        how = f"{self.sampler_name}, {self.steps} steps, seed {seeds}, model {self.model.name or 'unnamed'}"
        prompt = self.plan.images[0].prompt if self.plan.images else ""
        shown = prompt if len(prompt) <= _SHOWN_TEXT else prompt[:_SHOWN_TEXT] + "..."
        return f"<Processed: {pictures}{' (stopped)' if self.stopped else ''}, {how}\n {shown!r}>"

    def _repr_html_(self) -> str:
        """The pictures, in a notebook."""
        from overpaint.request import data_url

        rows = []
        for each in self.images[:_SHOWN]:
            small = each.copy()
            small.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
            alt = html.escape(self.info if self.infotexts else "", quote=True)
            rows.append(f'<img src="{data_url(small)}" alt="{alt}" title="{alt}" style="display:inline-block">')
        left = len(self.images) - len(rows)
        return "".join(rows) + (f"<p>and {left} more</p>" if left else "")

    @property
    def comments(self) -> str:
        return "".join(f"{each}\n" for each in (*self.plan.comments, *self.later_comments))

    @property
    def control_maps(self) -> tuple[Picture, ...]:
        """What the ControlNets saw that were asked to show it."""
        return tuple(each.hint for each in self.plan.controls if each.is_shown)

    @property
    def seam(self) -> Seam | None:
        """How visible the edge of the mask is in the first picture; None where nothing was inpainted."""
        return self.seams[0] if self.seams else None

    @property
    def info(self) -> str:
        return self.infotexts[0]

    @property
    def prompt(self) -> str:
        return self.all_prompts[0]

    @property
    def negative_prompt(self) -> str:
        return self.all_negative_prompts[0]

    @property
    def seed(self) -> int:
        return self.all_seeds[0]

    @property
    def subseed(self) -> int:
        return self.all_subseeds[0]

    @property
    def all_prompts(self) -> list[str]:
        return [each.prompt for each in self.plan.images]

    @property
    def all_negative_prompts(self) -> list[str]:
        return [each.negative_prompt for each in self.plan.images]

    @property
    def all_seeds(self) -> list[int]:
        return [each.seed for each in self.plan.images]

    @property
    def all_subseeds(self) -> list[int]:
        return [each.subseed for each in self.plan.images]

    @property
    def width(self) -> int:
        return self.plan.geometry.width

    @property
    def height(self) -> int:
        return self.plan.geometry.height

    @property
    def sampler_name(self) -> str:
        return self.plan.sampler.spec.name

    @property
    def steps(self) -> int:
        return decided(self.plan.request.steps)

    @property
    def cfg_scale(self) -> float:
        return decided(self.plan.request.cfg_scale)

    @property
    def batch_size(self) -> int:
        return max((len(each) for each in self.plan.batches), default=self.plan.request.batch_size)

    @property
    def denoising_strength(self) -> float | None:
        return self.plan.strength

    @property
    def styles(self) -> list[str]:
        return list(self.plan.request.styles)

    def js(self) -> str:
        """The JSON text that REST clients know as `info` (I2I-7)."""
        request, settings = self.plan.request, self.plan.settings
        resize_w, resize_h = request.seed_resize or (-1, -1)
        return json.dumps(
            {
                "prompt": self.prompt,
                "all_prompts": self.all_prompts,
                "negative_prompt": self.negative_prompt,
                "all_negative_prompts": self.all_negative_prompts,
                "seed": self.seed,
                "all_seeds": self.all_seeds,
                "subseed": self.subseed,
                "all_subseeds": self.all_subseeds,
                "subseed_strength": request.variation_strength,
                "width": self.width,
                "height": self.height,
                "sampler_name": self.sampler_name,
                "cfg_scale": self.cfg_scale,
                "steps": self.steps,
                "batch_size": self.batch_size,
                "restore_faces": False,
                "face_restoration_model": None,
                "sd_model_name": self.model.name,
                "sd_model_hash": self.model.hash,
                "sd_vae_name": self.model.vae_name,
                "sd_vae_hash": self.model.vae_hash,
                "seed_resize_from_w": resize_w,
                "seed_resize_from_h": resize_h,
                "denoising_strength": self.plan.strength,
                "extra_generation_params": dict(self.extra_generation_params),
                "index_of_first_image": self.index_of_first_image,
                "infotexts": list(self.infotexts),
                "styles": self.styles,
                "job_timestamp": self.job_timestamp,
                "clip_skip": settings.CLIP_stop_at_last_layers,
                "is_using_inpainting_conditioning": self.plan.spec.conditioning == "inpaint",
                "version": f"overpaint-{__version__}",
            },
            default=lambda value: None,
        )


def account(
    plan: Plan,
    model: ModelIdentity,
    done: Sequence[FinishedBatch],
    timestamp: str = "0",
    encodings: EncodingsUsed = EncodingsUsed(),
) -> Processed:
    """The result of the batches that were finished."""
    images: list[Picture] = []
    infotexts: list[str] = []
    extras = dict(plan.notes)
    for each in done:
        extras.update(each.notes)
        said = extras if plan.settings.quirks.infotext_fields_add_up else {**plan.notes, **each.notes}
        for image, finished in zip(each.batch, each.pictures, strict=True):
            text = infotext_of(plan, model, image.index, said)
            picture = finished.image
            if plan.settings.enable_pnginfo:
                picture.info["parameters"] = text
            infotexts.append(text)
            images.append(picture)
            found = (getattr(finished, name) for name in returned_masks(plan))
            images += [each for each in found if each is not None]
    if not infotexts and plan.images:
        infotexts.append(infotext_of(plan, model, 0, extras))  # JOB-6
    grid = contact_sheet(plan, images) if plan.settings.return_grid else None
    if grid is not None:
        text = infotext_of(plan, model, 0, extras)
        grid.info["parameters"] = text
        images.insert(0, grid)
        infotexts.insert(0, text)
    return Processed(
        plan=plan,
        model=model,
        images=tuple(images),
        infotexts=tuple(infotexts),
        index_of_first_image=0 if grid is None else 1,
        extra_generation_params=extras,
        warnings=tuple(dict.fromkeys((*plan.warnings, *(warning for each in done for warning in each.warnings)))),
        later_comments=done[-1].comments if done else (),
        stopped=len(done) < len(plan.batches) or not all(each.complete for each in done),
        job_timestamp=timestamp,
        encodings=encodings,
        seams=tuple(picture.seam for each in done for picture in each.pictures),
    )


def returned_masks(plan: Plan) -> tuple[str, ...]:
    """The attributes of a finished picture that follow it in the result."""
    names = ("mask", "mask_composite") if plan.mask is not None else ()
    return tuple(name for name in names if getattr(plan.settings, f"return_{name}"))


def gets_sheet(plan: Plan, count: int) -> bool:
    """Whether so many pictures come on a sheet, if one is wanted."""
    return count > (1 if plan.settings.grid_only_if_multiple else 0)


def contact_sheet(plan: Plan, images: Sequence[Picture]) -> Picture | None:
    """GRID-1, GRID-2: all pictures of a job on one sheet; none where there is only one."""
    settings = plan.settings
    if not gets_sheet(plan, len(images)):
        return None
    batch_size = max(len(each) for each in plan.batches)
    rows, _ = grid_shape(len(images), batch_size, settings.n_rows, settings.grid_prevent_empty_spots)
    return image_grid(images, rows, settings.grid_background_color)


def infotext_of(plan: Plan, model: ModelIdentity, index: int, extras: Mapping[str, object]) -> str:
    """The "parameters" text of one picture (INFO-1 to INFO-6)."""
    image = plan.images[index]
    fields = _fixed_fields(plan, model, index)
    own = fields_of_image(extras, index)
    return format_infotext(image.prompt, image.negative_prompt, ordered_fields(fields, own))


def init_image_hash(picture: Picture) -> str:
    """IMG-1: the MD5 of a source's pixels names the copy that is kept of it."""
    return hashlib.md5(picture.tobytes(), usedforsecurity=False).hexdigest()


def _fixed_fields(plan: Plan, model: ModelIdentity, index: int) -> dict[str, object]:
    request, settings, sampler, image = plan.request, plan.settings, plan.sampler, plan.images[index]
    clip_skip = settings.CLIP_stop_at_last_layers
    ensd = settings.eta_noise_seed_delta
    resize = request.seed_resize
    varied = request.variation_strength != 0
    is_inpaint = plan.spec.conditioning == "inpaint" and not plan.spec.is_sdxl
    return {
        "Steps": request.steps,
        "Sampler": sampler.spec.name,
        "Schedule type": sampler.scheduler,
        "CFG scale": request.cfg_scale,
        "Image CFG scale": sampler.image_cfg_scale,
        "Distilled CFG Scale": sampler.guidance,
        "Seed": image.seed,
        "Size": f"{plan.geometry.width}x{plan.geometry.height}",
        "Model hash": model.hash if settings.add_model_hash_to_info and model.hash else None,
        "Model": model.name if settings.add_model_name_to_info and model.name else None,
        "VAE hash": model.vae_hash if settings.add_vae_hash_to_info else None,
        "VAE": model.vae_name if settings.add_vae_name_to_info else None,
        "Variation seed": image.subseed if varied else None,
        "Variation seed strength": request.variation_strength if varied else None,
        "Seed resize from": f"{resize[0]}x{resize[1]}" if resize else None,
        "Denoising strength": plan.strength,
        "Conditional mask weight": settings.inpainting_mask_weight if is_inpaint else None,
        "Clip skip": clip_skip if clip_skip > 1 else None,
        "ENSD": ensd if ensd and sampler.spec.uses_ensd and sampler.eta != 0 else None,
        "Init image hash": init_image_hash(request.images[-1]) if settings.save_init_img and request.images else None,
        "RNG": settings.randn_source if settings.randn_source != "GPU" else None,
        "Tiling": True if settings.tiling else None,
        "Version": f"overpaint-{__version__}" if settings.add_version_to_infotext else None,
    }
