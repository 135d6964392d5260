"""A narrow Flux.1, Chroma and Stable Diffusion 3.5 with random weights of our own networks, and their files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from overpaint.models.specs import ChromaSpec, FluxSpec, MmditSpec, TextSpec
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.chroma import Chroma
from overpaint.networks.flux import Flux
from overpaint.networks.mmdit import Mmdit
from overpaint.networks.t5_text import T5Text
from overpaint.networks.text import ClipText, OpenClipText
from tests.flow_toys import VAE, Tensors, save, tensors_of
from tests.networks_vs_diffusers.flow_sources import t5_vocabulary

WIDTH, CLIP, BIG_CLIP, T5 = 64, 24, 40, 64
FLUX = FluxSpec(
    in_channels=16,
    width=WIDTH,
    double_blocks=2,
    single_blocks=2,
    heads=2,
    inner=96,
    context_dim=T5,
    pooled_dim=CLIP,
    guided=True,
    axes=(4, 14, 14),
)
CHROMA = ChromaSpec(
    in_channels=16,
    width=WIDTH,
    double_blocks=2,
    single_blocks=2,
    heads=2,
    inner=96,
    context_dim=T5,
    told=32,
    told_width=48,
    told_layers=2,
    axes=(4, 14, 14),
)
SD35 = MmditSpec(
    in_channels=16,
    width=WIDTH,
    blocks=2,
    dual_blocks=1,
    heads=4,
    inner=96,
    context_dim=T5,
    vector_dim=CLIP + BIG_CLIP,
    normed=True,
    side=6,
)


def clip_spec(width: int, *, projected: bool) -> TextSpec:
    return TextSpec(
        kind="clip",
        prefix="",
        width=width,
        layers=2,
        heads=1,
        inner=32,
        vocabulary=49408,
        positions=77,
        activation="quick_gelu",
        layer=-2 if projected else -1,
        final_norm=not projected,
        pooled=True,
        projected=projected,
    )


BIG = TextSpec(
    kind="openclip",
    prefix="",
    width=BIG_CLIP,
    layers=2,
    heads=1,
    inner=32,
    vocabulary=49408,
    positions=77,
    layer=-2,
    final_norm=False,
    pooled=True,
)
T5_SPEC = TextSpec(
    kind="t5",
    prefix="",
    width=T5,
    layers=2,
    heads=4,
    head_dim=8,
    inner=48,
    vocabulary=64,
    positions=32,
    layer=-1,
    final_norm=True,
)


@dataclass(frozen=True)
class FluxToy:
    """The files of one model, as other programs lay them out; the rest is found beside the transformer."""

    folder: Path
    path: Path
    transformer: Tensors


def toy_flux(folder: Path, kind: str = "dev") -> FluxToy:
    """By the name that the published file has; Fill takes more channels."""
    spec = replace(FLUX, guided=kind != "schnell", in_channels=96 if kind == "fill-dev" else 16)
    with torch.device("meta"):
        networks = Flux(spec), ClipText(clip_spec(CLIP, projected=False)), T5Text(T5_SPEC)
    transformer, clip, t5 = (tensors_of(each, i) for i, each in enumerate(networks))
    path = save(transformer, folder / "diffusion_models" / f"flux1-{kind}.safetensors")
    _beside(folder, {"clip_l": _named_by_hugging_face(clip), "t5xxl": t5}, "ae")
    return FluxToy(folder, path, transformer)


def toy_chroma(folder: Path) -> FluxToy:
    with torch.device("meta"):
        networks = Chroma(CHROMA), T5Text(T5_SPEC)
    transformer, t5 = (tensors_of(each, i) for i, each in enumerate(networks))
    path = save(transformer, folder / "diffusion_models" / "Chroma1-HD.safetensors")
    _beside(folder, {"t5xxl": t5}, "ae")
    return FluxToy(folder, path, transformer)


def toy_sd35(folder: Path) -> FluxToy:
    with torch.device("meta"):
        networks = Mmdit(SD35), ClipText(clip_spec(CLIP, projected=True)), OpenClipText(BIG), T5Text(T5_SPEC)
    transformer, clip, big, t5 = (tensors_of(each, i) for i, each in enumerate(networks))
    named = {f"model.diffusion_model.{name}": each for name, each in transformer.items()}
    path = save(named, folder / "diffusion_models" / "sd3.5.safetensors")
    projection = clip.pop("text_projection.weight")
    texts = {"clip_l": {**_named_by_hugging_face(clip), "text_projection.weight": projection}, "clip_g": big, "t5": t5}
    _beside(folder, texts, "sd3_vae")
    return FluxToy(folder, path, transformer)


def _named_by_hugging_face(clip: Tensors) -> Tensors:
    return {f"text_model.{name}": each for name, each in clip.items()}


def _beside(folder: Path, texts: dict[str, Tensors], vae: str) -> None:
    for name, tensors in texts.items():
        save(tensors, folder / "text_encoders" / f"{name}.safetensors")
    with torch.device("meta"):
        codec = AutoencoderKL(VAE)
    save(tensors_of(codec, 9), folder / "vae" / f"{vae}.safetensors")
    t5_vocabulary(folder / "text_encoders" / "t5.tokenizer.json")
