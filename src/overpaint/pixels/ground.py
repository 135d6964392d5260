"""What a result is laid on: a source as its file holds it. Of it only the part that is painted is made ready.

Painting sees 8 bits of sRGB without transparency. What it makes goes back into the file's own colours and depth, and is
blended there. The rest of the result is the source's own samples, which nobody has touched.

| the source's pixels | what the result's are |
| --- | --- |
| gray, 1 bit, with or without alpha | colours, since colours are painted; a gray sample stands in all three |
| palette | colours |
| RGB | RGB |
| CMYK | CMYK |
| alpha of any kind | as it was |
| 16 bits a channel | 16 bits a channel |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from overpaint.deep import DeepPicture, deep_of
from overpaint.deep_pixels import Box, DeepPixels, with_channels
from overpaint.pictures import LOSSLESS, flatten, source_extras
from overpaint.pixels.composite import assert_untouched, blended, check_samples, strips, with_colours
from overpaint.pixels.profiles import PROFILE_SPACES, Profile, ProfileError, family_of
from overpaint.taking import notes_of

_STRIP = 1 << 20  # pixels that are blended together


@dataclass(frozen=True, eq=False)
class Ground:
    """A source, and how what is painted on it becomes part of it."""

    picture: Image.Image
    background: str = "#ffffff"
    profile: Profile | None = None  # None: its colours are taken as sRGB
    notes: tuple[str, ...] = ()  # what of it cannot be kept or used

    @classmethod
    def of(cls, picture: Image.Image, background: str) -> Ground:
        """A given source, with what is to be known about it."""
        notes = notes_of(picture)
        data = picture.info.get("icc_profile")
        if not data:
            return cls(picture, background, None, notes)
        try:
            return cls(picture, background, Profile.read(bytes(data), family_of(picture.mode)), notes)
        except ProfileError as error:
            kept = "left out of" if _space_of(data) else "kept as it is in"
            told = f"its colour profile {error}, so its colours are taken as sRGB; it is {kept} the result"
            return cls(picture, background, None, tuple(dict.fromkeys((*notes, told))))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        return self.picture.size

    def seen(self, box: Box | None = None) -> Image.Image:
        """The picture, or a part of it, as it is painted on."""
        part = self._part(box)
        if part.mode != "CMYK":
            part = flatten(part, self.background)
        if self._is_srgb:
            return part if part.mode == "RGB" else part.convert("RGB")
        assert self.profile is not None
        return self.profile.seen(part)

    def with_alpha(self) -> Image.Image:
        """The whole picture in sRGB with what is transparent, 8 bits each."""
        part = self._part(None)
        shown = self.seen()
        if part.mode == "CMYK" or not part.has_transparency_data:
            return shown
        shown = shown.copy()
        shown.putalpha(part.convert("RGBA").getchannel("A"))
        return shown

    def with_painted(self, area: Box, painted: Image.Image, alpha: Image.Image | None) -> Image.Image:
        """The picture with what was painted in an area, as far as `alpha` (0 to 255) lets it through."""
        deep = deep_of(self.picture)
        if deep is not None:
            return DeepPicture.of_pixels(self._with_painted_deep(deep, area, painted, alpha))
        result = self.picture if self.picture.mode == "CMYK" else with_colours(self.picture)
        result = result.copy() if result is self.picture else result
        result.info = {}
        for strip in strips(area):
            left, top, right, bottom = strip
            part = left - area[0], top - area[1], right - area[0], bottom - area[1]
            own = self._own(painted.crop(part))
            result.paste(blended(result.crop(strip), own, None if alpha is None else alpha.crop(part)), strip)
        return result

    def check_untouched(self, area: Box, result: Image.Image, alpha: Image.Image) -> None:
        """Raise unless every sample under black is the source's; beside the area there is nothing but the source."""
        deep, new = deep_of(self.picture), deep_of(result)
        if deep is not None and new is not None:
            check_samples(with_channels(deep.window(area), new.channels), new.window(area), alpha)
        elif self.picture.mode == "CMYK":
            check_samples(np.asarray(self.picture.crop(area)), np.asarray(result.crop(area)), alpha)
        else:
            assert_untouched(self.picture.crop(area), result.crop(area), alpha)

    def around(self, canvas: Image.Image, place: tuple[int, int]) -> Image.Image:
        """The picture, sample by sample, at a place on a larger canvas of sRGB."""
        has_alpha = self.picture.has_transparency_data
        larger = self.brought_back(canvas.convert("RGBA") if has_alpha else canvas)
        deep, new = deep_of(self.picture), deep_of(larger)
        left, top = place
        if deep is None or new is None:
            larger.paste(self.picture if larger.mode == "CMYK" else with_colours(self.picture), place)
            return larger
        box = left, top, left + deep.size[0], top + deep.size[1]
        return DeepPicture.of_pixels(new.with_part(box, with_channels(deep.window((0, 0, *deep.size)), new.channels)))

    def brought_back(self, picture: Image.Image) -> Image.Image:
        """A picture of another size, 8 bits of sRGB, in the source's colours and depth."""
        colours = picture.convert("RGB")
        clear = picture.getchannel("A") if picture.mode == "RGBA" else None
        if deep_of(self.picture) is not None:
            samples = self._own_deep(colours)
            if clear is not None:
                samples = np.dstack([samples, np.asarray(clear).astype(np.uint16) * 257])
            return DeepPicture.of_pixels(DeepPixels(samples, is_cmyk=self.picture.mode == "CMYK"))
        own = self._own(colours)
        if own is colours:
            return picture
        if clear is not None and own.mode == "RGB":
            own.putalpha(clear)
        return own

    def unchanged(self) -> Image.Image:
        """A copy of the picture as it is; gray with a profile of colours is colours."""
        is_gray = family_of(self.picture.mode) == "gray"
        if not (is_gray and self.profile is not None and self.profile.data == self.picture.info["icc_profile"]):
            return self.picture.copy()
        deep = deep_of(self.picture)
        if deep is None:
            return with_colours(self.picture)
        return DeepPicture.of_pixels(DeepPixels(with_channels(deep.window((0, 0, *deep.size)), deep.channels + 2)))

    def carried(self, result: Image.Image) -> dict[str, Any]:
        """What goes along with a result: EXIF, XMP, resolution, and the profile that says how to show its pixels."""
        info, extras = self.picture.info, source_extras(self.picture)
        found = {"exif": extras.exif, "xmp": extras.xmp, "dpi": extras.dpi, LOSSLESS: extras.lossless or None}
        kept: dict[str, Any] = {name: value for name, value in found.items() if value is not None}
        family, profile = family_of(result.mode), info.get("icc_profile")
        if self.profile is not None and family != family_of(self.picture.mode):
            profile = self.profile.data
        if profile and (_space_of(profile) or family) == family:
            kept["icc_profile"] = profile
        return kept

    @property
    def is_plain(self) -> bool:
        """Whether its samples are 8 bits of sRGB."""
        return self._is_srgb and deep_of(self.picture) is None and self.picture.mode != "CMYK"

    @property
    def _is_srgb(self) -> bool:
        """Whether Pillow's own conversions do."""
        return self.profile is None or self.profile.is_srgb

    def _part(self, box: Box | None) -> Image.Image:
        deep = deep_of(self.picture)
        if deep is None:
            return self.picture if box is None else self.picture.crop(box)
        return deep.rounded(box)

    def _own(self, painted: Image.Image) -> Image.Image:
        """8 bits of what was painted in the picture's colours."""
        if self._is_srgb:
            return painted.convert("CMYK") if self.picture.mode == "CMYK" else painted
        assert self.profile is not None
        return self.profile.brought_back(painted)

    def _own_deep(self, painted: Image.Image) -> npt.NDArray[np.uint16]:
        if self.picture.mode == "CMYK":  # such profiles are tables, which give no more than 8
            return np.asarray(self._own(painted)).astype(np.uint16) * 257
        if self.profile is None:
            return np.asarray(painted).astype(np.uint16) * 257
        return self.profile.brought_back_deep(painted)

    def _with_painted_deep(
        self, deep: DeepPixels, area: Box, painted: Image.Image, alpha: Image.Image | None
    ) -> DeepPixels:
        old = deep.window(area)
        new = with_channels(old, max(3, old.shape[2]) if old.shape[2] != 2 else 4)
        new = new.copy() if new.base is not None or new is old else new
        count = 4 if deep.is_cmyk else 3
        weights = None if alpha is None else np.asarray(alpha)
        for rows in _rows(new.shape[0], new.shape[1]):
            colours = self._own_deep(painted.crop((0, rows.start, painted.width, rows.stop)))
            if weights is None:
                new[rows, :, :count] = colours
                continue
            weight = weights[rows, :, None].astype(np.uint32)
            new[rows, :, :count] = (new[rows, :, :count] * (255 - weight) + colours * weight + 127) // 255
        return deep.with_part(area, new)


def _rows(height: int, width: int) -> Iterator[slice]:
    step = max(1, _STRIP // width)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def _space_of(profile: bytes) -> str | None:
    """What pictures a profile says that it is for, if that is known."""
    return PROFILE_SPACES.get(bytes(profile[16:20]))
