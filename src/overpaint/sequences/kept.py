"""A folder in which a sequence keeps its finished pictures, and from which it goes on after a crash.

`steps.jsonl` begins with what is painted, and has one line for each finished step, written when its pictures are
whole: what a line speaks of is there. Where the pictures' format does not keep every pixel, exact copies lie in
`.steps` until the sequence is finished: what is painted from them has to come out the same after a crash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from PIL import Image

from overpaint.errors import PictureError, RequestError, SaveError
from overpaint.extras import LARGEST_RESULT
from overpaint.files.formats import format_of
from overpaint.files.keeping import Origins, Target, finished_pictures, numbered, save_one
from overpaint.files.metadata import encode_picture
from overpaint.files.saving import save_bytes
from overpaint.pictures import open_picture
from overpaint.pixels.seams import Seam
from overpaint.sequences.forms import tool_json
from overpaint.sequences.story import PaintingSequence, StepResult, with_known_seeds
from overpaint.settings import Settings

if TYPE_CHECKING:
    from overpaint.outcome import Processed

JOURNAL = "steps.jsonl"
EXACT = ".steps"  # the folder of exact copies
_SEEDS = ("seed", "variation_seed")


@dataclass(frozen=True)
class KeptSteps:
    """The folder of one sequence."""

    folder: Path
    sequence: PaintingSequence  # with the seeds that it began with
    done: tuple[StepResult, ...]
    is_finished: bool = False  # there is nothing left to paint

    @classmethod
    def opened(
        cls, folder: Path, sequence: PaintingSequence, settings: Settings, model: str, ending: str = "png"
    ) -> KeptSteps:
        """The folder of this sequence, made if it is not there; one that another sequence has begun is refused.

        `ending` is the format of its pictures.
        """
        key = fingerprint(sequence, settings, model, ending)
        journal = folder / JOURNAL
        if not journal.exists():
            return _begun(folder, with_known_seeds(sequence), key)
        head, *lines = _read(journal)
        if head.get("fingerprint") != key:
            remedy = "another sequence was kept there; give another folder, or take its files away"
            raise RequestError("--output", str(folder), remedy)
        seeds = {name: _seed(head.get(name)) for name in _SEEDS}
        made = replace(sequence, request=sequence.request.with_changes(**seeds))
        done = tuple(_results(folder, lines))
        return cls(folder, made, done, is_finished=len(done) == len(made))

    def keep(self, number: int, processed: Processed, origins: Origins, name: str) -> list[Path]:
        """Write a step's pictures, and then that they are there."""
        places: list[Path] = []
        records = origins.records(self.folder, processed.plan.settings)
        pictures = list(finished_pictures(processed))
        result = StepResult.of(processed)
        exact: list[Path] = []
        for each in pictures:
            own = name if len(pictures) == 1 else numbered(name, each.index + 1)
            places.append(save_one(each, processed, Target(self.folder / own, True), records))
            if not _keeps_every_pixel(own):
                exact.append(_exact_copy(self.folder / EXACT / f"{places[-1].stem}.png", each.image))
        line = {
            "number": number,
            "files": [path.name for path in places],
            "sha256": [_digest(path) for path in places],
            **({"exact": [_digest(path) for path in exact]} if exact else {}),
            "seams": [None if each is None else asdict(each) for each in result.seams],
            "infotexts": list(result.infotexts),
            "seeds": list(result.seeds),
            "notes": _told(result.notes),
            "complete": result.complete,
        }
        if result.complete:
            _append(self.folder / JOURNAL, line)
        return places

    def finish(self) -> None:
        """Everything is painted, and nothing more will be painted from the exact copies."""
        if (self.folder / EXACT).is_dir():
            _append(self.folder / JOURNAL, {"finished": True})
            rmtree(self.folder / EXACT, ignore_errors=True)


