from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.errors import PaintingCancelled, RequestError, SamplingError, SettingError
from overpaint.models.upscaler_files import LoadedUpscaler, load_upscaler
from overpaint.painting import upscaling
from overpaint.painting.upscaling import Tiling, Watch, enlarged, known_upscalers
from overpaint.pixels.resize import resize_image
from overpaint.settings import Quirks, Settings
from tests.unit.esrgan import compact_state, esrgan, old_state

WHOLE = Tiling(0, 8)


class Blur(nn.Module):
    """Enlarges, then takes means over (2 * reach + 1)^2 pixels; beyond a tile there is black."""

    def __init__(self, scale: int = 2, reach: int = 1) -> None:
        super().__init__()
        self.scale, self.reach = scale, reach
        self.weight = nn.Parameter(torch.ones(3, 1, 2 * reach + 1, 2 * reach + 1) / (2 * reach + 1) ** 2, False)
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(tuple(x.shape))
        soft = F.conv2d(x, self.weight, padding=self.reach, groups=3)
        return F.interpolate(soft, scale_factor=float(self.scale), mode="nearest")


def loaded(network: nn.Module, scale: int = 2) -> LoadedUpscaler:
    return LoadedUpscaler(network, scale, "toy")


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def levels(image: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


class TestTiles:
    @pytest.mark.parametrize("reach", [0, 1, 2])
    @pytest.mark.parametrize("size", [(60, 45), (32, 33), (200, 20), (31, 31)])
    def test_as_whole_where_a_network_sees_no_further_than_a_quarter_of_the_overlap(
        self, size: tuple[int, int], reach: int
    ) -> None:
        network, picture = loaded(Blur(2, reach)), noise(*size)
        tiled = enlarged(picture, network, Tiling(32, 8), Watch())
        whole = enlarged(picture, network, WHOLE, Watch())
        assert np.array_equal(levels(tiled), levels(whole))

    @pytest.mark.parametrize("overlap", [0, 4, 8, 16])
    def test_as_whole_away_from_seams(self, overlap: int) -> None:
        network, picture = loaded(Blur(2, 3)), noise(90, 70)
        tiled = enlarged(picture, network, Tiling(40, overlap), Watch())
        different = np.abs(levels(tiled) - levels(enlarged(picture, network, WHOLE, Watch()))).max(axis=-1) > 1
        rows, columns = np.nonzero(different)
        edges = {}
        for axis, side in (("x", 90), ("y", 70)):
            length, starts = upscaling._cut(side, Tiling(40, overlap))
            edges[axis] = [2 * edge for start in starts for edge in (start, start + length)]
        for row, column in zip(rows, columns, strict=True):
            near = min(abs(column - edge) for edge in edges["x"]), min(abs(row - edge) for edge in edges["y"])
            assert min(near) <= 2 * 3

    def test_seams_are_faded(self) -> None:
        """Tiles of different brightness: from one pixel to the next the step is small."""

        class Brightening(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.level = nn.Parameter(torch.tensor(0.0), False)

            def forward(self, x: Tensor) -> Tensor:
                self.level.add_(0.1)
                return torch.zeros_like(x) + self.level

        result = levels(enlarged(Image.new("RGB", (64, 32)), loaded(Brightening(), 1), Tiling(32, 16), Watch()))
        assert np.abs(np.diff(result, axis=1)).max() <= 0.1 * 255 / 8 + 1
        assert (result[:, 0] == 26).all() and (result[:, -1] == 76).all()

    @examples(max_examples=40, deadline=None)
    @given(st.integers(1, 400), st.integers(16, 96), st.data())
    def test_every_pixel_is_reached_by_tiles_of_one_size(self, side: int, size: int, data: st.DataObject) -> None:
        tiling = Tiling(size, data.draw(st.integers(0, size // 2)))
        length, starts = upscaling._cut(side, tiling)
        assert starts[0] == 0 and starts[-1] == side - length and length <= max(size, 1)
        for left, right in pairwise(starts):
            assert left < right <= left + length - tiling.overlap
        if len(starts) > 1:  # one tile less would not reach
            assert len(starts) - 1 < (side - tiling.overlap) / (size - tiling.overlap)
            assert length * len(starts) < side + (len(starts) - 1) * tiling.overlap + 4 * len(starts)

    def test_memory_is_bounded_by_the_tile(self) -> None:
        blur = Blur(2, 1)
        enlarged(noise(300, 200), loaded(blur), Tiling(48, 8), Watch())
        assert set(blur.sizes) == {(1, 3, 48, 48)} and len(blur.sizes) == 8 * 5
        peaks = []
        for height in (200, 800):
            picture = noise(100, height)
            tracemalloc.start()
            enlarged(picture, loaded(Blur(2, 1)), Tiling(48, 8), Watch())
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < 1.2 * peaks[0]

    def test_watched(self) -> None:
        told: list[tuple[int, int]] = []
        watch = Watch(lambda done, total: told.append((done, total)), lambda: len(told) >= 3)
        picture = noise(64, 64)
        enlarged(picture, loaded(Blur()), Tiling(40, 8), Watch(lambda done, total: told.append((done, total))))
        assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
        told.clear()
        with pytest.raises(PaintingCancelled):
            enlarged(picture, loaded(Blur()), Tiling(40, 8), watch)
        assert len(told) == 3

    def test_options(self) -> None:
        assert Tiling.of(Settings()) == Tiling(192, 8)
        assert Tiling.of(Settings(ESRGAN_tile=0)) == Tiling(0, 8)
        for changes, name in (
            ({"ESRGAN_tile": 8}, "ESRGAN_tile=8"),
            ({"ESRGAN_tile": -1}, "ESRGAN_tile=-1"),
            ({"ESRGAN_tile": 32, "ESRGAN_tile_overlap": 17}, "ESRGAN_tile_overlap=17: give 0 to 16"),
            ({"ESRGAN_tile_overlap": -1}, "ESRGAN_tile_overlap=-1"),
        ):
            with pytest.raises(SettingError, match=name):
                Tiling.of(Settings().with_changes(changes))


class TestModes:
    def test_flat_transparency_stays_flat_and_edges_get_no_halo(self) -> None:
        picture = Image.new("RGBA", (24, 24), (0, 0, 0, 0))
        picture.paste((250, 100, 50, 255), (8, 8, 16, 24))
        result = levels(enlarged(picture, loaded(Blur()), WHOLE, Watch()))
        assert result.shape == (48, 48, 4)
        assert (result[30:36, 22:26] == (250, 100, 50, 255)).all() and (result[:8, :, 3] == 0).all()
        visible = result[..., 3] > 0
        visible[-4:] = False  # the blur's own black border
        assert np.abs(result[visible][:, :3] - (250, 100, 50)).max() <= 2

    def test_opaque_and_wholly_transparent_pictures(self) -> None:
        opaque = noise(20, 10).convert("RGBA")
        result = enlarged(opaque, loaded(Blur()), WHOLE, Watch())
        plain = enlarged(opaque.convert("RGB"), loaded(Blur()), WHOLE, Watch())
        assert result.tobytes() == plain.convert("RGBA").tobytes()
        hidden = noise(20, 10, "RGBA")
        hidden.putalpha(0)
        assert enlarged(hidden, loaded(Blur()), WHOLE, Watch()).getchannel("A").getextrema() == (0, 0)

    @pytest.mark.parametrize(("mode", "kept"), [("L", "L"), ("LA", "LA"), ("P", "RGB"), ("1", "RGB"), ("CMYK", "RGB")])
    def test_other_modes(self, mode: str, kept: str) -> None:
        result = enlarged(noise(9, 7).convert(mode), loaded(Blur(2, 0)), WHOLE, Watch())
        assert (result.mode, result.size) == (kept, (18, 14))

    def test_too_large_a_result(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(upscaling, "LARGEST_RESULT", 1000)
        with pytest.raises(RequestError, match=r"picture='20x20': give a smaller picture .* toy would make 40x40"):
            enlarged(noise(20, 20), loaded(Blur()), WHOLE, Watch())


class TestNumbers:
    def test_half_precision_that_overflows_goes_on_in_float32(self) -> None:
        class Tender(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.factor = nn.Parameter(torch.tensor(60000.0, dtype=torch.float16), False)

            def forward(self, x: Tensor) -> Tensor:
                return x * self.factor * 2 / self.factor / 2

        network = loaded(Tender(), 1)
        picture = noise(20, 20)
        assert enlarged(picture, network, WHOLE, Watch()).tobytes() == picture.tobytes()
        assert next(network.network.parameters()).dtype is torch.float32

    def test_values_that_are_no_numbers(self) -> None:
        class Broken(Blur):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x) * float("nan")

        with pytest.raises(SamplingError, match=r"upscaler=toy: .* no numbers"):
            enlarged(noise(8, 8), loaded(Broken()), WHOLE, Watch())

    @pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory"), torch.OutOfMemoryError()])
    def test_too_little_memory(self, error: Exception) -> None:
        class Hungry(Blur):
            def forward(self, x: Tensor) -> Tensor:
                raise error

        with pytest.raises(SamplingError, match=r"tiles of 28x20 .*ESRGAN_tile"):
            enlarged(noise(64, 20), loaded(Hungry()), Tiling(32, 8), Watch())

    def test_other_failures_are_not_dressed_up(self) -> None:
        class Odd(Blur):
            def forward(self, x: Tensor) -> Tensor:
                raise RuntimeError("odd")

        with pytest.raises(RuntimeError, match=r"^odd$"):
            enlarged(noise(8, 8), loaded(Odd()), WHOLE, Watch())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.save(old_state(), tmp_path / "large.pth")
    torch.save({"params": compact_state(scale=2)}, tmp_path / "small.pth")
    return tmp_path


class TestKnown:
    def test_pixels_of_a_file(self, folder: Path) -> None:
        known = known_upscalers(Settings(esrgan_dir=str(folder)), "cpu")
        picture = noise(20, 12)
        result = known["large"](picture, 4)
        x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
        wanted = (esrgan(old_state(), x)[0].clamp(0, 1) * 255).permute(1, 2, 0).numpy()
        assert result.size == (80, 48) and np.abs(levels(result) - wanted).max() <= 0.51

    def test_names(self, folder: Path) -> None:
        known = known_upscalers(Settings(esrgan_dir=str(folder)), "cpu", files={"mine": folder / "small.pth"})
        assert list(known) == ["large", "small", "mine"] and len(known) == 3 and "Lanczos" not in known
        assert known["mine"](noise(5, 4), 2).size == (10, 8)
        assert len(known_upscalers(Settings(), "cpu")) == 0

    def test_the_last_network_is_kept(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        loads: list[str] = []

        def counted(path: Path, device: torch.device) -> LoadedUpscaler:
            loads.append(path.stem)
            return load_upscaler(path, device)

        monkeypatch.setattr(upscaling, "load_upscaler", counted)
        known = known_upscalers(Settings(esrgan_dir=str(folder)), "cpu")
        small = known["small"]
        assert not loads
        for upscaler in (small, known["small"], known["large"], small):
            upscaler(noise(4, 4), 2)
        assert loads == ["small", "large", "small"]

    def test_in_resize_image(self, folder: Path) -> None:  # EX-4: 2 -> 4 -> 8 times, then down to 5
        known = known_upscalers(Settings(esrgan_dir=str(folder)), "cpu")
        assert resize_image(0, noise(8, 6), 40, 30, upscaler=known["small"], quirks=Quirks.none()).size == (40, 30)
