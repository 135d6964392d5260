"""How fast one U-Net call of Stable Diffusion 1.5 is, against diffusers or our OpenVINO backend, with the same weights.

    python benchmarks/network.py [--against diffusers|openvino|converted] [--dtype float32|bfloat16] [--threads 2]

`converted` is our OpenVINO backend against what OpenVINO makes of diffusers' network.

The two take turns, so that whatever else the machine does hits both; the medians and their ratio are what counts.
CPU seconds measure work and suffer less from neighbours than seconds on the clock. Weights are random.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from overpaint.backends.openvino_backend import OpenVinoBackend, compiled, inferred
from overpaint.backends.port import Dtypes
from overpaint.backends.torch_backend import TorchBackend
from overpaint.models.families import SD1_SPEC
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.layers import blank
from overpaint.networks.unet import UNet

Call = Callable[[], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", choices=("diffusers", "openvino", "converted"), default="diffusers")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=64, help="latent side; 64 is 512 pixels")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    weights = random_weights()
    other: Call
    if args.against == "diffusers":
        other = diffusers_call(weights, dtype, args.size)
    elif args.against == "converted":
        other = converted_call(weights, dtype, args.size)
    else:
        other = overpaint_call(weights, dtype, args.size, OpenVinoBackend)
    ours = overpaint_call(weights, dtype, args.size, OpenVinoBackend if args.against == "converted" else TorchBackend)
    del weights
    report({"overpaint": ours, args.against: other}, args.repeats)


def random_weights() -> dict[str, Tensor]:
    """Weights of the right size that keep activations in range."""
    torch.manual_seed(0)
    started = time.perf_counter()
    network = blank(partial(UNet, SD1_SPEC.unet), "cpu", torch.float32)
    print(f"full-size U-Net built blank in {time.perf_counter() - started:.2f} s")
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, parameter[0].numel() ** -0.5)
        else:
            parameter.data.fill_(1.0 if name.endswith("weight") else 0.0)
    return {name: parameter.data for name, parameter in network.named_parameters()}


def inputs(size: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, size, size, generator=generator)
    return x, torch.tensor([500.0, 500.0]), torch.randn(2, 77, 768, generator=generator)


def overpaint_call(
    weights: dict[str, Tensor], dtype: torch.dtype, size: int, kind: type[TorchBackend] = TorchBackend
) -> partial[Tensor]:
    network = blank(partial(UNet, SD1_SPEC.unet), "cpu", dtype)
    network.load_state_dict(weights)
    codec = blank(partial(AutoencoderKL, SD1_SPEC.vae), "meta", dtype)
    backend = kind(network, codec, (), device="cpu", dtypes=Dtypes(dtype, dtype, torch.float32))
    return partial(backend.denoise, *inputs(size))


def diffusers_network(weights: dict[str, Tensor]) -> Any:
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    config: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
    network: Any = UNet2DConditionModel(**config)
    prefixed = {f"model.diffusion_model.{name}": value for name, value in weights.items()}
    network.load_state_dict(convert_ldm_unet_checkpoint(prefixed, {**network.config}))
    return network.eval()


def diffusers_call(weights: dict[str, Tensor], dtype: torch.dtype, size: int) -> Call:
    network = diffusers_network(weights).to(dtype)
    x, t, context = inputs(size)

    @torch.inference_mode()
    def call() -> Tensor:
        result: Tensor = network(x.to(dtype), t, context.to(dtype)).sample.float()
        return result

    return call


def converted_call(weights: dict[str, Tensor], dtype: torch.dtype, size: int) -> Call:
    """Traced at eight latents, for at 64 that takes minutes; compiled for these inputs, as ours is."""
    import openvino

    network = diffusers_network(weights)
    small = (torch.randn(2, 4, 8, 8), torch.tensor([500.0, 500.0]), torch.randn(2, 77, 768))
    with torch.inference_mode():
        model = openvino.convert_model(_TensorsOnly(network), example_input=small)
    given = inputs(size)
    return partial(inferred, compiled(model, dtype, given), given)


class _TensorsOnly(nn.Module):
    """Tensors in, a tensor out."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        result: Tensor = self.network(x, timesteps, context, return_dict=False)[0]
        return result


def report(calls: dict[str, Call], repeats: int) -> None:
    outputs: dict[str, Tensor] = {}
    for name, call in calls.items():
        worked = time.process_time()
        outputs[name] = call()
        print(f"the first call of {name}: {time.process_time() - worked:.2f} CPU seconds")
    ours, other = outputs.values()
    difference = (ours - other).abs().max() / other.abs().max()
    print(f"largest difference of the outputs, relative to the largest output: {float(difference):.1e}")
    wall: dict[str, list[float]] = {name: [] for name in calls}
    work: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started, worked = time.perf_counter(), time.process_time()
            call()
            wall[name].append(time.perf_counter() - started)
            work[name].append(time.process_time() - worked)
    for title, table in (("seconds", wall), ("CPU seconds", work)):
        medians = {name: statistics.median(values) for name, values in table.items()}
        lines = ", ".join(f"{name} {value:.2f}" for name, value in medians.items())
        own, against = medians.values()
        print(f"{title} a call: {lines}; the second takes {against / own:.2f} of the first")
    print(f"peak memory of both together: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
