"""The table of model families: what a checkpoint can be.

Adding a family is adding a row. Rows are tried from top to bottom; the first whose marks all hold wins (FAM).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from overpaint.errors import CheckpointError
from overpaint.models.flow_rows import BASE, NEWER_FAMILIES
from overpaint.models.shifts import NO_SHIFT, ConstantShift, TokenShift
from overpaint.models.specs import (
    UNET_PREFIX,
    VAE_PREFIX,
    Activation,
    AutoencoderSpec,
    Conditioning,
    DenoiserSpec,
    Family,
    LatentSpec,
    Mark,
    ModelSpec,
    Prediction,
    Source,
    TextKind,
    TextRow,
    TextSpec,
    TransformerSpec,
    UNetSpec,
    ZImageSpec,
)

__all__ = [
    "FAMILIES",
    "SD1_SPEC",
    "UNET_PREFIX",
    "VAE_PREFIX",
    "Activation",
    "AutoencoderSpec",
    "Conditioning",
    "DenoiserSpec",
    "Family",
    "LatentSpec",
    "Mark",
    "ModelSpec",
    "Prediction",
    "Source",
    "TextKind",
    "TextRow",
    "TextSpec",
    "TransformerSpec",
    "UNetSpec",
    "ZImageSpec",
    "family_called",
    "family_of",
    "fitting",
]

_CLIP = "cond_stage_model.transformer.text_model."
_OPENCLIP = "cond_stage_model.model."
_XL_L = "conditioner.embedders.0.transformer.text_model."
_XL_G = "conditioner.embedders.1.model."
_REFINER_G = "conditioner.embedders.0.model."

_SD1_TEXTS = (TextRow(kind="clip", prefix=_CLIP, layer=-1, final_norm=True, follows_skip=True),)
_SD2_TEXTS = (TextRow(kind="openclip", prefix=_OPENCLIP, layer=-2, final_norm=True),)
_XL_TEXTS = (
    TextRow(kind="clip", prefix=_XL_L, layer=-2, final_norm=False, follows_skip=True),
    TextRow(kind="openclip", prefix=_XL_G, layer=-2, final_norm=False, pooled=True),
)
_REFINER_TEXTS = (TextRow(kind="openclip", prefix=_REFINER_G, layer=-2, final_norm=False, pooled=True),)

_XL_LATENT = LatentSpec(scale=0.13025)
_XL_MARK = Mark(_XL_G + "ln_final.weight")
# NOTE: FAM-7 asks for width 1024 here; the key alone says the same of full-size files and also fits narrow ones.
_SD2_MARK = Mark(_OPENCLIP + "transformer.resblocks.0.attn.in_proj_weight")
_UNCLIP = "embedder.model.ln_final.weight"


def _takes(channels: int) -> Mark:
    return Mark(UNET_PREFIX + "input_blocks.0.0.weight", 1, channels)


_ZIMAGE = UNET_PREFIX + "layers.0.adaLN_modulation.0.weight"
_FLUX_LATENT = LatentSpec(channels=16, scale=0.3611, shift=0.1159)
_FLUX_VAE = AutoencoderSpec(
    channels=128, channel_mult=(1, 2, 4, 4), num_res_blocks=2, latent_channels=16, quant_convs=False
)
_FLUX = UNET_PREFIX + "double_blocks.0.img_attn.qkv.weight"
_FLUX_SHIFT = TokenShift()
_TEXTS_OF_FLUX = "text_encoders.clip_l.transformer.text_model.", "text_encoders.t5xxl.transformer."


_GUIDED = Mark(UNET_PREFIX + "guidance_in.in_layer.weight")


def _flux(
    name: str,
    title: str,
    marks: tuple[Mark, ...],
    *,
    guidance: float | None,
    words: int = 512,
) -> Family:
    """The rows of Flux.1 differ in little."""
    clip, t5 = _TEXTS_OF_FLUX
    return Family(
        name=name,
        title=title,
        marks=(Mark(_FLUX), Mark(UNET_PREFIX + "vector_in.in_layer.weight"), *marks),
        texts=(
            TextRow(kind="clip", prefix=clip, layer=-1, final_norm=True, pooled=True, as_tokens=False),
            TextRow(kind="t5", prefix=t5, layer=-1, final_norm=True, length=words),
        ),
        prediction="flow",
        latent=_FLUX_LATENT,
        native_size=1024,
        network="flux",
        shift=_FLUX_SHIFT,
        cfg_scale=1.0,
        guidance=guidance,
        vae=_FLUX_VAE,
        vae_names=("ae", "flux"),
    )


_SD3_TEXTS = (
    TextRow(
        kind="clip",
        prefix="text_encoders.clip_l.transformer.text_model.",
        layer=-2,
        final_norm=False,
        pooled=True,
        projected=True,
    ),
    TextRow(kind="openclip", prefix="text_encoders.clip_g.transformer.", layer=-2, final_norm=False, pooled=True),
    TextRow(kind="t5", prefix="text_encoders.t5xxl.transformer.", layer=-1, final_norm=True, length=256, optional=True),
)

_NORMED = Mark(UNET_PREFIX + "joint_blocks.0.x_block.attn.ln_q.weight")


def _sd3(name: str, title: str, marks: tuple[Mark, ...]) -> Family:
    """The row of 3, which 3.5 has too, and norms."""
    return Family(
        name=name,
        title=title,
        marks=(Mark(UNET_PREFIX + "x_embedder.proj.weight"), *marks),
        texts=_SD3_TEXTS,
        prediction="flow",
        latent=LatentSpec(channels=16, scale=1.5305, shift=0.0609),
        native_size=1024,
        network="mmdit",
        shift=ConstantShift(3.0),
        vae=_FLUX_VAE,
        vae_names=("sd3",),
    )


_Z_IMAGE = Family(
    name="zimage",
    title="Z-Image",
    marks=(Mark(_ZIMAGE), Mark(UNET_PREFIX + "cap_embedder.1.weight")),
    texts=(TextRow(kind="qwen3", prefix="text_encoders.qwen3_4b.transformer.model.", layer=-2, final_norm=False),),
    prediction="flow",
    latent=_FLUX_LATENT,
    native_size=1024,
    network="zimage",
    shift=ConstantShift(3.0),
    cfg_scale=1.0,
    steps=9,
    vae=_FLUX_VAE,
    vae_names=("ae", "flux"),
)

FAMILIES: tuple[Family, ...] = (
    _Z_IMAGE,
    replace(_Z_IMAGE, name="zimage-base", title="Z-Image base", called=BASE, cfg_scale=5.0, steps=28),
    replace(
        _flux("flux-fill", "Flux.1 Fill dev", (_GUIDED, Mark(UNET_PREFIX + "img_in.weight", 1, 384)), guidance=30.0),
        conditioning="inpaint",
        strength=1.0,
    ),
    _flux("flux-dev", "Flux.1 dev", (_GUIDED,), guidance=3.5),
    replace(
        _flux("flux-kontext", "Flux.1 Kontext dev", (_GUIDED,), guidance=2.5),
        conditioning="edit",
        called="kontext",
        strength=1.0,
    ),
    replace(_flux("flux-krea", "Flux.1 Krea dev", (_GUIDED,), guidance=4.5), called="krea"),
    replace(_flux("flux-schnell", "Flux.1 schnell", (), guidance=None, words=256), shift=NO_SHIFT, steps=4),
    Family(
        name="chroma",
        title="Chroma",
        marks=(Mark(_FLUX), Mark(UNET_PREFIX + "distilled_guidance_layer.in_proj.weight")),
        texts=(TextRow(kind="t5", prefix=_TEXTS_OF_FLUX[1], layer=-1, final_norm=True, masked=True),),
        prediction="flow",
        latent=_FLUX_LATENT,
        native_size=1024,
        network="chroma",
        shift=_FLUX_SHIFT,
        cfg_scale=3.0,
        vae=_FLUX_VAE,
        vae_names=("ae", "flux"),
    ),
    replace(_sd3("sd35", "Stable Diffusion 3.5", (_NORMED,)), cfg_scale=4.5),
    replace(_sd3("sd35-turbo", "Stable Diffusion 3.5 Turbo", (_NORMED,)), called="turbo", cfg_scale=1.0, steps=4),
    _sd3("sd3", "Stable Diffusion 3", ()),
    *NEWER_FAMILIES,
    Family(
        name="sdxl-inpaint",
        title="SDXL inpainting",
        marks=(_XL_MARK, _takes(9)),
        texts=_XL_TEXTS,
        latent=_XL_LATENT,
        conditioning="inpaint",
        head_dim=64,
        native_size=1024,
    ),
    Family(
        name="sdxl",
        title="SDXL",
        marks=(_XL_MARK,),
        texts=_XL_TEXTS,
        latent=_XL_LATENT,
        head_dim=64,
        native_size=1024,
    ),
    Family(
        name="sdxl-refiner",
        title="SDXL refiner",
        marks=(Mark(_REFINER_G + "ln_final.weight"),),
        texts=_REFINER_TEXTS,
        latent=_XL_LATENT,
        head_dim=64,
        native_size=1024,
    ),
    Family(
        name="sd2-depth",
        title="Stable Diffusion 2 depth",
        marks=(Mark("depth_model.model.pretrained.act_postprocess3.0.project.0.bias"),),
        texts=_SD2_TEXTS,
        conditioning="depth",
        head_dim=64,
        supported=False,
    ),
    Family(
        name="sd2-unclip-l",
        title="Stable Diffusion 2.1 unCLIP-L",
        marks=(Mark(_UNCLIP, 0, 768),),
        texts=_SD2_TEXTS,
        prediction="v",
        conditioning="unclip",
        head_dim=64,
        native_size=768,
        supported=False,
    ),
    Family(
        name="sd2-unclip-h",
        title="Stable Diffusion 2.1 unCLIP-H",
        marks=(Mark(_UNCLIP, 0, 1024),),
        texts=_SD2_TEXTS,
        prediction="v",
        conditioning="unclip",
        head_dim=64,
        native_size=768,
        supported=False,
    ),
    Family(
        name="sd2-inpaint",
        title="Stable Diffusion 2 inpainting",
        marks=(_SD2_MARK, _takes(9)),
        texts=_SD2_TEXTS,
        conditioning="inpaint",
        head_dim=64,
    ),
    Family(name="sd2", title="Stable Diffusion 2", marks=(_SD2_MARK,), texts=_SD2_TEXTS, head_dim=64),
    Family(
        name="sd1-inpaint",
        title="Stable Diffusion 1 inpainting",
        marks=(_takes(9),),
        texts=_SD1_TEXTS,
        conditioning="inpaint",
        heads=8,
    ),
    Family(
        name="sd1-edit",
        title="InstructPix2Pix",
        marks=(_takes(8),),
        texts=_SD1_TEXTS,
        conditioning="edit",
        heads=8,
    ),
    Family(
        name="altdiffusion",
        title="AltDiffusion",
        marks=(Mark("cond_stage_model.roberta.embeddings.word_embeddings.weight"),),
        supported=False,
    ),
    Family(name="sd1", title="Stable Diffusion 1", marks=(), texts=_SD1_TEXTS, heads=8),
)


def family_of(header: Mapping[str, tuple[int, ...]]) -> Family:
    """The first family all of whose marks are in the file."""
    return next(family for family in FAMILIES if all(mark.holds(header) for mark in family.marks))


def family_called(family: Family, name: str) -> Family:
    """Of families whose files have the same tensors, the one that a model's name tells."""
    alike = (each for each in FAMILIES if each.called and each.marks == family.marks)
    return next((each for each in alike if re.search(each.called, name.lower())), family)


