"""Nothing is encoded twice: texts, sources, masked pictures and enlarged canvases, kept for all jobs of an engine.

An answer is kept under all that it depends on: what was given, down to the last byte, the network that was asked, and
what that network has in its weights at the moment. `identity` is the one place where this is decided. Who works with an
answer gets a copy of his own, so that the next one finds it as it was given.

Kept are answers before chance comes in: of a picture the mean and the variance, of a text the vectors before emphasis.
The noise of an encoding, weights of words and the sizes that a model is told are therefore what they always were.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar, cast
from weakref import ref

import torch
from PIL import Image
from torch import Tensor

from overpaint.adapters.wear import in_weights
from overpaint.backends.port import Backend, VaeFallback
from overpaint.models.taesd_files import Taesd
from overpaint.networks.text import TextEncoding, TokenOverride, TokenPicture
from overpaint.pixels.resize import Upscaler

_Answer: TypeAlias = "tuple[Tensor | None, ...] | Image.Image"
_AnswerT = TypeVar("_AnswerT", bound="tuple[Tensor | None, ...] | Image.Image")
_PLAIN_MODES = frozenset({"L", "LA", "RGB", "RGBA"})  # of pictures that are all in their bytes


@dataclass(frozen=True)
class Identity:
    """All that an answer depends on. Equal identities have equal answers, to the last bit."""

    call: str
    network: ref[object] | Hashable  # NOTE: a reference, for the number of a dead network may be given to another one
    state: Hashable  # what may change in that network or beside it
    given: bytes  # a digest

    @property
    def is_dead(self) -> bool:
        """Whether the network is gone, so that nobody can ask this again."""
        return isinstance(self.network, ref) and self.network() is None


def identity(call: str, network: object, state: Hashable, *given: object) -> Identity:
    """The one place that says which answers are the same.

    `network` is the object in memory that computes, or a name for it that tells its content; `state` is what it wears
    and how it is set; `given` are the tensors, pictures and plain values that it is asked about.
    """
    digest = hashlib.blake2b(digest_size=32)
    for each in given:
        _feed(digest, each)
    return Identity(call, network if isinstance(network, tuple) else ref(network), state, digest.digest())


def _feed(digest: hashlib.blake2b, value: object) -> None:
    """Every value with its kind and length: no two lists of values look the same."""
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        said = f"tensor {value.dtype} {tuple(value.shape)}"
    elif isinstance(value, Image.Image):
        data, said = memoryview(value.tobytes()), f"picture {value.mode} {value.size}"
    else:
        data, said = memoryview(repr(value).encode()), type(value).__name__
    digest.update(f"{said} {data.nbytes}:".encode())
    digest.update(data)


@dataclass
class EncodingsCount:
    """How often was encoded, and how often that was known already."""

    hits: int = 0
    misses: int = 0


@dataclass
class KeptEncodings:
    """The latest answers of an engine's encoders, up to so many bytes; the least recently wanted are forgotten first.

    One thread owns it. Tensors lie in the machine's memory: that of a device is for the networks.
    """

    bound: int = 0
    size: int = 0
    total: EncodingsCount = field(default_factory=EncodingsCount)
    _kept: OrderedDict[Identity, _Answer] = field(default_factory=OrderedDict)

    def set_bound(self, size: int) -> None:
        """From now on at most so many bytes; 0 keeps nothing."""
        self.bound = size
        self._shrink()

    def clear(self) -> None:
        self._kept.clear()
        self.size = 0

    def answer(
        self, count: EncodingsCount, asked: Callable[[], Identity | None], ask: Callable[[], _AnswerT]
    ) -> _AnswerT:
        """What is known, or else what the network says. Where nothing is kept, nothing is looked at either."""
        key = asked() if self.bound > 0 else None
        found = self._kept.get(key) if key is not None else None
        for each in (self.total, count):
            each.hits += found is not None
            each.misses += found is None
        if key is not None and found is not None:
            self._kept.move_to_end(key)
            return cast("_AnswerT", _copy(found))
        answer = ask()
        if key is not None and _bytes_of(answer) <= self.bound:
            self._kept[key] = _copy(answer)
            self.size += _bytes_of(answer)
            self._shrink()
        return answer

    def _shrink(self) -> None:
        for key in [each for each in self._kept if each.is_dead]:
            self._forget(key)
        while self.size > self.bound:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: Identity) -> None:
        self.size -= _bytes_of(self._kept.pop(key))


def _copy(answer: _Answer) -> _Answer:
    """NOTE: in the machine's memory, wherever it was."""
    if isinstance(answer, Image.Image):
        return answer.copy()
    return tuple(None if each is None else each.detach().to("cpu", copy=True) for each in answer)


