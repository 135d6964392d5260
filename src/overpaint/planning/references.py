"""The pictures that an edit model looks at beside its source, at the sizes at which it does. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from overpaint.errors import RequestError
from overpaint.models.specs import ModelSpec
from overpaint.pictures import flatten
from overpaint.request import PaintRequest, Picture
from overpaint.settings import Settings


@dataclass(frozen=True)
class Reference:
    """A picture, and how it is looked at: at this size, and this colour where it is transparent."""

    picture: Picture
    size: tuple[int, int]
    background: str

    @property
    def flattened(self) -> Picture:
        return flatten(self.picture, self.background)

    @property
    def encoded(self) -> Picture:
        """NOTE: its pixels are first asked for here, for who only plans may have a stand-in of its size."""
        whole = self.flattened
        return whole if whole.size == self.size else whole.resize(self.size, Image.Resampling.LANCZOS)


def plan_references(request: PaintRequest, settings: Settings, spec: ModelSpec) -> tuple[Reference, ...]:
    """Those of a request, for a model that looks at any."""
    if request.references and not spec.sees_pictures:
        remedy = f"a {spec.title} model looks at none; choose an edit model such as Flux.1 Kontext, or leave them out"
        raise RequestError("references", f"{len(request.references)} pictures", remedy)
    count = request.has_source + len(request.references)
    if spec.vision is not None and not spec.vision.eyes.several and count > 1:
        remedy = (
            f"a {spec.title} model looks at one picture, and with the source there are {count}; leave them out, or "
            "choose Qwen-Image-Edit-2509 or -2511, which look at several"
        )
        raise RequestError("references", f"{len(request.references)} pictures", remedy)
    background = settings.img2img_background_color
    return tuple(Reference(each, size_of_reference(each.size, spec), background) for each in request.references)


def size_of_reference(size: tuple[int, int], spec: ModelSpec) -> tuple[int, int]:
    """Whole tokens in the picture's shape, and no more pixels than the model paints: each of them costs at every step.

    NOTE: a small one is not enlarged, which would make it dearer and no clearer. Models whose text encoder looks at it,
    too, are the exception: they know pictures at one size alone, and paint others at another scale.
    """
    if spec.vision is not None:
        return _at_area(size, spec.native_size)
    unit = spec.latent.factor * spec.transformer.patch
    scale = min(1.0, spec.native_size / (size[0] * size[1]) ** 0.5)
    wide, high = (max(1, round(side * scale / unit)) * unit for side in size)
    return wide, high


_COARSE = 32  # to whose multiples the authors of Qwen-Image-Edit bring sides


def _at_area(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size with as many pixels as a square of this side, in about the picture's shape."""
    scale = side / (size[0] * size[1]) ** 0.5
    wide, high = (max(1, round(each * scale / _COARSE)) * _COARSE for each in size)
    return wide, high


def shown_to_text(picture: Picture, spec: ModelSpec) -> Picture:
    """A picture at the size at which the model's text encoder looks at it: whole tokens of its vision tower.

    NOTE: in two steps, as the authors do, for each of them changes pixels.
    """
    assert spec.vision is not None
    unit = spec.vision.unit
    coarse = _at_area(picture.size, spec.vision.eyes.side or spec.native_size)
    wide, high = (max(1, round(each / unit)) * unit for each in coarse)
    if picture.size != coarse:
        picture = picture.resize(coarse, Image.Resampling.LANCZOS)
    return picture if picture.size == (wide, high) else picture.resize((wide, high), Image.Resampling.BICUBIC)
