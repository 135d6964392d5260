"""What `benchmarks.gpu` looks at, part by part: each a function of its arguments that returns plain figures."""

from __future__ import annotations

import json
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from overpaint.bench import BenchJob
from overpaint.engine import Engine
from overpaint.events import Finished, Preview
from overpaint.pixels.likeness import psnr, ssim
from overpaint.request import Img2ImgRequest, PaintRequest
from overpaint.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
RECORDINGS = ROOT / "tests" / "recordings"
FLOAT32_LEVELS = 4  # a GPU may be so many levels off the recordings of a CPU in float32,
HALF_DECIBELS = 40.0  # and half precision so close to float32, on the built-in model
_UNSTEADY = ("dpm_adaptive",)  # rounding decides how many steps it takes
Figures = dict[str, Any]


def machine(args: Namespace) -> Figures:
    """What is there."""
    found: Figures = {"device": args.device, "torch": torch.__version__}
    if args.device == "cuda":
        free, total = torch.cuda.mem_get_info()
        found |= {
            "name": torch.cuda.get_device_name(),
            "capability": ".".join(map(str, torch.cuda.get_device_capability())),
            "GiB": round(total / 2**30, 1),
            "free GiB": round(free / 2**30, 1),
            "CUDA": torch.version.cuda,
        }
    return found


# -- the same pictures -------------------------------------------------------------------------------------------------


def parity(args: Namespace) -> Figures:
    """The recorded jobs of the reference in float32: how far the device is off, in levels of 0 to 255."""
    from tests.checkpoints import write_checkpoint

    cases = json.loads((RECORDINGS / "cases.json").read_text())
    cases = [each for each in cases if not each.get("expect_error") and not each["name"].endswith(_UNSTEADY)]
    cases = [each for each in cases if not each.get("scripts")][: args.cases]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    engines: dict[str, Engine] = {}
    levels: dict[str, int] = {}
    failed: dict[str, str] = {}
    for case in cases:
        name = case["checkpoint"]
        if name not in engines:
            engines[name] = Engine(write_checkpoint(name, args.folder), device=args.device, dtype="float32")
        try:
            levels[case["name"]] = _levels_off(case, engines[name])
        except Exception as error:  # the other cases are still worth knowing
            failed[case["name"]] = f"{type(error).__name__}: {error}"
    over = {name: value for name, value in levels.items() if value > FLOAT32_LEVELS}
    return {
        "cases": len(levels),
        "tolerance in levels": FLOAT32_LEVELS,
        "most levels off": max(levels.values(), default=None),
        "beyond it": over,
        "errors": failed,
        "ok": bool(levels) and not over and not failed,
    }


def _levels_off(case: Mapping[str, Any], engine: Engine) -> int:
    from modules.processing import StableDiffusionProcessingImg2Img, process_images

    params = dict(case["params"])
    params["init_images"] = [Image.open(RECORDINGS / each) for each in params["init_images"]]
    for name in ("mask", "latent_mask"):
        if params.get(name):
            params[name] = Image.open(RECORDINGS / params[name])
    said = {**(case.get("opts") or {}), **(params.pop("override_settings", None) or {})}
    said.setdefault("randn_source", "CPU")  # the recordings were made on one
    p = StableDiffusionProcessingImg2Img(
        sd_model=engine, do_not_save_samples=True, do_not_save_grid=True, override_settings=said, **params
    )
    for _ in range(case.get("repeat") or 1):
        images = process_images(p).images
    golden = RECORDINGS / "goldens" / case["name"]
    off = 0
    for i, image in enumerate(images):
        expected = np.asarray(Image.open(golden / f"image{i}.png"), dtype=np.int16)
        off = max(off, int(np.abs(np.asarray(image, dtype=np.int16) - expected).max()))
    return off


def half(args: Namespace) -> Figures:
    """Half precision beside float32, on pictures of the built-in model."""
    settings = Settings(randn_source="CPU")
    job = BenchJob((args.small, args.small), args.few)
    pictures = {}
    for dtype in ("float32", *args.halves):
        with Engine(device=args.device, dtype=dtype, settings=settings) as engine:
            pictures[dtype] = [engine.paint(job.request(i, {})).images[0] for i in range(args.rounds)]
    found: Figures = {"tolerance in dB": HALF_DECIBELS}
    for dtype in args.halves:
        pairs = list(zip(pictures["float32"], pictures[dtype], strict=True))
        found[dtype] = {
            "PSNR": statistics.mean(min(psnr(*each), 99.0) for each in pairs),
            "SSIM": statistics.mean(ssim(*each) for each in pairs),
        }
    found["ok"] = all(found[each]["PSNR"] >= HALF_DECIBELS for each in args.halves)
    return found


