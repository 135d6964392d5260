"""How far the weights in prompts may reach."""

from __future__ import annotations

from collections.abc import Sequence

from overpaint.adapters.wanted import HypernetUse, LoraUse
from overpaint.errors import RequestError
from overpaint.planning.plans import ImagePlan
from overpaint.settings import Settings
from overpaint.text.prompt import parse_attention, schedule, split_and, take_network_tags

# A text encoder's numbers reach about 33, and float16 ends at 65504: a weight beyond 1985 makes infinities there, and
# with them a picture of NaN. Prompts that are meant stay below 10.
LARGEST_WEIGHT = 1000
LARGEST_LORA_WEIGHT = 100  # as in `loras`, where a request has it as a number
_WEIGHS = ("Original", "No norm")  # the settings of `emphasis` that multiply by the weights
_SHOWN = 40  # characters of the text that has the weight


def check_weights(
    name: str, text: str, settings: Settings, steps: int, *, steps_before: int = 0, negative: bool = False
) -> None:
    """Refuse a prompt in which a weight, multiplied by those around it, would make the network's numbers overflow."""
    quirks = settings.quirks
    parts = [text]
    if not negative:
        subs = split_and(take_network_tags(text)[0], quirks)
        for each in subs:
            _check(name, f"{each.text[-_SHOWN:]} :{each.weight:g}", each.weight)
        parts = [each.text for each in subs]
    if settings.emphasis not in _WEIGHS:
        return
    old = settings.use_old_scheduling
    stages = (
        each.text
        for part in parts
        for each in schedule(part, steps, old_timelines=old, steps_before=steps_before, quirks=quirks)
    )
    for stage in dict.fromkeys(stages):
        for segment in parse_attention(stage, quirks):
            _check(name, f"({segment.text[:_SHOWN]}:{segment.weight:g})", segment.weight)


def check_texts(images: Sequence[ImagePlan], settings: Settings, steps: int, steps_before: int = 0) -> None:
    """The same for every text of a pass."""
    for text in dict.fromkeys(each.prompt for each in images):
        check_weights("prompt", text, settings, steps, steps_before=steps_before)
    for text in dict.fromkeys(each.negative_prompt for each in images):
        check_weights("negative_prompt", text, settings, steps, steps_before=steps_before, negative=True)


def check_use(use: LoraUse | HypernetUse) -> None:
    """The same for the tag of a network."""
    weights = (use.unet, use.te) if isinstance(use, LoraUse) else (use.multiplier,)
    for weight in weights:
        if not abs(weight) <= LARGEST_LORA_WEIGHT:
            kind = "lora" if isinstance(use, LoraUse) else "hypernet"
            remedy = f"give a weight from -{LARGEST_LORA_WEIGHT} to {LARGEST_LORA_WEIGHT}"
            raise RequestError("prompt", f"<{kind}:{use.name}:{weight:g}>", remedy)


def _check(name: str, shown: str, weight: float) -> None:
    if not abs(weight) <= LARGEST_WEIGHT:  # so that NaN is refused as well
        remedy = (
            f"give a weight from -{LARGEST_WEIGHT} to {LARGEST_WEIGHT}, multiplied by those of the brackets around it"
        )
        raise RequestError(name, shown, f"the network's numbers would overflow; {remedy}")
