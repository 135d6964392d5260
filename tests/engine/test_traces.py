"""Whatever hangs on a model hangs there for one job: nothing of it is left, and jobs that take turns never see it."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch

from overpaint.engine import Engine, stages_of
from overpaint.errors import OverpaintError
from overpaint.events import Finished
from overpaint.request import ControlUnit, Hires, Lora, PaintRequest
from overpaint.settings import Settings
from tests.engine.conftest import asked, painted, pixels
from tests.engine.toys import Site, copy_of, dreamt, hint, lora

TINY_MEMORY = 1e-6  # GiB: every model that is not in use is forgotten
TAESD = {"sd_vae_encode_method": "TAESD", "sd_vae_decode_method": "TAESD"}


def edges(**fields: Any) -> ControlUnit:
    return ControlUnit(model="edges", image=hint(), **fields)


JOBS: dict[str, PaintRequest] = {
    "plain": asked(),
    "lora": asked(prompt="a cat <lora:red:0.8>"),
    "two loras": asked(prompt="a cat <lora:blue:0.5><lora:red:-1>"),
    "text lora": asked(loras=(Lora(name="text"),)),
    "lora and another model": asked(prompt="a cat <lora:text:1><lora:red:1>", checkpoint="other"),
    "twin": asked(prompt="a cat <lora:text:1>", checkpoint="twin"),
    "bare twin": asked(checkpoint="twin"),
    "hypernet": asked(prompt="a cat <hypernet:waves:0.7>"),
    "embedding": asked(prompt="a zorbleflux cat"),
    "controls": asked(controls=(edges(),)),
    "vae": asked(overrides={"sd_vae": "pale.safetensors"}),
    "vae of another": asked(checkpoint="other", overrides={"sd_vae": "pale.safetensors"}, tiling=True),
    "refiner": asked(prompt="a cat <lora:red:1>", refiner="other", refiner_switch_at=0.4),
    "refiner tiled": asked(refiner="other", refiner_switch_at=0.4, tiling=True),
    "tiling": asked(tiling=True),
    "skip": asked(clip_skip=2),
    "taesd": asked(overrides=TAESD, tiling=True),
    "upscaler": asked(width=64, height=64, overrides={"upscaler_for_img2img": "grow"}),
    "hires": dreamt(hires=Hires(scale=1.5, checkpoint="other", prompt="a dog <lora:blue:1>")),
    "hires twin": dreamt(prompt="a <lora:text:1> cat", hires=Hires(scale=2, checkpoint="twin", upscaler="Lanczos")),
    "functional": asked(prompt="a cat <lora:red:0.8>", overrides={"lora_functional": True}),
}


@pytest.fixture(scope="module")
def alone(site: Site) -> dict[str, list[bytes]]:
    """What each job gives on an engine of its own."""
    found = {}
    for name, request in JOBS.items():
        with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=site.settings) as fresh:
            found[name] = shown(fresh, request)
    return found


def shown(engine: Engine, request: PaintRequest, settings: Settings | None = None) -> list[bytes]:
    result = engine.paint(request, settings)
    return [*map(pixels, result.images), *(each.encode() for each in result.infotexts)]


def test_every_job_differs(alone: dict[str, list[bytes]]) -> None:
    pictures = [each[0] for name, each in alone.items() if name != "functional"]  # LORA-7: the same, sanely
    assert len(set(pictures)) == len(pictures)
    assert alone["functional"][0] == alone["lora"][0] or alone["functional"][0] not in pictures


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "memory"), [(0, 0.0), (1, TINY_MEMORY)], ids=["kept", "forgotten"])
def test_no_job_leaves_a_trace(
    site: Site, site_engine: Engine, alone: dict[str, list[bytes]], seed: int, memory: float
) -> None:
    settings = site.with_options(model_memory=memory)
    names = random.Random(seed).choices(list(JOBS), k=20)
    for before, name in zip(["plain", *names], [*names, "plain"], strict=True):
        assert shown(site_engine, JOBS[name], settings) == alone[name], (before, name)


def test_a_job_that_fails_leaves_no_trace(
    tmp_path: Path, site: Site, site_engine: Engine, alone: dict[str, list[bytes]]
) -> None:
    for name in ("text", "red"):
        lora(tmp_path / f"{name}.safetensors", on_text=name == "text")
    lora(tmp_path / "half.safetensors", seed=9, width=63)
    for manner in (site.settings, site.reference):
        manner = manner.with_changes({"lora_dir": str(tmp_path)})
        for prompt in ("a <lora:text:1> <lora:half:1> cat", "a <lora:red:1> <lora:half:1> cat"):
            for fields in ({}, {"checkpoint": "twin"}):
                with suppress(OverpaintError):
                    site_engine.paint(asked(prompt=prompt, **fields), manner)
    for name in ("plain", "bare twin", "text lora"):
        assert shown(site_engine, JOBS[name]) == alone[name]


# -- taking turns ------------------------------------------------------------------------------------------------------


def in_turns(engine: Engine, requests: Sequence[PaintRequest], settings: Settings) -> list[list[bytes]]:
    """Each job a tick, then the next one's turn."""
    running = [engine.run(each, settings) for each in requests]
    last = [[event for event in turn if event is not None][-1] for turn in zip(*zip_longest(*running), strict=True)]
    results = [each.result for each in last if isinstance(each, Finished)]
    assert len(results) == len(requests)
    return [[*map(pixels, each.images), *(text.encode() for text in each.infotexts)] for each in results]


