"""What a checkpoint can be: the shapes of its networks as frozen values, and the table of model families.

Adding a family is adding a row. Rows are tried from top to bottom; the first whose marks all hold wins (FAM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from overpaint.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

Prediction = Literal["eps", "v"]
Conditioning = Literal["text", "inpaint", "edit", "depth", "unclip"]
TextKind = Literal["clip", "openclip"]
Activation = Literal["quick_gelu", "gelu"]
Source = Literal["weights", "metadata", "sidecar", "family default", "probe"]

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."


@dataclass(frozen=True, kw_only=True)
class UNetSpec:
    """The denoising network. A depth is the number of transformer blocks after a residual block; 0 is none."""

    in_channels: int
    out_channels: int = 4
    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    input_depths: tuple[int, ...]  # one per residual block, on the way down
    middle_depth: int | None  # None: the middle is one residual block and nothing else (SSD-1B)
    output_depths: tuple[int, ...]  # one per residual block, on the way up
    heads: int | None = None  # of every attention layer; otherwise head_dim rules
    head_dim: int | None = None
    context_dim: int
    linear_projections: bool
    adm_channels: int | None = None

    def heads_at(self, channels: int) -> int:
        """The number of attention heads of a layer this wide."""
        return self.heads if self.heads is not None else channels // (self.head_dim or channels)


@dataclass(frozen=True, kw_only=True)
class AutoencoderSpec:
    """The picture codec."""

    channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    latent_channels: int = 4


@dataclass(frozen=True, kw_only=True)
class LatentSpec:
    """What a network's latents are: x = scale (z - shift) of the z that the family's codec makes."""

    channels: int = 4
    factor: int = 8  # pixels a side of one cell
    scale: float = 0.18215
    shift: float = 0.0

    def scaled(self, z: Tensor) -> Tensor:
        """The codec's numbers as the network's."""
        return (z - self.shift) * self.scale

    def unscaled(self, x: Tensor) -> Tensor:
        """The network's numbers as the codec's."""
        return x / self.scale + self.shift


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """A text encoder and which of its layers the family reads (ENCODE-4)."""

    kind: TextKind
    prefix: str
    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    activation: Activation
    layer: int  # index into [embeddings, after block 1, ..., after the last block]
    final_norm: bool
    follows_skip: bool  # a request's CLIP skip moves the layer
    pooled: bool


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a checkpoint is, and how each fact was known."""

    family: str
    title: str
    unet: UNetSpec
    vae: AutoencoderSpec
    texts: tuple[TextSpec, ...]
    prediction: Prediction
    latent: LatentSpec
    conditioning: Conditioning
    native_size: int = 512  # the side of the pictures it was trained on
    facts: Mapping[str, Source] = field(default_factory=dict)

    @property
    def is_sdxl(self) -> bool:
        return self.family.startswith("sdxl")


@dataclass(frozen=True)
class Mark:
    """A key that a family's files have, and possibly the size of one of its axes."""

    key: str
    axis: int | None = None
    size: int | None = None

    def holds(self, header: Mapping[str, tuple[int, ...]]) -> bool:
        shape = header.get(self.key)
        if shape is None or self.axis is None:
            return shape is not None
        return len(shape) > self.axis and shape[self.axis] == self.size


@dataclass(frozen=True, kw_only=True)
class TextRow:
    """One text encoder of a family."""

    kind: TextKind
    prefix: str
    layer: int
    final_norm: bool
    follows_skip: bool = False
    pooled: bool = False
    head_dim: int = 64

    @property
    def activation(self) -> Activation:
        return "quick_gelu" if self.kind == "clip" else "gelu"


@dataclass(frozen=True, kw_only=True)
class Family:
    """A row of the table: how to recognise the family, and what its shapes do not say."""

    name: str
    title: str
    marks: tuple[Mark, ...]
    texts: tuple[TextRow, ...] = ()
    prediction: Prediction = "eps"
    latent: LatentSpec = LatentSpec()
    conditioning: Conditioning = "text"
    heads: int | None = None
    head_dim: int | None = None
    native_size: int = 512
    supported: bool = True


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


FAMILIES: tuple[Family, ...] = (
    Family(
        name="sd3",
        title="Stable Diffusion 3",
        marks=(Mark(UNET_PREFIX + "x_embedder.proj.weight"),),
        supported=False,
    ),
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


# What a network sees beside the latent: a mask and the masked picture, the picture, its depth.
_BESIDE_LATENT: Mapping[Conditioning, int] = {"text": 0, "inpaint": 5, "edit": 4, "depth": 1, "unclip": 0}
_SHORT_MIDDLES = ("sdxl", "sdxl-inpaint")  # FAM-4: no other family was published without one
_SINUSOID = 256
_SIZES = {"sdxl": 6, "sdxl-inpaint": 6, "sdxl-refiner": 5}  # numbers that follow the pooled text in the vector


def fitting(spec: ModelSpec) -> ModelSpec:
    """The same, if parts that were measured one by one are one model together; otherwise CheckpointError."""
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


SD1_SPEC = ModelSpec(
    family="sd1",
    title="Stable Diffusion 1",
    unet=UNetSpec(
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