def fingerprint(sequence: PaintingSequence, settings: Settings, model: str, ending: str = "png") -> str:
    """Equal for what paints the same: the tool, the request with its pictures, the options, the model, the format."""
    request = sequence.request
    pictures = [*request.images, request.mask, request.latent_mask, request.strength_map]
    told = {
        "kind": sequence.kind,
        "tool": tool_json(sequence),
        "request": request.to_json(pictures=False),
        "pictures": [None if each is None else _pixels(each) for each in pictures],
        "controls": [_pixels(each) for unit in request.controls for each in (unit.image, unit.mask) if each],
        **({"references": [_pixels(each) for each in request.references]} if request.references else {}),
        "settings": settings.to_json(),
        "model": model,
        **({} if ending == "png" else {"format": ending}),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def _begun(folder: Path, sequence: PaintingSequence, key: str) -> KeptSteps:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"{folder}: it cannot be made ({error.strerror}); give another folder") from error
    _append(folder / JOURNAL, {"fingerprint": key, **{name: getattr(sequence.request, name) for name in _SEEDS}})
    return KeptSteps(folder, sequence, ())


def _read(journal: Path) -> list[dict[str, Any]]:
    """The lines that are whole; a crash may have cut the last one."""
    found: list[dict[str, Any]] = []
    try:
        text = journal.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SaveError(f"{journal}: it cannot be read ({error.strerror}); give another folder") from error
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            break
        if not isinstance(value, dict):
            break
        found.append(value)
    return found or [{}]


def _results(folder: Path, lines: list[dict[str, Any]]) -> list[StepResult]:
    """The steps whose files are as they were written, up to the first that is not."""
    done: list[StepResult] = []
    is_finished = any(line.get("finished") is True for line in lines)
    for line in lines:
        places = [folder / Path(str(each)).name for each in line.get("files", [])]
        if line.get("number") != len(done) or _digests(places) != line.get("sha256", []):
            break
        if "exact" in line and not is_finished:
            places = [folder / EXACT / f"{path.stem}.png" for path in places]
            if _digests(places) != line["exact"]:
                break
        done.append(
            StepResult(
                pictures=tuple(map(_opened, places)),
                infotexts=tuple(map(str, line.get("infotexts", ()))),
                seeds=tuple(line.get("seeds", ())),
                notes=line.get("notes", {}),
                seams=tuple(map(_seam, line.get("seams", ()))),
            )
        )
    return done


def _opened(path: Path) -> Image.Image:
    """With all of its bits: what comes next is painted from it."""
    try:
        return open_picture(path, max_pixels=LARGEST_RESULT)
    except PictureError as error:
        raise SaveError(f"{path}: it was painted before, and cannot be read ({error}); give another folder") from error


def _seam(value: Any) -> Seam | None:
    with suppress(TypeError):  # another version measures something else
        return Seam(**value)
    return None


def _keeps_every_pixel(name: str) -> bool:
    return format_of(name).keeps == "every pixel"


def _exact_copy(path: Path, picture: Image.Image) -> Path:
    info = picture.info
    data = encode_picture(picture, "png", exif=info.get("exif"), icc=info.get("icc_profile"), xmp=info.get("xmp"))
    return save_bytes(path, data, replace=True)


def _digests(places: list[Path]) -> list[str]:
    with suppress(OSError):
        return [_digest(path) for path in places]
    return []


def _append(path: Path, line: Mapping[str, Any]) -> None:
    data = (json.dumps(line) + "\n").encode()
    try:
        with path.open("ab") as file:
            if file.tell() and not _ends_whole(path):
                file.truncate(_whole_length(path))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SaveError(
            f"{path}: it cannot be written ({error.strerror}); make room, or give another folder"
        ) from error


def _ends_whole(path: Path) -> bool:
    return path.read_bytes().endswith(b"\n")


def _whole_length(path: Path) -> int:
    return path.read_bytes().rfind(b"\n") + 1


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _pixels(picture: Image.Image) -> str:
    return hashlib.sha256(f"{picture.mode} {picture.size}".encode() + picture.tobytes()).hexdigest()


def _seed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _told(notes: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in notes.items() if isinstance(value, str | int | float | bool | None)}
