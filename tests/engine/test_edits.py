"""Flux.1 Kontext and Fill through the whole engine: what they see, masks, neighbours, files, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import overpaint
from overpaint.engine import Engine
from overpaint.errors import CheckpointError, RequestError
from overpaint.events import Finished
from overpaint.models.checkpoint import recognise
from overpaint.models.companions import text_encoders_for
from overpaint.planning.plan import plan
from overpaint.planning.plans import OtherModel, Surroundings
from overpaint.request import Hires, PaintRequest, Txt2ImgRequest
from tests.engine.conftest import box, pixels, scene
from tests.engine.test_flow import SIZE, asked, painted, values
from tests.flow_toys import save
from tests.flux_toys import FluxToy, toy_flux


@pytest.fixture(scope="module")
def kontext(tmp_path_factory: pytest.TempPathFactory) -> FluxToy:
    return toy_flux(tmp_path_factory.mktemp("kontext"), "kontext-dev")


@pytest.fixture(scope="module")
def fill(tmp_path_factory: pytest.TempPathFactory) -> FluxToy:
    return toy_flux(tmp_path_factory.mktemp("fill"), "fill-dev")


@pytest.fixture(scope="module")
def kontext_engine(kontext: FluxToy) -> Iterator[Engine]:
    with Engine(kontext.path, device="cpu", dtype="float32") as made:
        yield made


@pytest.fixture(scope="module")
def fill_engine(fill: FluxToy) -> Iterator[Engine]:
    with Engine(fill.path, device="cpu", dtype="float32") as made:
        yield made


@pytest.fixture(params=["kontext", "fill"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_engine")


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_outside_a_mask_no_byte_changes(strength: float, engine: Engine) -> None:
    source, mask = scene(SIZE, SIZE), box(SIZE, SIZE, (13, 7, 30, 29))
    result = engine.paint(asked(images=(source,), mask=mask, mask_blur_x=0, mask_blur_y=0, strength=strength, steps=2))
    kept = np.asarray(mask.convert("L")) == 0
    after = values(result.images[0])
    assert np.array_equal(after[kept], values(source)[kept])
    assert not np.array_equal(after[~kept], values(source)[~kept])


def test_the_source_is_seen_even_where_nothing_of_it_is_left(engine: Engine) -> None:
    """At strength 1 a walk starts from noise, and with Flux.1 dev the source would count for nothing."""
    sources = scene(SIZE, SIZE), scene(SIZE, SIZE).rotate(90)
    said: dict[str, Any] = {"strength": 1.0, "steps": 1}
    if engine.plan(asked()).spec.conditioning == "inpaint":  # which is shown what the mask leaves
        said["mask"] = box(SIZE, SIZE, (0, 0, 16, 16))
    first, second = (painted(engine, asked(images=(each,), **said))[0] for each in sources)
    assert first != second


def test_references_are_looked_at(kontext_engine: Engine) -> None:
    """Each of them, at any size; with a source and without."""
    one, two = scene(48, 32), scene(40, 70).rotate(180)
    seen: list[tuple[Any, ...]] = [(), (one,), (two,), (one, two)]
    new = [Txt2ImgRequest(prompt="cat", width=64, height=64, steps=3, seed=3, references=each) for each in seen]
    edits = [asked(steps=2, strength=1.0, references=each) for each in seen]
    for jobs in (new, edits):
        assert len({painted(kontext_engine, each)[0] for each in jobs}) == len(seen)


def test_a_large_reference_is_looked_at_smaller(kontext_engine: Engine) -> None:
    """A picture of 12 megapixels would cost more than what is painted; a small one stays as it is, in whole tokens."""
    sizes = [(4000, 3000), (1024, 1024), (100, 60), (5, 300)]
    planned = kontext_engine.plan(asked(references=tuple(scene(8, 8).resize(each) for each in sizes)))
    assert [each.size for each in planned.references] == [(1184, 880), (1024, 1024), (96, 64), (16, 304)]
    assert [each.encoded.size for each in planned.references] == [each.size for each in planned.references]


def test_neighbours_look_at_their_own(kontext_engine: Engine) -> None:
    """Jobs that go on side by side, with pictures of equal sizes, of others, and with none."""
    seen: list[tuple[Any, ...]] = [(scene(32, 32),), (scene(32, 32).rotate(90),), (scene(48, 32),), ()]
    jobs = {i: asked(steps=2, seed=i, exact=True, references=each) for i, each in enumerate(seen)}
    alone = {i: painted(kontext_engine, job) for i, job in jobs.items()}
    last = dict(kontext_engine.run_together(jobs, rows_per_call=4))
    for number, event in last.items():
        assert isinstance(event, Finished)
        assert [pixels(each) for each in event.result.images] == alone[number]


def test_rows_count_the_pictures_that_they_look_at(
    kontext_engine: Engine, fill_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source, which Kontext sees as tokens and Fill as channels, and each reference at its own size."""
    counted: list[int] = []

    def rows_per_call(device: object, cells: int) -> int:
        counted.append(cells)
        return 4

    monkeypatch.setattr("overpaint.painting.together.rows_per_call", rows_per_call)
    said: dict[str, Any] = {"images": (scene(32, 32),), "steps": 1}
    mask = box(32, 32, (0, 0, 16, 16))
    cases: list[tuple[Engine, dict[str, Any], int]] = [
        (kontext_engine, {}, 2 * 4 * 4),
        (kontext_engine, {"references": (scene(48, 32), scene(16, 16))}, 2 * 4 * 4 + 6 * 4 + 2 * 2),
        (fill_engine, {"mask": mask}, 4 * 4),
    ]
    for engine, fields, cells in cases:
        counted.clear()
        jobs = {i: asked(seed=i, **said, **fields) for i in range(2)}
        assert all(isinstance(each, Finished) for each in dict(engine.run_together(jobs)).values())
        assert set(counted) == {cells}


