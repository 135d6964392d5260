"""The shapes of a model's networks as frozen values, and what a row of the table of families says. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeAlias

from overpaint.errors import CheckpointError
from overpaint.models.shifts import NO_SHIFT, Shift
from overpaint.models.vision_specs import Eyes, VisionSpec

if TYPE_CHECKING:
    from torch import Tensor

Prediction = Literal["eps", "v", "flow"]
Conditioning = Literal["text", "inpaint", "edit", "depth", "unclip"]
TextKind = Literal["clip", "openclip", "qwen3", "qwen3_stacked", "qwen25", "qwen25_edit", "t5"]
Activation = Literal["quick_gelu", "gelu"]
NetworkKind = Literal["unet", "zimage", "flux", "chroma", "mmdit", "qwen_image", "flux2"]
CodecKind = Literal["kl", "wan"]
Source = Literal["weights", "metadata", "sidecar", "file name", "family default", "probe"]

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
    time_factor: float = 1.0  # on the time it is told

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
    quant_convs: bool = True  # a 1x1 convolution on either side of the latents
    kind: CodecKind = "kl"
    patch: int = 1  # latents are patches with so many of its cells a side, by their statistics

    def speaks_as(self, other: AutoencoderSpec) -> bool:
        """Whether it may stand in for the other: its latents are of the same form."""
        own, theirs = ((each.kind, each.latent_channels, each.patch) for each in (self, other))
        return own == theirs


@dataclass(frozen=True, kw_only=True)
class ZImageSpec:
    """The transformer of Z-Image (arXiv:2511.22699): one stream of cells and words, after two short ones apart."""

    in_channels: int
    width: int
    layers: int
    refiner_layers: int
    heads: int
    inner: int
    context_dim: int
    time_width: int  # of the embedded time, and inside the layers that embed it
    time_inner: int
    axes: tuple[int, int, int]  # numbers of a head that turn with a word's place, a row, a column
    patch: int = 2  # cells a side that become one token
    network: ClassVar[NetworkKind] = "zimage"

    @property
    def text_widths(self) -> tuple[int, ...]:
        """Of the text encoders beside it, in the order of the family's row."""
        return (self.context_dim,)


@dataclass(frozen=True, kw_only=True)
class FluxSpec:
    """The transformer of Flux.1: words and cells beside each other in the first blocks, then one stream."""

    in_channels: int
    out_channels: int = 16
    width: int
    double_blocks: int
    single_blocks: int
    heads: int
    inner: int
    context_dim: int
    pooled_dim: int
    guided: bool  # told how closely to follow the text, instead of being asked about a negative one, too
    axes: tuple[int, int, int]  # numbers of a head that turn with the picture, a row, a column
    patch: int = 2
    network: ClassVar[NetworkKind] = "flux"

    @property
    def text_widths(self) -> tuple[int, ...]:
        return (self.pooled_dim, self.context_dim)


@dataclass(frozen=True, kw_only=True)
class ChromaSpec:
    """The transformer of Chroma: Flux.1's blocks, which are told of the time by one small network."""

    in_channels: int
    out_channels: int = 16
    width: int
    double_blocks: int
    single_blocks: int
    heads: int
    inner: int
    context_dim: int
    told: int  # numbers that go into the small network,
    told_width: int
    told_layers: int
    axes: tuple[int, int, int]
    patch: int = 2
    network: ClassVar[NetworkKind] = "chroma"

    @property
    def text_widths(self) -> tuple[int, ...]:
        return (self.context_dim,)


@dataclass(frozen=True, kw_only=True)
class MmditSpec:
    """The transformer of Stable Diffusion 3 and 3.5 (arXiv:2403.03206)."""

    in_channels: int
    width: int
    blocks: int
    dual_blocks: int  # the first ones, in which cells also attend to cells alone
    heads: int
    inner: int
    context_dim: int
    vector_dim: int
    normed: bool  # queries and keys
    side: int  # of the largest map, in tokens
    patch: int = 2
    network: ClassVar[NetworkKind] = "mmdit"

    @property
    def text_widths(self) -> tuple[int, ...]:
        """NOTE: the two CLIPs make one vector; of its numbers, 2048 in all published files, the smaller has 768."""
        small = self.vector_dim * 3 // 8
        return (small, self.vector_dim - small, self.context_dim)


@dataclass(frozen=True, kw_only=True)
class QwenImageSpec:
    """The transformer of Qwen-Image (arXiv:2508.02324)."""

    in_channels: int
    out_channels: int
    width: int
    blocks: int
    heads: int
    inner: int
    context_dim: int
    axes: tuple[int, int, int]  # numbers of a head that turn with the picture, a row, a column
    clean_pictures: bool = False  # what it looks at is without noise, and it is told so
    patch: int = 2
    network: ClassVar[NetworkKind] = "qwen_image"

    @property
    def text_widths(self) -> tuple[int, ...]:
        return (self.context_dim,)


