"""The product at its work: what evaluation and sheets look at is painted by the engine at its own defaults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from overpaint.engine import Engine, stages_of
from overpaint.request import Img2ImgRequest, PaintRequest, Txt2ImgRequest
from training.denoiser import LEVELS, signal_shares
from training.words import tokens

Pixels = NDArray[np.uint8]  # (n, h, w, 3)
_BATCH = 16


class Painter:
    """An engine with one checkpoint. Picture i of a series has the seed `seed + i`; `said` are request fields."""

    def __init__(self, checkpoint: Path, device: str = "cpu") -> None:
        self._engine = Engine(checkpoint, device)
        self._backend, self.spec = stages_of(self._engine).backend, self._engine.spec
        self._scale = self.spec.latent.scale

    def from_nothing(self, prompts: Sequence[str], size: int, seed: int = 0, **said: Any) -> Pixels:
        def ask(part: slice, common: dict[str, Any]) -> Txt2ImgRequest:
            return Txt2ImgRequest(width=size, height=size, **common, **said)

        return self._paint(prompts, seed, ask)

    def over(self, sources: Pixels, prompts: Sequence[str], seed: int = 0, **said: Any) -> Pixels:
        def ask(part: slice, common: dict[str, Any]) -> PaintRequest:
            return Img2ImgRequest(images=pictures_of(sources[part]), **common, **said)

        return self._paint(prompts, seed, ask)

    def inside(self, masks: Pixels, sources: Pixels, prompts: Sequence[str], seed: int = 0, **said: Any) -> Pixels:
        """Each with a mask of its own (n, h, w), 255 where it is painted over."""
        painted = [
            self.over(source[None], [prompt], seed + i, mask=Image.fromarray(mask), **said)
            for i, (mask, source, prompt) in enumerate(zip(masks, sources, prompts, strict=True))
        ]
        return np.concatenate(painted)

    def _paint(self, prompts: Sequence[str], seed: int, ask: Callable[[slice, dict[str, Any]], PaintRequest]) -> Pixels:
        painted: list[NDArray[np.uint8]] = []
        for start in range(0, len(prompts), _BATCH):
            part = slice(start, start + _BATCH)
            own = tuple(prompts[part])
            seeds = tuple(range(seed + start, seed + start + len(own)))
            request = ask(part, {"prompt": own, "seed": seeds, "batch_size": len(own)})
            painted += [np.asarray(each.convert("RGB")) for each in self._engine.paint(request).images]
        return np.stack(painted)

    @torch.inference_mode()
    def through_codec(self, pictures: Pixels) -> Pixels:
        """What is left of them when nothing is painted."""
        parts = [pictures[start : start + _BATCH] for start in range(0, len(pictures), _BATCH)]
        return np.concatenate([self._decoded(self._encoded(part)) for part in parts])

    def _encoded(self, pictures: Pixels) -> torch.Tensor:
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        return self._backend.encode(pixels.to(self._backend.device))[0] * self._scale

    def _decoded(self, latents: torch.Tensor) -> Pixels:
        pixels = self._backend.decode(latents / self._scale).clamp(-1, 1)
        values: Pixels = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return values

    @torch.inference_mode()
    def first_guesses(self, pictures: Pixels, prompts: Sequence[str], seed: int) -> float:
        """The mean squared error of pictures' latents as guessed from pure noise and their prompts."""
        known, share = self._encoded(pictures), float(signal_shares()[-1])
        noise = torch.randn(known.shape, generator=torch.Generator().manual_seed(seed)).to(known.device)
        context = self._backend.text(0, torch.from_numpy(tokens(prompts)).to(known.device)).tokens
        if self.spec.is_flow:
            velocity = self._backend.denoise(noise, torch.ones(len(known), device=known.device), context)
            return float((noise - velocity - known).pow(2).mean())
        noisy = known * share**0.5 + noise * (1 - share) ** 0.5
        eps = self._backend.denoise(noisy, torch.full((len(known),), LEVELS - 1.0, device=known.device), context)
        guess = (noisy - eps * (1 - share) ** 0.5) / share**0.5
        return float((guess - known).pow(2).mean())


def pictures_of(pixels: Pixels) -> tuple[Image.Image, ...]:
    return tuple(Image.fromarray(each) for each in pixels)
