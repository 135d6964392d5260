"""What a model is painted with where a request says nothing: the family's own numbers, or Stable Diffusion's."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from overpaint.request import PaintRequest

if TYPE_CHECKING:
    from overpaint.models.specs import Family, ModelSpec

USUAL: Mapping[str, Any] = MappingProxyType({"strength": 0.75, "steps": 20, "cfg_scale": 7.0})  # Stable Diffusion's


def usual_of(model: ModelSpec | Family) -> dict[str, Any]:
    """By field of a request; `guidance` only of a model that is told it."""
    own = {name: getattr(model, name) for name in (*USUAL, "guidance")}
    return {**USUAL, **{name: value for name, value in own.items() if value is not None}}


def as_usual(request: PaintRequest, model: ModelSpec, most_steps: int) -> PaintRequest:
    """The request with the model's own numbers for what it leaves open."""
    names = USUAL.keys() - (frozenset() if request.has_source else {"strength"})
    usual = usual_of(model)
    usual["steps"] = min(usual["steps"], most_steps)
    changes = {name: usual[name] for name in names if getattr(request, name) is None}
    return request.with_changes(**changes) if changes else request
