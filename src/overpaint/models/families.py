"""What a checkpoint can be: the shapes of its networks as frozen values, and the table of model families.

Adding a family is adding a row. Rows are tried from top to bottom; the first whose marks all hold wins (FAM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Prediction = Literal["eps", "v"]
Conditioning = Literal["text", "inpaint", "edit", "depth", "unclip"]
TextKind = Literal["clip", "openclip"]
Activation = Literal["quick_gelu", "gelu"]
Source = Literal["weights", "metadata", "sidecar", "family default", "probe"]

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
LATENT_FACTOR = 8


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
    scale_factor: float
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
    scale_factor: float = 0.18215
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
        scale_factor=0.13025,
        conditioning="inpaint",
        head_dim=64,
        native_size=1024,
    ),
    Family(
        name="sdxl",
        title="SDXL",
        marks=(_XL_MARK,),
        texts=_XL_TEXTS,
        scale_factor=0.13025,
        head_dim=64,
        native_size=1024,
    ),
    Family(
        name="sdxl-refiner",
        title="SDXL refiner",
        marks=(Mark(_REFINER_G + "ln_final.weight"),),
        texts=_REFINER_TEXTS,
        scale_factor=0.13025,
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
    scale_factor=0.18215,
    conditioning="text",
)
