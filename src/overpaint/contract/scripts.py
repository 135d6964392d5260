"""Scripts at the contract's door: soft inpainting is built in, and asking for any other is an error. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from overpaint.errors import RequestError
from overpaint.parts import SoftInpainting

SOFT_INPAINTING = "soft inpainting"
_BUILT_INS = ("extra options", "refiner", "sampler", "seed")  # of the reference's page; a job's own fields say the same
_FIELDS = ("alwayson_scripts", "scripts")
_NO_SCRIPTS = "scripts and extensions do not run here, only 'Soft inpainting' is built in; leave it out"


def scripts_of(job: Any, *, is_img2img: bool) -> SoftInpainting | None:
    """What the always-on scripts of a job come to; a script that does not run here is refused, not ignored."""
    if _asks(job.script_args):
        raise RequestError("script_args", job.script_args, _NO_SCRIPTS)
    soft: Any = ()
    for field in _FIELDS:
        table = getattr(job, field)
        if table is not None and not isinstance(table, Mapping):
            if _asks(table):
                raise RequestError(field, table, _NO_SCRIPTS)
            continue
        for title, given in (table or {}).items():
            args = given.get("args") if isinstance(given, Mapping) else given
            if str(title).lower() == SOFT_INPAINTING and is_img2img:
                soft = _listed(f"{field}[{title!r}]", args)
            elif _asks(args):
                raise RequestError(field, title, _remedy(str(title).lower(), is_img2img))
    return soft_inpainting(soft)


def soft_inpainting(args: Any) -> SoftInpainting | None:
    """The script's arguments by position; the first says whether it runs."""
    if not args or not args[0]:
        return None
    return SoftInpainting(**dict(zip(SoftInpainting.__dataclass_fields__, args[1:], strict=False)))


def _asks(value: Any) -> bool:
    """Whether a script's arguments ask for anything: empty ones do not, nor those whose first one is an empty tick."""
    if isinstance(value, Mapping):
        return bool(value) and value.get("enabled", True) is not False
    if isinstance(value, list | tuple):
        return any(map(_asks, value)) and value[0] is not False
    return bool(value)


def _listed(field: str, args: Any) -> Any:
    if args is None or isinstance(args, list | tuple):
        return args or ()
    raise RequestError(field, args, 'give {"args": [...]}, a list of arguments by position')


def _remedy(title: str, is_img2img: bool) -> str:
    if title == SOFT_INPAINTING:
        return "it works in img2img only; leave it out" if not is_img2img else _NO_SCRIPTS
    if title in _BUILT_INS:
        return "it is part of the reference's page; use the job's own fields"
    if title == "controlnet":
        return "this door has no ControlNets; give an overpaint.Img2ImgRequest its field controls"
    if get_close_matches(title, [SOFT_INPAINTING], cutoff=0.7):
        return "there is no such script; did you mean 'Soft inpainting'?"
    return _NO_SCRIPTS
