"""One line: a text in, with a picture or without, and a picture out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from overpaint.pictures import open_picture
from overpaint.planning.preflight import check
from overpaint.request import Img2ImgRequest, Picture, Txt2ImgRequest
from overpaint.settings import Settings

if TYPE_CHECKING:
    from overpaint.engine import Engine

Checkpoint = str | os.PathLike[str]


def img2img(
    image: Picture | bytes | str | os.PathLike[str],
    prompt: str = "",
    *,
    mask: Picture | bytes | str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    checkpoint: Checkpoint | None = None,
    **fields: Any,
) -> Picture:
    """Paint over a picture. `fields` are those of `Img2ImgRequest`; give an `Engine` to paint more than once."""
    request = Img2ImgRequest(
        images=(open_picture(image),),
        prompt=prompt,
        mask=None if mask is None else open_picture(mask),
        **fields,
    )
    return _painted(request, engine, checkpoint)


def txt2img(
    prompt: str, *, engine: Engine | None = None, checkpoint: Checkpoint | None = None, **fields: Any
) -> Picture:
    """Paint a picture from noise. `fields` are those of `Txt2ImgRequest`, such as `hires=Hires(scale=2)`."""
    return _painted(Txt2ImgRequest(prompt=prompt, **fields), engine, checkpoint)


def _painted(request: Img2ImgRequest, engine: Engine | None, checkpoint: Checkpoint | None) -> Picture:
    """By the engine that is given, or by one of its own; a checkpoint may be named either way."""
    named = None if checkpoint is None else os.fspath(checkpoint)
    if engine is None:
        check(request, Settings(), named)  # what cannot be painted is told before torch is imported
    if engine is not None:
        return engine.paint(request if named is None else request.with_changes(checkpoint=named)).images[0]
    from overpaint.engine import Engine as LoadedEngine

    with LoadedEngine(named) as own:
        return own.paint(request).images[0]
