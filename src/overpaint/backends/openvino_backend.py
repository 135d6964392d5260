"""OpenVINO on a CPU: U-Net, codec and text encoders as compiled graphs, built from the torch networks' own weights.

The torch networks stay: they hold the weights, and LoRAs are put into them. A graph is compiled when it is first
needed, and again when its network's weights are others. Each size, number of rows and length of text has its own, and
so have pictures whose edges meet and steps in which ControlNets take part: what a job gives depends on the job alone.

Why a graph for each size: with sizes left open OpenVINO does not fuse attention, writes each of its maps of scores to
memory, and spends half of a call on that.

Texts are read row by row, so that one graph serves any number of them. torch looks up their tokens and the vectors
that take tokens' places, and picks the vector that stands for the whole text.

What has no graph is computed by torch, too; `remarks` says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from overpaint.adapters.wear import in_weights
from overpaint.backends.port import Abilities, Dtypes
from overpaint.backends.torch_backend import LOGVAR_RANGE, SharedAutoencoder, TorchBackend
from overpaint.errors import OverpaintError
from overpaint.models.memory import size_of, total_memory
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.codecs import CodecNetwork
from overpaint.networks.denoisers import DenoiserNetwork
from overpaint.networks.layers import set_packed
from overpaint.networks.text import ClipText, OpenClipText, TextEncoding, TokenOverride, TokenPicture, depth_and_norm
from overpaint.networks.text_networks import TextNetwork
from overpaint.networks.unet import CrossAttention, LessWork, UNet

FEWEST_KEPT, MOST_KEPT = 2, 8  # graphs of one network: each holds its weights once more
_SHARE = 4  # they may fill this part of the memory, one in so many


class NoGraph(OverpaintError):  # noqa: N818 (an answer)
    """A network, or what hangs on it, that is not computed here."""


class Graphs:
    """The compiled graphs of one network that were wanted last."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._compiled: OrderedDict[Hashable, Any] = OrderedDict()
        self._weights: Hashable = ()
        self.refused: dict[Hashable, str] = {}  # those that cannot be made, and why

    def answer(self, kind: Hashable, build: Callable[[], Any], dtype: torch.dtype, given: Sequence[Tensor]) -> Tensor:
        """What one says that is made for inputs of these sizes and computes with the weights as they are now.

        `NoGraph` if there is none.
        """
        weights = in_weights(self._network)
        if weights != self._weights:
            self._compiled.clear()
            self._weights = weights
        if (kind, dtype) in self.refused:
            raise NoGraph(self.refused[kind, dtype])
        key = (kind, dtype, tuple(tuple(each.shape) for each in given))
        if key not in self._compiled:
            while len(self._compiled) >= kept_of(self._network):  # before the next one takes memory
                self._compiled.popitem(last=False)
            try:
                self._compiled[key] = compiled(build(), dtype, given)
            except (NoGraph, RuntimeError) as error:
                self.refused[kind, dtype] = (
                    f"openvino: a network has no graph ({_first_line(error)}); torch computes it"
                )
                raise NoGraph(self.refused[kind, dtype]) from error
        self._compiled.move_to_end(key)
        return inferred(self._compiled[key], given)


def kept_of(network: nn.Module) -> int:
    """How many graphs of a network are kept."""
    room = total_memory(torch.device("cpu")) // _SHARE // max(size_of([network]), 1)
    return max(FEWEST_KEPT, min(MOST_KEPT, room))


class OpenVinoAutoencoder(SharedAutoencoder):
    """An autoencoder and its graphs, for all backends that share it."""

    def __init__(self, network: AutoencoderKL, dtype: torch.dtype) -> None:
        super().__init__(network, dtype)
        set_packed(network, False)
        self.graphs = Graphs(network)

    def move(self, dtype: torch.dtype) -> None:
        super().move(dtype)
        set_packed(self.network, False)


def openvino_codec(network: CodecNetwork, dtype: torch.dtype) -> SharedAutoencoder:
    """With graphs, where there are any for such a codec."""
    if isinstance(network, AutoencoderKL) and network.patch == 1:
        return OpenVinoAutoencoder(network, dtype)
    return SharedAutoencoder(network, dtype)


