"""The contract's result: what scripts of the reference read, append to and set. The frozen one lies inside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from overpaint.outcome import Processed as Result
from overpaint.outcome import infotext_of
from overpaint.request import Picture
from overpaint.version import __version__

_LISTS = {  # each list, and the single value that stands for all of it
    "all_prompts": "prompt",
    "all_negative_prompts": "negative_prompt",
    "all_seeds": "seed",
    "all_subseeds": "subseed",
}
_OF_THE_JOB = (  # (name, what it is where the job has no such field)
    ("prompt", ""),
    ("all_prompts", None),
    ("negative_prompt", ""),
    ("all_negative_prompts", None),
    ("seed", -1),
    ("all_seeds", None),
    ("subseed", -1),
    ("all_subseeds", None),
    ("subseed_strength", 0),
    ("width", 512),
    ("height", 512),
    ("sampler_name", None),
    ("cfg_scale", 7.0),
    ("steps", 50),
    ("batch_size", 1),
    ("restore_faces", False),
    ("face_restoration_model", None),
    ("sd_model_name", None),
    ("sd_model_hash", None),
    ("sd_vae_name", None),
    ("sd_vae_hash", None),
    ("seed_resize_from_w", -1),
    ("seed_resize_from_h", -1),
    ("denoising_strength", None),
    ("extra_generation_params", None),
    ("index_of_first_image", 0),
    ("infotexts", None),
    ("styles", None),
    ("job_timestamp", "0"),
    ("clip_skip", 1),
    ("is_using_inpainting_conditioning", False),
    ("version", f"overpaint-{__version__}"),
)
_COLLECTIONS: dict[str, type] = {
    **dict.fromkeys((*_LISTS, "infotexts", "styles"), list),
    "extra_generation_params": dict,
}


class Processed:
    """The pictures of a job and an account of them, all of it open to change; `result` is the frozen original.

    Scripts also make one themselves, from a job and pictures of their own; then there is no `result`.
    """

    images: list[Picture]
    infotexts: list[str]
    extra_generation_params: dict[str, Any]
    result: Result | None = None

    def __init__(
        self,
        p: Any,
        images_list: Sequence[Picture],
        seed: int = -1,
        info: str = "",
        subseed: int | None = None,
        all_prompts: Sequence[str] | None = None,
        all_negative_prompts: Sequence[str] | None = None,
        all_seeds: Sequence[int] | None = None,
        all_subseeds: Sequence[int] | None = None,
        index_of_first_image: int = 0,
        infotexts: Sequence[str] | None = None,
        comments: str = "",
    ) -> None:
        values = {name: getattr(p, name, default) for name, default in _OF_THE_JOB}
        values |= _model_of(p)
        values |= {name: _first(values[name]) for name in ("prompt", "negative_prompt")}
        values |= {"seed": seed, "subseed": _first(p.subseed) if subseed is None else subseed}
        given = (all_prompts, all_negative_prompts, all_seeds, all_subseeds)
        for (name, single), own in zip(_LISTS.items(), given, strict=True):
            values[name] = own or values[name] or [values[single]]
        for name, value in values.items():
            setattr(self, name, _COLLECTIONS[name](value or ()) if name in _COLLECTIONS else value)
        self.images, self.infotexts = list(images_list), list(infotexts or [info] * len(images_list))
        self.info, self.comments, self.index_of_first_image = info, comments, index_of_first_image

    @classmethod
    def of(cls, result: Result) -> Processed:
        """The engine's result, as scripts take it."""
        made = cls.__new__(cls)
        vars(made).update(json.loads(result.js()))
        made.result, made.images, made.infotexts = result, list(result.images), list(result.infotexts)
        made.info, made.comments = result.info, result.comments
        made.extra_generation_params = dict(result.extra_generation_params)
        return made

    def js(self) -> str:
        """The JSON text that REST clients know as `info`, as the attributes stand now (I2I-7)."""
        return json.dumps({name: getattr(self, name) for name, _ in _OF_THE_JOB}, default=lambda value: None)

    def infotext(self, p: Any, index: int) -> str:
        """The "parameters" text of one picture of a job, counted from its first."""
        if self.result is not None:
            extras = {**self.result.extra_generation_params, **self.extra_generation_params}
            return infotext_of(self.result.plan, self.result.model, index, extras)
        if getattr(p, "plan", None) is None:
            return self.infotexts[index]
        return infotext_of(p.plan, p.model, index, p.extra_generation_params or {})

    def get_token_merging_ratio(self, for_hr: bool = False) -> float:
        """The share of tokens that were merged in a pass (JOB-12)."""
        plan = None if self.result is None else self.result.plan
        if plan is None or (for_hr and plan.hires is None):
            return 0.0
        return (plan.hires.plan if for_hr and plan.hires is not None else plan).shortcuts.merged_share

    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None: ...  # any attribute may be set

    def __deepcopy__(self, memo: dict[int, Any]) -> Processed:
        """Everything but the frozen result is copied."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        own = {name: value for name, value in vars(self).items() if name != "result"}
        vars(made).update(deepcopy(own, memo), result=self.result)
        return made

    def __getattr__(self, name: str) -> Any:
        """What only the engine's result has, such as `plan` and `warnings`."""
        result = vars(self).get("result")
        if result is None or name.startswith("__"):
            raise AttributeError(f"Processed has no attribute {name!r}")
        return getattr(result, name)


def _first(texts: Any) -> Any:
    return texts[0] if isinstance(texts, list | tuple) and texts else texts


def _model_of(p: Any) -> dict[str, Any]:
    model = getattr(p, "model", None)
    if model is None:
        return {}
    names = {"sd_model_name": "name", "sd_model_hash": "hash", "sd_vae_name": "vae_name", "sd_vae_hash": "vae_hash"}
    return {name: getattr(model, own) for name, own in names.items()}
