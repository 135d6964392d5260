"""Nothing is encoded twice, and nothing is painted otherwise for it: whatever jobs ran before, whatever differs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from overpaint.backends.torch_backend import TorchBackend
from overpaint.bench import AGAIN, EXACT, BenchJob, BenchPicture, measure
from overpaint.engine import Engine, stages_of
from overpaint.outcome import EncodingsUsed
from overpaint.request import Lora, PaintRequest
from overpaint.settings import Settings
from tests.engine.conftest import asked, box, pixels, scene
from tests.engine.toys import UNET, Site

TAESD = {"sd_vae_encode_method": "TAESD"}
OFF = {"encodings_memory": 0.0}

# Jobs that differ in one thing that an encoding depends on, or in one that it does not.
JOBS: dict[str, PaintRequest] = {
    "plain": asked(steps=1),
    "text lora": asked(steps=1, loras=(Lora(name="text"),)),
    "half a text lora": asked(steps=1, loras=(Lora(name="text", weight=0.5),)),
    "skip": asked(steps=1, clip_skip=2),
    "vae": asked(steps=1, overrides={"sd_vae": "pale.safetensors"}),
    "tiling": asked(steps=1, tiling=True),
    "taesd": asked(steps=1, overrides=TAESD),
    "taesd tiling": asked(steps=1, overrides=TAESD, tiling=True),
    "emphasis": asked(steps=1, prompt="a (cat:1.4)"),
    "no norm": asked(steps=1, prompt="a (cat:1.4)", overrides={"emphasis": "No norm"}),
    "no emphasis": asked(steps=1, prompt="a (cat:1.4)", overrides={"emphasis": "None"}),
    "unet lora": asked(steps=1, loras=(Lora(name="red"),)),
    "other words": asked(steps=1, prompt="a dog"),
    "swapped": asked(steps=1, prompt="dog", negative_prompt="a cat"),
    "other picture": asked(steps=1, images=(scene(seed=1),)),
    "two pictures": asked(steps=1, images=(scene(), scene(seed=1)), batch_size=2),
    "stages": asked(steps=2, prompt="a [cat:dog:1]"),
    "embedding": asked(steps=1, prompt="a zorbleflux"),
    "other model": asked(steps=1, checkpoint="other"),
    "twin": asked(steps=1, checkpoint="twin"),
    "mask": asked(steps=1, mask=box()),
    "fill": asked(steps=1, mask=box(), masked_content="fill"),
}
SHORT = ("plain", "text lora", "half a text lora", "skip", "vae", "tiling")


@pytest.fixture(scope="module")
def bare(site: Site) -> Iterator[Engine]:
    """One that keeps nothing."""
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=site.with_options(**OFF)) as engine:
        yield engine


@pytest.fixture(scope="module")
def keeping(site: Site) -> Iterator[Engine]:
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=site.settings) as engine:
        yield engine


@pytest.fixture
def asks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the networks were asked to encode."""
    found: list[str] = []

    def noted(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def ask(self: TorchBackend, *given: Any, **said: Any) -> Any:
            found.append(name)
            return own(self, *given, **said)

        return ask

    for name in ("encode", "text"):
        monkeypatch.setattr(TorchBackend, name, noted(name, getattr(TorchBackend, name)))
    return found


def shown(engine: Engine, request: PaintRequest, manner: Settings | None = None) -> list[bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = engine.paint(request, manner)
    return [*map(pixels, result.images), *(each.encode() for each in result.infotexts)]


# -- what is encoded ---------------------------------------------------------------------------------------------------


def test_a_second_edit_of_a_picture_encodes_nothing(site: Site, asks: list[str]) -> None:
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=site.settings) as engine:
        first = engine.paint(asked(steps=1))
        assert sorted(asks) == ["encode", "text", "text"]
        second = engine.paint(asked(steps=1, seed=2, mask=box(), cfg_scale=3))
        assert len(asks) == 3
        new_prompt = engine.paint(asked(steps=1, prompt="a dog"))
        assert asks[3:] == ["text"]
        other = engine.paint(asked(steps=1, images=(scene(seed=1),)))
        assert asks[4:] == ["encode"]
        kept = stages_of(engine).model_cache.encodings.size
    told = [(each.encodings.made, each.encodings.reused) for each in (first, second, new_prompt, other)]
    assert told == [(3, 0), (0, 3), (1, 2), (1, 2)]
    assert other.encodings.kept_bytes == kept > first.encodings.kept_bytes > 0


def test_a_job_without_memory_says_so(bare: Engine, asks: list[str]) -> None:
    for _ in range(2):
        assert bare.paint(asked(steps=1)).encodings == EncodingsUsed(made=3)
    assert len(asks) == 6


@pytest.mark.parametrize(("channels", "encoded"), [(9, 2), (8, 1)], ids=["inpaint", "edit"])
def test_what_inpainting_and_edit_models_see_is_kept_too(
    tmp_path: Path, site: Site, asks: list[str], channels: int, encoded: int
) -> None:
    """An edit model sees the source that is encoded anyway, an inpainting model also the one with its hole."""
    path = widened(Path(site.model("tiny")), tmp_path / "wide.safetensors", channels)
    with Engine(path, device="cpu", dtype="float32", settings=site.settings) as engine:
        found = []
        for mask in (box(), box(), box(area=(0, 0, 8, 8))):
            asks.clear()
            found.append(shown(engine, asked(steps=1, mask=mask)))
            asks[:] = [each for each in asks if each == "encode"]
            assert len(asks) == (encoded if len(found) == 1 else 0 if len(found) == 2 else encoded - 1)
        assert found[0] == found[1] != found[2]
        assert found[2] == shown(engine, asked(steps=1, mask=box(area=(0, 0, 8, 8))), site.with_options(**OFF))


def widened(source: Path, path: Path, channels: int) -> Path:
    """The model with eyes for what stands beside the latent."""
    tensors, name = load_file(source), f"{UNET}input_blocks.0.0.weight"
    wide = torch.randn(32, channels, 3, 3, generator=torch.Generator().manual_seed(1)).half() / 8
    wide[:, :4] = tensors[name]
    save_file({**tensors, name: wide}, path, {"overpaint.num_heads": "8", "overpaint.text_heads": "[1]"})
    return path


def test_a_canvas_that_a_network_enlarged_is_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from overpaint.painting import upscaling

    runs: list[object] = []
    own = upscaling._run

    def counted(*given: Any) -> Any:
        runs.append(given)
        return own(*given)

    monkeypatch.setattr(upscaling, "_run", counted)
    manner = site.with_options(upscaler_for_img2img="grow")
    request = asked(steps=1, width=64, height=64)
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=manner) as engine:
        first, once = shown(engine, request), len(runs)
        assert once > 0
        assert shown(engine, request) == first
        assert len(runs) == once
        shown(engine, replace(request, overrides={"ESRGAN_tile": 16}))
        shown(engine, replace(request, images=(scene(seed=1),)))
        assert len(runs) > once + 1


