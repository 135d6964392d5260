"""Pictures as Python programs hold them: PIL's, arrays of numpy, tensors of torch. What is ambiguous is refused.

| given | shape | values |
| --- | --- | --- |
| a PIL picture | any | turned upright by its EXIF |
| an array of numpy | (height, width), or (height, width, channels) | uint8, uint16, bool, or floats from 0 to 1 |
| a tensor of torch | (height, width), or (channels, height, width) | the same |

1 channel is gray, 3 are RGB, 4 are RGBA. 16 bits a channel are kept (`overpaint.deep`). Neither numpy nor torch is
imported unless a program has done so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from overpaint.errors import RequestError, RequestTypeError
from overpaint.upright import NOTES, ORIENTATION, SOURCE_MODE, upright

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    PictureLike: TypeAlias = Image.Image | npt.NDArray[Any] | Tensor

__all__ = [
    "ORIENTATION",
    "SOURCE_MODE",
    "as_picture",
    "as_pictures",
    "had_16_bits",
    "is_array",
    "upright",
    "with_16_bits",
]

MODES_OF_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
BECAME_8 = "its 16 bits per channel became 8, which is what is painted with"
_CHANNELS = (1, 3, 4)
_ANY = "give a PIL picture, a numpy array or a torch tensor; overpaint.open_picture opens a file"


def as_picture(name: str, value: object) -> Image.Image:
    """The picture that a program means by a value of this field, upright and with 8 bits per channel."""
    if isinstance(value, Image.Image):
        return plain_picture(name, value)
    if is_array(value):
        return _from_array(name, value)
    raise RequestTypeError(name, value, _ANY)


def as_pictures(name: str, value: object) -> tuple[Image.Image, ...]:
    """One picture may be given bare; an array of four dimensions holds several."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(as_picture(f"{name}[{i}]", each) for i, each in enumerate(value))
    if is_array(value) and getattr(value, "ndim", 0) == 4:
        several: Any = value
        return tuple(as_picture(f"{name}[{i}]", each) for i, each in enumerate(several))
    return (as_picture(name if is_array(value) else f"{name}[0]", value),)


def is_array(value: object) -> bool:
    """Whether it is an array of numpy or a tensor of torch; asked without importing either."""
    return _is_of(value, "numpy", "ndarray") or _is_of(value, "torch", "Tensor")


def plain_picture(name: str, picture: Image.Image) -> Image.Image:
    """Upright, 8 bits per channel; the picture itself where it is that already."""
    if min(picture.size) < 1:
        raise RequestError(name, picture.size, "give a picture of at least one pixel")
    if picture.mode == "F":
        raise RequestError(name, picture.mode, "its pixels are floats; give 8 or 16 bits per channel, or a numpy array")
    try:
        deep = with_16_bits(picture)
    except Exception as error:  # decoders raise whatever a broken file makes them
        raise _undecodable(name, picture, error) from error
    return deep or _shallow(name, picture)


def with_16_bits(picture: Image.Image, again: Callable[[], Image.Image] | None = None) -> Image.Image | None:
    """The picture with its 16 bits a channel, if it has them: in memory, or in a file that is not decoded yet.

    `again` opens that file once more.
    """
    if getattr(picture, "deep", None) is not None:
        return picture
    tiles: Any = getattr(picture, "tile", ())
    if not (picture.mode in MODES_OF_16_BITS or any(";16" in str(each[3]) for each in tiles)):
        return None
    from overpaint.deep import decoded_deep, is_deep, opened_again

    if not is_deep(picture):
        picture.info.setdefault(SOURCE_MODE, f"{picture.mode};16")  # Pillow makes 8 bits of them by itself
        return None
    return decoded_deep(picture, again or opened_again(picture), is_ours=again is not None)


def _shallow(name: str, picture: Image.Image) -> Image.Image:
    check_decodes(name, picture)
    return upright(as_8_bits(picture))


def check_decodes(name: str, picture: Image.Image) -> None:
    """Pillow decodes late; a file cut short should not end a job half-way."""
    try:
        picture.load()
    except Exception as error:  # decoders raise whatever a broken file makes them
        raise _undecodable(name, picture, error) from error


