"""Typed keywords: the fields of a request as they may be given. For type checkers alone.

Written by docs/generate.py from the request's fields and docs/meanings.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from typing_extensions import Required

    from overpaint.parts import Blend, ControlUnit, Hires, Lora, SoftInpainting
    from overpaint.request import MaskedContent, ResizeMode
    from overpaint.taking import PictureLike


class _BothOptions(TypedDict, total=False):
    """Of both kinds of job."""

    negative_prompt: str | list[str] | tuple[str, ...]
    """What not to paint. A list has one text per picture."""

    styles: list[str] | tuple[str, ...]
    """Names of styles, applied in order."""

    width: int | None
    """Width of the result. Left out, it is the source's, or for sources far above the model's native size less;
    without a source it is that native size. None: the source's own size.
    """

    height: int | None
    """Height of the result."""

    references: PictureLike | Sequence[PictureLike]
    """Of any size, in Python and in manifests perhaps as paths; only models such as Flux.1 Kontext look at any. What
    an edit model looks at beside the source.
    """

    seed: int | list[int] | tuple[int, ...]
    """Where the noise comes from; -1 means a new one. A list has one per picture."""

    variation_seed: int | list[int] | tuple[int, ...]
    """A second seed to mix in; -1 means a new one."""

    variation_strength: float
    """How much of it."""

    seed_resize: tuple[int, int] | None
    """Compose as the seed did at another size. (width, height) the seed was found at."""

    sampler: str
    """The sampler, by name or alias; see samplers.md."""

    scheduler: str
    """The noise schedule, by name or alias; see samplers.md."""

    steps: int | None
    """Steps at full strength; img2img runs `strength` of them. None: the model's own, which often is 20."""

    cfg_scale: float | None
    """How closely to follow the prompt. None: the model's own, which often is 7."""

    guidance: float | None
    """How closely to follow the prompt, as a network is told that was made for it (Flux.1 dev). Told to networks
    that are made for it, such as Flux.1 dev; None: the family's own.
    """

    eta: float | None
    """Noise that ancestral samplers and DDIM add."""

    s_churn: float | None
    """Noise churned in by Euler, Heun and DPM2."""

    s_tmin: float | None
    """Smallest sigma that is churned."""

    s_tmax: float | None
    """Largest sigma that is churned."""

    s_noise: float | None
    """Factor on noise added while sampling."""

    s_min_uncond: float | None
    """Below this sigma the negative prompt is left out of every second step."""

    noise_multiplier: float | None
    """Factor on the noise laid over the source."""

    tiling: bool | None
    """A picture that repeats without a seam."""

    clip_skip: int | None
    """Which layer of the text encoder is read, counted from the last."""

    loras: list[Lora] | tuple[Lora, ...]
    """LoRAs and their kin, see below. Beside those that the prompt's tags name."""

    use_networks: bool
    """Apply the prompt's `<lora:...>` tags. False: the prompt's tags are read and left out."""

    controls: list[ControlUnit] | tuple[ControlUnit, ...]
    """ControlNets and the pictures they follow, see below."""

    refiner: str | None
    """A title, hash or file name. Another checkpoint for the last part of the steps."""

    refiner_switch_at: float | None
    """When it does, as a fraction of the way. None: 0.8."""

    overrides: Mapping[str, Any]
    """Options, see settings.md. Option name -> value, for this job."""

    exact: bool
    """Neighbours in a batch cannot change a bit of a picture. Never share a network call between pictures."""


class Img2ImgOptions(_BothOptions, total=False):
    """What img2img takes beside its own parameters."""

    strength: float | None
    """How much may change; 0 gives the source back, 1 keeps only a hint of it. None: the model's own, which often is
    0.75.
    """

    resize_mode: ResizeMode | Literal["stretch", "crop", "fill", "latent"]
    """How a source of another shape becomes that size."""

    latent_mask: PictureLike | None
    """A second mask for the latents alone, where it shall differ from the one that composites."""

    invert_mask: bool
    """Paint what the mask leaves black."""

    mask_blur_x: int
    """How soft the mask's edge is, sideways, in pixels."""

    mask_blur_y: int
    """How soft the mask's edge is, up and down."""

    round_mask: bool
    """Read gray as black or white; off keeps it for soft inpainting."""

    only_masked: bool
    """Paint the mask's surroundings at full size and paste them back."""

    padding: int
    """Pixels round the mask that `only_masked` shows the network."""

    masked_content: MaskedContent | Literal["fill", "original", "noise", "nothing"]
    """What the masked part starts from."""

    soft_inpainting: SoftInpainting | None
    """Let the mask's gray say how much each place may change."""

    strength_map: PictureLike | None
    """A gray picture that says how much of `strength` each place has; white has all of it, black stays. Gray: how
    much of `strength` each place has.
    """

    blend: Blend
    """How the painted part is laid in. `auto` mends colours near the mask's edge, inside it, where that hides the
    seam; `plain` leaves them. Colours near the mask's edge are mended where that hides the seam; "plain":
    never.
    """

    image_cfg_scale: float | None
    """How closely an edit model follows the picture."""

    color_correction: bool | None
    """Give the result the source's colours."""


class Txt2ImgOptions(_BothOptions, total=False):
    """What txt2img takes beside its own parameters."""

    hires: Hires | None
    """A second pass over the picture, enlarged."""


class _Rest(TypedDict, total=False):
    """Parameters of the functions."""

    prompt: str | list[str] | tuple[str, ...]
    """What to paint. A list has one text per picture."""

    checkpoint: str | None
    """The checkpoint this job is for. Title, hash or file name; None: the one in force."""

    batch_size: int
    """Pictures at once."""

    iterations: int
    """Batches, one after another."""


class Txt2ImgFields(Txt2ImgOptions, _Rest, total=False):
    """Of a Txt2ImgRequest."""


class Img2ImgFields(Img2ImgOptions, _Rest, total=False):
    """Of an Img2ImgRequest."""

    images: Required[PictureLike | Sequence[PictureLike]]
    """The source pictures. One serves the whole batch; several serve its places in order."""

    mask: PictureLike | None
    """Where to paint. White, or opaque where it has alpha: repaint."""


class PaintFields(Img2ImgOptions, _Rest, total=False):
    """Of a PaintRequest of either kind."""

    images: PictureLike | Sequence[PictureLike]
    """The source pictures. One serves the whole batch; several serve its places in order."""

    mask: PictureLike | None
    """Where to paint. White, or opaque where it has alpha: repaint."""

    hires: Hires | None
    """A second pass over the picture, enlarged."""
