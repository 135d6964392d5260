"""Texts to what the network is guided by: schedules, sub-prompts, chunks, encoding, emphasis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from overpaint.adapters.embeddings import NO_EMBEDDINGS, Embedding, EmbeddingTable
from overpaint.models.families import ModelSpec, TextSpec
from overpaint.networks.text import TextEncoding, TokenOverride, TokenPicture
from overpaint.painting.guidance import is_led_alone
from overpaint.painting.latents import pixels_of
from overpaint.painting.texts import ImageCond, ScheduledCond, TextCond
from overpaint.planning.plans import ImagePlan, Plan
from overpaint.planning.references import shown_to_text
from overpaint.settings import Settings
from overpaint.text.prompt import (
    ScheduleEntry,
    Segment,
    SubPrompt,
    parse_attention,
    schedule,
    split_and,
    take_network_tags,
    uses_emphasis,
)
from overpaint.text.readings import reading_of
from overpaint.text.tokens import Chunk, TextReading, Tokenizer

SINUSOID_WIDTH = 256


class TextEncoders(Protocol):
    """The text networks of a model."""

    @property
    def device(self) -> torch.device: ...

    def text(
        self,
        encoder: int,
        ids: Tensor,
        *,
        layer: int | None = None,
        final_norm: bool | None = None,
        overrides: Sequence[TokenOverride] = (),
        pictures: Sequence[TokenPicture] = (),
    ) -> TextEncoding:
        """Token ids (n, tokens) to one layer's vectors (n, tokens, width), and pooled ones (n, width) if any."""
        ...


@dataclass(frozen=True)
class EncodedText:
    """The stages of one text, encoded together."""

    stages: tuple[TextCond, ...]


