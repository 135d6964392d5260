"""A window round the mask: what it costs in quality, what decoding a part of a picture changes, and what both save.

    python -m benchmarks.windows decoded [--size 512] [--pictures 6]
    python -m benchmarks.windows judged --state DIR [--cases 100] [--shards 4]
    python -m benchmarks.windows seconds --checkpoint FILE [--size 512] [--steps 20] [--strength 0.5] [--repeats 2]

`decoded` decodes pictures of the built-in model whole, and in part with different margins: how far the part is off, in
levels of 0 to 255, where a mask of 5 % shows it. `judged` paints held-out scenes with another thing in the place of
one, with a window and without, and asks the judge of `training` what they show; it trains the judge first if there is
none, and `--state` is prepared by `python -m training.fetch`. `seconds` paints a picture with a mask of 5 % in both
ways, in turn, with a checkpoint of full size (`benchmarks.pipeline` makes one).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from overpaint.engine import Engine, stages_of
from overpaint.models.built_in import default_path
from overpaint.painting.latents import pixels_of
from overpaint.painting.windowed import WindowedCodec
from overpaint.pixels.mask import blur_mask, widened
from overpaint.pixels.seams import BAND, measure_seam
from overpaint.planning.window import LatentWindow
from overpaint.request import Img2ImgRequest

MARGINS = (0, 2, 4, 6, 8, 12, 16)
OPTION = "inpaint_window"
SHARE = 0.05  # of a picture, that the mask takes


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("decoded", "judged", "seconds"))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--state", type=Path, help="the folder that training.fetch prepared")
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--shards", type=int, default=4, help="files of 512 pictures, that the judge is trained on")
    parser.add_argument("--checkpoint", type=Path, help="another model than the built-in one")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--strength", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args(argv)
    if args.what == "judged" and args.state is None:
        parser.error("judged needs --state; prepare it with python -m training.fetch --state DIR")
    found: dict[str, Any] = {"decoded": decoded, "judged": judged, "seconds": seconds}[args.what](args)
    print(json.dumps(found, indent=1))
    return found


def square(size: int, number: int) -> tuple[int, int, int, int]:
    """A mask of the share that is measured, somewhere else each time."""
    side = round(size * SHARE**0.5)
    left, top = np.random.default_rng(number).integers(0, size - side, 2)
    return int(left), int(top), int(left) + side, int(top) + side


def drawn(size: int, box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", (size, size))
    mask.paste(255, box)
    return mask


# -- decoding a part ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def decoded(args: argparse.Namespace) -> dict[str, Any]:
    """Of each margin the levels by which a part is off, mean and worst, and its share of the cells."""
    off: dict[int, list[tuple[float, float, float]]] = {each: [] for each in MARGINS}
    with Engine(args.checkpoint, dtype=args.dtype) as engine:
        codec, factor = stages_of(engine).backend, engine.spec.latent.factor
        cells = args.size // factor
        for number in range(args.pictures):
            z = codec.encode(pixels_of(_scene(args.size, number), codec.device))[0]
            whole = _levels(codec.decode(z))
            box = square(args.size, number)
            shown = widened(box, 2 * BAND, 2 * BAND, (args.size, args.size))
            for margin in MARGINS:
                part = LatentWindow(
                    *(max(0, each // factor - margin) for each in shown[:2]),
                    *(min(cells, -(-each // factor) + margin) for each in shown[2:]),
                )
                levels = _levels(WindowedCodec(codec, part, factor).decode(z))
                inside = np.s_[box[1] : box[3], box[0] : box[2]]
                apart = np.abs(levels[inside] - whole[inside])
                off[margin].append((float(apart.mean()), float(apart.max()), part.area / cells**2))
    names = ("mean levels off", "most levels off", "share of the cells")
    means = {margin: np.mean(rows, axis=0).round(3).tolist() for margin, rows in off.items()}
    return {str(margin): dict(zip(names, each, strict=True)) for margin, each in means.items()}


def _scene(size: int, number: int) -> Image.Image:
    from benchmarks.seams import scene

    return scene(np.random.default_rng(number), size)


def _levels(pixels: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.rint((pixels[0].float().clamp(-1, 1) + 1).mul(127.5).permute(1, 2, 0).cpu().numpy().astype(np.float64))


# -- what is painted ---------------------------------------------------------------------------------------------------


def judged(args: argparse.Namespace) -> dict[str, Any]:
    """The share of things asked for that the judge sees, and how visible the seam is, in both ways."""
    from training import evaluate
    from training.hardware import Hardware
    from training.judge import trained_judge
    from training.masks import around
    from training.painting import Painter
    from training.scenes.art import EmojiArt
    from training.scenes.captions import statement
    from training.specs import NATIVE_SIZE
    from training.store import SCENES, Folder, render_shards

    folder, hardware = Folder(args.state), Hardware.named("auto")
    checkpoint = args.checkpoint or default_path()
    _keep_codec(folder)
    render_shards(folder, NATIVE_SIZE, SCENES, args.shards, 1)
    judge = trained_judge(folder, NATIVE_SIZE, args.shards, hardware)
    bench = evaluate.Bench(Painter(checkpoint), judge, EmojiArt(folder.emoji), NATIVE_SIZE, hardware, {})
    pictures, wanted = evaluate._swaps(bench, args.cases)
    sources = np.stack([each.pixels for each in pictures])
    masks = np.stack([around(each.boxes[0], NATIVE_SIZE).astype(np.uint8) * 255 for each in pictures])
    prompts = [statement(labels) for labels in wanted]
    true = bench.right(sources, [each.labels for each in pictures])
    found: dict[str, Any] = {"cases": args.cases, "things, in true pictures": true["thing"]}
    all_painted = {
        option: bench.painter.inside(masks, sources, prompts, strength=1.0, overrides={OPTION: option})
        for option in ("off", "auto")
    }
    differ = zip(*all_painted.values(), strict=True)
    found["painted otherwise"] = sum(bool((one != other).any()) for one, other in differ)
    for option, painted in all_painted.items():
        seams = [_seam(*each) for each in zip(sources, painted, masks, strict=True)]
        found[option] = {
            "things": bench.right(painted, wanted)["thing"],
            "seam, mean step": statistics.mean(seams),
            "seam, median step": statistics.median(seams),
        }
    return found


def _seam(source: Any, painted: Any, mask: Any) -> float:
    alpha = blur_mask(Image.fromarray(mask), 4, 4, never_darker=True)
    found = measure_seam(Image.fromarray(source), Image.fromarray(painted), alpha)
    return 0.0 if found is None else found.step


def _keep_codec(folder: Any) -> None:
    """The codec of the built-in model, as training keeps it: the judge looks at pictures that went through it."""
    from safetensors.torch import load_file

    from overpaint.models.families import VAE_PREFIX
    from overpaint.networks.autoencoder import AutoencoderKL
    from training import specs
    from training.store import save_tensors

    if folder.trainee("vae").exists():
        return
    known = load_file(default_path())
    names = [name for name, _ in AutoencoderKL(specs.VAE).named_parameters()]
    save_tensors(folder.trainee("vae"), {"averages": [known[VAE_PREFIX + name].float() for name in names]})


# -- seconds -----------------------------------------------------------------------------------------------------------


def seconds(args: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds and seconds of one picture with a small mask, in both ways; outside the mask they are the same."""
    work: dict[str, list[tuple[float, float]]] = {"off": [], "auto": []}
    with Engine(args.checkpoint, dtype=args.dtype) as engine:
        source = _scene(args.size, 1)
        mask = drawn(args.size, square(args.size, 4))
        for number in range(args.repeats):
            results = {}
            for option in work:
                request = Img2ImgRequest(
                    images=(source,),
                    mask=mask,
                    mask_blur_x=0,
                    mask_blur_y=0,
                    width=args.size,
                    height=args.size,
                    prompt=f"a lake, number {number} {option}",  # nothing is known from before
                    negative_prompt="blurry",
                    steps=args.steps,
                    strength=args.strength,
                    seed=number,
                    overrides={OPTION: option, "encodings_memory": 0.0},
                )
                wall, cpu = time.perf_counter(), time.process_time()
                results[option] = np.asarray(engine.paint(request).images[0])
                work[option].append((time.perf_counter() - wall, time.process_time() - cpu))
            outside = np.asarray(mask) == 0
            assert np.array_equal(results["off"][outside], results["auto"][outside])
    medians = {name: [statistics.median(each) for each in zip(*rows, strict=True)] for name, rows in work.items()}
    ratios = [a[1] / b[1] for a, b in zip(work["off"], work["auto"], strict=True)]
    return {
        **{name: {"seconds": wall, "CPU seconds": cpu} for name, (wall, cpu) in medians.items()},
        "times as fast, by CPU seconds": statistics.median(ratios),
    }


if __name__ == "__main__":
    main()