def samplers(args: Namespace) -> Figures:
    """Every sampler once: seconds, and whether there is a picture."""
    from overpaint.sampler_table import SAMPLERS

    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    with Engine(device=args.device, dtype=args.dtype) as engine:
        for spec in [*SAMPLERS][: args.samplers]:
            request = _job(args, args.small, 4, sampler=spec.name)
            started = time.perf_counter()
            try:
                picture = np.asarray(engine.paint(request).images[0])
            except Exception as error:  # each is worth knowing
                failed[spec.name] = f"{type(error).__name__}: {error}"
                continue
            seconds[spec.name] = round(time.perf_counter() - started, 3)
            if picture.std() < 1:
                failed[spec.name] = "one colour"
    return {"seconds": seconds, "errors": failed, "ok": bool(seconds) and not failed}


def lora(args: Namespace) -> Figures:
    """A LoRA of all self-attention changes the picture; without it nothing is left of it."""
    _write_lora(args.folder / "gpu-lora.safetensors")
    with Engine(device=args.device, dtype=args.dtype) as engine:
        settings = engine.settings.with_changes({"lora_dir": str(args.folder)})
        plain, worn = (_job(args, args.small, args.few, prompt=f"a lake{each}") for each in ("", " <lora:gpu-lora:1>"))
        seconds = []
        pictures = []
        for request in (plain, worn, plain):
            started = time.perf_counter()
            pictures.append(np.asarray(engine.paint(request, settings).images[0]).astype(int))
            seconds.append(round(time.perf_counter() - started, 3))
    changed, left = float(np.abs(pictures[1] - pictures[0]).mean()), int(np.abs(pictures[2] - pictures[0]).max())
    return {"levels changed": changed, "left of it": left, "seconds": seconds, "ok": changed > 0 and left == 0}


def _write_lora(path: Path) -> None:
    """Random factors for the layers of the built-in model, as its file has them."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    from overpaint.models.built_in import default_path
    from overpaint.models.families import UNET_PREFIX

    tensors: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    with safe_open(default_path(), "pt") as file:
        names = [each for each in file.keys() if each.endswith("attn1.to_out.0.weight")]  # noqa: SIM118 (no mapping)
        for name in names:
            outputs, inputs = file.get_slice(name).get_shape()
            key = "lora_unet_" + name.removeprefix(UNET_PREFIX).removesuffix(".weight").replace(".", "_")
            tensors[f"{key}.lora_up.weight"] = torch.randn(outputs, 4, generator=generator) * 0.1
            tensors[f"{key}.lora_down.weight"] = torch.randn(4, inputs, generator=generator) * 0.1
    save_file(tensors, path)


# -- how fast ----------------------------------------------------------------------------------------------------------


def speed(args: Namespace) -> Figures:
    """A picture on a full-size model beside diffusers, in turn: seconds, and peak of memory."""
    from benchmarks.pipeline import as_pipeline, random_checkpoint

    tensors = random_checkpoint(_spec(args))
    sides: dict[str, Callable[[int], object]] = {}
    with Engine(_checkpoint(args, tensors), device=args.device, dtype=args.dtype) as engine:
        sides["overpaint"] = lambda number: engine.paint(_job(args, args.size, args.steps, seed=number))
        try:
            pipeline = as_pipeline({name: tensor.float() for name, tensor in tensors.items()}, _spec(args))
            sides["diffusers"] = _diffusers(args, pipeline.to(args.device, getattr(torch, args.dtype)))
        except ImportError as error:
            sides.pop("diffusers", None)
            left_out = str(error)
        else:
            left_out = ""
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(args.rounds + 1):
            for name, side in sides.items():
                _settle(args)
                started = time.perf_counter()
                side(number)
                _settle(args)
                if number:  # the first round sets things up
                    seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    found: Figures = {"size": args.size, "steps": args.steps, "seconds": medians, "left out": left_out}
    if "diffusers" in medians:
        found["of diffusers"] = medians["overpaint"] / medians["diffusers"]
    return found


def _diffusers(args: Namespace, pipeline: Any) -> Callable[[int], object]:
    pipeline.set_progress_bar_config(disable=True)
    source = _source(args.size)

    def paint(number: int) -> object:
        generator = torch.Generator().manual_seed(number)
        said = {"negative_prompt": "blurry", "guidance_scale": 7.0, "generator": generator}
        return pipeline("a lake", source, strength=1.0, num_inference_steps=args.steps, **said)

    return paint


def jobs(args: Namespace) -> Figures:
    """1, 2, 4 and 8 jobs in one worker: shared calls against one after another (benchmarks.gpu_jobs)."""
    from benchmarks import gpu_jobs

    said = Namespace(size=args.size, steps=args.steps, rows=args.rows, jobs=args.jobs, repeats=args.rounds)
    checkpoint = None if args.tiny else _checkpoint(args)
    with Engine(checkpoint, device=args.device, dtype=args.dtype) as engine:
        return gpu_jobs.measured(engine, said)


def sdxl(args: Namespace) -> Figures:
    """SDXL of full size: seconds to load and of a picture, and peak of memory."""
    from benchmarks.sdxl import write_checkpoint

    file = None
    if not args.tiny:
        file = args.folder / "sdxl.safetensors"
        write_checkpoint(file)
    _forget_peak(args)
    started = time.perf_counter()
    with Engine(file, device=args.device, dtype=args.dtype) as engine:
        loaded = time.perf_counter() - started
        seconds = []
        for number in range(2):
            started = time.perf_counter()
            engine.paint(_job(args, args.large, args.few, seed=number))
            _settle(args)
            seconds.append(round(time.perf_counter() - started, 3))
    if file is not None:
        file.unlink()
    return {"seconds to load": loaded, "size": args.large, "steps": args.few, "seconds": seconds, **_peak(args)}


def memory(args: Namespace) -> Figures:
    """Peak of memory by size. Weights are not streamed by this version: a model that does not fit cannot be used."""
    found: Figures = {"streaming": "not offered by this version"}
    with Engine(None if args.tiny else _checkpoint(args), device=args.device, dtype=args.dtype) as engine:
        for side in args.sides:
            _forget_peak(args)
            started = time.perf_counter()
            try:
                engine.paint(_job(args, side, 2))
            except Exception as error:  # too large is an answer
                found[str(side)] = {"error": f"{type(error).__name__}: {error}"}
                continue
            _settle(args)
            found[str(side)] = {"seconds": round(time.perf_counter() - started, 3), **_peak(args)}
    return found


def previews(args: Namespace) -> Figures:
    """What pictures on the way cost: a job that shows each step beside one that shows none, in turn."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    count = 0
    with Engine(None if args.tiny else _checkpoint(args), device=args.device, dtype=args.dtype) as engine:
        for number in range(args.rounds + 1):
            for shown in seconds:
                said = {"live_previews_enable": shown, "show_progress_every_n_steps": 1}
                request = _job(args, args.size, args.steps, seed=number, overrides=said)
                started = time.perf_counter()
                events = list(engine.run(request))
                _settle(args)
                assert isinstance(events[-1], Finished)
                count = max(count, sum(isinstance(each, Preview) for each in events))
                if number:
                    seconds[shown].append(time.perf_counter() - started)
    without, with_them = (statistics.median(each) for each in seconds.values())
    return {"previews": count, "seconds": [without, with_them], "share of a job": with_them / without - 1}


