"""Qwen-Image-Edit through the whole engine: what it looks at, masks, neighbours, files, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from overpaint.backends.torch_backend import TorchBackend
from overpaint.engine import Engine
from overpaint.errors import CheckpointError, RequestError
from overpaint.events import Finished
from overpaint.models.companions import text_encoders_for
from overpaint.models.specs import QwenImageSpec
from overpaint.models.what_is import spec_of, what_is
from overpaint.request import Hires, Txt2ImgRequest
from tests.engine.conftest import box, pixels, scene
from tests.engine.test_flow import SIZE, asked, painted, values
from tests.newer_toys import QWEN_WORDS, NewerToy, toy_qwen_edit


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> NewerToy:
    return toy_qwen_edit(tmp_path_factory.mktemp("edit"))


@pytest.fixture(scope="module")
def engine(toy: NewerToy) -> Iterator[Engine]:
    with Engine(toy.path, device="cpu", dtype="float32") as made:
        yield made


def edit(**fields: Any) -> Any:
    return asked(**{"steps": 1, "cfg_scale": 1.0, "strength": 1.0, **fields})


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_outside_a_mask_no_byte_changes(strength: float, engine: Engine) -> None:
    source, mask = scene(SIZE, SIZE), box(SIZE, SIZE, (13, 7, 30, 29))
    result = engine.paint(edit(mask=mask, mask_blur_x=0, mask_blur_y=0, strength=strength, steps=2))
    kept = np.asarray(mask.convert("L")) == 0
    after = values(result.images[0])
    assert np.array_equal(after[kept], values(source)[kept])
    assert not np.array_equal(after[~kept], values(source)[~kept])


def test_each_picture_counts_and_so_does_their_order(engine: Engine) -> None:
    seen = scene(48, 32), scene(64, 64).rotate(90)
    found = [painted(engine, edit(references=each))[0] for each in ((), seen[:1], seen, seen[::-1])]
    turned = painted(engine, edit(images=(scene(SIZE, SIZE).rotate(90),)))[0]
    assert len({*found, turned}) == 5


def test_the_text_encoder_looks_at_them_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the canvas and at every reference, for both texts; what it read is kept under the pictures."""
    looked: list[list[tuple[int, ...]]] = []
    plain = TorchBackend.text

    def text(self: TorchBackend, encoder: int, ids: Tensor, **said: Any) -> Any:
        looked.append([tuple(each.pixels.shape[2:]) for each in said.get("pictures", ())])
        return plain(self, encoder, ids, **said)

    monkeypatch.setattr(TorchBackend, "text", text)
    said: dict[str, Any] = {"prompt": "one that nobody asked for", "references": (scene(60, 30),), "cfg_scale": 2.0}
    first = painted(engine, edit(**said))
    assert looked == [[(392, 392), (252, 532)]] * 2
    assert painted(engine, edit(**said)) == first and len(looked) == 2
    painted(engine, edit(**{**said, "references": (scene(60, 30).rotate(180),)}))
    assert len(looked) == 4


def test_neighbours_look_at_their_own(engine: Engine) -> None:
    seen: list[tuple[Any, ...]] = [(scene(32, 32),), (scene(32, 32).rotate(90),), ()]
    jobs = {i: edit(seed=i, exact=True, references=each) for i, each in enumerate(seen)}
    alone = {i: painted(engine, job) for i, job in jobs.items()}
    for number, event in engine.run_together(jobs, rows_per_call=4):
        if isinstance(event, Finished):
            assert [pixels(each) for each in event.result.images] == alone.pop(number)
    assert not alone


def test_sources_of_one_job_are_looked_at_each_for_itself(engine: Engine) -> None:
    sources = scene(SIZE, SIZE), scene(SIZE, SIZE).rotate(90)
    both = painted(engine, edit(images=sources, seed=(4, 5), batch_size=2, exact=True))
    alone = [painted(engine, edit(images=(each,), seed=4 + i, exact=True))[0] for i, each in enumerate(sources)]
    assert both == alone and both[0] != both[1]


def test_a_new_picture_and_a_second_pass(engine: Engine) -> None:
    """With references, and with no picture at all."""
    new = Txt2ImgRequest(
        prompt="cat", width=32, height=32, steps=1, cfg_scale=1.0, hires=Hires(scale=1.5, strength=0.5, steps=1)
    )
    assert painted(engine, new) != painted(engine, new.with_changes(references=(scene(32, 32),)))


def test_references_are_of_the_size_that_it_knows(engine: Engine) -> None:
    """Small ones are enlarged, unlike with other families: it paints them at another scale otherwise."""
    sizes = [(4000, 3000), (64, 64), (10, 20), (5, 300)]
    planned = engine.plan(edit(references=tuple(scene(8, 8).resize(each) for each in sizes)))
    assert [each.size for each in planned.references] == [(64, 64), (64, 64), (32, 96), (32, 480)]


