"""Texts to what the network is guided by: schedules, sub-prompts, chunks, encoding, emphasis; and a cache of it all."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from overpaint.denoise import ImageCond, ScheduledCond, TextCond
from overpaint.models.families import ModelSpec, TextSpec
from overpaint.networks.text import TextEncoding
from overpaint.planning import ImagePlan, Plan
from overpaint.prompt import Segment, parse_attention, schedule, split_and, take_network_tags, uses_emphasis
from overpaint.settings import Settings
from overpaint.tokens import Chunk, Tokenizer, chunk, clip_tokenizer, open_clip_tokenizer, pad_after_end

SINUSOID_WIDTH = 256
_OPTIONS_THAT_COUNT = (
    "emphasis",
    "comma_padding_backtrack",
    "CLIP_stop_at_last_layers",
    "sdxl_crop_top",
    "sdxl_crop_left",
    "sdxl_clip_l_skip",
    "sdxl_refiner_low_aesthetic_score",
    "sdxl_refiner_high_aesthetic_score",
    "quirks",
)


class TextEncoders(Protocol):
    """The text networks of a model."""

    device: torch.device

    def text(
        self, encoder: int, ids: Tensor, *, layer: int | None = None, final_norm: bool | None = None
    ) -> TextEncoding:
        """Token ids (n, 77) to one layer's vectors (n, 77, width), and pooled ones (n, width) if there are any."""
        ...


@dataclass(frozen=True)
class EncodedText:
    """The stages of one text, encoded together."""

    stages: tuple[TextCond, ...]


@dataclass
class TextCache:
    """The latest encoded texts; equal texts under equal options are encoded once."""

    limit: int = 128
    _kept: OrderedDict[tuple[object, ...], EncodedText] = field(default_factory=OrderedDict)

    def get(self, key: tuple[object, ...]) -> EncodedText | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: tuple[object, ...], value: EncodedText) -> None:
        self._kept[key] = value
        while len(self._kept) > self.limit:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        self._kept.clear()