PARTS: dict[str, tuple[Callable[[Namespace], Figures], float]] = {  # and the seconds that each may take
    "machine": (machine, 60),
    "parity": (parity, 120),
    "half": (half, 60),
    "speed": (speed, 150),
    "jobs": (jobs, 150),
    "previews": (previews, 60),
    "memory": (memory, 90),
    "samplers": (samplers, 60),
    "lora": (lora, 60),
    "sdxl": (sdxl, 180),
}


# -- what they share ---------------------------------------------------------------------------------------------------


def _job(args: Namespace, side: int, steps: int, **said: Any) -> PaintRequest:
    fields = {"prompt": "a lake", "negative_prompt": "blurry", "strength": 1, "sampler": "Euler", "seed": 1}
    source = _source(side)
    return Img2ImgRequest(images=(source,), width=side, height=side, steps=steps, **{**fields, **said})


def _source(side: int) -> Image.Image:
    return Image.effect_mandelbrot((side, side), (-2, -1.5, 1, 1.5), 60).convert("RGB")


def _spec(args: Namespace) -> Any:
    from benchmarks.peer_files import spec_of

    return spec_of(args.tiny)


def _checkpoint(args: Namespace, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """Stable Diffusion 1.5 with random weights; made once."""
    from safetensors.torch import save_file

    from benchmarks.pipeline import random_checkpoint

    path: Path = args.folder / "sd15.safetensors"
    if not path.exists():
        spec = _spec(args)
        told = {"overpaint.num_heads": json.dumps(spec.unet.heads), "overpaint.text_heads": "[2]"}
        unfinished = path.with_suffix(".part")
        save_file(tensors or random_checkpoint(spec), unfinished, told if args.tiny else None)
        unfinished.rename(path)
    return path


def _settle(args: Namespace) -> None:
    if args.device == "cuda":
        torch.cuda.synchronize()


def _forget_peak(args: Namespace) -> None:
    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(args: Namespace) -> Figures:
    return {"peak GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2)} if args.device == "cuda" else {}


def tiny(args: Namespace) -> Namespace:
    """The same parts with hardly any work, on a CPU."""
    small = {
        "device": "cpu",
        "dtype": "float32",
        "halves": ["bfloat16"],
        "size": 64,
        "large": 64,
        "small": 64,
        "steps": 2,
        "few": 2,
        "rounds": 1,
        "cases": 1,
        "samplers": 2,
        "rows": [1],
        "jobs": [1, 2],
        "sides": [64],
        "tiny": True,
    }
    return Namespace(**{**vars(args), **small})
