"""One command: `python -m training.run --state DIR --stage vae|unet|all --minutes N --device auto`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from training.hardware import Hardware
from training.store import Folder
from training.trainee import Budget
from training.vae import Data, train_vae


def main(arguments: list[str] | None = None) -> None:
    said = _parser().parse_args(arguments)
    folder, hardware = Folder(said.state), Hardware.named(said.device)
    data = Data(size=said.size, shards=said.shards, crop=said.crop, batch=said.crops)
    if said.stage in ("vae", "all"):
        share = 0.35 if said.stage == "all" else 1.0
        budget = Budget(minutes=said.minutes * share, settling=said.settling)
        train_vae(folder, data, budget, hardware, said.workers)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="training.run", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder of art, pictures and training state")
    parser.add_argument("--stage", choices=("vae", "unet", "all"), default="all")
    parser.add_argument("--minutes", type=float, required=True, help="how long to train; rendering comes on top")
    parser.add_argument("--settling", type=float, default=0.0, help="last share of the minutes, with a falling rate")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=128, help="side of the pictures")
    parser.add_argument("--shards", type=int, default=12, help="files of 512 pictures")
    parser.add_argument("--crop", type=int, default=64, help="side of the codec's crops")
    parser.add_argument("--crops", type=int, default=8, help="crops in a step of the codec")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that render")
    return parser


if __name__ == "__main__":
    main()