# What a network sees beside the latent: a mask and the masked picture, the picture, its depth.
_BESIDE_LATENT: Mapping[Conditioning, int] = {"text": 0, "inpaint": 5, "edit": 4, "depth": 1, "unclip": 0}
_SHORT_MIDDLES = ("sdxl", "sdxl-inpaint")  # FAM-4: no other family was published without one
_SINUSOID = 256
_SIZES = {"sdxl": 6, "sdxl-inpaint": 6, "sdxl-refiner": 5}  # numbers that follow the pooled text in the vector


def fitting(spec: ModelSpec) -> ModelSpec:
    """The same, if parts that were measured one by one are one model together; otherwise CheckpointError."""
    if not isinstance(spec.denoiser, UNetSpec):
        return _fitting_transformer(spec, spec.denoiser)
    unet, pooled = spec.unet, [text.width for text in spec.texts if text.pooled]
    takes = spec.latent.channels + _BESIDE_LATENT[spec.conditioning]
    context = sum(text.width for text in spec.texts)
    vector = pooled[-1] + _SIZES[spec.family] * _SINUSOID if pooled else 0
    why = None
    if unet.in_channels != takes:
        why = f"its U-Net takes {unet.in_channels} channels, but that of a {spec.title} model takes {takes}"
    elif unet.middle_depth is None and spec.family not in _SHORT_MIDDLES:
        why = f"middle_block.1 and middle_block.2 are missing, without which no {spec.title} model works"
    elif unet.context_dim != context:
        why = f"its U-Net attends to texts {unet.context_dim} wide, but its text encoders make {context}"
    elif (unet.adm_channels or 0) != vector:
        has = unet.adm_channels or 0
        why = f"its U-Net takes {has} numbers beside the text, but that of a {spec.title} model takes {vector}"
    if why is not None:
        raise CheckpointError(f"{why}: use another file")
    return spec


