"""The four ways a picture is brought to the size that is painted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from PIL import Image

from overpaint.errors import RequestError
from overpaint.settings import Quirks

JUST_RESIZE, CROP_AND_RESIZE, RESIZE_AND_FILL, LATENT_UPSCALE = range(4)

Upscaler = Callable[[Image.Image, float], Image.Image]
"""`(picture, scale) -> picture`: enlarges by `scale`, or by what its network can; the rest is resampled."""

_ENOUGH_PASSES = 3  # EX-4: a network that enlarges by its own factor is applied again until the size is reached
_ROUNDING_GUARD = 1 + 1e-9  # 100 * 1.15 is 114.99999999999999, which would be cut to 114


def resize_image(
    mode: int,
    image: Image.Image,
    width: int,
    height: int,
    *,
    upscaler: str | Upscaler | None = None,
    quirks: Quirks,
) -> Image.Image:
    """`image` as a picture of `width` x `height`: stretched (0), cropped (1) or filled up at its edges (2, 3)."""
    enlarge = find_upscaler(upscaler, quirks)
    if mode == JUST_RESIZE:
        return _scaled(image, width, height, enlarge, quirks)
    if mode == CROP_AND_RESIZE:
        return _covering(image, width, height, enlarge, quirks)
    if mode in (RESIZE_AND_FILL, LATENT_UPSCALE):  # RESIZE-6
        return _contained(image, width, height, enlarge, quirks)
    raise RequestError("resize_mode", mode, "give 0 (resize), 1 (crop), 2 (fill) or 3 (latent upscale)")


def find_upscaler(
    upscaler: str | Upscaler | None,
    quirks: Quirks,
    known: Mapping[str, Upscaler] | None = None,
    *,
    field: str = "upscaler_for_img2img",
) -> Upscaler | None:
    """The callable behind a name, built in or `known`; nothing and "None" mean plain resampling."""
    if upscaler is None or callable(upscaler):
        return upscaler
    known = known or {}
    if upscaler in UPSCALERS:
        return UPSCALERS[upscaler]
    if upscaler in known:
        return known[upscaler]
    if quirks.unknown_names_fall_back:
        return None
    names = (name for name in (*UPSCALERS, *known) if name)
    raise RequestError(field, upscaler, f"give one of {', '.join(names)}")


def upscaled(image: Image.Image, scale: float, enlarge: Upscaler, quirks: Quirks) -> Image.Image:
    """`image` enlarged by `scale`, however often `enlarge` must run for that."""
    if quirks.upscale_to_multiples_of_8:
        width, height = (max(int(side * scale) // 8 * 8, 8) for side in image.size)
        return _in_passes(image, width, height, enlarge, scale)
    return upscaled_to(image, *scaled_size(image.size, scale), enlarge, scale)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(width, height) that a scale leads to."""
    return max(int(size[0] * scale * _ROUNDING_GUARD), 1), max(int(size[1] * scale * _ROUNDING_GUARD), 1)


def upscaled_to(image: Image.Image, width: int, height: int, enlarge: Upscaler, scale: float) -> Image.Image:
    """`image` at exactly the size that `scale` leads to."""
    return _in_passes(image, width, height, enlarge, scale * _ROUNDING_GUARD)


def _in_passes(image: Image.Image, width: int, height: int, enlarge: Upscaler, scale: float) -> Image.Image:
    """A network that does not enlarge is applied only once; at a scale of 1 it is, as it may be there to clean."""
    for number in range(_ENOUGH_PASSES):
        is_reached = image.width >= width and image.height >= height
        if is_reached and (number > 0 or abs(scale - 1) > 1e-6):
            break
        before, image = image.size, enlarge(image, scale)
        if image.size == before:
            break
    return _lanczos(image, width, height)


def resample(image: Image.Image, width: int, height: int, filter_: Image.Resampling) -> Image.Image:
    """Pillow's resize with its two passes always in one order: along the rows, then along the columns.

    NOTE: newer Pillows begin with the cheaper pass, which moves colours by several levels against older ones.
    """
    premultiplied = {"LA": "La", "RGBA": "RGBa"}.get(image.mode, image.mode)
    across = _along_rows(as_mode(image, premultiplied), width, filter_)
    return as_mode(across.resize((width, height), filter_), image.mode)