def test_a_batch_shares_its_references(kontext_engine: Engine) -> None:
    said: dict[str, Any] = {"steps": 1, "exact": True, "references": (scene(48, 32),)}
    both = painted(kontext_engine, asked(seed=(4, 5), batch_size=2, **said))
    assert both == [painted(kontext_engine, asked(seed=each, **said))[0] for each in (4, 5)]


def test_a_second_pass_looks_again(kontext_engine: Engine) -> None:
    hires = Hires(scale=1.5, strength=0.5, steps=1)
    new = Txt2ImgRequest(prompt="cat", width=32, height=32, steps=1, seed=3, hires=hires)
    plain, seen = (painted(kontext_engine, new.with_changes(references=each))[0] for each in ((), (scene(32, 32),)))
    assert plain != seen
    second = kontext_engine.plan(new.with_changes(references=(scene(32, 32),))).hires
    assert second is not None and len(second.plan.references) == 1


def test_who_looks_at_none_says_so(fill_engine: Engine) -> None:
    with pytest.raises(RequestError, match=r"references='1 pictures'.*a Flux\.1 Fill dev model looks at none"):
        fill_engine.plan(asked(references=(scene(8, 8),)))
    with pytest.raises(RequestError, match="a Stable Diffusion 1 model looks at none; choose an edit model"):
        plan(PaintRequest(prompt="cat", references=[scene(8, 8)]))


def test_a_refiner_has_to_see_the_same(kontext_engine: Engine) -> None:
    spec = kontext_engine.plan(asked()).spec
    dev = replace(spec, family="flux-dev", title="Flux.1 dev", conditioning="text")
    known = Surroundings(refiner=OtherModel(Path("dev"), "dev", dev))
    with pytest.raises(RequestError, match=r"refiner=.*sees something else of the picture than a Flux\.1 Kontext"):
        plan(asked(refiner="dev"), None, spec, known)


