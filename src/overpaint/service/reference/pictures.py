"""Pictures as the reference's clients send them (API-6): base64, with or without "data:...;base64,", or a URL."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from PIL import Image

from overpaint.errors import PictureError
from overpaint.pictures import FORMATS
from overpaint.service.config import ServeConfig
from overpaint.service.guard.inputs import TooLarge, admit_picture, decoded_text, is_url, picture_from_text
from overpaint.service.reference.errors import http_refusal

_LONGEST_SIGNATURE = 16  # bytes; what Pillow's formats are recognised by


@dataclass(frozen=True)
class PictureReader:
    """Reads them within the server's limits."""

    config: ServeConfig

    async def read(self, name: str, text: str) -> bytes:
        """The bytes of a picture that is fit to be decoded."""
        if is_url(text) and not self.config.url_inputs:
            raise http_refusal(500, "Requests not allowed")
        return await asyncio.to_thread(self._fetched if is_url(text) else self._decoded, name, text)

    def _fetched(self, name: str, url: str) -> bytes:
        try:
            return picture_from_text(url, self.config, name)
        except TooLarge:
            raise
        except PictureError as error:
            raise http_refusal(500, "Invalid image url", str(error)) from None

    def _decoded(self, name: str, text: str) -> bytes:
        data = b""
        try:
            data = decoded_text(text, self.config.limits, name)
            admit_picture(data, self.config.limits, name)
        except TooLarge:
            raise
        except PictureError:
            if _is_a_picture(data):  # a broken one, or beyond the limits: that is told in our own words
                raise
            raise http_refusal(500, "Invalid encoded image") from None
        return data


def _is_a_picture(data: bytes) -> bool:
    """By its first bytes alone: what comes behind them may be hostile."""
    Image.init()
    start = data[:_LONGEST_SIGNATURE].ljust(_LONGEST_SIGNATURE, b"\0")
    known = (Image.OPEN[each][1] for each in FORMATS if each in Image.OPEN)
    return any(accept is not None and accept(start) is True for accept in known)