@dataclass(frozen=True, kw_only=True)
class Flux2Spec:
    """The transformer of Flux.2: that of Flux.1, with what the time says shared by all blocks."""

    in_channels: int
    width: int
    double_blocks: int
    single_blocks: int
    heads: int
    inner: int
    context_dim: int
    axes: tuple[int, int, int, int]  # numbers of a head that turn with the picture, a row, a column, a word
    states: int  # layers of its text encoder that it reads, side by side
    patch: int = 1
    network: ClassVar[NetworkKind] = "flux2"

    @property
    def text_widths(self) -> tuple[int, ...]:
        return (self.context_dim // self.states,)


TransformerSpec: TypeAlias = ZImageSpec | FluxSpec | ChromaSpec | MmditSpec | QwenImageSpec | Flux2Spec
DenoiserSpec: TypeAlias = UNetSpec | TransformerSpec


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
    positions: int = 0  # 0: any number, for its places are angles
    activation: Activation = "gelu"
    layer: int  # index into [embeddings, after block 1, ..., after the last block]
    final_norm: bool
    follows_skip: bool = False  # a request's CLIP skip moves the layer
    pooled: bool = False
    projected: bool = False  # a CLIP in Hugging Face's names: its pooled vector goes through one more layer
    as_tokens: bool = True  # a vector for each token is read; else the pooled one alone
    length: int = 0  # a text that is read whole is filled up, or cut, to so many tokens; 0: it is as long as it is
    masked: bool = False  # what fills a text up is not looked at
    key_heads: int = 0  # where several heads share their keys; 0: each has its own
    head_dim: int = 0  # where heads are wider or narrower than their share of the width
    tokenizer: str = ""  # the file of its vocabulary, where that is not part of this package
    unread: int = 0  # tokens at the start that only tell the encoder what to do; nothing else reads them
    states: tuple[int, ...] = ()  # layers that are read side by side, instead of one
    vision: VisionSpec | None = None  # with which it looks at pictures, where the family shows it any


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a checkpoint is, and how each fact was known."""

    family: str
    title: str
    denoiser: DenoiserSpec
    vae: AutoencoderSpec
    texts: tuple[TextSpec, ...]
    prediction: Prediction
    latent: LatentSpec
    conditioning: Conditioning
    native_size: int = 512  # the side of the pictures it was trained on
    facts: Mapping[str, Source] = field(default_factory=dict)
    shift: Shift = NO_SHIFT  # of a flow model's levels of noise
    cfg_scale: float | None = None  # this and the next two: where nothing is asked; None: as Stable Diffusion
    strength: float | None = None
    steps: int | None = None
    guidance: float | None = None  # of a model that is told how closely to follow the text; None: it is not
    blank_words: int = 0  # zeros in the place of a text encoder that may be missing, and is
    keeps_length: bool = False  # guidance turns what each token predicts, and does not lengthen it
    in_files: Mapping[str, int] = field(default_factory=dict, compare=False)  # of a flow model: bytes of each part

    @property
    def is_sdxl(self) -> bool:
        return self.family.startswith("sdxl")

    @property
    def is_flow(self) -> bool:
        return self.prediction == "flow"

    @property
    def sees_pictures(self) -> bool:
        """Whether it edits what it is shown: the source, if there is one, and any number of references."""
        return self.conditioning == "edit" and not self.has_unet

    @property
    def has_unet(self) -> bool:
        """Whether it is built as Stable Diffusion 1, 2 and XL are, whatever it predicts."""
        return isinstance(self.denoiser, UNetSpec)

    @property
    def vision(self) -> VisionSpec | None:
        """With which its text encoder looks at the same pictures."""
        return next((each.vision for each in self.texts if each.vision is not None), None)

    def tokens(self, latent_size: tuple[int, int]) -> int:
        """How many tokens a transformer makes of a latent; a U-Net makes none."""
        if isinstance(self.denoiser, UNetSpec):
            return 0
        wide, high = (-(-side // self.denoiser.patch) for side in latent_size)
        return wide * high

    @property
    def transformer(self) -> TransformerSpec:
        """The denoiser of flow families."""
        assert not isinstance(self.denoiser, UNetSpec)
        return self.denoiser

    @property
    def unet(self) -> UNetSpec:
        """The denoiser of the families that have a U-Net; for what is made for U-Nets only."""
        if not isinstance(self.denoiser, UNetSpec):
            raise CheckpointError(f"a {self.title} model has no U-Net; choose a Stable Diffusion 1, 2 or XL checkpoint")
        return self.denoiser


class Origin(NamedTuple):
    """Which tensors of a file make one of ours: several stand one below the other, a swapped one has its halves so."""

    keys: tuple[str, ...]
    swapped: bool = False


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
    projected: bool = False
    as_tokens: bool = True
    length: int = 0
    masked: bool = False
    optional: bool = False  # without it, zeros take the place of its words
    unread: int = 0
    states: tuple[int, ...] = ()
    head_dim: int = 64
    eyes: Eyes | None = None

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
    network: NetworkKind = "unet"
    shift: Shift = NO_SHIFT
    cfg_scale: float | None = None  # this and the next two: where nothing is asked; None: as Stable Diffusion
    strength: float | None = None
    steps: int | None = None
    guidance: float | None = None  # the same of a scale that the network is told; None: it is told none
    keeps_length: bool = False
    clean_pictures: bool = False
    vae: AutoencoderSpec | None = None  # of published files, for those that bring none; None: Stable Diffusion's
    called: str = ""  # a pattern in its files' names that tells it from the family before it, whose shapes it has
    vae_names: tuple[str, ...] = ()  # what its VAE's file is called; others of its shape are of other families

    @property
    def sees_pictures(self) -> bool:
        return self.conditioning == "edit" and self.prediction == "flow"
