"""A painting sequence: steps made one after another from the results so far, and a way to put the results together.

A step is an ordinary request. A sequence is a frozen value: it knows how many steps it has, what each one is once
those before it are painted, and what the finished pictures come to. It paints nothing itself; `running` has an engine
do that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from PIL import Image

from overpaint.errors import RequestError
from overpaint.pixels.resize import Upscaler
from overpaint.pixels.seams import Seam
from overpaint.request import PaintRequest, Picture
from overpaint.seeds import fix_seed
from overpaint.settings import Settings

if TYPE_CHECKING:
    from overpaint.outcome import Processed

MOST_STEPS = 2_000
_EDGES = 64  # pixels that a canvas may grow by, to a size that the networks take

Saved = Literal["steps", "result"]
_S = TypeVar("_S", bound="PaintingSequence")


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How the noise that a picture could have come from is to be found (SCR-6)."""

    prompt: str
    negative_prompt: str
    cfg_scale: float
    steps: int
    randomness: float = 0.0
    sigma_adjustment: bool = False


@dataclass(frozen=True)
class TilePixels:
    """How a large canvas is painted in parts that overlap, in pixels."""

    size: int | None  # None: what the model was trained at
    overlap: int | None  # None: a quarter of the size


@dataclass(frozen=True, kw_only=True)
class SequenceStep:
    """One job of a sequence."""

    request: PaintRequest
    label: str = ""  # what is shown of it, such as "loop 2"
    notes: Mapping[str, object] = field(default_factory=dict)  # infotext fields of the tool, before the job's own
    colors_of: Picture | None = None  # colour correction goes by this picture instead of the step's source
    tiles: TilePixels | None = None  # the networks see the canvas in parts
    decoding: Decoding | None = None  # noise is found by it, not drawn

    def room(self, settings: Settings) -> Settings:
        """The settings to plan it with: what is painted in tiles may be as large as it likes."""
        if self.tiles is None:
            return settings
        pixels = ((self.request.width or 0) + _EDGES) * ((self.request.height or 0) + _EDGES)
        return replace(settings, max_pixels_per_pass=max(settings.max_pixels_per_pass, pixels))


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step came to; all that later steps, and whoever goes on after a crash, need to know of it."""

    pictures: tuple[Picture, ...]
    infotexts: tuple[str, ...]
    seeds: tuple[int, ...] = ()
    notes: Mapping[str, object] = field(default_factory=dict)
    complete: bool = True
    seams: tuple[Seam | None, ...] = ()  # of the pictures, as far as they were inpainted

    @classmethod
    def of(cls, processed: Processed) -> StepResult:
        """From the result of the step's job, without grids and masks."""
        from overpaint.files.keeping import finished_pictures

        kept = tuple(finished_pictures(processed))
        return cls(
            pictures=tuple(each.image for each in kept),
            infotexts=tuple(each.infotext for each in kept),
            seeds=tuple(each.seed for each in kept),
            notes=dict(processed.extra_generation_params),
            complete=not processed.stopped,
            seams=processed.seams[: len(kept)],
        )

    def seam_of(self, place: int) -> Seam | None:
        """Of one of its pictures."""
        return self.seams[place] if place < len(self.seams) else None


@dataclass(frozen=True, kw_only=True)
class AssembledPictures:
    """The pictures of a whole sequence. Those before `first` are sheets of the ones after it."""

    images: tuple[Picture, ...]
    infotexts: tuple[str, ...]
    first: int = 0


@dataclass(frozen=True, kw_only=True)
class PaintingSequence:
    """What all tools have in common: the request that their steps are made from."""

    request: PaintRequest
    own_notes: Mapping[str, object] = field(default_factory=dict)  # infotext fields of the caller's own

    kind: ClassVar[str] = ""  # its name in manifests and in the service
    saved: ClassVar[Saved] = "steps"  # what is worth keeping as a file: every step's picture, or only the result

    def __len__(self) -> int:
        raise NotImplementedError

    def prepared(self, settings: Settings, known: Mapping[str, Upscaler]) -> PaintingSequence:
        """The sequence with its sources made ready, where that needs the site's options or an upscaler."""
        return self

    def step(self, number: int, done: Sequence[StepResult]) -> SequenceStep:
        """The step of this number, when those before it are done."""
        raise NotImplementedError

    def assembled(self, done: Sequence[StepResult], settings: Settings) -> AssembledPictures:
        """The pictures that the steps done so far come to."""
        images, texts = pictures_of(done), texts_of(done)
        return AssembledPictures(images=images, infotexts=texts)

    def outline(self) -> list[SequenceStep]:
        """All steps as far as they are known before one is painted: stand-ins take the place of its pictures."""
        steps: list[SequenceStep] = []
        stand_ins: list[StepResult] = []
        for number in range(len(self)):
            steps.append(self.step(number, stand_ins))
            stand_ins.append(_stand_in(steps[-1].request))
        return steps


def pictures_of(done: Sequence[StepResult]) -> tuple[Picture, ...]:
    return tuple(picture for each in done for picture in each.pictures)


def texts_of(done: Sequence[StepResult]) -> tuple[str, ...]:
    return tuple(text for each in done for text in each.infotexts)


def first_text(done: Sequence[StepResult]) -> str:
    """SCR: what the reference says of all pictures of a script."""
    return next((text for each in done for text in each.infotexts), "")


def with_known_seeds(sequence: _S) -> _S:
    """The same with seeds that will not change, so that it can go on after a crash with the pictures it began with."""
    request = sequence.request
    seed, variation = fix_seed(request.seed), fix_seed(request.variation_seed)
    return replace(sequence, request=request.with_changes(seed=seed, variation_seed=variation))


def first_seed(request: PaintRequest) -> int:
    """The one number that a sequence counts up from."""
    seed = fix_seed(request.seed)
    return seed if isinstance(seed, int) else seed[0]


def one_source(request: PaintRequest) -> Picture:
    """The picture that a tool begins with."""
    if not request.images:
        raise RequestError("images", (), "this tool starts from a picture; give one")
    return request.images[0]


def check_count(name: str, count: int, most: int = MOST_STEPS) -> None:
    """Refuse a sequence that would never end."""
    if count > most:
        raise RequestError(name, count, f"at most {most} pictures are painted in one sequence; ask for fewer")


def _stand_in(request: PaintRequest) -> StepResult:
    source = request.images[0] if request.images else None
    size = source.size if source is not None else (64, 64)
    width, height = request.width or size[0], request.height or size[1]
    if source is not None and request.mask is not None and request.only_masked:
        width, height = source.size
    count = request.batch_size * request.iterations
    picture = Image.new("RGB", (width, height), "gray")
    return StepResult(pictures=(picture,) * count, infotexts=("",) * count, seeds=(first_seed(request),) * count)
