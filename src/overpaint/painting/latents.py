"""Pictures to latents and back: encoding, masked content, image conditioning, decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from overpaint.errors import SamplingError
from overpaint.painting.noise import ImageNoise
from overpaint.planning.plans import ImagePlan, Plan
from overpaint.request import MaskedContent, Picture, ResizeMode

if TYPE_CHECKING:
    from overpaint.backends.port import VaeFallback


class Codec(Protocol):
    """The autoencoder, as much of it as is needed here."""

    @property
    def device(self) -> torch.device: ...

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]: ...

    def decode(self, z: Tensor, fallback: VaeFallback | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Prepared:
    """Tensors of a job that all its batches share."""

    latents: Tensor  # (batch, 4, h/8, w/8), before masked content is replaced
    nmask: Tensor | None  # (4, h/8, w/8), 1 = repaint
    image_conditioning: Tensor | None  # (batch, k, h/8, w/8)
    references: tuple[Tensor, ...] = ()  # (1, channels, any h, any w), the same for every picture


def prepare(plan: Plan, codec: Codec, generator: torch.Generator | None = None) -> Prepared:
    """Encode the sources (ENC-1 to ENC-7), make the latent mask (LAT-1) and the image conditioning (COND)."""
    if generator is None:
        generator = torch.Generator().manual_seed(plan.images[0].seed % 2**63 if plan.images else 0)
    batch = plan.places
    latents = _encode_sources(plan, codec, batch, generator) if plan.canvases else empty_latents(plan, codec, batch)
    nmask = None
    if plan.mask is not None:
        mask = torch.from_numpy(plan.mask.latent).to(codec.device)
        nmask = mask.expand(plan.spec.latent.channels, -1, -1).contiguous()
    if plan.mask is not None and plan.request.masked_content is MaskedContent.NOISE:
        # ENC-5: making the fill noise re-seeds what later draws come from
        generator.manual_seed(plan.batches[0][-1].seed % 2**63)
    conditioning = _image_conditioning(plan, codec, batch, generator)
    return Prepared(latents, nmask, conditioning, encoded_references(plan, codec))


def encoded_references(plan: Plan, codec: Codec) -> tuple[Tensor, ...]:
    """The pictures that an edit model looks at beside the source."""
    pictures = (pixels_of(each.encoded, codec.device) for each in plan.references)
    return tuple(plan.spec.latent.scaled(codec.encode(each)[0].float()) for each in pictures)


def batch_latents(plan: Plan, prepared: Prepared, batch: Sequence[ImagePlan]) -> Tensor:
    """The latents one batch starts from, with its masked content (LAT-4, LAT-5)."""
    latents = at_places(prepared.latents, batch)
    content = plan.request.masked_content
    if prepared.nmask is None or content in (MaskedContent.ORIGINAL, MaskedContent.FILL):
        return latents
    latents = latents * (1 - prepared.nmask)
    if content is MaskedContent.NOTHING:
        return latents
    chosen = plan.batches[0][: len(batch)] if plan.settings.quirks.reuse_first_fill_noise else batch
    shape = (latents.shape[1], latents.shape[2], latents.shape[3])
    source = plan.settings.randn_source
    noise = [ImageNoise(each.seed, shape, source=source, device=latents.device).first() for each in chosen]
    return latents + torch.stack(noise) * prepared.nmask


def at_places(values: Tensor, batch: Sequence[ImagePlan]) -> Tensor:
    """Those of an iteration's values that belong to a batch; mostly all of them, in order."""
    places = [each.place for each in batch]
    return values[: len(places)] if places == list(range(len(places))) else values[places]


def of_batch(references: Sequence[Tensor], batch: Sequence[ImagePlan]) -> tuple[Tensor, ...]:
    """The references, for each picture of a batch."""
    return tuple(each.expand(len(batch), -1, -1, -1) for each in references)


def empty_latents(plan: Plan, codec: Codec, batch: int) -> Tensor:
    """What a job without a source starts from, before the noise."""
    wide, high = plan.geometry.latent_size
    return torch.zeros(batch, plan.spec.latent.channels, high, wide, device=codec.device)


def decode(plan: Plan, codec: Codec, latents: Tensor) -> list[np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]]:
    """Latents to 8-bit pictures, each decoded alone (DEC-1 to DEC-3)."""
    settings = plan.settings
    fallback: VaeFallback | None = "float32" if settings.auto_vae_precision else None
    fallback = "bfloat16" if settings.auto_vae_precision_bfloat16 else fallback  # DEC-2
    unscaled = plan.spec.latent.unscaled
    return [_to_bytes(plan, codec.decode(unscaled(each[None]), fallback)[0]) for each in latents]


def pixels_of(picture: Picture, device: torch.device) -> Tensor:
    """An RGB picture as (1, 3, height, width) in -1..1."""
    values = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(values * 2 - 1).permute(2, 0, 1)[None].to(device)


def _to_bytes(plan: Plan, pixels: Tensor) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    values = torch.clamp((pixels.float() + 1) / 2, 0, 1).permute(1, 2, 0).cpu().numpy() * np.float32(255)
    if not plan.settings.quirks.truncate_pixels:
        values = np.rint(values)
    return values.astype(np.uint8)


