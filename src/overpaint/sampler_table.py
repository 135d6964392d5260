"""Which samplers and schedules there are, and what their names may look like. Their code is in `samplers`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NoReturn

from overpaint.errors import RequestError
from overpaint.hints import did_you_mean
from overpaint.settings import Quirks


@dataclass(frozen=True)
class SchedulerSpec:
    """One noise schedule (SCH). `needs_model`: it is read off the model's table, not off a formula."""

    name: str
    label: str
    default_rho: float | None = None
    needs_model: bool = False
    aliases: tuple[str, ...] = ()


SCHEDULERS = (
    SchedulerSpec("automatic", "Automatic"),
    SchedulerSpec("uniform", "Uniform", needs_model=True),
    SchedulerSpec("karras", "Karras", default_rho=7.0),
    SchedulerSpec("exponential", "Exponential"),
    SchedulerSpec("polyexponential", "Polyexponential", default_rho=1.0),
    SchedulerSpec("sgm_uniform", "SGM Uniform", needs_model=True, aliases=("SGMUniform",)),
    SchedulerSpec("kl_optimal", "KL Optimal"),
    SchedulerSpec("align_your_steps", "Align Your Steps"),
    SchedulerSpec("simple", "Simple", needs_model=True),
    SchedulerSpec("normal", "Normal", needs_model=True),
    SchedulerSpec("ddim", "DDIM", needs_model=True),
    SchedulerSpec("beta", "Beta", needs_model=True),
)
AUTOMATIC = SCHEDULERS[0]


@dataclass(frozen=True)
class SamplerSpec:
    """One sampler (TAB): what the rest of the house must know of it."""

    name: str
    aliases: tuple[str, ...]
    family: Literal["k", "timestep", "lcm"] = "k"
    default_scheduler: str | None = None
    second_order: bool = False  # calls the network twice a step; prompt steps count double (TAB-3)
    discard_penultimate: bool = False  # SCH-14
    uses_ensd: bool = False  # whether "ENSD" is written into the infotext (TAB-4)
    noise: Literal["stream", "brownian", "none"] = "stream"
    takes_eta: bool = False
    eta_option: Literal["eta_ancestral", "eta_ddim"] = "eta_ancestral"  # where eta comes from if not asked (PAR-1)
    churn: Literal["all", "noise", "none"] = "none"  # which of s_churn, s_tmin, s_tmax, s_noise reach it (PAR-2)
    adaptive: bool = False  # chooses its own steps: one generator a picture, unless `batch_wide_error_norm`
    solver: str | None = None
    cfg_factor: float = 1.0
    near: str = ""  # of those over timesteps: the sampler over sigmas that comes closest

    @property
    def brownian(self) -> bool:
        """Whether its noise comes from a Brownian path instead of the stream of draws."""
        return self.noise == "brownian"

    @property
    def options(self) -> dict[str, str]:
        """The options as the reference's `/sdapi/v1/samplers` lists them."""
        flags = {
            "scheduler": self.default_scheduler,
            "discard_next_to_last_sigma": self.discard_penultimate,
            "uses_ensd": self.uses_ensd,
            "second_order": self.second_order,
            "brownian_noise": self.brownian,
            "solver_type": self.solver,
        }
        return {name: str(value) for name, value in flags.items() if value}


_TIMESTEP = SamplerSpec("", (), family="timestep", eta_option="eta_ddim")
_SDE = SamplerSpec("", (), noise="brownian", takes_eta=True, churn="noise")