def _undecodable(name: str, picture: Image.Image, error: Exception) -> RequestError:
    return RequestError(name, picture, f"it cannot be decoded ({error}); save it again as PNG or JPEG")


def had_16_bits(picture: Image.Image) -> bool:
    """Whether the picture was given with 16 bits per channel."""
    mode = str(picture.info.get(SOURCE_MODE, ""))
    return mode in MODES_OF_16_BITS or mode.endswith(";16")


def notes_of(picture: Image.Image) -> tuple[str, ...]:
    """What of a source was not taken."""
    notes = tuple(map(str, picture.info.get(NOTES, ())))
    if had_16_bits(picture) and getattr(picture, "deep", None) is None:
        notes += (BECAME_8,)
    return notes


def as_8_bits(picture: Image.Image) -> Image.Image:
    """Pillow would cut 16-bit gray off at 255 instead of scaling it."""
    if picture.mode not in MODES_OF_16_BITS:
        return picture
    import numpy as np

    small = _scaled(np.clip(np.asarray(picture, dtype=np.int64), 0, 65535))
    small.info = {**picture.info, SOURCE_MODE: picture.mode}
    return small


def _scaled(values: npt.NDArray[Any]) -> Image.Image:
    """16 bits to 8, rounded."""
    import numpy as np

    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _is_of(value: object, module: str, name: str) -> bool:
    """Whether it is of a class of a module, asked of the module only where it is loaded already."""
    loaded = sys.modules.get(module)
    kind = getattr(loaded, name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _from_array(name: str, value: Any) -> Image.Image:
    import numpy as np

    if _is_of(value, "torch", "Tensor"):
        values = _channels_last(name, value)
    else:
        values = value
        if values.ndim == 3 and values.shape[-1] not in _CHANNELS:
            remedy = "an array is (height, width) or (height, width, channels), with 1, 3 or 4 channels"
            raise RequestError(name, _Shown(value), f"{remedy}; np.moveaxis(array, 0, -1) brings channels to the end")
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise RequestError(name, _Shown(value), "give one picture: (height, width) or (height, width, channels)")
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.dtype == np.bool_:
        return Image.fromarray(values.astype(np.uint8) * 255)
    if values.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(values))
    if values.dtype == np.uint16:
        from overpaint.deep import deep_array

        return deep_array(values)
    if not np.issubdtype(values.dtype, np.floating):
        remedy = "its values may be uint8, uint16, bool, or floats from 0 to 1; array.astype(np.uint8) makes bytes"
        raise RequestTypeError(name, _Shown(value), remedy)
    return Image.fromarray(_bytes_of_floats(name, value, values))


def _bytes_of_floats(name: str, value: Any, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    import numpy as np

    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        told = _Shown(value, f", from {low:g} to {high:g}")
        raise RequestError(name, told, "floats go from 0, black, to 1, white; divide by 255, or shift -1..1 to 0..1")
    return np.rint(values.astype(np.float32) * 255).astype(np.uint8)


def _channels_last(name: str, tensor: Any) -> npt.NDArray[Any]:
    """A tensor as an array: its channels come first."""
    if tensor.ndim == 3 and tensor.shape[0] not in _CHANNELS:
        remedy = "a tensor is (height, width) or (channels, height, width), with 1, 3 or 4 channels"
        raise RequestError(name, _Shown(tensor), f"{remedy}; tensor.permute(2, 0, 1) brings channels to the front")
    values = tensor.detach().cpu()
    values = values.permute(1, 2, 0) if values.ndim == 3 else values
    array: npt.NDArray[Any] = (values.float() if values.is_floating_point() else values).numpy()
    return array


class _Shown:
    """What an error shows of a million numbers."""

    def __init__(self, value: Any, more: str = "") -> None:
        self._text = f"{type(value).__name__} of {tuple(value.shape)}, {value.dtype}{more}"

    def __repr__(self) -> str:
        return self._text