def _fitting_transformer(spec: ModelSpec, network: TransformerSpec) -> ModelSpec:
    why = None
    takes = spec.latent.channels + (spec.latent.factor**2 + spec.latent.channels) * (spec.conditioning == "inpaint")
    if network.in_channels != takes:
        why = f"its transformer takes {network.in_channels} channels, but that of a {spec.title} model takes {takes}"
    elif (widths := tuple(text.width for text in spec.texts)) != network.text_widths[: len(widths)]:
        why = f"its transformer reads texts {network.text_widths} wide, but its text encoders make {widths}"
    if why is not None:
        raise CheckpointError(f"{why}: use another file")
    return spec


SD1_SPEC = ModelSpec(
    family="sd1",
    title="Stable Diffusion 1",
    denoiser=UNetSpec(
        in_channels=4,
        model_channels=320,
        channel_mult=(1, 2, 4, 4),
        num_res_blocks=2,
        input_depths=(1, 1, 1, 1, 1, 1, 0, 0),
        middle_depth=1,
        output_depths=(0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1),
        heads=8,
        context_dim=768,
        linear_projections=False,
    ),
    vae=AutoencoderSpec(channels=128, channel_mult=(1, 2, 4, 4), num_res_blocks=2),
    texts=(
        TextSpec(
            kind="clip",
            prefix=_CLIP,
            width=768,
            layers=12,
            heads=12,
            inner=3072,
            vocabulary=49408,
            positions=77,
            activation="quick_gelu",
            layer=-1,
            final_norm=True,
            follows_skip=True,
            pooled=False,
        ),
    ),
    prediction="eps",
    latent=LatentSpec(),
    conditioning="text",
)