# -- which family it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("flux1-dev", "flux-dev"),
        ("FLUX.1-Kontext_dev-Q8", "flux-kontext"),
        ("flux1-krea-dev_fp8_scaled", "flux-krea"),
        ("mine", "flux-dev"),
    ],
)
def test_a_name_tells_what_tensors_do_not(name: str, family: str, tmp_path: Path) -> None:
    toy = toy_flux(tmp_path)
    path = toy.path.rename(toy.path.with_name(f"{name}.safetensors"))
    spec = recognise(path, tuple(map(Path, text_encoders_for(path))))
    assert spec.family == family
    assert spec.facts["family"] == ("weights" if family == "flux-dev" else "file name")


def test_what_a_trainer_wrote_into_it_goes_before_its_name(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    toy = toy_flux(tmp_path)
    save_file(toy.transformer, toy.path, {"modelspec.title": "My Kontext dev merge"})
    spec = recognise(toy.path, tuple(map(Path, text_encoders_for(toy.path))))
    assert (spec.family, spec.conditioning, spec.facts["family"]) == ("flux-kontext", "edit", "metadata")


def test_a_transformer_of_another_width_is_refused(tmp_path: Path) -> None:
    """Flux.1 Depth and Canny see a second picture in channels; none of them is taken for dev."""
    toy = toy_flux(tmp_path)
    wide = {**toy.transformer, "img_in.weight": toy.transformer["img_in.weight"].repeat(1, 2)}
    save(wide, toy.path)
    with pytest.raises(CheckpointError, match=r"takes 32 channels, but that of a Flux\.1 dev model takes 16"):
        recognise(toy.path, tuple(map(Path, text_encoders_for(toy.path))))


def test_info_tells_what_it_sees(fill: FluxToy, capsys: pytest.CaptureFixture[str]) -> None:
    from overpaint.cli import main

    assert main(["info", str(fill.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["family"], told["conditioning"], told["guidance"]) == ("Flux.1 Fill dev", "inpaint", 30.0)


# -- files -------------------------------------------------------------------------------------------------------------


def test_painted_again_with_its_references(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One lies in a file, which the recipe names; changed, it is refused, and given anew it counts."""
    from overpaint.cli import main

    toy = toy_flux(tmp_path / "models", "kontext-dev")
    source, seen, first, second = (tmp_path / f"{each}.png" for each in "abcd")
    scene(SIZE, SIZE).save(source)
    scene(48, 32).save(seen)
    base = ["--model", str(toy.path), "--device", "cpu", "--dtype", "float32"]
    line = ["paint", str(source), "a cat", "--look-at", str(seen), "--steps", "1", "-o", str(first), *base]
    assert main(line) == 0
    assert main(["again", str(first), "-o", str(second), *base]) == 0
    assert first.read_bytes() == second.read_bytes()
    scene(48, 32).rotate(180).save(seen)
    capsys.readouterr()
    assert main(["again", str(first), "-o", str(tmp_path / "e.png"), *base]) == 2
    assert "--look-at" in capsys.readouterr().err
    assert main(["again", str(first), "--look-at", str(seen), "-o", str(tmp_path / "e.png"), *base]) == 0
    assert (tmp_path / "e.png").read_bytes() != first.read_bytes()


def test_references_of_programs(kontext_engine: Engine, tmp_path: Path) -> None:
    """Pictures, or their files; a recipe holds those without a file itself."""
    scene(48, 32).save(tmp_path / "seen.png")
    said: dict[str, Any] = {"engine": kontext_engine, "steps": 1, "seed": 2}
    files: dict[str, Any] = {"references": [tmp_path / "seen.png"]}
    by_file = overpaint.img2img(scene(SIZE, SIZE), "cat", **said, **files)
    by_hand = overpaint.img2img(scene(SIZE, SIZE), "cat", references=scene(48, 32), **said)
    assert pixels(by_file) == pixels(by_hand)
    (kept,) = by_hand.recipe["references"]
    assert kept.startswith("data:image/png;base64,")