def test_the_first_looks_at_one_picture(tmp_path: Path) -> None:
    toy = toy_qwen_edit(tmp_path, "Qwen-Image-Edit")
    with Engine(toy.path, device="cpu", dtype="float32") as engine:
        with pytest.raises(RequestError, match=r"references='1 pictures'.*looks at one picture.*-2509 or -2511"):
            engine.plan(edit(references=(scene(8, 8),)))
        new = Txt2ImgRequest(prompt="cat", width=32, height=32, steps=1, cfg_scale=1.0)
        one, two = (painted(engine, new.with_changes(references=each)) for each in ((scene(32, 32),), ()))
        assert one != two


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "title", "clean"),
    [
        ("qwen_image_edit_fp8_e4m3fn", "Qwen-Image-Edit", False),
        ("Qwen-Image-Edit-2509-Q8_0", "Qwen-Image-Edit-2509", False),
        ("qwen_image_edit_2511_bf16", "Qwen-Image-Edit-2511", True),
        ("qwen_image_2512_bf16", "Qwen-Image", False),
    ],
)
def test_a_name_tells_what_tensors_do_not(name: str, title: str, clean: bool, toy: NewerToy, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.safetensors"
    save_file(toy.transformer, path)
    spec = spec_of(path, (next((toy.folder / "text_encoders").glob("*.safetensors")),))
    assert isinstance(spec.denoiser, QwenImageSpec)
    assert (spec.title, spec.denoiser.clean_pictures) == (title, clean)
    assert (spec.vision is None) == (title == "Qwen-Image") == (not spec.sees_pictures)


def test_what_is_written_into_it_goes_before_its_name(toy: NewerToy, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(toy.transformer, path, {"modelspec.title": "My merge of Qwen Image Edit 2509"})
    spec = spec_of(path, (next((toy.folder / "text_encoders").glob("*.safetensors")),))
    assert (spec.title, spec.facts["family"]) == ("Qwen-Image-Edit-2509", "metadata")


def test_info(toy: NewerToy, capsys: pytest.CaptureFixture[str]) -> None:
    from overpaint.cli import main

    assert main(["info", str(toy.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["family"], told["conditioning"], told["problems"]) == ("Qwen-Image-Edit-2511", "edit", [])
    assert told["needs"] == [f"Qwen2.5-VL {QWEN_WORDS} wide with its vision tower", "a VAE"]
    assert told["known_from"]["family"] == "file name"


def test_a_text_encoder_without_eyes(toy: NewerToy, tmp_path: Path) -> None:
    """One that lies beside is passed over, and one that is named is refused with what is missing."""
    path = tmp_path / "qwen_image_edit_2509.safetensors"
    save_file(toy.transformer, path)
    (whole,) = (toy.folder / "text_encoders").glob("*.safetensors")
    blind = tmp_path / "qwen_blind.safetensors"
    save_file({key: each for key, each in load_file(whole).items() if not key.startswith("visual.")}, blind)
    with pytest.raises(CheckpointError, match=r"this needs Qwen2\.5-VL 128 wide with its vision tower; looked for"):
        text_encoders_for(path)
    assert "with its vision tower" in what_is(path)["problems"][0]
    wanted = (
        r"needs Qwen2\.5-VL 128 wide with its vision tower, and there is: qwen_blind\.safetensors \(Qwen2\.5-VL 128"
    )
    with pytest.raises(CheckpointError, match=wanted):
        spec_of(path, (blind,))
    (tmp_path / "text_encoders").mkdir()
    seeing = tmp_path / "text_encoders" / "qwen_seeing.safetensors"
    save_file(load_file(whole), seeing)
    assert text_encoders_for(path) == (str(seeing),)


def test_a_vision_tower_of_another_kind(toy: NewerToy, tmp_path: Path) -> None:
    path, text = tmp_path / "qwen_image_edit.safetensors", tmp_path / "text.safetensors"
    save_file(toy.transformer, path)
    (whole,) = (toy.folder / "text_encoders").glob("*.safetensors")
    tensors = {**load_file(whole), "visual.patch_embed.proj.weight": torch.zeros(90, 3, 2, 14, 14)}
    save_file(tensors, text)
    with pytest.raises(CheckpointError, match=r"a vision tower 90 wide that joins 640 is none of Qwen2\.5-VL"):
        spec_of(path, (text,))


def test_painted_again(toy: NewerToy, tmp_path: Path) -> None:
    """With two pictures that are looked at."""
    from overpaint.cli import main

    source, seen, first, second = (tmp_path / f"{each}.png" for each in "abcd")
    scene(SIZE, SIZE).save(source)
    scene(48, 32).save(seen)
    base = ["--model", str(toy.path), "--device", "cpu", "--dtype", "float32"]
    line = ["paint", str(source), "a cat", "--look-at", str(seen), "--steps", "1", "-o", str(first), *base]
    assert main(line) == 0
    assert main(["again", str(first), "-o", str(second), *base]) == 0
    assert first.read_bytes() == second.read_bytes()