SAMPLERS = (
    SamplerSpec("DPM++ 2M", ("k_dpmpp_2m",), default_scheduler="karras", noise="none"),
    replace(_SDE, name="DPM++ SDE", aliases=("k_dpmpp_sde",), default_scheduler="karras", second_order=True),
    replace(_SDE, name="DPM++ 2M SDE", aliases=("k_dpmpp_2m_sde",), default_scheduler="exponential"),
    replace(
        _SDE,
        name="DPM++ 2M SDE Heun",
        aliases=("k_dpmpp_2m_sde_heun",),
        default_scheduler="exponential",
        solver="heun",
    ),
    SamplerSpec(
        "DPM++ 2S a",
        ("k_dpmpp_2s_a",),
        default_scheduler="karras",
        second_order=True,
        uses_ensd=True,
        takes_eta=True,
        churn="noise",
    ),
    replace(
        _SDE,
        name="DPM++ 3M SDE",
        aliases=("k_dpmpp_3m_sde",),
        default_scheduler="exponential",
        discard_penultimate=True,
    ),
    SamplerSpec("Euler a", ("k_euler_a", "k_euler_ancestral"), uses_ensd=True, takes_eta=True),
    SamplerSpec("Euler", ("k_euler",), churn="all"),
    SamplerSpec("LMS", ("k_lms",), noise="none"),
    SamplerSpec("Heun", ("k_heun",), second_order=True, churn="all"),
    SamplerSpec(
        "DPM2", ("k_dpm_2",), default_scheduler="karras", second_order=True, discard_penultimate=True, churn="all"
    ),
    SamplerSpec(
        "DPM2 a",
        ("k_dpm_2_a",),
        default_scheduler="karras",
        second_order=True,
        discard_penultimate=True,
        uses_ensd=True,
        takes_eta=True,
        churn="noise",
    ),
    SamplerSpec("DPM fast", ("k_dpm_fast",), uses_ensd=True, takes_eta=True, churn="noise"),
    SamplerSpec("DPM adaptive", ("k_dpm_ad",), uses_ensd=True, takes_eta=True, adaptive=True),
    SamplerSpec("Restart", ("restart",), default_scheduler="karras", second_order=True),
    replace(_TIMESTEP, name="DDIM", aliases=("ddim",), takes_eta=True, near="Euler"),
    replace(_TIMESTEP, name="DDIM CFG++", aliases=("ddim_cfgpp",), takes_eta=True, cfg_factor=1 / 12.5, near="Euler"),
    replace(_TIMESTEP, name="PLMS", aliases=("plms",), noise="none", near="LMS"),
    replace(_TIMESTEP, name="UniPC", aliases=("unipc",), noise="none", near="DPM++ 2M"),
    SamplerSpec("LCM", ("k_lcm",), family="lcm"),
)
DEFAULT_SAMPLER = SAMPLERS[0]


def normalise(
    sampler: str | None,
    scheduler: str | None,
    *,
    quirks: Quirks | None = None,
) -> tuple[SamplerSpec, str]:
    """The sampler and the schedule's label that two names mean (NAME-1).

    A sampler's name may end with a schedule's, as in "Euler Karras". Names, labels and aliases are read
    case-insensitively; an unknown one is an error, unless `unknown_names_fall_back`.
    """
    read = _read_as_reference if quirks is not None and quirks.unknown_names_fall_back else _read
    spec, chosen = read(sampler or DEFAULT_SAMPLER.name, scheduler or AUTOMATIC.label)
    return spec, chosen.label


def _read_as_reference(sampler: str, scheduler: str) -> tuple[SamplerSpec, SchedulerSpec]:
    chosen = next((each for each in SCHEDULERS if scheduler in (each.name, each.label)), AUTOMATIC)
    for each in SCHEDULERS:
        # NOTE: " Uniform" is cut off before " SGM Uniform" is tried, so "Euler SGM Uniform" is no sampler (NAME-3).
        for suffix in (each.label, each.name, *each.aliases):
            if sampler.endswith(" " + suffix):
                sampler, chosen = sampler[: -len(suffix) - 1], each
                break
    return next((each for each in SAMPLERS if each.name == sampler), DEFAULT_SAMPLER), chosen


def _read(sampler: str, scheduler: str) -> tuple[SamplerSpec, SchedulerSpec]:
    asked = _SCHEDULER_BY_NAME.get(_key(scheduler)) or _unknown("scheduler", scheduler, _SCHEDULER_NAMES)
    spec = _SAMPLER_BY_NAME.get(_key(sampler))
    if spec is not None:
        return spec, asked
    for head, suffix in _splits(_key(sampler)):
        if head in _SAMPLER_BY_NAME and suffix in _SCHEDULER_BY_NAME:
            named = _SCHEDULER_BY_NAME[suffix]
            if asked not in (AUTOMATIC, named):
                raise RequestError(
                    "scheduler", scheduler, f"the sampler's name, {sampler!r}, already names another one"
                )
            return _SAMPLER_BY_NAME[head], named
    return _unknown("sampler", sampler, _SAMPLER_NAMES)


def _splits(key: str) -> Iterator[tuple[str, str]]:
    """("euler", "sgm uniform"), ("euler sgm", "uniform"): the longest ending first."""
    words = key.split(" ")
    return ((" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words)))


def _key(name: str) -> str:
    return " ".join(name.casefold().split())


def _unknown(field: str, value: str, known: Mapping[str, str]) -> NoReturn:
    every = ", ".join(dict.fromkeys(known.values()))
    raise RequestError(field, value, did_you_mean(value, known) or f"choose one of {every}")


# Whatever a sampler or a schedule may be called -> the name it is shown by.
_SAMPLER_NAMES = {name: each.name for each in SAMPLERS for name in (each.name, *each.aliases)}
_SCHEDULER_NAMES = {name: each.label for each in SCHEDULERS for name in (each.label, each.name, *each.aliases)}
_SAMPLER_BY_NAME = {_key(name): each for each in SAMPLERS for name in (each.name, *each.aliases)}
_SCHEDULER_BY_NAME = {_key(name): each for each in SCHEDULERS for name in (each.name, each.label, *each.aliases)}
