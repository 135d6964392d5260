"""Reading a VAE file (VAE-4, VAE-5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from overpaint.errors import CheckpointError
from overpaint.models.components import naming, vae_of
from overpaint.models.derived import derived_weights
from overpaint.models.detect import autoencoder_spec
from overpaint.models.families import SD1_SPEC, AutoencoderSpec
from overpaint.models.files import Weights
from overpaint.models.opened import open_tensors

_DROPPED = ("model_ema.decay", "model_ema.num_updates")


@dataclass(frozen=True)
class VaeFile:
    """An opened VAE file: what it is, its tensors, and the keys that matter (VAE-4)."""

    spec: AutoencoderSpec
    weights: Weights
    keys: tuple[str, ...]


_OF_STABLE_DIFFUSION = SD1_SPEC.vae


def open_vae(path: Path, wanted: AutoencoderSpec = _OF_STABLE_DIFFUSION) -> VaeFile:
    """A VAE that may stand in for another: a file in the original layout or that of diffusers, or its folder."""
    file = open_tensors(path)
    named = vae_of(file)
    weights = derived_weights(path, named, file.metadata)
    keys = tuple(key for key in named if not key.startswith("loss") and key not in _DROPPED)
    with naming(path):
        spec = autoencoder_spec({key: weights.shapes[key] for key in keys})
    if spec.latent_channels != wanted.latent_channels:
        raise CheckpointError(
            f"vae={path.name}: its latents have {spec.latent_channels} channels, the model's {wanted.latent_channels}; "
            "choose a VAE of the same family"
        )
    if not spec.speaks_as(wanted):
        raise CheckpointError(f"vae={path.name}: it is a VAE of another family; choose one of the model's own")
    return VaeFile(spec, weights, keys)