class OpenVinoBackend(TorchBackend):
    """A torch backend with graphs before its networks."""

    def __init__(
        self,
        denoiser: DenoiserNetwork,
        autoencoder: CodecNetwork | SharedAutoencoder,
        texts: Sequence[TextNetwork],
        *,
        device: str | torch.device,
        dtypes: Dtypes,
    ) -> None:
        if not isinstance(autoencoder, SharedAutoencoder):
            autoencoder = openvino_codec(autoencoder, dtypes.vae)
        super().__init__(denoiser, autoencoder, texts, device=device, dtypes=dtypes)
        if isinstance(denoiser, UNet):
            for each in (denoiser, *texts):
                set_packed(each, False)  # graphs share the plain layout
        self._graphs = Graphs(denoiser)
        self._text_graphs = tuple(map(Graphs, texts))
        self._attentions = [each for each in denoiser.modules() if isinstance(each, CrossAttention)]

    @property
    def abilities(self) -> Abilities:
        return replace(super().abilities, shortcuts=False)

    @property
    def remarks(self) -> tuple[str, ...]:
        said = ["hypernetworks: openvino has no graph for them; torch computes the steps"] if self._is_changed else []
        if not isinstance(self.networks.denoiser, UNet):
            said.append("openvino: it has no graph for models without a U-Net; torch computes the steps")
        graphs = [self._graphs, *self._text_graphs]
        if isinstance(self.codec, OpenVinoAutoencoder):
            graphs.append(self.codec.graphs)
        return tuple(dict.fromkeys((*said, *(text for each in graphs for text in each.refused.values()))))

    def denoise(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        vector: Tensor | None = None,
        *,
        control: Sequence[Tensor] | None = None,
        less: LessWork | None = None,
        references: Sequence[Tensor] = (),
    ) -> Tensor:
        """eps or v, float32, of x (b, c, h, w) at timesteps (b,); context (b, n, width), vector (b, adm)."""
        network = self.networks.denoiser
        if not isinstance(network, UNet) or self._is_changed or less is not None:
            return super().denoise(x, timesteps, context, vector, control=control, less=less, references=references)
        circular, controlled = _is_circular(network.input_blocks[0]), control is not None

        def build() -> Any:
            from overpaint.backends.openvino_graph import unet_model

            return unet_model(network, circular=circular, controlled=controlled)

        times = network.waves(timesteps)
        given = [x, times, context, *([] if vector is None else [vector]), *(control or ())]
        try:
            return self._graphs.answer((circular, controlled), build, self.dtypes.unet, given)
        except NoGraph:
            return super().denoise(x, timesteps, context, vector, control=control)

    @torch.no_grad()
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
        """Token ids (b, 77) through one of the text encoders, float32; the family's layer and norm unless given."""
        network = self.networks.texts[encoder]
        if isinstance(network, ClipText | OpenClipText) and isinstance(self.networks.denoiser, UNet):
            kind = depth_and_norm(network.spec, layer, final_norm)
            rows = network.embedded(ids, overrides)[:, None]
            build = partial(_text_model, network, *kind, ids.shape[1])
            graphs = self._text_graphs[encoder]
            with suppress(NoGraph):
                found = [graphs.answer(kind, build, self.dtypes.text, [row]) for row in rows]
                tokens = torch.cat([each[:1] for each in found])
                if not network.spec.pooled:
                    return TextEncoding(tokens)
                last = torch.cat([each[1:] for each in found]).to(self.dtypes.text)
                return TextEncoding(tokens, network.pooled(last, ids).float())
        said: dict[str, Any] = {"layer": layer, "final_norm": final_norm, "overrides": overrides}
        return super().text(encoder, ids, **said, pictures=pictures)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in -1..1 (b, 3, 8h, 8w) to the posterior's mean and log-variance, float32 (b, 4, h, w) (ENC-2)."""
        found = self._through_codec("encode", pixels)
        if found is None:
            return super().encode(pixels)
        mean, logvar = found.chunk(2, dim=1)
        return mean.contiguous(), logvar.contiguous().clamp(*LOGVAR_RANGE)

    def _decode_once(self, z: Tensor) -> Tensor:
        found = self._through_codec("decode", z)
        return super()._decode_once(z) if found is None else found

    def _through_codec(self, half: str, x: Tensor) -> Tensor | None:
        codec, network = self.codec, self.networks.autoencoder
        if not isinstance(codec, OpenVinoAutoencoder) or not isinstance(network, AutoencoderKL):
            return None
        circular = _is_circular(network.encoder)

        def build() -> Any:
            from overpaint.backends.openvino_graph import decoder_model, encoder_model

            return (encoder_model if half == "encode" else decoder_model)(network, circular=circular)

        try:
            return codec.graphs.answer((half, circular), build, codec.dtype, [x])
        except NoGraph:
            return None

    @property
    def _is_changed(self) -> bool:
        """Whether hypernetworks hang on it."""
        return any(each.context_changes for each in self._attentions)


def _text_model(network: ClipText | OpenClipText, depth: int, final_norm: bool, length: int) -> Any:
    from overpaint.backends.openvino_graph import text_model

    return text_model(network, depth, final_norm, length)


@cache
def core() -> Any:
    import openvino

    return openvino.Core()


def compiled(model: Any, dtype: torch.dtype, given: Sequence[Tensor] | None = None) -> Any:
    """A graph that is ready to run, on as many threads as torch would take; for inputs as large as those given."""
    if given is not None:
        model.reshape({i: list(each.shape) for i, each in enumerate(given)})
    said = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype is torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        # NOTE: kernels that this cache hands from layer to layer give wrong answers in attention over another number of
        # keys than they were made for (seen in 2026.4); without it each layer has its own.
        "CPU_RUNTIME_CACHE_CAPACITY": 0,
    }
    return core().compile_model(model, "CPU", said).create_infer_request()


def inferred(graph: Any, given: Iterable[Tensor]) -> Tensor:
    """The answer, in memory of its own: the graph writes its next one over it."""
    graph.infer([each.detach().float().contiguous().numpy() for each in given])
    return torch.from_numpy(graph.get_output_tensor(0).data.copy())


def _is_circular(network: nn.Module) -> bool:
    """What `set_tiling` made of it."""
    return any(getattr(each, "circular", False) for each in network.modules())


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