@dataclass(frozen=True)
class Conditioner:
    """The texts of pictures, encoded by one model's text networks under one job's options."""

    spec: ModelSpec
    encoders: TextEncoders
    plan: Plan
    table: EmbeddingTable = NO_EMBEDDINGS
    shown: tuple[Tensor, ...] = ()  # pictures (1, 3, h, w) that texts are read with

    @property
    def settings(self) -> Settings:
        return self.plan.settings

    def images(self, batch: Sequence[ImagePlan]) -> tuple[ImageCond, ...]:
        """What each picture of a batch is guided by; a text that several have is read once."""
        if self.spec.vision is None:
            return self._images(batch)
        canvases = len(self.plan.canvases) or 1
        conds: dict[int, ImageCond] = {}
        for number in range(canvases):  # those of one source together
            own = [i for i, each in enumerate(batch) if each.place % canvases == number]
            if own:
                seeing = replace(self, shown=self._shown(number))
                conds.update(zip(own, seeing._images([batch[i] for i in own]), strict=True))
        return tuple(conds[i] for i in range(len(batch)))

    def _images(self, batch: Sequence[ImagePlan]) -> tuple[ImageCond, ...]:
        positives = {text: self.positive(text) for text in dict.fromkeys(each.prompt for each in batch)}
        if is_led_alone(self.spec, self.plan.sampler):  # nobody asks about a negative text, so it is not read either
            return tuple(ImageCond(positives[each.prompt], positives[each.prompt][0][0]) for each in batch)
        negatives = {text: self.negative(text) for text in dict.fromkeys(each.negative_prompt for each in batch)}
        return tuple(ImageCond(positives[each.prompt], negatives[each.negative_prompt]) for each in batch)

    def _shown(self, place: int) -> tuple[Tensor, ...]:
        """What the text encoder looks at: the source, if there is one, and the references."""
        pictures = [self.plan.canvas_of(place).encoded] if self.plan.canvases else []
        pictures += [each.flattened for each in self.plan.references]
        return tuple(pixels_of(shown_to_text(each, self.spec), self.encoders.device) for each in pictures)

    def positive(self, prompt: str) -> tuple[tuple[ScheduledCond, float], ...]:
        """The sub-prompts of a prompt, with their weights (AND-1)."""
        return tuple((self._scheduled(each.text, False), each.weight) for each in self._sub_prompts(prompt))

    def negative(self, text: str) -> ScheduledCond:
        return self._scheduled(text, True)

    def empty(self) -> TextCond:
        """The empty text, which padding copies (CFG-7)."""
        return self.encode(("",), negative=False).stages[0]

    def notes(self, batch: Sequence[ImagePlan]) -> dict[str, object]:
        """Infotext fields of the text encoder (TI-3, ENCODE-2)."""
        notes: dict[str, object] = {}
        hashes = self._embedding_hashes(batch)
        if hashes and self.settings.textual_inversion_add_hashes_to_infotext:
            notes["TI hashes"] = ", ".join(hashes)
        encoded = (stage.text for text in self._texts(batch) for stage in self._schedule(text))
        if self.settings.emphasis != "Original" and any(map(uses_emphasis, encoded)):  # brackets of editing are gone
            notes["Emphasis"] = self.settings.emphasis
        return notes

    def warnings(self, batch: Sequence[ImagePlan]) -> tuple[str, ...]:
        """Embeddings that a text means perhaps unawares, and those it names in vain."""
        used = dict.fromkeys(each for text in self._texts(batch) for each in self._embeddings_in(text, 0))
        said = [
            f"the word {each.name!r} means the embedding of that name; rename the embedding's file if it should not"
            for each in used
            if self.table.is_ordinary_word(each)
        ]
        missed = (each.reason for text in self._texts(batch) for each in self.table.missed(text))
        return tuple(dict.fromkeys((*said, *missed, *self._cut_off(batch))))

    def _cut_off(self, batch: Sequence[ImagePlan]) -> Iterator[str]:
        """Texts that are longer than what is read of them; those of CLIP have no end."""
        for spec in self.spec.texts:
            reading = reading_of(spec.kind)
            for text in self._texts(batch) if reading.whole else ():
                for stage in self._schedule(text):
                    chunks, count = self._cut(stage.text, reading, spec)
                    read = sum(len(each.ids) for each in chunks)
                    if count > read:
                        yield f"prompt: of its {count} tokens a {self.spec.title} model reads {read}; shorten it"

    def _scheduled(self, text: str, negative: bool) -> ScheduledCond:
        stages = self._schedule(text)
        texts = tuple(each.text for each in stages)
        return ScheduledCond(stages, self.encode(texts, negative=negative).stages)

    def _schedule(self, text: str) -> tuple[ScheduleEntry, ...]:
        """What a text says at each step of this pass."""
        sampler, settings = self.plan.sampler, self.settings
        return schedule(
            text,
            sampler.prompt_steps,
            old_timelines=settings.use_old_scheduling,
            steps_before=sampler.steps_before,
            quirks=settings.quirks,
        )

    def _sub_prompts(self, prompt: str) -> tuple[SubPrompt, ...]:
        return split_and(take_network_tags(prompt)[0], self.settings.quirks)

    def _texts(self, batch: Sequence[ImagePlan]) -> tuple[str, ...]:
        """The texts of a batch in the order in which the reference encodes them, each once (AND-3)."""
        negatives = [each.negative_prompt for each in batch]
        parts = [part.text for each in batch for part in self._sub_prompts(each.prompt)]
        return (*dict.fromkeys(negatives), *dict.fromkeys(parts))

    def _embedding_hashes(self, batch: Sequence[ImagePlan]) -> tuple[str, ...]:
        """TI-3: each encoder of each text adds its embeddings before those that are there."""
        added = [
            self._embeddings_in(text, which) for text in self._texts(batch) for which in range(len(self.spec.texts))
        ]
        shown = self.settings.lora_bundled_ti_to_infotext
        kept = (each for embeddings in reversed(added) for each in embeddings if shown or not each.bundled)
        return tuple(f"{each.name.replace(':', '').replace(',', '')}: {each.tag}" for each in kept)

    def _embeddings_in(self, text: str, which: int) -> tuple[Embedding, ...]:
        """The embeddings that an encoder meets in a text, in the order of its chunks, each once."""
        if not self.table.embeddings or reading_of(self.spec.texts[which].kind).whole:
            return ()
        columns = self._columns(tuple(each.text for each in self._schedule(text)), self.spec.texts[which])
        met = (embedding for column in columns for each in column for _, embedding in _embeddings_of(each))
        return tuple(dict.fromkeys(met))

    def encode(self, texts: tuple[str, ...], *, negative: bool) -> EncodedText:
        """All stages of one text at once: they share their number of chunks (ENCODE-1)."""
        if len(texts) > 1 and any(reading_of(each.kind).whole for each in self.spec.texts):  # of different lengths
            return EncodedText(tuple(self.encode((text,), negative=negative).stages[0] for text in texts))
        read = [self._run_encoder(which, spec, texts) for which, spec in enumerate(self.spec.texts)]
        if not self.spec.has_unet:
            return self._for_transformer(read)
        contexts = [context for context, _ in read]
        pooled = next((vector for _, vector in reversed(read) if vector is not None), None)
        context = _side_by_side(contexts)  # (stages, tokens, width)
        if pooled is None or self.spec.unet.adm_channels is None:
            return EncodedText(tuple(TextCond(each) for each in context))
        if negative and all(text == "" for text in texts):  # ENCODE-6
            context, pooled = torch.zeros_like(context), torch.zeros_like(pooled)
        vectors = torch.cat([pooled, self._size_vector(negative).expand(len(texts), -1)], dim=1)
        return EncodedText(tuple(TextCond(each, vector) for each, vector in zip(context, vectors, strict=True)))

    def _for_transformer(self, read: Sequence[tuple[Tensor, Tensor | None]]) -> EncodedText:
        """The words of CLIPs side by side and those of other encoders behind them; all pooled vectors in one.

        What is narrower than the widest is filled up with zeros, and zeros stand for an encoder that is missing.
        """
        pairs = [(spec, context) for spec, (context, _) in zip(self.spec.texts, read, strict=True) if spec.as_tokens]
        clips = [context for spec, context in pairs if not reading_of(spec.kind).whole]
        behind = [context for spec, context in pairs if reading_of(spec.kind).whole]
        stages = len(read[0][0])
        if self.spec.blank_words:
            width = self.spec.transformer.context_dim
            behind.append(torch.zeros(stages, self.spec.blank_words, width, device=self.encoders.device))
        parts = [*([_side_by_side(clips)] if clips else []), *behind]
        widest = max(each.shape[2] for each in parts)
        context = torch.cat([F.pad(each, (0, widest - each.shape[2])) for each in parts], dim=1)
        vectors = [vector for _, vector in read if vector is not None]
        guidance = self.plan.sampler.guidance
        if guidance is not None:
            vectors.append(torch.full((stages, 1), guidance, device=self.encoders.device))
        if not vectors:
            return EncodedText(tuple(TextCond(each) for each in context))
        vector = torch.cat(vectors, dim=1)
        return EncodedText(tuple(TextCond(each, told) for each, told in zip(context, vector, strict=True)))

    def _run_encoder(self, which: int, spec: TextSpec, texts: tuple[str, ...]) -> tuple[Tensor, Tensor | None]:
        """One encoder over all stages: (stages, tokens, width), pooled of the first chunk (ENCODE-5)."""
        layer, norm = self._layer(spec)
        reading = reading_of(spec.kind)
        parts: list[Tensor] = []
        pooled: Tensor | None = None
        for column in self._columns(texts, spec):
            ids: list[Sequence[int]] = [reading.ids(each) for each in column]
            overrides = tuple(_overrides(column, which))
            said: dict[str, Any] = {"layer": layer, "final_norm": norm, "overrides": overrides}
            if self.shown and reading.show is not None and spec.vision is not None:
                tokenizer, several = self._tokenizer(reading, spec), spec.vision.eyes.several
                ids[0], slots = reading.show(ids[0], tokenizer, len(self.shown), numbered=several)
                said["pictures"] = tuple(map(TokenPicture, slots, self.shown))
            encoding = self.encoders.text(which, torch.tensor(ids), **said)
            parts.append(self._emphasized(encoding.tokens, column))
            pooled = encoding.pooled if pooled is None else pooled
        return torch.cat(parts, dim=1), pooled

    def _columns(self, texts: tuple[str, ...], spec: TextSpec) -> Iterator[tuple[Chunk, ...]]:
        """The first chunks of all stages, then the second ones, and so on; short texts go on with empty chunks."""
        reading = reading_of(spec.kind)
        chunks = [self._chunks(text, reading, spec) for text in texts]
        (empty,) = self._chunks("", reading, spec)
        return zip_longest(*chunks, fillvalue=empty)

    def _chunks(self, text: str, reading: TextReading, spec: TextSpec) -> tuple[Chunk, ...]:
        return self._cut(text, reading, spec)[0]

    def _cut(self, text: str, reading: TextReading, spec: TextSpec) -> tuple[tuple[Chunk, ...], int]:
        """A text's chunks, and the number of its tokens."""
        plain = self.settings.emphasis == "None"
        segments = (Segment(text, 1.0),) if plain else parse_attention(text, self.settings.quirks)
        find = self.table.find if self.table.embeddings else None
        backtrack = self.settings.comma_padding_backtrack
        tokenizer = self._tokenizer(reading, spec)
        quirks = self.settings.quirks
        return reading.cut(segments, tokenizer, backtrack=backtrack, find_embedding=find, quirks=quirks)

    def _tokenizer(self, reading: TextReading, spec: TextSpec) -> Tokenizer:
        return reading.tokenizer(spec.tokenizer, spec.vocabulary, spec.length)

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
        """ENCODE-5: the sizes that an SDXL network got in training."""
        settings, geometry = self.settings, self.plan.geometry
        size = [float(geometry.height), float(geometry.width)]
        crop = [float(settings.sdxl_crop_top), float(settings.sdxl_crop_left)]
        if self.spec.family == "sdxl-refiner":
            high, low = settings.sdxl_refiner_high_aesthetic_score, settings.sdxl_refiner_low_aesthetic_score
            numbers = [*size, *crop, low if negative else high]
        else:
            numbers = [*size, *crop, *size]
        return torch.cat([_sinusoid(each) for each in numbers])[None].to(self.encoders.device)


def _embeddings_of(read: Chunk) -> Iterator[tuple[int, Embedding]]:
    return ((slot, each) for slot, each in read.embeddings if isinstance(each, Embedding))


def _overrides(column: Sequence[Chunk], which: int) -> Iterator[TokenOverride]:
    """The vectors that an encoder reads in place of tokens (TI-2); the first slot lies behind the start token."""
    for row, each in enumerate(column):
        for slot, embedding in _embeddings_of(each):
            yield TokenOverride(row, slot + 1, embedding.parts[which])


def _sinusoid(value: float) -> Tensor:
    half = SINUSOID_WIDTH // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    angles = value * frequencies
    return torch.cat([torch.cos(angles), torch.sin(angles)])


def _side_by_side(contexts: Sequence[Tensor]) -> Tensor:
    """What several encoders say of the same words, as one wide vector for each."""
    longest = max(each.shape[1] for each in contexts)
    return torch.cat([_pad_tokens(each, longest) for each in contexts], dim=2)


def _pad_tokens(context: Tensor, length: int) -> Tensor:
    missing = length - context.shape[1]
    return context if missing <= 0 else torch.cat([context, context[:, -1:].expand(-1, missing, -1)], dim=1)
