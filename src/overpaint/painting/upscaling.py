"""Run an upscaler's network over a picture, tile by tile, so that memory depends on the tile and not on the picture.

Tiles of at most `ESRGAN_tile` pixels, all of one size, overlap by `ESRGAN_tile_overlap` or a little more. Of an overlap
the outer quarters are one tile's alone, and in the middle half one tile fades into the next: what a network makes of
the nothing beyond a tile's edge is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from overpaint.errors import PaintingCancelled, RequestError, SamplingError, SettingError
from overpaint.models.upscaler_files import LoadedUpscaler, load_upscaler
from overpaint.models.upscaler_names import upscaler_files
from overpaint.pixels.fill import fill_masked
from overpaint.pixels.resize import Upscaler, resample
from overpaint.settings import Settings

Bytes = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]

LARGEST_RESULT = 500_000_000  # pixels of one pass: 2 GB

_SMALLEST_TILE = 16
_MULTIPLE = 4  # networks that fold pixels need no filling then


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut; a size of 0 means not at all."""

    size: int
    overlap: int

    @classmethod
    def of(cls, settings: Settings) -> Tiling:
        size, overlap = settings.ESRGAN_tile, settings.ESRGAN_tile_overlap
        if size != 0 and size < _SMALLEST_TILE:
            raise SettingError("ESRGAN_tile", size, f"give 0 (whole pictures) or at least {_SMALLEST_TILE}")
        if overlap < 0 or (size and overlap > size // 2):
            raise SettingError("ESRGAN_tile_overlap", overlap, f"give 0 to {size // 2}, half of ESRGAN_tile")
        return cls(size, overlap)


@dataclass(frozen=True)
class Watch:
    """Who hears of each tile, and who is asked before each whether to stop."""

    progress: Progress = lambda done, total: None
    stopped: Callable[[], bool] = lambda: False


def known_upscalers(
    settings: Settings,
    device: str | torch.device,
    watch: Watch | None = None,
    files: Mapping[str, Path] | None = None,
) -> Mapping[str, Upscaler]:
    """The upscalers of the site's folders, and of `files`, by name. A network is loaded when its callable is first
    used, and kept until another one's is.
    """
    return _Known(
        {**upscaler_files(settings), **(files or {})}, Tiling.of(settings), torch.device(device), watch or Watch()
    )


class _Known(Mapping[str, Upscaler]):
    """NOTE: it holds a model, so its callables are for the thread that owns the engine."""

    def __init__(self, files: Mapping[str, Path], tiling: Tiling, device: torch.device, watch: Watch) -> None:
        self._files, self._tiling, self._device, self._watch = files, tiling, device, watch
        self._last: tuple[Path, LoadedUpscaler] | None = None

    def __getitem__(self, name: str) -> Upscaler:
        path = self._files[name]
        return lambda picture, scale: enlarged(picture, self._loaded(path), self._tiling, self._watch)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def _loaded(self, path: Path) -> LoadedUpscaler:
        if self._last is None or self._last[0] != path:
            self._last = None  # before the next one takes memory
            self._last = (path, load_upscaler(path, self._device))
        return self._last[1]


def enlarged(picture: Image.Image, loaded: LoadedUpscaler, tiling: Tiling, watch: Watch) -> Image.Image:
    """The picture through the network, in its own mode if that is gray, else RGB or RGBA.

    Transparency is resampled, which keeps flat parts flat, and colours flow under it, so that its edges get no halo.
    """
    scale = loaded.scale
    if picture.width * picture.height * scale**2 > LARGEST_RESULT:
        size = f"{picture.width * scale}x{picture.height * scale}"
        remedy = f"give a smaller picture or scale: {loaded.name} would make {size}, more than {LARGEST_RESULT} pixels"
        raise RequestError("picture", f"{picture.width}x{picture.height}", remedy)
    if not picture.has_transparency_data:
        colours = _in_tiles(picture.convert("RGB"), loaded, tiling, watch)
        return colours.convert("L") if picture.mode == "L" else colours
    source = picture.convert("RGBA")
    alpha = source.getchannel("A")
    result = _in_tiles(_opaque(source, alpha), loaded, tiling, watch).convert("RGBA")
    result.putalpha(resample(alpha, *result.size, Image.Resampling.LANCZOS))
    return result.convert("LA") if picture.mode == "LA" else result


def _opaque(source: Image.Image, alpha: Image.Image) -> Image.Image:
    """The colours, those of invisible pixels taken from the visible ones around them."""
    hidden = alpha.point([255] + 255 * [0])
    low, high = hidden.getextrema()
    return source.convert("RGB") if low == high else fill_masked(source.convert("RGB"), hidden)


def _in_tiles(picture: Image.Image, loaded: LoadedUpscaler, tiling: Tiling, watch: Watch) -> Image.Image:
    """Row of tiles by row of tiles; no more than one row is in memory besides the result."""
    scale = loaded.scale
    (wide, across), (high, down) = (_cut(side, tiling) for side in picture.size)
    result = Image.new("RGB", (picture.width * scale, picture.height * scale))
    before: Bytes | None = None
    for row, top in enumerate(down):
        strip = np.empty((high * scale, result.width, 3), dtype=np.uint8)
        end = 0
        for column, left in enumerate(across):
            if watch.stopped():
                raise PaintingCancelled("stopped while a picture was upscaled")
            tile = _run(loaded, picture.crop((left, top, left + wide, top + high)))
            _lay(strip.swapaxes(0, 1), tile.swapaxes(0, 1), left * scale, end * scale)
            end = left + wide
            watch.progress(row * len(across) + column + 1, len(across) * len(down))
        shared = (down[row - 1] + high - top) * scale if before is not None else 0
        if before is not None and shared:
            strip[:shared] = _faded(before[len(before) - shared :], strip[:shared])
        result.paste(Image.fromarray(strip), (0, top * scale))
        before = strip
    return result


def _cut(side: int, tiling: Tiling) -> tuple[int, list[int]]:
    """How long tiles are and where they begin: as few as reach across, as short as that allows, evenly spaced."""
    size, overlap = tiling.size, tiling.overlap
    if not 0 < size < side:
        return side, [0]
    last = -((overlap - side) // (size - overlap)) - 1
    shortest = -((-side - last * overlap) // (last + 1))
    length = min(-(-shortest // _MULTIPLE) * _MULTIPLE, size)
    return length, [i * (side - length) // last for i in range(last + 1)]


def _lay(canvas: Bytes, piece: Bytes, start: int, end: int) -> None:
    """Put `piece` at `start` of the first axis of a canvas that is full as far as `end`."""
    shared = end - start
    canvas[end : start + len(piece)] = piece[shared:]
    canvas[start:end] = _faded(canvas[start:end], piece[:shared])


def _faded(before: Bytes, after: Bytes) -> Bytes:
    """One into the other along the first axis, in its middle half."""
    place = (np.arange(len(before), dtype=np.float32) + 0.5) / max(len(before), 1)
    weight = np.clip(2 * place - 0.5, 0, 1)[:, None, None]
    mixed: Bytes = np.rint(before + weight * (after.astype(np.float32) - before)).astype(np.uint8)
    return mixed


@torch.inference_mode()
def _run(loaded: LoadedUpscaler, tile: Image.Image) -> Bytes:
    """One tile; half precision that overflows goes on in float32."""
    parameter = next(loaded.network.parameters())
    pixels = torch.from_numpy(np.array(tile)).to(parameter.device)
    x = (pixels.permute(2, 0, 1)[None].float() / 255).contiguous(memory_format=torch.channels_last)
    y = _through(loaded, x, parameter.dtype)
    if parameter.dtype is torch.float16 and not bool(y.isfinite().all()):
        loaded.network.float()
        y = _through(loaded, x, torch.float32)
    if not bool(y.isfinite().all()):
        raise SamplingError(f"upscaler={loaded.name}: it made values that are no numbers; its file may be damaged")
    levels = (y[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    return levels.cpu().numpy()


def _through(loaded: LoadedUpscaler, x: Tensor, dtype: torch.dtype) -> Tensor:
    try:
        result: Tensor = loaded.network(x.to(dtype))
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        size = f"{x.shape[3]}x{x.shape[2]}"
        remedy = "set the option ESRGAN_tile to a smaller number"
        raise SamplingError(
            f"upscaler={loaded.name}: tiles of {size} need more memory than there is; {remedy}"
        ) from error
    return result.float()
