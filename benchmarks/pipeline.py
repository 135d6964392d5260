"""img2img end to end on a full-size SD 1.5 with random weights, against diffusers' pipeline on the same file.

    python benchmarks/pipeline.py [--folder DIR] [--dtype float32|bfloat16] [--size 512] [--steps 4] [--repeats 3]

Each side runs in a process of its own, in turn, from a cold start: imports, loading, `steps` Euler steps at strength 1
with guidance, decoding. What counts are the ratios of medians: seconds to the first step and a step, peak memory. The
weights are made on the spot, once per folder (2.1 GB each way, in fp16 as checkpoints are shared). Needs diffusers and
transformers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overpaint.models.specs import ModelSpec

WORDS = ("ready", "first step", "a step", "decoded", "total", "CPU seconds", "peak GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "overpaint-benchmark")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(SIDES[args.side](args.folder, args.dtype, args.size, args.steps)))
        return
    make_files(args.folder)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for _ in range(args.repeats):
        for name in SIDES:
            found[name].append(run_side(name))
            print(name, json.dumps({k: round(v, 2) for k, v in found[name][-1].items()}), flush=True)
    report(found)


def run_side(name: str) -> dict[str, float]:
    """A fresh process with the same arguments; its last line is the result."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--side", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def report(found: dict[str, list[dict[str, float]]]) -> None:
    print(f"{'median':>12} {'overpaint':>10} {'diffusers':>10} {'ratio':>6}")
    for word in WORDS:
        ours, theirs = (statistics.median(each[word] for each in found[name]) for name in SIDES)
        print(f"{word:>12} {ours:10.2f} {theirs:10.2f} {ours / theirs:6.2f}")


class Clock:
    """Seconds since the process began, at named moments."""

    def __init__(self) -> None:
        self.began = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + _process_start()
        self.steps: list[float] = []
        self.ready = 0.0

    def now(self) -> float:
        return time.time() - self.began

    def result(self) -> dict[str, float]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        gaps = [b - a for a, b in zip(self.steps, self.steps[1:], strict=False)]
        total = self.now()
        return {
            "ready": self.ready,
            "first step": self.steps[0] - (statistics.median(gaps) if gaps else 0.0),
            "a step": statistics.median(gaps) if gaps else 0.0,
            "decoded": total - self.steps[-1],
            "total": total,
            "CPU seconds": usage.ru_utime + usage.ru_stime,
            "peak GiB": _peak_kib() / 2**20,
        }


