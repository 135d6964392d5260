"""Train the built-in model, stage by stage, from wherever it was left:

python -m training.run --state DIR --stage all --minutes 25 --settling 0.3 --device auto
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from training.denoiser import train_denoiser
from training.export import NAME, export
from training.hardware import Hardware
from training.latents import averaged_codec
from training.siblings import KINDS, read_base, train_sibling
from training.store import Folder
from training.trainee import Budget
from training.vae import Data, train_decoder, train_vae

_SHARES = {"vae": 0.30, "unet": 0.60, "decoder": 0.10}  # of the minutes of `all`


def main(arguments: list[str] | None = None) -> None:
    said = _parser().parse_args(arguments)
    for stage, share in {said.stage: 1.0}.items() if said.stage != "all" else _SHARES.items():
        _run(stage, said, Budget(minutes=said.minutes * share, settling=said.settling))
    if said.stage == "all":
        print(export(Folder(said.state)))


def _run(stage: str, said: argparse.Namespace, budget: Budget) -> None:
    folder, hardware = Folder(said.state), Hardware.named(said.device)
    data = Data(size=said.size, shards=said.shards, crop=said.crop, batch=said.crops)
    if stage == "vae":
        train_vae(folder, data, budget, hardware, said.workers)
    elif stage == "decoder":
        train_decoder(folder, averaged_codec(folder, hardware), data, budget, hardware)
    elif stage in KINDS:
        _run_sibling(stage, said, budget, folder, hardware)
    else:
        train_denoiser(folder, said.size, said.shards, said.batch, budget, hardware, said.workers)


def _run_sibling(kind: str, said: argparse.Namespace, budget: Budget, folder: Folder, hardware: Hardware) -> None:
    base = read_base(said.base or folder.root / NAME)
    path = train_sibling(
        folder,
        kind,
        base,
        budget,
        hardware,
        size=said.size,
        shards=said.lessons,
        batch=said.batch,
        workers=said.workers,
    )
    print(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="training.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--state", type=Path, required=True, help="folder of art, pictures and training state")
    parser.add_argument("--stage", choices=(*_SHARES, "all", *KINDS), default="all")
    parser.add_argument(
        "--base", type=Path, help=f"what a sibling starts from; {NAME} in the state folder unless given"
    )
    parser.add_argument("--minutes", type=float, required=True, help="how long to train; rendering comes on top")
    parser.add_argument("--settling", type=float, default=0.0, help="last share of the minutes, with a falling rate")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--size", type=int, default=128, help="side of the pictures")
    parser.add_argument("--shards", type=int, default=12, help="files of 512 pictures")
    parser.add_argument("--lessons", type=int, default=4, help="files of 512 lessons for a sibling")
    parser.add_argument("--crop", type=int, default=64, help="side of the codec's crops")
    parser.add_argument("--crops", type=int, default=8, help="crops in a step of the codec")
    parser.add_argument("--batch", type=int, default=32, help="latents in a step of the denoiser")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that render")
    return parser


if __name__ == "__main__":
    main()