def _encode_sources(plan: Plan, codec: Codec, batch: int, generator: torch.Generator) -> Tensor:
    """One latent for every place of the batch; equal sources are encoded once."""
    posteriors = [codec.encode(pixels_of(each.encoded, codec.device)) for each in plan.canvases]
    places = [posteriors[i % len(posteriors)] for i in range(batch)]
    samples = plan.settings.quirks.sample_posterior
    drawn: list[Tensor] = []
    for i, (mean, logvar) in enumerate(places):
        if samples and (plan.settings.quirks.encode_each_copy or i < len(posteriors)):
            drawn.append(sampled(mean, logvar, generator))
        else:
            drawn.append(drawn[i % len(posteriors)] if samples else mean.float())
    if plan.request.resize_mode is ResizeMode.LATENT and (plan.mask is None or plan.mask.crop is None):
        wide, high = plan.geometry.latent_size  # one by one, for they may be of different sizes
        drawn = [F.interpolate(each, size=(high, wide), mode="bilinear", align_corners=False) for each in drawn]
    return plan.spec.latent.scaled(torch.cat(drawn))


def sampled(mean: Tensor, logvar: Tensor, generator: torch.Generator) -> Tensor:
    """ENC-2: mean + std * eps, with eps from a CPU stream of its own (never torch's global one)."""
    eps = torch.randn(mean.shape, generator=generator).to(mean.device)
    std = torch.exp(torch.clamp(logvar.float(), -30, 20) / 2)
    return mean.float() + std * eps


def _image_conditioning(plan: Plan, codec: Codec, batch: int, generator: torch.Generator) -> Tensor | None:
    """What inpainting and edit networks see of the source beside the latent (COND-1 to COND-3)."""
    if plan.spec.conditioning == "inpaint" and not plan.canvases:
        return hidden_everything(plan, codec, batch, generator)
    if plan.spec.conditioning == "edit" and plan.canvases:
        means = [codec.encode(pixels_of(each.encoded, codec.device))[0].float() for each in plan.canvases]
        means = [_to_latent_size(plan, each, "bilinear") for each in means]
        if plan.spec.sees_pictures:  # InstructPix2Pix was trained with what the codec says, as it says it
            means = [plan.spec.latent.scaled(each) for each in means]
        return torch.cat([means[i % len(means)] for i in range(batch)])
    if plan.spec.conditioning == "inpaint":
        return _inpaint_conditioning(plan, codec, batch, generator)
    return None


def _inpaint_conditioning(plan: Plan, codec: Codec, batch: int, generator: torch.Generator) -> Tensor:
    """COND-3: the mask, and the latent of the picture with the masked part grayed out."""
    rounds = plan.request.round_mask or plan.spec.is_sdxl
    sources = torch.cat([pixels_of(each.encoded, codec.device) for each in plan.canvases])  # (n, 3, H, W)
    mask = torch.ones(1, 1, *sources.shape[2:], device=codec.device)
    if plan.mask is not None:
        gray = np.asarray(plan.mask.pixel.convert("L"), dtype=np.float32) / 255
        mask = torch.from_numpy(gray)[None, None].to(codec.device)
        mask = torch.round(mask) if rounds else mask
    if mask.shape[2:] != sources.shape[2:]:
        if plan.settings.quirks.latent_resize_fills_mask:
            _refuse_sizes(plan, sources, mask)
        mask = F.interpolate(mask, size=sources.shape[2:], mode="nearest")
    hidden = torch.lerp(sources, sources * (1 - mask), plan.settings.inpainting_mask_weight)
    return hidden_source(plan, codec, hidden, mask, batch, generator)


def hidden_source(
    plan: Plan, codec: Codec, hidden: Tensor, mask: Tensor, batch: int, generator: torch.Generator
) -> Tensor:
    """The channels of an inpainting network: the mask (1, 1, H, W), and the latents of pictures (n, 3, H, W)."""
    encoded = [codec.encode(each[None]) for each in hidden]
    places = [encoded[i % len(encoded)] for i in range(batch)]
    mean, logvar = (torch.cat(each) for each in zip(*places, strict=True))
    latents = sampled(mean, logvar, generator) if plan.settings.quirks.sample_posterior else mean.float()
    latents = _to_latent_size(plan, plan.spec.latent.scaled(latents), "bilinear")
    if not plan.spec.has_unet:
        return torch.cat([latents, _mask_in_cells(plan, mask, latents).expand(batch, -1, -1, -1)], dim=1)
    small = F.interpolate(mask, size=latents.shape[2:], mode="nearest").expand(batch, -1, -1, -1)
    return torch.cat([small, latents], dim=1)


def _mask_in_cells(plan: Plan, mask: Tensor, latents: Tensor) -> Tensor:
    """What Flux.1 Fill sees of a mask: each of its pixels, those under one cell as its channels (1, 64, h, w)."""
    factor = plan.spec.latent.factor
    high, wide = (side * factor for side in latents.shape[2:])
    if mask.shape[2:] != (high, wide):
        mask = F.interpolate(mask, size=(high, wide), mode="nearest")
    return F.pixel_unshuffle(mask, factor)


def hidden_everything(plan: Plan, codec: Codec, batch: int, generator: torch.Generator) -> Tensor:
    """What an inpainting network sees where everything is to be painted: a full mask over plain gray."""
    wide, high = plan.geometry.covered
    gray = torch.zeros(1, 3, high, wide, device=codec.device)
    return hidden_source(plan, codec, gray, torch.ones_like(gray[:, :1]), batch, generator)


def _refuse_sizes(plan: Plan, sources: Tensor, mask: Tensor) -> None:
    high, wide = sources.shape[2:]
    raise SamplingError(
        f"resize_mode='latent': this inpainting model needs the picture ({wide}x{high}) at the size of the pass "
        f"({mask.shape[3]}x{mask.shape[2]}); choose another resize_mode, or give a picture of that size"
    )


def _to_latent_size(plan: Plan, latents: Tensor, mode: str) -> Tensor:
    wide, high = plan.geometry.latent_size
    if latents.shape[2:] == (high, wide):
        return latents
    return F.interpolate(latents, size=(high, wide), mode=mode, align_corners=False)