def _peak_kib() -> int:
    """NOTE: getrusage's figure survives exec, so a child would report its parent's peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _process_start() -> float:
    """Seconds after boot at which this process began."""
    fields = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
    return float(fields[19]) / os.sysconf("SC_CLK_TCK")


def overpaint_side(folder: Path, dtype: str, size: int, steps: int) -> dict[str, float]:
    clock = Clock()
    from PIL import Image

    from overpaint import Engine, Img2ImgRequest, Progress

    source = Image.effect_mandelbrot((size, size), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    with Engine(folder / "sd15.safetensors", device="cpu", dtype=dtype) as engine:
        clock.ready = clock.now()
        request = Img2ImgRequest(
            images=(source,),
            prompt="a lake",
            negative_prompt="blurry",
            strength=1,
            steps=steps,
            sampler="Euler",
            seed=1,
        )
        for event in engine.run(request):
            if isinstance(event, Progress):
                clock.steps.append(clock.now())
    return clock.result()


def diffusers_side(folder: Path, dtype: str, size: int, steps: int) -> dict[str, float]:
    clock = Clock()
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionImg2ImgPipeline
    from PIL import Image

    source = Image.effect_mandelbrot((size, size), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    pipeline: Any = StableDiffusionImg2ImgPipeline.from_pretrained(
        str(folder / "diffusers"), torch_dtype=getattr(torch, dtype), variant="fp16", local_files_only=True
    )
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    clock.ready = clock.now()

    def seen(_pipe: Any, _step: int, _timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
        clock.steps.append(clock.now())
        return state

    pipeline(
        "a lake",
        source,
        strength=1.0,
        num_inference_steps=steps,
        guidance_scale=7.0,
        negative_prompt="blurry",
        callback_on_step_end=seen,
    )
    return clock.result()


SIDES = {"overpaint": overpaint_side, "diffusers": diffusers_side}


def make_files(folder: Path) -> None:
    """The same random weights twice: one file as checkpoints are shared, one folder as diffusers keeps them."""
    if (folder / "diffusers" / "model_index.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    import torch
    from safetensors.torch import save_file

    tensors = random_checkpoint()
    save_file(tensors, folder / "sd15.safetensors")
    pipeline = as_pipeline({name: tensor.float() for name, tensor in tensors.items()})
    pipeline.to(torch.float16).save_pretrained(folder / "diffusers", variant="fp16")


def random_checkpoint(spec: ModelSpec | None = None) -> dict[str, Any]:
    """Weights of SD 1.5's shapes, or of another one's of its family, that keep activations in range."""
    from functools import partial

    import torch
    from torch import nn

    from overpaint.models.families import SD1_SPEC, UNET_PREFIX, VAE_PREFIX
    from overpaint.networks.autoencoder import AutoencoderKL
    from overpaint.networks.layers import blank
    from overpaint.networks.text_networks import text_network
    from overpaint.networks.unet import UNet

    torch.manual_seed(0)
    spec = spec or SD1_SPEC
    parts: dict[str, nn.Module] = {
        UNET_PREFIX: blank(partial(UNet, spec.unet), "cpu", torch.float32),
        VAE_PREFIX: blank(partial(AutoencoderKL, spec.vae), "cpu", torch.float32),
        spec.texts[0].prefix: blank(partial(text_network, spec.texts[0]), "cpu", torch.float32),
    }
    tensors: dict[str, Any] = {}
    for prefix, network in parts.items():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(0, parameter[0].numel() ** -0.5)
            else:
                parameter.data.fill_(1.0 if name.endswith("weight") else 0.0)
            tensors[prefix + name] = parameter.data.half()
    return tensors


def as_pipeline(tensors: dict[str, Any], spec: ModelSpec | None = None) -> Any:
    """The checkpoint as diffusers' pipeline, through its own conversion functions."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionImg2ImgPipeline, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from overpaint.models.families import SD1_SPEC

    spec = spec or SD1_SPEC
    width, maps = spec.texts[0].width, spec.unet.model_channels
    unet: Any = UNet2DConditionModel(
        sample_size=64,
        cross_attention_dim=spec.unet.context_dim,
        attention_head_dim=spec.unet.heads,
        block_out_channels=tuple(maps * each for each in spec.unet.channel_mult),
    )
    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(tensors), {**unet.config}))
    blocks = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    vae: Any = AutoencoderKL(
        down_block_types=blocks[0],
        up_block_types=blocks[1],
        block_out_channels=tuple(spec.vae.channels * each for each in spec.vae.channel_mult),
        layers_per_block=spec.vae.num_res_blocks,
        latent_channels=4,
    )
    vae.load_state_dict(convert_ldm_vae_checkpoint(dict(tensors), {**vae.config}))
    text: Any = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=spec.texts[0].inner,
            num_hidden_layers=spec.texts[0].layers,
            num_attention_heads=spec.texts[0].heads,
        )
    )
    prefix = "cond_stage_model.transformer."
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    flat = {name.removeprefix("text_model."): value for name, value in own.items()}
    text.load_state_dict(flat if "embeddings.token_embedding.weight" in text.state_dict() else own, strict=False)
    return StableDiffusionImg2ImgPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=_tokenizer(CLIPTokenizer),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _tokenizer(kind: Any) -> Any:
    """transformers' tokenizer over the vocabulary that overpaint ships."""
    from overpaint.text.tokens import clip_merges, clip_vocabulary

    merges = clip_merges()
    return kind(vocab=clip_vocabulary(merges), merges=merges, model_max_length=77)


if __name__ == "__main__":
    main()
