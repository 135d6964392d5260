"""Which upscalers there are: the built-in ones, and the files of `esrgan_dir` under their own names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from overpaint.errors import RequestError
from overpaint.hints import did_you_mean, listed
from overpaint.models.hashes import files_below
from overpaint.settings import Settings

SUFFIXES = (".safetensors", ".pth", ".pt")  # of two files with one name, the first of these is taken
BUILT_IN = ("None", "Lanczos", "Nearest")
_USUAL_SCALE = 4.0
_SCALE = re.compile(r"(?<![0-9a-z])(?:x([1-8])|([1-8])x)(?![0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class UpscalerName:
    """An upscaler that can be asked for; without a file it is a built-in one."""

    name: str
    path: Path | None = None

    @property
    def scale(self) -> float:
        """What the name promises ("4x-Sharp", "Photo_x2"), else 4: the file itself is not opened for a list."""
        found = _SCALE.search(self.name)
        return float(found[1] or found[2]) if found else _USUAL_SCALE


def list_upscalers(settings: Settings) -> tuple[UpscalerName, ...]:
    """The built-in ones first, then the files by lower-case name."""
    files: dict[str, Path] = {}
    if settings.esrgan_dir:
        found = files_below(Path(settings.esrgan_dir), SUFFIXES)
        for path in sorted(found, key=lambda each: SUFFIXES.index(each.suffix)):
            files.setdefault(path.stem, path)
    named = (UpscalerName(name, files[name]) for name in sorted(files, key=str.lower) if name not in BUILT_IN)
    return (*map(UpscalerName, BUILT_IN), *named)


def find_upscaler_name(name: str, settings: Settings, field: str = "upscaler") -> UpscalerName:
    """The upscaler of this name; upper and lower case count only where two names differ in nothing else."""
    known = list_upscalers(settings)
    for fold in (str, str.casefold):
        matches = [each for each in known if fold(each.name) == fold(name)]
        if len(matches) == 1:
            return matches[0]
    names = [each.name for each in known]
    where = "" if settings.esrgan_dir else "; files are looked for in the folder that the option esrgan_dir names"
    raise RequestError(
        field,
        name,
        did_you_mean(name, [each for each in names if each not in BUILT_IN]) or f"give one of {listed(names)}{where}",
    )
