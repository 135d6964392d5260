"""The same random weights in the form that each peer of `benchmarks.peers` reads: made once into a folder.

    sd15.safetensors   one file, as checkpoints are shared (overpaint, stable-diffusion.cpp)
    diffusers/         a folder of diffusers
    openvino/          a folder of OpenVINO's graphs, as openvino-genai reads it

Each is made beside its place and moved there when it is whole, so what is there can be used.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE, DIFFUSERS, OPENVINO = "sd15.safetensors", "diffusers", "openvino"


def make_for_all(folder: Path, *, tiny: bool) -> None:
    """The file and diffusers' folder."""
    from safetensors.torch import save_file

    from benchmarks.pipeline import as_pipeline, random_checkpoint

    if (folder / FILE).exists() and (folder / DIFFUSERS).exists():
        return
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    spec = spec_of(tiny)
    tensors = random_checkpoint(spec)
    heads = {"overpaint.num_heads": json.dumps(spec.unet.heads), "overpaint.text_heads": json.dumps([2])}
    _whole(folder / FILE, lambda path: save_file(tensors, path, heads if tiny else None))
    pipeline = as_pipeline({name: tensor.float() for name, tensor in tensors.items()}, spec).to(torch.float16)
    _whole(folder / DIFFUSERS, lambda path: pipeline.save_pretrained(path, variant="fp16"))


def spec_of(tiny: bool) -> Any:
    """Stable Diffusion 1.5, or the same with hardly any width."""
    from dataclasses import replace

    from overpaint.models.families import SD1_SPEC

    if not tiny:
        return SD1_SPEC
    unet = replace(SD1_SPEC.unet, model_channels=32, channel_mult=(1, 1, 1, 1), context_dim=64, heads=2)
    vae = replace(SD1_SPEC.vae, channels=32, channel_mult=(1, 1, 1, 1), num_res_blocks=1)
    text = replace(SD1_SPEC.texts[0], width=64, layers=1, heads=2, inner=128)
    return replace(SD1_SPEC, denoiser=unet, vae=vae, texts=(text,))


def make_graphs(folder: Path, packages: Path) -> None:
    """OpenVINO's graphs of diffusers' networks, and of their tokenizer, with the packages of the peer."""
    if (folder / OPENVINO).exists():
        return
    sys.path.insert(0, str(packages))  # openvino and openvino_tokenizers have to be of one release
    _whole(folder / OPENVINO, lambda path: _write_graphs(folder / DIFFUSERS, path))


def _write_graphs(source: Path, target: Path) -> None:
    import openvino
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline
    from openvino_tokenizers import convert_tokenizer

    pipeline: Any = StableDiffusionImg2ImgPipeline.from_pretrained(
        str(source), torch_dtype=torch.float32, variant="fp16", local_files_only=True
    )
    target.mkdir()
    for name, (network, inputs, shapes, said) in _traced(pipeline).items():
        (target / name).mkdir()
        with torch.no_grad():
            graph = openvino.convert_model(network, example_input=tuple(inputs.values()), input=list(shapes))
        for given, wanted in zip(graph.outputs, said, strict=False):
            given.get_tensor().set_names({wanted})
        for given, wanted in zip(graph.inputs, inputs, strict=True):
            given.get_tensor().set_names({wanted})
        openvino.save_model(graph, target / name / "openvino_model.xml")
        _write_config(network.network, target / name / "config.json")
    (target / "tokenizer").mkdir()
    openvino.save_model(convert_tokenizer(pipeline.tokenizer), target / "tokenizer" / "openvino_tokenizer.xml")
    pipeline.tokenizer.save_pretrained(target / "tokenizer")
    pipeline.scheduler.save_pretrained(target / "scheduler")
    index = json.loads((source / "model_index.json").read_text())
    index["_class_name"] = "StableDiffusionPipeline"  # the only name of this family that openvino-genai knows
    (target / "model_index.json").write_text(json.dumps(index))


def _write_config(network: Any, path: Path) -> None:
    config = network.config
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    path.write_text(json.dumps(values, default=str))


def _traced(pipeline: Any) -> dict[str, tuple[Any, dict[str, Any], tuple[Any, ...], tuple[str, ...]]]:
    """Each network, what it is traced with (small, which is quick), its shapes, and the names of its outputs."""
    import openvino
    import torch
    from torch import nn

    class Asked(nn.Module):
        """A network as one call of it."""

        def __init__(self, network: Any, call: Callable[..., Any]) -> None:
            super().__init__()
            self.network, self.call = network.eval().requires_grad_(False), call

        def forward(self, *given: Any) -> Any:
            return self.call(self.network, *given)

    def read(network: Any, ids: Any) -> Any:
        said = network(input_ids=ids, return_dict=True)
        return said.last_hidden_state, said.pooler_output

    def denoise(network: Any, sample: Any, timestep: Any, context: Any) -> Any:
        return network(sample, timestep, context, return_dict=False)[0]

    ids, width = torch.ones(1, 77, dtype=torch.int64), pipeline.unet.config.cross_attention_dim
    times = torch.ones(1, dtype=torch.int64)
    maps, texts = openvino.PartialShape([-1, 4, -1, -1]), openvino.PartialShape([-1, 77, width])
    return {
        "text_encoder": (
            Asked(pipeline.text_encoder, read),
            {"input_ids": ids},
            ([-1, 77],),
            ("last_hidden_state", "pooler_output"),
        ),
        "unet": (
            Asked(pipeline.unet, denoise),
            {
                "sample": torch.zeros(2, 4, 8, 8),
                "timestep": times,
                "encoder_hidden_states": torch.zeros(2, 77, width),
            },
            (maps, [1], texts),
            ("out_sample",),
        ),
        "vae_encoder": (
            Asked(pipeline.vae, lambda network, pixels: network.quant_conv(network.encoder(pixels))),
            {"sample": torch.zeros(1, 3, 64, 64)},
            ([-1, 3, -1, -1],),
            ("latent_parameters",),
        ),
        "vae_decoder": (
            Asked(pipeline.vae, lambda network, latents: network.decoder(network.post_quant_conv(latents))),
            {"latent_sample": torch.zeros(1, 4, 8, 8)},
            (maps,),
            ("sample",),
        ),
    }


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """What `write` writes, under its name once it is all there."""
    if path.exists():
        return
    unfinished = path.with_name(f".unfinished-{path.name}")
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    print(f"making {path}", file=sys.stderr, flush=True)
    write(unfinished)
    unfinished.rename(path)
