"""One line: a picture and a text in, a picture out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from overpaint.pictures import open_picture
from overpaint.request import Img2ImgRequest, Picture

if TYPE_CHECKING:
    from overpaint.engine import Engine


def img2img(
    image: Picture | bytes | str | os.PathLike[str],
    prompt: str = "",
    *,
    mask: Picture | bytes | str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    **fields: Any,
) -> Picture:
    """Paint over a picture. `fields` are those of `Img2ImgRequest`; give an `Engine` to paint more than once."""
    request = Img2ImgRequest(
        images=(open_picture(image),),
        prompt=prompt,
        mask=None if mask is None else open_picture(mask),
        **fields,
    )
    if engine is not None:
        return engine.paint(request).images[0]
    from overpaint.engine import Engine as LoadedEngine

    with LoadedEngine(None if checkpoint is None else os.fspath(checkpoint)) as own:
        return own.paint(request).images[0]