@dataclass(frozen=True)
class Conditioner:
    """The texts of pictures, encoded by one model's text networks under one job's options."""

    spec: ModelSpec
    encoders: TextEncoders
    plan: Plan
    cache: TextCache

    @property
    def settings(self) -> Settings:
        return self.plan.settings

    def images(self, batch: Sequence[ImagePlan]) -> tuple[ImageCond, ...]:
        """What each picture of a batch is guided by."""
        return tuple(ImageCond(self.positive(each.prompt), self.negative(each.negative_prompt)) for each in batch)

    def positive(self, prompt: str) -> tuple[tuple[ScheduledCond, float], ...]:
        """The sub-prompts of a prompt, with their weights (AND-1)."""
        text, _ = take_network_tags(prompt)
        return tuple((self._scheduled(each.text, False), each.weight) for each in split_and(text, self.settings.quirks))

    def negative(self, text: str) -> ScheduledCond:
        return self._scheduled(text, True)

    def empty(self) -> TextCond:
        """The empty text, which padding copies (CFG-7)."""
        return self.encode(("",), negative=False).stages[0]

    def notes(self, batch: Sequence[ImagePlan]) -> dict[str, object]:
        """Infotext fields of the text encoder (ENCODE-2)."""
        emphasized = any(uses_emphasis(text) for each in batch for text in (each.prompt, each.negative_prompt))
        if self.settings.emphasis != "Original" and emphasized:
            return {"Emphasis": self.settings.emphasis}
        return {}

    def encode(self, texts: tuple[str, ...], *, negative: bool) -> EncodedText:
        """All stages of one text at once: they share their number of chunks (ENCODE-1)."""
        settings = self.settings
        size = (self.plan.geometry.width, self.plan.geometry.height) if self.spec.is_sdxl else ()
        key = (texts, negative, size, *(getattr(settings, name) for name in _OPTIONS_THAT_COUNT))
        found = self.cache.get(key)
        if found is None:
            found = self._encode(texts, negative)
            self.cache.put(key, found)
        return found

    def _scheduled(self, text: str, negative: bool) -> ScheduledCond:
        stages = schedule(
            text,
            self.plan.sampler.prompt_steps,
            old_timelines=self.settings.use_old_scheduling,
            quirks=self.settings.quirks,
        )
        texts = tuple(each.text for each in stages)
        return ScheduledCond(stages, self.encode(texts, negative=negative).stages)

    def _encode(self, texts: tuple[str, ...], negative: bool) -> EncodedText:
        contexts: list[Tensor] = []
        pooled: Tensor | None = None
        for which, spec in enumerate(self.spec.texts):
            context, vector = self._run_encoder(which, spec, texts)
            contexts.append(context)
            pooled = vector if vector is not None else pooled
        longest = max(each.shape[1] for each in contexts)
        contexts = [_pad_tokens(each, longest) for each in contexts]
        context = torch.cat(contexts, dim=2)  # (stages, tokens, width)
        if self.spec.unet.adm_channels is None or pooled is None:
            return EncodedText(tuple(TextCond(each) for each in context))
        if negative and all(text == "" for text in texts):  # ENCODE-6
            context, pooled = torch.zeros_like(context), torch.zeros_like(pooled)
        vectors = torch.cat([pooled, self._size_vector(negative).expand(len(texts), -1)], dim=1)
        return EncodedText(tuple(TextCond(each, vector) for each, vector in zip(context, vectors, strict=True)))

    def _run_encoder(self, which: int, spec: TextSpec, texts: tuple[str, ...]) -> tuple[Tensor, Tensor | None]:
        """One encoder over all stages: (stages, 77 * chunks, width), pooled of the first chunk (ENCODE-5)."""
        tokenizer = clip_tokenizer() if spec.kind == "clip" else open_clip_tokenizer()
        chunks = [list(self._chunks(text, tokenizer)) for text in texts]
        count = max(len(each) for each in chunks)
        empty = self._chunks("", tokenizer)[0]
        chunks = [each + [empty] * (count - len(each)) for each in chunks]
        layer, norm = self._layer(spec)
        parts: list[Tensor] = []
        pooled: Tensor | None = None
        for i in range(count):
            column = [each[i] for each in chunks]
            ids = [pad_after_end(each.ids) if spec.kind == "openclip" else each.ids for each in column]
            encoding = self.encoders.text(which, torch.tensor(ids), layer=layer, final_norm=norm)
            parts.append(self._emphasized(encoding.tokens, column))
            pooled = encoding.pooled if pooled is None else pooled
        return torch.cat(parts, dim=1), pooled

    def _chunks(self, text: str, tokenizer: Tokenizer) -> tuple[Chunk, ...]:
        plain = self.settings.emphasis == "None"
        segments = (Segment(text, 1.0),) if plain else parse_attention(text, self.settings.quirks)
        backtrack = self.settings.comma_padding_backtrack
        return chunk(segments, tokenizer, backtrack=backtrack, quirks=self.settings.quirks)[0]

    def _layer(self, spec: TextSpec) -> tuple[int, bool]:
        """Which layer is read (ENCODE-4): CLIP skip counts from the last."""
        skip = self.settings.CLIP_stop_at_last_layers
        if not spec.follows_skip:
            return spec.layer, spec.final_norm
        if self.spec.is_sdxl:
            return (-skip if self.settings.sdxl_clip_l_skip else spec.layer), spec.final_norm
        return -skip, spec.final_norm

    def _emphasized(self, z: Tensor, chunks: Sequence[Chunk]) -> Tensor:
        """ENCODE-2: weigh the tokens, then restore the mean that weighing changed."""
        if self.settings.emphasis not in ("Original", "No norm"):
            return z
        weights = torch.tensor([each.weights for each in chunks], dtype=z.dtype, device=z.device)[..., None]
        if bool((weights == 1).all()):
            return z
        weighted = z * weights
        if self.settings.emphasis == "No norm":
            return weighted
        if self.settings.quirks.shared_emphasis_mean:
            return weighted * (z.mean() / weighted.mean())
        return weighted * (z.mean(dim=(1, 2), keepdim=True) / weighted.mean(dim=(1, 2), keepdim=True))

    def _size_vector(self, negative: bool) -> Tensor:
        """ENCODE-5: the sizes an SDXL network was told in training."""
        settings, geometry = self.settings, self.plan.geometry
        size = [float(geometry.height), float(geometry.width)]
        crop = [float(settings.sdxl_crop_top), float(settings.sdxl_crop_left)]
        if self.spec.family == "sdxl-refiner":
            high, low = settings.sdxl_refiner_high_aesthetic_score, settings.sdxl_refiner_low_aesthetic_score
            numbers = [*size, *crop, low if negative else high]
        else:
            numbers = [*size, *crop, *size]
        return torch.cat([_sinusoid(each) for each in numbers])[None].to(self.encoders.device)


def _sinusoid(value: float) -> Tensor:
    half = SINUSOID_WIDTH // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    angles = value * frequencies
    return torch.cat([torch.cos(angles), torch.sin(angles)])


def _pad_tokens(context: Tensor, length: int) -> Tensor:
    missing = length - context.shape[1]
    return context if missing <= 0 else torch.cat([context, context[:, -1:].expand(-1, missing, -1)], dim=1)
