"""OpenVINO on a CPU: the U-Net and the codec as compiled graphs, built from the torch networks' own weights.

The torch networks stay: they hold the weights, and LoRAs are put into them. A graph is compiled when it is first
needed, and again when its network's weights are others. One graph serves all sizes. Another one is compiled for
pictures whose edges meet, and another for steps in which ControlNets take part, so that what a job gives depends on the
job alone.

torch reads the texts: that is a thousandth of the work, done once a prompt, and compiling costs more than it saves.
What has no graph is computed by torch, too; `remarks` says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from overpaint.adapters.wear import in_weights
from overpaint.backends.port import Abilities, Dtypes
from overpaint.backends.torch_backend import LOGVAR_RANGE, SharedAutoencoder, TorchBackend
from overpaint.errors import OverpaintError
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.codecs import CodecNetwork
from overpaint.networks.denoisers import DenoiserNetwork
from overpaint.networks.layers import set_packed, sinusoid
from overpaint.networks.text_networks import TextNetwork
from overpaint.networks.unet import CrossAttention, LessWork, UNet

GRAPHS_KEPT = 2  # of one network: each holds its weights once more


class NoGraph(OverpaintError):  # noqa: N818 (an answer)
    """A network, or what hangs on it, that is not computed here."""


class Graphs:
    """The compiled graphs of one network that were wanted last."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._compiled: OrderedDict[Hashable, Any] = OrderedDict()
        self._weights: Hashable = ()
        self.refused: dict[Hashable, str] = {}  # those that cannot be made, and why

    def get(self, kind: Hashable, build: Callable[[], Any], dtype: torch.dtype) -> Any:
        """One that computes with the weights as they are now; `NoGraph` if there is none."""
        weights = in_weights(self._network)
        if weights != self._weights:
            self._compiled.clear()
            self._weights = weights
        key = (kind, dtype)
        if key in self.refused:
            raise NoGraph(self.refused[key])
        if key not in self._compiled:
            while len(self._compiled) >= GRAPHS_KEPT:  # before the next one takes memory
                self._compiled.popitem(last=False)
            try:
                self._compiled[key] = compiled(build(), dtype)
            except (NoGraph, RuntimeError) as error:
                self.refused[key] = f"openvino: a network has no graph ({_first_line(error)}); torch computes it"
                raise NoGraph(self.refused[key]) from error
        self._compiled.move_to_end(key)
        return self._compiled[key]


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
    """A torch backend with graphs before its two networks that work at every step and at every pixel."""

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
            set_packed(denoiser, False)  # graphs share the plain layout
        self._graphs = Graphs(denoiser)
        self._attentions = [each for each in denoiser.modules() if isinstance(each, CrossAttention)]

    @property
    def abilities(self) -> Abilities:
        return replace(super().abilities, shortcuts=False)

    @property
    def remarks(self) -> tuple[str, ...]:
        said = ["hypernetworks: openvino has no graph for them; torch computes the steps"] if self._is_changed else []
        if not isinstance(self.networks.denoiser, UNet):
            said.append("openvino: it has no graph for models without a U-Net; torch computes the steps")
        graphs = (self._graphs, self.codec.graphs) if isinstance(self.codec, OpenVinoAutoencoder) else (self._graphs,)
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
        try:
            graph = self._graph(network, controlled=control is not None)
        except NoGraph:
            return super().denoise(x, timesteps, context, vector, control=control)
        times = sinusoid(timesteps, network.spec.model_channels)
        return inferred(graph, [x, times, context, *([] if vector is None else [vector]), *(control or ())])

    def _graph(self, network: UNet, *, controlled: bool) -> Any:
        circular = _is_circular(network.input_blocks[0])

        def build() -> Any:
            from overpaint.backends.openvino_graph import unet_model

            return unet_model(network, circular=circular, controlled=controlled)

        return self._graphs.get((circular, controlled), build, self.dtypes.unet)

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
            return inferred(codec.graphs.get((half, circular), build, codec.dtype), [x])
        except NoGraph:
            return None

    @property
    def _is_changed(self) -> bool:
        """Whether hypernetworks hang on it."""
        return any(each.context_changes for each in self._attentions)


@cache
def core() -> Any:
    import openvino

    return openvino.Core()


def compiled(model: Any, dtype: torch.dtype) -> Any:
    """A graph that is ready to run, on as many threads as torch would take."""
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
