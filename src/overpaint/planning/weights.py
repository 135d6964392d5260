"""What a plan says of memory: a flow model's weights by part, the work beside them, what a device does. Torch-free."""

from __future__ import annotations

from typing import Any

from overpaint.models.parameters import block_parameters, parameters_of
from overpaint.models.placement import MemoryNeeds, Placement, Size, place
from overpaint.models.specs import ModelSpec
from overpaint.models.working_memory import unpacking_bytes, working_bytes
from overpaint.planning.plans import Plan

_BYTES = 2  # of a number in the 16 bits that GPUs compute in
_GIB = 2**30


def weights_of(spec: ModelSpec) -> dict[str, int] | None:
    """Bytes on a device that computes in 16 bits, by network; twice that where it computes in float32."""
    sizes = {name: _BYTES * count for name, count in parameters_of(spec).items()}
    return {**sizes, "total": sum(sizes.values())} if sizes else None


def placement_account(plan: Plan, room: int | None) -> dict[str, Any] | None:
    """What is done with the weights on a device where so many bytes are free; the option `device_memory` goes before.

    None for models with a U-Net, and where nobody says what the device has.
    """
    stated = int(plan.settings.device_memory * _GIB)
    if not (stated or room):
        return None
    geometry, factor = plan.geometry, plan.spec.latent.factor
    size = (geometry.pass_width // factor, geometry.pass_height // factor)
    return account_of_spec(plan.spec, stated or room, size, _rows(plan), plan.settings.weights_kept)


def account_of_spec(
    spec: ModelSpec, room: int | None, size: tuple[int, int] | None = None, rows: int = 1, weights: Any = "auto"
) -> dict[str, Any] | None:
    """The same for a model alone, at the size of its training."""
    if not parameters_of(spec):
        return None
    needs = needs_of_spec(spec, size, rows)
    found = place(needs, room, weights)
    return {
        "device_memory": room,
        "in_files": dict(spec.in_files),
        "working": needs.working + (needs.unpacking if found.stored else 0),
        "needed": found.needed,
        "weights": "stored" if found.stored else "whole",
        "text_encoders": _where(found),
        "streamed_blocks": found.streamed,
        "blocks": found.blocks,
        "fits": found.fits,
        "reasons": list(found.reasons),
    }


def _where(found: Placement) -> str:
    if not found.texts_leave:
        return "stay"
    return "streamed" if found.texts_streamed else "leave"


def needs_of_spec(spec: ModelSpec, size: tuple[int, int] | None, rows: int) -> MemoryNeeds:
    """As an engine measures it at the networks, told beforehand."""
    whole = {name: _BYTES * count for name, count in parameters_of(spec).items()}
    texts, denoiser = (
        Size(whole[each], _in_file(spec, each, whole[each])) for each in ("text_encoders", "transformer")
    )
    share = denoiser.stored / max(denoiser.whole, 1)
    blocks = tuple(_BYTES * each for each in block_parameters(spec.transformer))
    return MemoryNeeds(
        texts=texts,
        denoiser=denoiser,
        blocks=tuple(Size(each, int(each * share)) for each in blocks),
        codec=whole["vae"],
        working=working_bytes(spec, size, rows),
        unpacking=unpacking_bytes(spec),
    )


def _in_file(spec: ModelSpec, part: str, whole: int) -> int:
    return min(whole, spec.in_files.get(part, whole) or whole)


def _rows(plan: Plan) -> int:
    """Of one call: two for each picture where a negative text is asked about, too."""
    pictures = max(map(len, plan.batches), default=1)
    return pictures * (2 if plan.request.cfg_scale not in (None, 1.0) else 1)
