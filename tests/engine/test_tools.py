"""Outpaint, enlarge, loopback and grid on an engine, from Python."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import overpaint
from overpaint.engine import Engine
from overpaint.errors import RequestError
from overpaint.painting.tiled import TiledCodec, TiledNetwork, parts_of
from overpaint.planning.plans import LatentTiles
from tests.engine.conftest import scene

FAST: dict[str, Any] = {"steps": 2, "seed": 1, "sampler": "Euler"}


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_outpainting_changes_no_old_pixel(engine: Engine, mode: str) -> None:
    source = scene(32, 24, mode)
    made = overpaint.outpaint(source, "a cat", left=13, bottom=8, engine=engine, **FAST)
    assert (made.size, made.mode) == ((45, 32), mode)
    assert made.crop((13, 0, 45, 24)).tobytes() == source.tobytes()
    assert np.asarray(made.convert("RGB"))[:, :13].std() > 0
    assert 'Outpainted: "left 13, bottom 8", Outpainting start: noise' in made.infotext


def test_every_start_paints_something_else(engine: Engine) -> None:
    starts = ("noise", "mirror", "stretch")
    made = {overpaint.outpaint(scene(), "", right=16, start=each, engine=engine, **FAST).tobytes() for each in starts}
    assert len(made) == 3


def test_enlarging_in_tiles(engine: Engine) -> None:
    made = overpaint.enlarge(scene(), "a cat", scale=4.25, tile=64, overlap=32, engine=engine, **FAST)
    assert made.size == (136, 136)
    whole = overpaint.enlarge(scene(), "a cat", scale=4.25, tile=512, engine=engine, **FAST)
    assert made.tobytes() != whole.tobytes()
    difference = np.asarray(made).astype(int) - np.asarray(whole).astype(int)
    assert abs(difference).mean() < 40


def test_a_control_picture_guides_each_tile(site_engine: Engine) -> None:
    """Its parts guide theirs alone: what is the same in one tile paints that tile the same."""
    hint = scene(32, 32, seed=4)
    half = hint.copy()
    half.paste("black", (20, 0, 32, 32))
    none = Image.new("L", (32, 32), 0)

    def enlarged(**unit: Any) -> Any:
        controls = (
            (overpaint.ControlUnit(**{"model": "edges", "image": hint, **unit}),) if unit.get("weight", 1) else ()
        )
        made = overpaint.enlarge(scene(), scale=6, tile=96, overlap=0, controls=controls, engine=site_engine, **FAST)
        return np.asarray(made).astype(int)

    plain, guided, otherwise = enlarged(weight=0), enlarged(), enlarged(image=half)
    assert guided.shape == (192, 192, 3)
    assert abs(plain - guided).max() > 0
    assert np.array_equal(enlarged(mask=none), plain)
    assert np.array_equal(guided[:, :80], otherwise[:, :80])  # what a tile decodes reaches some pixels further
    assert not np.array_equal(guided[:, 112:], otherwise[:, 112:])
    assert not np.array_equal(enlarged(mode="control"), guided)


def test_one_tile_is_the_plain_job(site_engine: Engine) -> None:
    unit = overpaint.ControlUnit(model="edges", image=scene(64, 64, seed=4))
    made = overpaint.enlarge(scene(), scale=2, tile=64, controls=(unit,), engine=site_engine, **FAST)
    larger = scene().resize((64, 64), Image.Resampling.LANCZOS)
    alone = overpaint.img2img(larger, controls=(unit,), strength=0.35, engine=site_engine, **FAST)
    assert made.tobytes() == alone.tobytes()


def test_a_canvas_may_be_larger_than_what_is_painted_at_once(engine: Engine) -> None:
    """Memory depends on the tile: no network sees more than one."""
    settings = engine.settings.with_changes({"max_pixels_per_pass": 64 * 64, "max_source_pixels": 64 * 64})
    with pytest.raises(RequestError, match="max_pixels_per_pass"):
        overpaint.img2img(scene(48, 48), width=96, height=96, settings=settings, engine=engine, **FAST)
    made = overpaint.enlarge(scene(48, 48), tile=64, settings=settings, engine=engine, **FAST)
    assert made.size == (96, 96)


def test_loopback_gives_every_loop(engine: Engine) -> None:
    made = overpaint.loopback(scene(), "a cat", loops=3, final_strength=0.9, strength=0.3, engine=engine, **FAST)
    assert [each.seed for each in made] == [1, 2, 3]
    assert [each.recipe["request"]["strength"] for each in made] == pytest.approx([0.3, 0.6, 0.9])


def test_a_grid_has_a_sheet_and_cells_that_are_plain_jobs(engine: Engine, tmp_path: Path) -> None:
    fast = {**FAST, "steps": 1}
    made = overpaint.grid(scene(), "a cat", x={"cfg_scale": [1, 7]}, y="steps=1-3", engine=engine, **fast)
    assert len(made.cells) == 6
    alone = overpaint.img2img(scene(), "a cat", engine=engine, seed=1, sampler="Euler", steps=3, cfg_scale=7)
    assert made.cells[5].tobytes() == alone.tobytes()
    assert made.sheet.width > 64
    places = made.save(tmp_path / "new")
    assert [each.name for each in places][:2] == ["grid.png", "painted.png"]
    assert len(places) == 7
    assert len(overpaint.grid(prompt="a cat", x="seed=1-2", width=32, height=32, engine=engine, steps=1).cells) == 2


def test_a_picture_is_needed(engine: Engine) -> None:
    with pytest.raises(RequestError, match="give the picture"):
        overpaint.outpaint(None, "a cat", left=8, engine=engine)  # type: ignore[arg-type]
    with pytest.raises(overpaint.RequestTypeError, match="engine"):
        overpaint.loopback(scene(), engine="model.safetensors")  # type: ignore[arg-type]


# -- parts that agree --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "size", "overlap"), [(64, 64, 16), (65, 64, 16), (200, 64, 16), (91, 8, 7), (9, 64, 3)]
)
def test_parts_reach_across_and_overlap(side: int, size: int, overlap: int) -> None:
    parts = parts_of(side, LatentTiles(size, overlap))
    assert (parts[0].start, parts[-1].stop) == (0, side)
    assert all(each.stop - each.start == min(size, side) for each in parts)
    assert all(a.stop - b.start >= overlap for a, b in pairwise(parts))


def test_a_network_that_looks_at_single_cells_sees_no_tiles() -> None:
    """Where answers do not depend on their surroundings, parts mixed are the whole."""
    x = torch.randn(2, 4, 37, 53, generator=torch.Generator().manual_seed(1))
    tiled = TiledNetwork(lambda part: lambda x, *rest, **said: x * 2 + 1, LatentTiles(16, 4))
    torch.testing.assert_close(tiled(x, torch.zeros(2), torch.zeros(2, 1, 1)), x * 2 + 1)


def test_no_part_is_larger_than_a_tile() -> None:
    seen: list[tuple[int, ...]] = []

    def network(x: torch.Tensor, *rest: object, **said: object) -> torch.Tensor:
        seen.append(tuple(x.shape[-2:]))
        return x

    TiledNetwork(lambda part: network, LatentTiles(16, 4))(
        torch.zeros(1, 4, 40, 20), torch.zeros(1), torch.zeros(1, 1, 1)
    )
    assert set(seen) == {(16, 16)}


def test_a_codec_in_parts_is_close_to_the_whole(engine: Engine) -> None:
    from overpaint.engine import stages_of

    codec = stages_of(engine).backend
    tiled = TiledCodec(codec, LatentTiles(8, 4), 8, codec.device)
    pixels = torch.from_numpy(np.asarray(scene(96, 96), dtype=np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        whole, parts = codec.encode(pixels)[0], tiled.encode(pixels)[0]
        decoded = tiled.decode(whole)
    assert parts.shape == whole.shape
    assert decoded.shape == (1, 3, 96, 96)
    assert float((parts - whole).abs().mean()) < float(whole.std())


def test_a_sheet_of_cells_of_several_sizes_is_whole(engine: Engine) -> None:
    made = overpaint.grid(scene(), "", x="size=32x32,64x32", engine=engine, **FAST)
    assert [each.size for each in made.cells] == [(32, 32), (64, 32)]
    assert isinstance(made.sheet, Image.Image)
