"""Which upscalers there are: the built-in ones, and the files of the upscaler folders.

Files go by their own names, those of Real-ESRGAN's folder by the names that the reference gives them. Either name finds
the file, in whichever of the folders it lies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from overpaint.errors import RequestError
from overpaint.hints import did_you_mean, listed
from overpaint.models.catalog import UPSCALER, files_of
from overpaint.settings import Settings

BUILT_IN = ("None", "Lanczos", "Nearest")
_FOLDERS = ("esrgan_dir", "realesrgan_dir")
_FOREIGN_FOLDERS = ("swinir_dir", "scunet_dir", "dat_dir")  # of networks that only the package spandrel knows
_USUAL_SCALE = 4.0
_SCALE = re.compile(r"(?<![0-9a-z])(?:x([1-8])|([1-8])x)(?![0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class WellKnown:
    """An upscaler that clients ask for without looking whether it is there."""

    names: tuple[str, ...]
    stems: tuple[str, ...]  # of the files that it may be
    folder: str = "esrgan_dir"
    network: str = ""  # where only the package spandrel knows it

    @property
    def is_offered(self) -> bool:
        return not self.network or _has_spandrel()


def _of_realesrgan(name: str, stem: str) -> WellKnown:
    return WellKnown((name,), (stem,), "realesrgan_dir")


WELL_KNOWN = (
    _of_realesrgan("R-ESRGAN 4x+", "RealESRGAN_x4plus"),
    _of_realesrgan("R-ESRGAN 4x+ Anime6B", "RealESRGAN_x4plus_anime_6B"),
    _of_realesrgan("R-ESRGAN 2x+", "RealESRGAN_x2plus"),
    _of_realesrgan("R-ESRGAN General 4xV3", "realesr-general-x4v3"),
    _of_realesrgan("R-ESRGAN General WDN 4xV3", "realesr-general-wdn-x4v3"),
    _of_realesrgan("R-ESRGAN AnimeVideo", "realesr-animevideov3"),
    WellKnown(("ESRGAN_4x",), ("ESRGAN_4x", "ESRGAN")),
    WellKnown(("4x-UltraSharp",), ("4x-UltraSharp", "4xUltrasharp_4xUltrasharpV10")),
    *(
        WellKnown((name,), (name,))
        for name in (
            *("4x-AnimeSharp", "4x_foolhardy_Remacri", "4x_NMKD-Siax_200k", "4x_NMKD-Superscale-SP_178000_G"),
            *("8x_NMKD-Superscale_150000_G", "4x_Valar_v1", "lollypop", "BSRGAN"),
        )
    ),
    WellKnown(
        ("SwinIR_4x", "SwinIR 4x"),
        ("SwinIR_4x", "003_realSR_BSRGAN_DFOWMFC_s64w8_SwinIR-L_x4_GAN"),
        "swinir_dir",
        "SwinIR",
    ),
    WellKnown(("ScuNET GAN", "ScuNET"), ("scunet_color_real_gan",), "scunet_dir", "ScuNET"),
    WellKnown(("ScuNET PSNR",), ("scunet_color_real_psnr",), "scunet_dir", "ScuNET"),
    *(WellKnown((f"DAT x{scale}",), (f"DAT_x{scale}",), "dat_dir", "DAT") for scale in (2, 3, 4)),
)
_BY_STEM = {stem: each for each in WELL_KNOWN for stem in each.stems}
_BY_NAME = {name.casefold(): each for each in WELL_KNOWN for name in each.names}


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
    for option in (*_FOLDERS, *(_FOREIGN_FOLDERS if _has_spandrel() else ())):
        for stem, path in _files_of(settings, option).items():
            files.setdefault(_listed_name(option, stem), path)
    named = (UpscalerName(name, files[name]) for name in sorted(files, key=str.lower) if name not in BUILT_IN)
    return (*map(UpscalerName, BUILT_IN), *named)


def upscaler_files(settings: Settings) -> Mapping[str, Path]:
    """The file behind every name that finds one: those that are listed, and the others of the well-known ones."""
    listed = {each.name: each.path for each in list_upscalers(settings) if each.path is not None}
    found = dict(listed)
    for path in listed.values():
        known = _BY_STEM.get(path.stem)
        for name in (path.stem, *(known.names if known is not None else ())):
            found.setdefault(name, path)
    return found


def find_upscaler_name(name: str, settings: Settings, field: str = "upscaler") -> UpscalerName:
    """The upscaler of this name; upper and lower case count only where two names differ in nothing else."""
    offered = list_upscalers(settings)
    others = (UpscalerName(*each) for each in upscaler_files(settings).items())
    known = tuple(dict.fromkeys((*offered, *others)))
    for fold in (str, str.casefold):
        matches = [each for each in known if fold(each.name) == fold(name)]
        if len(matches) == 1:
            return matches[0]
    names = [each.name for each in offered]
    has_folder = any(getattr(settings, each) for each in _FOLDERS)
    where = "" if has_folder else "; files are looked for in the folder that the option esrgan_dir names"
    near = did_you_mean(name, [each for each in names if each not in BUILT_IN])
    raise RequestError(field, name, near or f"give one of {listed(names)}{where}")


def why_missing(name: str) -> str | None:
    """What a well-known upscaler lacks where it is not found; None for an unknown name."""
    known = _BY_NAME.get(name.casefold())
    if known is None:
        return None
    if not known.is_offered:
        return f"{known.network} networks are not offered here"
    return f"it needs the file {known.stems[0]}.pth in the folder that the option {known.folder} names"


def _listed_name(option: str, stem: str) -> str:
    known = _BY_STEM.get(stem)
    return known.names[0] if known is not None and option != "esrgan_dir" else stem


def _files_of(settings: Settings, option: str) -> dict[str, Path]:
    """Of two files with one name, the one with the first of the suffixes is taken."""
    files: dict[str, Path] = {}
    found = (each.path for each in files_of(getattr(settings, option), UPSCALER))
    for path in sorted(found, key=lambda each: UPSCALER.suffixes.index(each.suffix)):
        files.setdefault(path.stem, path)
    return files


def _has_spandrel() -> bool:
    return find_spec("spandrel") is not None