def _bytes_of(answer: _Answer) -> int:
    if isinstance(answer, Image.Image):
        return answer.width * answer.height * len(answer.getbands())
    return sum(each.numel() * each.dtype.itemsize for each in answer if each is not None)


# -- who asks ----------------------------------------------------------------------------------------------------------


class EncodingCodec(Protocol):
    """As much of an autoencoder as is needed here."""

    @property
    def device(self) -> torch.device: ...

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]: ...

    def decode(self, z: Tensor, fallback: VaeFallback | None = None) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class RememberingCodec:
    """A codec that encodes nothing twice. `network` and `state` tell what it is at the moment of a call."""

    codec: EncodingCodec
    kept: KeptEncodings
    count: EncodingsCount
    network: object
    state: Callable[[], Hashable]

    @property
    def device(self) -> torch.device:
        return self.codec.device

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior's mean and log-variance; what is drawn from it is drawn by the caller."""
        mean, logvar = self.kept.answer(
            self.count,
            lambda: identity("encode", self.network, self.state(), pixels),
            lambda: self.codec.encode(pixels),
        )
        return mean.to(self.device), logvar.to(self.device)

    def decode(self, z: Tensor, fallback: VaeFallback | None = None) -> Tensor:
        return self.codec.decode(z, fallback)


@dataclass(frozen=True, eq=False)
class RememberingTexts:
    """The text encoders of a model, which read nothing twice."""

    backend: Backend
    kept: KeptEncodings
    count: EncodingsCount

    @property
    def device(self) -> torch.device:
        return self.backend.device

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
        network = self.backend.networks.texts[encoder]
        given: list[object] = [part for each in overrides for part in ((each.row, each.slot), each.vectors)]
        given += [part for each in pictures for part in (("picture", each.slot), each.pixels)]

        def ask() -> tuple[Tensor, Tensor | None]:
            said: dict[str, Any] = {"layer": layer, "final_norm": final_norm, "overrides": overrides}
            if pictures:
                said["pictures"] = pictures
            made = self.backend.text(encoder, ids, **said)
            return made.tokens, made.pooled

        tokens, pooled = self.kept.answer(
            self.count,
            lambda: identity("text", network, (in_weights(network), layer, final_norm), ids, *given),
            ask,
        )
        return TextEncoding(tokens.to(self.device), None if pooled is None else pooled.to(self.device))


def remembering_backend(backend: Backend, kept: KeptEncodings, count: EncodingsCount, tiling: bool) -> RememberingCodec:
    """The codec of a model. NOTE: a decoding that fails moves it to another type, and then it encodes otherwise."""
    codec = backend.codec
    return RememberingCodec(backend, kept, count, codec, lambda: (codec.dtype, tiling))


def remembering_taesd(taesd: Taesd, kept: KeptEncodings, count: EncodingsCount, tiling: bool) -> RememberingCodec:
    return RememberingCodec(taesd, kept, count, taesd, lambda: tiling)


def remembering_upscaler(
    name: tuple[Hashable, ...], enlarge: Upscaler, kept: KeptEncodings, count: EncodingsCount
) -> Upscaler:
    """A network that enlarges, known by its file and tiles."""

    def enlarged(picture: Image.Image, scale: float) -> Image.Image:
        def asked() -> Identity | None:
            is_plain = picture.mode in _PLAIN_MODES and "transparency" not in picture.info
            return identity("enlarge", name, (), picture, scale) if is_plain else None

        return kept.answer(count, asked, lambda: enlarge(picture, scale))

    return enlarged
