"""What each peer of `benchmarks.peers` does in a process of its own: load, then paint two pictures, and keep time.

Its last line is the result. Only what the peer itself needs is imported, for the start is measured, too.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

PROMPTS = ("a lake, number 1", "a lake, number 2")
NEGATIVE, GUIDANCE = "blurry", 7.0
Moment = tuple[float, float]  # seconds on the clock since the process began, and seconds of the processor


@dataclass(frozen=True)
class Work:
    """What is painted: the same for all."""

    folder: str
    size: int
    steps: int
    calls: int  # of the denoiser, which steps and strength come to
    threads: int

    @property
    def strength(self) -> float:
        """As diffusers and openvino-genai count: calls = steps * strength."""
        return self.calls / self.steps

    @property
    def strength_with_one_more(self) -> float:
        """As the reference counts, and all that follow it: calls = steps * strength + 1."""
        return (self.calls - 1) / self.steps


class Stopwatch:
    """Moments of a process: when it was ready to paint, and of each picture its start, its steps and its end."""

    def __init__(self) -> None:
        self._began = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - _process_start())
        self.ready: Moment = (0.0, 0.0)
        self.pictures: list[dict[str, Any]] = []

    def now(self) -> Moment:
        return time.time() - self._began, time.process_time()

    def loaded(self) -> None:
        self.ready = self.now()

    def paint(self, work: Callable[[Callable[[], None]], object]) -> None:
        """One picture; `work` calls what it is given after each step."""
        steps: list[Moment] = []
        began = self.now()
        work(lambda: steps.append(self.now()))
        self.pictures.append({"began": began, "steps": steps, "ended": self.now()})

    def result(self) -> dict[str, Any]:
        first, second = (_parts(each) for each in self.pictures)
        start = {"seconds": self.ready[0] + first["before"][0], "cpu": self.ready[1] + first["before"][1]}
        whole = self.pictures[0]["ended"]
        return {
            "calls": len(self.pictures[0]["steps"]),
            "start": start,  # of the process, to the first call of the denoiser
            "whole": {"seconds": whole[0], "cpu": whole[1]},  # from nothing to the first picture
            **{name: {"seconds": value[0], "cpu": value[1]} for name, value in second.items()},
            "peak": {"GiB": _peak_kib() / 2**20},
        }


def _parts(picture: dict[str, Any]) -> dict[str, Moment]:
    """Of one picture: all of it, a call of the denoiser, what comes before the first one, and after the last."""
    began, steps, ended = picture["began"], picture["steps"], picture["ended"]
    gaps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(steps)]
    call = tuple(statistics.median(each) for each in zip(*gaps, strict=True)) if gaps else (0.0, 0.0)
    return {
        "picture": (ended[0] - began[0], ended[1] - began[1]),
        "call": (call[0], call[1]),
        "before": (steps[0][0] - call[0] - began[0], steps[0][1] - call[1] - began[1]),
        "after": (ended[0] - steps[-1][0], ended[1] - steps[-1][1]),
    }


def _peak_kib() -> int:
    """NOTE: getrusage's figure survives exec, so a child would report its parent's peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _process_start() -> float:
    """Seconds after boot at which this process began."""
    fields = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
    return float(fields[19]) / os.sysconf("SC_CLK_TCK")


def source(size: int, number: int) -> Any:
    """Another picture each time, so that nothing is known from the one before."""
    from PIL import Image

    return Image.effect_mandelbrot((size, size), (-2, -1.5, 1 - number / 10, 1.5), 60).convert("RGB")


# -- the peers ---------------------------------------------------------------------------------------------------------


def overpaint(work: Work, dtype: str, backend: str) -> Stopwatch:
    watch = Stopwatch()
    from overpaint import Engine, Img2ImgRequest, Progress, Settings

    settings = Settings().with_changes({"backend": backend})
    file = Path(work.folder) / "sd15.safetensors"
    with Engine(file, device="cpu", dtype=dtype, settings=settings) as engine:
        watch.loaded()
        for number, prompt in enumerate(PROMPTS):
            request = Img2ImgRequest(
                images=(source(work.size, number),),
                prompt=prompt,
                negative_prompt=NEGATIVE,
                cfg_scale=GUIDANCE,
                strength=work.strength_with_one_more,
                steps=work.steps,
                sampler="Euler",
                seed=number,
                width=work.size,
                height=work.size,
            )

            def paint(step: Callable[[], None], request: Any = request) -> None:
                for event in engine.run(request):
                    if isinstance(event, Progress):
                        step()

            watch.paint(paint)
    return watch