PAIRS = [
    ("lora", "two loras"),
    ("text lora", "twin"),
    ("bare twin", "text lora"),
    ("vae", "vae of another"),
    ("lora and another model", "hires"),
    ("refiner", "refiner tiled"),
    ("refiner tiled", "plain"),
    ("hires twin", "text lora"),
    ("hires", "tiling"),
    ("taesd", "tiling"),
    ("hypernet", "embedding"),
    ("controls", "tiling"),
    ("skip", "functional"),
]


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=" / ".join)
def test_two_in_turns(site: Site, site_engine: Engine, alone: dict[str, list[bytes]], pair: tuple[str, str]) -> None:
    settings = site.with_options(show_progress_every_n_steps=1)
    for order in (pair, pair[::-1]):
        found = in_turns(site_engine, [JOBS[name] for name in order], settings)
        assert found == [alone[name] for name in order]


@pytest.mark.slow
def test_many_in_turns(site: Site, site_engine: Engine, alone: dict[str, list[bytes]]) -> None:
    settings = site.with_options(model_memory=TINY_MEMORY)
    assert in_turns(site_engine, list(JOBS.values()), settings) == list(alone.values())


def test_an_abandoned_job_lets_go(site: Site, site_engine: Engine, alone: dict[str, list[bytes]]) -> None:
    settings = site.with_options(model_memory=TINY_MEMORY)
    for name in ("twin", "refiner", "hires", "controls"):
        story = site_engine.run(JOBS[name], settings)
        for _ in range(3):
            next(story)
        story.close()
    assert shown(site_engine, JOBS["plain"], settings) == alone["plain"]
    assert stages_of(site_engine).model_cache._residents.paths() == (Path(site.model("tiny")),)


# -- what is remembered must not outlive what it came from -------------------------------------------------------------


def test_texts_of_forgotten_loras_are_encoded_anew(tmp_path: Path, site: Site) -> None:
    """Twelve LoRAs one after the other, more than are kept: no text of one may serve another."""
    for seed in range(12):
        lora(tmp_path / f"t{seed}.safetensors", seed=seed, on_text=True)
    settings = site.with_options(lora_dir=str(tmp_path))
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=settings) as engine:
        first = [painted(engine, prompt="a cat", loras=(Lora(name=f"t{seed}"),), steps=1) for seed in range(12)]
        assert len({each[0] for each in first}) == 12
        for _ in range(2):
            again = [painted(engine, prompt="a cat", loras=(Lora(name=f"t{seed}"),), steps=1) for seed in range(12)]
            assert again == first


def test_more_loras_in_one_job_than_are_kept(tmp_path: Path, site: Site) -> None:
    for seed in range(11):
        lora(tmp_path / f"t{seed}.safetensors", seed=seed, on_text=bool(seed % 2), factor=0.1)
    settings = site.with_options(lora_dir=str(tmp_path), model_memory=TINY_MEMORY)
    worn = tuple(Lora(name=f"t{seed}") for seed in range(11))
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=settings) as engine:
        plain, all_on = painted(engine), painted(engine, loras=worn)
        assert plain != all_on
        turns = in_turns(engine, [asked(), asked(loras=worn)], settings)
        assert [each[:1] for each in turns] == [plain, all_on]
        assert painted(engine) == plain


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "name", "fields"),
    [
        ("loras", "red.safetensors", {"prompt": "a cat <lora:red:1>"}),
        ("loras", "text.safetensors", {"prompt": "a cat <lora:text:1>"}),
        ("hypernets", "waves.pt", {"prompt": "a cat <hypernet:waves:1>"}),
        ("embeddings", "zorbleflux.safetensors", {"prompt": "zorbleflux"}),
        ("controls", "edges.safetensors", {"controls": (edges(),)}),
        ("upscalers", "grow.pth", {"width": 64, "height": 64, "overrides": {"upscaler_for_img2img": "grow"}}),
        ("taesd", "taesd_decoder.safetensors", {"overrides": TAESD}),
        ("vaes", "pale.safetensors", {"overrides": {"sd_vae": "pale.safetensors"}}),
        ("models", "other.safetensors", {"checkpoint": "other"}),
    ],
)
def test_a_file_replaced_between_jobs(
    tmp_path: Path, site: Site, alone: dict[str, list[bytes]], folder: str, name: str, fields: dict[str, Any]
) -> None:
    """The second job is painted with what is on the disk now, as by a fresh engine."""
    own = copy_of(site, tmp_path)
    with Engine(own.model("tiny"), device="cpu", dtype="float32", settings=own.settings) as engine:
        first = painted(engine, **fields)
        changed(own.root / folder / name)
        second = painted(engine, **fields)
        assert painted(engine) == alone["plain"][:1]
        with Engine(own.model("tiny"), device="cpu", dtype="float32", settings=own.settings) as fresh:
            assert painted(fresh, **fields) == second
    assert first != second


def changed(path: Path) -> None:
    """The same file with other numbers in it, of another time."""
    from safetensors.torch import load_file, save_file

    if path.suffix == ".safetensors":
        tensors = {key: each * 1.5 if each.is_floating_point() else each for key, each in load_file(path).items()}
        save_file(tensors, path, metadata_of(path))
    else:
        torch.save(scaled(torch.load(path, weights_only=False)), path)
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def metadata_of(path: Path) -> dict[str, str] | None:
    from overpaint.models.header import safetensors_header

    found = safetensors_header(path)[0].get("__metadata__")
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else None


def scaled(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return tree * 1.5
    if isinstance(tree, dict):
        return {key: scaled(each) for key, each in tree.items()}
    return tuple(map(scaled, tree)) if isinstance(tree, tuple) else tree