# -- what is painted ---------------------------------------------------------------------------------------------------


def test_jobs_one_after_the_other(keeping: Engine, bare: Engine) -> None:
    expected = [shown(bare, JOBS[name]) for name in SHORT]
    assert len({each[0] for each in expected}) == len(SHORT)
    for name in (*SHORT, *SHORT[:2]):
        assert shown(keeping, JOBS[name]) == expected[SHORT.index(name)], name


def test_the_noise_of_an_encoding_is_what_it_was(site: Site, keeping: Engine) -> None:
    """ENC-2: drawn for every copy, from the job's own stream, whether the picture was known or not."""
    request = asked(steps=1, batch_size=2, images=(scene(seed=3),))
    twice = [shown(keeping, request, site.reference) for _ in range(2)]
    assert twice[0] == twice[1] == shown(keeping, request, site.reference.with_changes(OFF))
    assert twice[0] != shown(keeping, request)


@pytest.mark.long
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.sampled_from(sorted(JOBS)), min_size=2, max_size=8))
def test_any_jobs_in_any_order(keeping: Engine, bare: Engine, names: list[str]) -> None:
    for name in names:
        assert shown(keeping, JOBS[name]) == expected_of(bare, name), (name, names)


def expected_of(bare: Engine, name: str, known: dict[str, list[bytes]] = {}) -> list[bytes]:  # noqa: B006
    return known.get(name) or known.setdefault(name, shown(bare, JOBS[name]))


# -- a codec that overflows --------------------------------------------------------------------------------------------


def test_a_codec_that_went_on_in_float32_encodes_anew(site: Site, asks: list[str]) -> None:  # DEC-2
    with Engine(site.model("tiny"), device="cpu", dtype="bfloat16", settings=site.settings) as engine:
        backend = stages_of(engine).backend
        engine.paint(asked(steps=1))
        before = len(asks)
        backend.codec.move(torch.float32)
        moved = shown(engine, asked(steps=1))
        assert asks[before:] == ["encode"]
        assert moved == shown(engine, asked(steps=1), site.with_options(**OFF))


def test_what_is_handed_out_is_nobody_elses(keeping: Engine) -> None:
    stages = stages_of(keeping)
    plan = keeping.plan(asked(steps=1))
    with stages.story(plan):
        first: Tensor = stages.prepare(plan).latents
        kept = first.clone()
        first.zero_()
        assert stages.prepare(plan).latents.equal(kept)


def test_the_bench_finds_that_the_same_picture_is_not_encoded_again(site_engine: Engine) -> None:
    def paint(request: PaintRequest) -> BenchPicture:
        result = site_engine.paint(request, site_engine.settings.with_changes(OFF))
        return BenchPicture(result.images[0], result.encodings.made)

    exact, again = measure(paint, BenchJob((32, 32), steps=2), (EXACT, AGAIN), 1)
    assert exact.encoded == 3 and again.encoded == 0  # two texts and a picture
    assert again.psnr is None and again.ssim == 1  # to the last bit
