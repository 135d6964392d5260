"""What a job comes to before a network is touched: frozen values, made by `overpaint.planning.plan`. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from overpaint.adapters.wanted import HypernetUse, LoraUse
from overpaint.models.catalog import ModelFile
from overpaint.models.families import ModelSpec
from overpaint.parts import ControlMode, Passes
from overpaint.pixels.resize import Upscaler
from overpaint.planning.canvas_pixels import Canvas, Geometry, MaskPlan
from overpaint.planning.references import Reference
from overpaint.planning.sampler_plan import SamplerPlan
from overpaint.planning.shortcuts import EVERYTHING, Shortcuts
from overpaint.planning.strength_levels import StrengthLevel
from overpaint.planning.window import LatentWindow
from overpaint.request import PaintRequest, Picture
from overpaint.settings import Settings
from overpaint.text.styles import Style


@dataclass(frozen=True)
class NetworkPlan:
    """A LoRA or hypernetwork that was asked for, and its file."""

    file: ModelFile
    use: LoraUse | HypernetUse


@dataclass(frozen=True)
class ImagePlan:
    """One picture of the job: its texts (as the infotext shows them), its seeds, and what hangs on the model for it."""

    index: int
    prompt: str
    negative_prompt: str
    seed: int
    subseed: int
    place: int = 0  # within its iteration: one source serves all places, several serve in order
    networks: tuple[NetworkPlan, ...] = ()


@dataclass(frozen=True)
class OtherModel:
    """A checkpoint besides the job's own: for the second pass, or for the last steps."""

    path: Path
    title: str
    spec: ModelSpec


@dataclass(frozen=True)
class RefinerPlan:
    """Another checkpoint, and the fraction of the way at which it takes over (REF-1)."""

    model: OtherModel
    switch_at: float
    by_steps: bool  # the fraction is one of the calls, not of the noise
    notes: Mapping[str, object]  # infotext fields, written when the switch happens


@dataclass(frozen=True)
class ControlPlan:
    """A ControlNet by name, and the picture it sees, at the size of the pass."""

    model: str | None  # None: nothing is guided, the picture is only shown
    hint: Picture
    weight: float
    start: float
    end: float
    mode: ControlMode = "balanced"
    passes: Passes = "both"
    region: Picture | None = None  # where it counts, gray, at the size of the pass
    is_shown: bool = False


@dataclass(frozen=True)
class LatentUpscale:
    """How a latent is enlarged as it is."""

    mode: str
    antialias: bool


@dataclass(frozen=True)
class HiresPlan:
    """A second pass: an ordinary plan whose source is the first pass's latent, enlarged."""

    plan: Plan
    upscaler: LatentUpscale | Upscaler | None  # a picture upscaler of None: plain resampling
    scaled: tuple[int, int]  # (width, height) it is enlarged to, before the latent is cut to the plan's
    strength: float

    def __getstate__(self) -> dict[str, Any]:
        """For pickles, without a network that enlarged."""
        return {**vars(self), "upscaler": self.upscaler if isinstance(self.upscaler, LatentUpscale) else None}

    @property
    def paints(self) -> bool:
        """Strength 0 only enlarges."""
        return self.strength > 0


@dataclass(frozen=True)
class ToolUse:
    """A tool that comes to one job: what it was asked for, by which the picture is painted again."""

    values: Mapping[str, Any]  # its kind and its fields, plain
    request: PaintRequest


@dataclass(frozen=True, kw_only=True)
class NoiseInversion:
    """How the noise that a picture could have come from is found: its sampler's walk, the other way (SCR-6)."""

    plan: Plan  # with its texts, guidance and steps
    randomness: float = 0.0  # how much of it is drawn noise
    sigma_adjustment: bool = False


@dataclass(frozen=True)
class LatentTiles:
    """How a canvas is shown to the networks in parts that overlap, in latent cells."""

    size: int
    overlap: int


_NOTES = ("notes", "text_notes", "sampling_notes")


@dataclass(frozen=True)
class Plan:
    """A job, decided."""

    request: PaintRequest
    settings: Settings
    spec: ModelSpec
    geometry: Geometry
    canvases: tuple[Canvas, ...]  # none: the job starts from noise
    mask: MaskPlan | None
    images: tuple[ImagePlan, ...]
    batches: tuple[tuple[ImagePlan, ...], ...]
    sampler: SamplerPlan
    levels: tuple[StrengthLevel, ...] = ()  # of a strength map, the strongest first; none: one strength for all
    notes: Mapping[str, object] = field(default_factory=dict)  # infotext extras known before sampling, in order
    text_notes: Mapping[str, object] = field(default_factory=dict)  # those that follow the networks' hashes
    sampling_notes: Mapping[str, object] = field(default_factory=dict)  # those that come after the text encoder's
    comments: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unchanged: str | None = None  # why nothing needs to be painted at all
    refiner: RefinerPlan | None = None
    hires: HiresPlan | None = None
    controls: tuple[ControlPlan, ...] = ()
    checkpoint: Path | None = None  # None: the engine's own
    upscaler: Upscaler | None = None  # for sources smaller than the result
    inversion: NoiseInversion | None = None  # the noise is found from the source, not drawn
    tool: ToolUse | None = None  # that this job is the one step of
    tiles: LatentTiles | None = None  # the networks see the canvas in parts
    shortcuts: Shortcuts = EVERYTHING  # what the calls of this pass leave out
    window: LatentWindow | None = None  # the denoiser sees this part of the canvas
    references: tuple[Reference, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """For pickles. What enlarges sources may be a network; it is not needed once they are ready."""
        notes = {name: dict(getattr(self, name)) for name in _NOTES}
        return {**vars(self), **notes, "upscaler": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update({**state, **{name: MappingProxyType(state[name]) for name in _NOTES}})

    def canvas_of(self, place: int) -> Canvas:
        """The canvas of a place within an iteration: one source serves all, several serve in order."""
        return self.canvases[place % len(self.canvases)]

    @property
    def places(self) -> int:
        """How many pictures an iteration has."""
        return max((each.place + 1 for batch in self.batches for each in batch), default=1)

    @property
    def strength(self) -> float | None:
        """How much of the source is changed; None where there is no source at all."""
        if self.hires is not None:
            return self.hires.strength
        return self.request.strength if self.request.has_source else None


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a request may name that is not in it. The caller looks it up, so that planning itself reads no file."""

    styles: Sequence[Style] = ()
    loras: Sequence[ModelFile] = ()
    hypernets: Sequence[ModelFile] = ()
    upscalers: Mapping[str, Upscaler] = field(default_factory=lambda: MappingProxyType({}))
    refiner: OtherModel | None = None
    hires_model: OtherModel | None = None
    checkpoint: Path | None = None
    words: frozenset[str] = frozenset()  # all that the checkpoint knows, where that is known
    tables_in_force: Settings | None = None  # of the job before (SIG-11)
