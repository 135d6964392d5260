"""A picture that another process has decoded is, in all that anybody asks of it, as if it were decoded here."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from overpaint.deep import DeepPicture, deep_of
from overpaint.deep_pixels import DeepPixels
from overpaint.errors import PictureError
from overpaint.pictures import open_picture, source_extras
from overpaint.service.limits import Limits
from overpaint.service.workers import readers
from overpaint.upright import SOURCE_MODE
from tests.service.workers.test_readers import InThisProcess, file_of, noise


def samples() -> dict[str, bytes]:
    """A picture of each kind that there is when it is decoded."""
    grain = np.random.default_rng(2).integers(0, 255, (9, 7, 4), np.uint8)
    plain = Image.fromarray(grain)
    deep = (grain.astype(np.uint16) << 8) + grain[..., ::-1]
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 3
    tiff = io.BytesIO()
    DeepPicture.of_pixels(DeepPixels(deep, is_cmyk=True)).save(tiff, "TIFF")
    found = {mode: file_of(plain.convert(mode)) for mode in ("1", "L", "LA", "RGB", "RGBA")}
    return {
        **found,
        "palette": file_of(plain.convert("RGB").quantize(11)),
        "palette with alpha": file_of(plain.quantize(5)),
        "transparent colour": file_of(plain.convert("RGB"), transparency=(3, 4, 5)),
        "16 bits": file_of(DeepPicture.of_pixels(DeepPixels(deep))),
        "16 bits gray": file_of(DeepPicture.of_pixels(DeepPixels(deep[..., :1]))),
        "16 bits of ink": tiff.getvalue(),
        "ink": noise("TIFF", (8, 8)),
        "notes": file_of(
            plain,
            exif=exif.tobytes(),
            dpi=(300, 300),
            icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        ),
        "EXIF of a TIFF": noise("TIFF", (8, 8), exif=exif.tobytes(), dpi=(300, 300)),
    }


@pytest.mark.parametrize("name", samples())
def test_a_picture_that_is_decoded_apart_is_as_if_it_were_decoded_here(name: str, tmp_path: Path) -> None:
    data = samples()[name]
    here, there = open_picture(data), InThisProcess(tmp_path, Limits()).decoded([data])
    assert there is not None and not list(tmp_path.iterdir())
    assert (there.mode, there.size, type(there)) == (here.mode, here.size, type(here))
    assert there.convert("RGBA").tobytes() == here.convert("RGBA").tobytes()
    assert source_extras(there) == source_extras(here)
    assert there.has_transparency_data == here.has_transparency_data
    assert there.info.get(SOURCE_MODE) == here.info.get(SOURCE_MODE)
    ours, theirs = deep_of(here), deep_of(there)
    if ours is None or theirs is None:
        assert ours is theirs
    else:
        assert np.array_equal(ours.samples, theirs.samples) and ours.is_cmyk == theirs.is_cmyk


def test_what_is_no_picture_of_samples_is_refused(tmp_path: Path) -> None:
    """A reader that something hostile has taken over may write anything."""
    for number, (size, samples) in enumerate((([9, 9], 243), ([3, 3], 20), (["x", 3], 27))):
        head = json.dumps({"mode": "RGB", "size": size, "info": {}}).encode()
        path = tmp_path / str(number)
        path.write_bytes(len(head).to_bytes(4, "big") + head + bytes(samples))
        with pytest.raises(PictureError, match="takes more memory or time"):
            readers.decoded_of({"path": str(path)}, Limits(source_pixels=80))
    assert not list(tmp_path.iterdir())
