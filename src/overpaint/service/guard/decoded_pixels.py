"""A decoded picture on its way out of the process that decoded it: what it says of itself, then its plain samples.

No decoder is needed to take it, so nothing that a stranger sent is decoded where clients are answered.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from overpaint.deep import DeepPicture, deep_of
from overpaint.deep_pixels import DeepPixels
from overpaint.files.saving import OWNER

_COUNT = 4  # bytes of the number that comes first
_BINARY = getattr(os, "O_BINARY", 0)  # there are systems with another kind of files


def write_pixels(path: Path, picture: Image.Image) -> None:
    """One file, which is there whole or not at all."""
    deep = deep_of(picture)
    said: dict[str, Any] = {"mode": picture.mode, "size": picture.size, "info": _plain(picture.info)}
    if deep is None:
        samples = picture.tobytes()
        if picture.palette is not None and picture.mode in ("P", "PA"):
            mode = picture.palette.mode
            said["palette"] = (mode, picture.getpalette(mode))
    else:
        whole = deep.window((0, 0, *deep.size))
        samples = whole.astype("<u2").tobytes()
        said |= {"deep": whole.shape, "is_cmyk": deep.is_cmyk}
    head = json.dumps(said).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, OWNER), "wb") as file:
            file.writelines((len(head).to_bytes(_COUNT, "big"), head, samples))
    except OSError:
        path.unlink(missing_ok=True)
        raise


def read_pixels(path: Path, most_pixels: int) -> Image.Image:
    """The picture that was written; `ValueError` if this is none."""
    data = path.read_bytes()
    begin = _COUNT + int.from_bytes(data[:_COUNT], "big")
    said = json.loads(data[_COUNT:begin])
    wide, high = said["size"]
    if wide * high > most_pixels:
        raise ValueError(f"{wide}x{high} pixels")
    samples, info = memoryview(data)[begin:], {name: _as_it_was(each) for name, each in said["info"].items()}
    if "deep" in said:
        shape = (high, wide, said["deep"][2])
        values = np.frombuffer(samples, "<u2").astype(np.uint16, copy=False).reshape(shape)
        return DeepPicture.of_pixels(DeepPixels(values, is_cmyk=said["is_cmyk"]), info)
    picture = Image.frombytes(said["mode"], (wide, high), samples)
    if "palette" in said:
        mode, colours = said["palette"]
        picture.putpalette(colours, mode)
    picture.info.update(info)
    return picture


def _plain(info: Mapping[Any, Any]) -> dict[str, Any]:
    """What JSON can say of it; the rest is what nobody asks for."""
    found = {name: _as_json(each) for name, each in info.items() if isinstance(name, str)}
    return {name: each for name, each in found.items() if each is not None}


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, tuple | list):
        parts = [_as_json(each) for each in value]
        return None if None in parts else {"parts": parts}
    if isinstance(value, str | int | float):
        return value
    try:
        return float(value)  # a fraction of a TIFF
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _as_it_was(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return base64.b64decode(value["bytes"]) if "bytes" in value else tuple(map(_as_it_was, value["parts"]))