def diffusers(work: Work, dtype: str) -> Stopwatch:
    watch = Stopwatch()
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionImg2ImgPipeline

    pipeline: Any = StableDiffusionImg2ImgPipeline.from_pretrained(
        str(Path(work.folder) / "diffusers"), torch_dtype=getattr(torch, dtype), variant="fp16", local_files_only=True
    )
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    watch.loaded()
    for number, prompt in enumerate(PROMPTS):

        def paint(step: Callable[[], None], prompt: str = prompt, number: int = number) -> None:
            def seen(_pipe: Any, _step: int, _timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
                step()
                return state

            pipeline(
                prompt,
                source(work.size, number),
                strength=work.strength,
                num_inference_steps=work.steps,
                guidance_scale=GUIDANCE,
                negative_prompt=NEGATIVE,
                generator=torch.Generator().manual_seed(number),
                callback_on_step_end=seen,
            )

        watch.paint(paint)
    return watch


def openvino_genai(work: Work) -> Stopwatch:
    watch = Stopwatch()
    import numpy as np
    import openvino
    import openvino_genai as genai

    told = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": work.threads}
    pipeline = genai.Image2ImagePipeline(str(Path(work.folder) / "openvino"), "CPU", **told)
    watch.loaded()
    for number, prompt in enumerate(PROMPTS):
        pixels = openvino.Tensor(np.asarray(source(work.size, number))[None])

        def paint(step: Callable[[], None], prompt: str = prompt, number: int = number, pixels: Any = pixels) -> None:
            def seen(_step: int, _steps: int, _latent: Any) -> bool:
                step()
                return False

            pipeline.generate(
                prompt,
                pixels,
                strength=work.strength,
                num_inference_steps=work.steps,
                guidance_scale=GUIDANCE,
                negative_prompt=NEGATIVE,
                rng_seed=number,
                callback=seen,
            )

        watch.paint(paint)
    return watch


def stable_diffusion_cpp(work: Work) -> Stopwatch:
    watch = Stopwatch()
    from stable_diffusion_cpp import StableDiffusion

    model = StableDiffusion(
        model_path=str(Path(work.folder) / "sd15.safetensors"),
        wtype="f16",
        n_threads=work.threads,
        vae_decode_only=False,
        verbose=False,
    )
    watch.loaded()
    for number, prompt in enumerate(PROMPTS):

        def paint(step: Callable[[], None], prompt: str = prompt, number: int = number) -> None:
            seen: set[int] = set()

            def progress(done: int, _steps: int, _seconds: float) -> None:
                if done and _steps <= work.steps and done not in seen:
                    seen.add(done)
                    step()

            model.generate_image(
                prompt=prompt,
                negative_prompt=NEGATIVE,
                init_image=source(work.size, number),
                strength=work.strength_with_one_more,
                sample_steps=work.steps,
                sample_method="euler",
                cfg_scale=GUIDANCE,
                width=work.size,
                height=work.size,
                seed=number,
                progress_callback=progress,
            )

        watch.paint(paint)
    return watch


PEERS: dict[str, Callable[[Work], Stopwatch]] = {
    "overpaint torch fp32": lambda work: overpaint(work, "float32", "torch"),
    "overpaint torch bf16": lambda work: overpaint(work, "bfloat16", "torch"),
    "overpaint openvino bf16": lambda work: overpaint(work, "bfloat16", "openvino"),
    "diffusers fp32": lambda work: diffusers(work, "float32"),
    "diffusers bf16": lambda work: diffusers(work, "bfloat16"),
    "openvino-genai bf16": openvino_genai,
    "stable-diffusion.cpp f16": stable_diffusion_cpp,
}
# Who needs packages that are no dependency of this project, not even for its tests: the module that is looked for.
ELSEWHERE = {"openvino-genai bf16": "openvino_genai", "stable-diffusion.cpp f16": "stable_diffusion_cpp"}


def main() -> None:
    name, said = sys.argv[1:]
    work = Work(**json.loads(said))
    print(json.dumps({"work": asdict(work), **PEERS[name](work).result()}))


if __name__ == "__main__":
    main()
