"""Steps that do less than they could: what a job leaves out to be faster, each only where it was asked for. Torch-free.

Guidance that is left out in some calls is not here but in `painting.guidance`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from overpaint.errors import SettingError
from overpaint.models.specs import ModelSpec, UNetSpec
from overpaint.request import PaintRequest
from overpaint.settings import Settings

_LONGEST_INTERVAL = 100
_NAMES = ("token_merging_ratio", "token_merging_ratio_img2img", "token_merging_ratio_hr", "deepcache_interval")


@dataclass(frozen=True)
class TokenMerging:
    """Tokens that are alike share one place in self-attention (arXiv:2303.17604)."""

    share: float  # of all tokens, that give up theirs
    level: int  # of the U-Net at which it happens; 0: maps of the latent's size


@dataclass(frozen=True)
class Shortcuts:
    """What the calls of a pass leave out."""

    merging: TokenMerging | None = None
    deep_interval: int = 1  # of this many calls one goes through the whole U-Net (arXiv:2312.00858)

    @property
    def any(self) -> bool:
        return self.merging is not None or self.deep_interval > 1

    @property
    def merged_share(self) -> float:
        return 0.0 if self.merging is None else self.merging.share

    def with_model(self, spec: ModelSpec, settings: Settings) -> Shortcuts:
        """The same for another model that takes over."""
        if self.merging is None or not isinstance(spec.denoiser, UNetSpec):
            return self if isinstance(spec.denoiser, UNetSpec) else EVERYTHING
        level = attention_level(spec.denoiser, settings)
        return replace(self, merging=None if level is None else replace(self.merging, level=level))

    def notes(self) -> dict[str, object]:
        """Infotext fields of a first pass."""
        notes: dict[str, object] = {}
        if self.merging is not None:
            notes["Token merging ratio"] = self.merging.share
        if self.deep_interval > 1:
            notes["DeepCache interval"] = self.deep_interval
        return notes

    def second_notes(self) -> dict[str, object]:
        """Those of a second pass."""
        return {} if self.merging is None else {"Token merging ratio hr": self.merging.share}


EVERYTHING = Shortcuts()


def shortcuts_of(
    request: PaintRequest, settings: Settings, spec: ModelSpec, *, second: bool = False
) -> tuple[Shortcuts, tuple[str, ...]]:
    """What a pass leaves out, and a warning of what was asked for in vain."""
    _check(settings)
    share = _merging_ratio(request, settings, second)
    if not share and settings.deepcache_interval == 1:
        return EVERYTHING, ()
    if not isinstance(spec.denoiser, UNetSpec):
        names = " and ".join(name for name in _NAMES if getattr(settings, name) not in (0, 1))
        return EVERYTHING, (f"{names}: a {spec.title} model has no U-Net, so its steps leave nothing out",)
    level = attention_level(spec.denoiser, settings)
    warnings: tuple[str, ...] = ()
    if share and level is None:
        warnings = ("token_merging_ratio: this model has no attention in maps of that size, so nothing is merged",)
    merging = TokenMerging(share, level) if share and level is not None else None
    return Shortcuts(merging, settings.deepcache_interval), warnings


def attention_level(unet: UNetSpec, settings: Settings) -> int | None:
    """The level of the largest maps that attend to themselves; the reference looks at the first level alone."""
    each = unet.num_res_blocks
    levels = [i // each for i, depth in enumerate(unet.input_depths) if depth]
    largest = min(levels, default=None)
    return None if settings.quirks.merge_full_size_tokens_only and largest != 0 else largest


def _merging_ratio(request: PaintRequest, settings: Settings, second: bool) -> float:
    """JOB-12: the first that is not 0. A job's own ratio is among its overrides."""
    if second and settings.token_merging_ratio_hr:
        return settings.token_merging_ratio_hr
    own = settings.token_merging_ratio if "token_merging_ratio" in request.overrides else 0.0
    of_kind = settings.token_merging_ratio_img2img if request.has_source else 0.0
    return own or of_kind or settings.token_merging_ratio


def _check(settings: Settings) -> None:
    for name in _NAMES[:-1]:
        if not 0 <= getattr(settings, name) < 1:
            raise SettingError(name, getattr(settings, name), "give a share of the tokens, from 0 to less than 1")
    interval = settings.deepcache_interval
    if not 1 <= interval <= _LONGEST_INTERVAL:
        raise SettingError("deepcache_interval", interval, f"give 1 (every call in full) to {_LONGEST_INTERVAL}")
    if not 0 <= settings.skip_late_cond <= 1:
        raise SettingError("skip_late_cond", settings.skip_late_cond, "give a fraction of the steps, from 0 to 1")