def _along_rows(image: Image.Image, width: int, filter_: Image.Resampling) -> Image.Image:
    """The first pass. No row knows of another, so the black ones above and below a mask are left out of it."""
    box = image.getbbox() if image.mode == "L" else None
    if box is None:
        return image.resize((width, image.height), filter_)
    _, top, _, bottom = box
    across = Image.new("L", (width, image.height))
    across.paste(image.crop((0, top, image.width, bottom)).resize((width, bottom - top), filter_), (0, top))
    return across


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """`image` in a mode; itself where it has that mode, of which Pillow would make a copy."""
    return image if image.mode == mode else image.convert(mode)


def _resampling(filter_: Image.Resampling) -> Upscaler:
    def enlarge(image: Image.Image, scale: float) -> Image.Image:
        return resample(image, int(image.width * scale), int(image.height * scale), filter_)

    return enlarge


UPSCALERS: Mapping[str, Upscaler | None] = MappingProxyType(
    {
        "": None,
        "None": None,
        "Lanczos": _resampling(Image.Resampling.LANCZOS),
        "Nearest": _resampling(Image.Resampling.NEAREST),
    }
)


def _lanczos(image: Image.Image, width: int, height: int) -> Image.Image:
    return image if image.size == (width, height) else resample(image, width, height, Image.Resampling.LANCZOS)


def _scaled(image: Image.Image, width: int, height: int, enlarge: Upscaler | None, quirks: Quirks) -> Image.Image:
    scale = max(width / image.width, height / image.height)
    if enlarge is None or image.mode == "L" or scale <= 1:
        return _lanczos(image, width, height)
    if not quirks.upscale_to_multiples_of_8:
        return upscaled_to(image, width, height, enlarge, scale)
    return _lanczos(upscaled(image, scale, enlarge, quirks), width, height)


def _covering(image: Image.Image, width: int, height: int, enlarge: Upscaler | None, quirks: Quirks) -> Image.Image:
    wider = width / height > image.width / image.height
    across = width if wider else image.width * height // image.height
    down = image.height * width // image.width if wider else height
    canvas = Image.new("RGB", (width, height))
    canvas.paste(_scaled(image, across, down, enlarge, quirks), (width // 2 - across // 2, height // 2 - down // 2))
    return canvas


def _contained(image: Image.Image, width: int, height: int, enlarge: Upscaler | None, quirks: Quirks) -> Image.Image:
    wanted, given = width / height, image.width / image.height
    across = width if wanted < given else max(1, image.width * height // image.height)
    down = height if wanted >= given else max(1, image.height * width // image.width)
    inner = _scaled(image, across, down, enlarge, quirks)
    left, top = width // 2 - across // 2, height // 2 - down // 2
    canvas = Image.new("RGB", (width, height))
    canvas.paste(inner, (left, top))
    if wanted != given:
        bands = _bicubic_bands if quirks.bicubic_fill_bands else _edge_bands
        bands(canvas, inner, left, top)
    return canvas


def _bicubic_bands(canvas: Image.Image, inner: Image.Image, left: int, top: int) -> None:
    # NOTE: a box without height has Pillow extrapolate: 1.125 * edge line - 0.125 * the line beside it. Both bands are
    # `top` lines high, so that one line stays black where the rest is odd.
    (width, height), (across, down) = canvas.size, inner.size
    if top > 0:
        canvas.paste(inner.resize((width, top), box=(0, 0, across, 0)), (0, 0))
        canvas.paste(inner.resize((width, top), box=(0, down, across, down)), (0, top + down))
    if left > 0:
        canvas.paste(inner.resize((left, height), box=(0, 0, 0, down)), (0, 0))
        canvas.paste(inner.resize((left, height), box=(across, 0, across, down)), (left + across, 0))


def _edge_bands(canvas: Image.Image, inner: Image.Image, left: int, top: int) -> None:
    (width, height), (across, down) = canvas.size, inner.size
    bottom, right = height - top - down, width - left - across
    strips = (  # the edge line of `inner`, the size of its band, where the band goes
        ((0, 0, across, 1), (across, top), (left, 0)),
        ((0, down - 1, across, down), (across, bottom), (left, top + down)),
        ((0, 0, 1, down), (left, down), (0, top)),
        ((across - 1, 0, across, down), (right, down), (left + across, top)),
    )
    for line, size, place in strips:
        if min(size) > 0:
            canvas.paste(inner.crop(line).resize(size, Image.Resampling.NEAREST), place)
