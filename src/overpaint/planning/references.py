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
    def encoded(self) -> Picture:
        """NOTE: its pixels are first asked for here, for who only plans may have a stand-in of its size."""
        whole = flatten(self.picture, self.background)
        return whole if whole.size == self.size else whole.resize(self.size, Image.Resampling.LANCZOS)


def plan_references(request: PaintRequest, settings: Settings, spec: ModelSpec) -> tuple[Reference, ...]:
    """Those of a request, for a model that looks at any."""
    if request.references and not spec.sees_pictures:
        remedy = f"a {spec.title} model looks at none; choose an edit model such as Flux.1 Kontext, or leave them out"
        raise RequestError("references", f"{len(request.references)} pictures", remedy)
    background = settings.img2img_background_color
    return tuple(Reference(each, size_of_reference(each.size, spec), background) for each in request.references)


def size_of_reference(size: tuple[int, int], spec: ModelSpec) -> tuple[int, int]:
    """Whole tokens in the picture's shape, and no more pixels than the model paints: each of them costs at every step.

    NOTE: a small one is not enlarged, which would make it dearer and no clearer.
    """
    unit = spec.latent.factor * spec.transformer.patch
    scale = min(1.0, spec.native_size / (size[0] * size[1]) ** 0.5)
    wide, high = (max(1, round(side * scale / unit)) * unit for side in size)
    return wide, high
