"""Help pages for people: options by what they are about, and a few lines to copy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from typer.core import TyperCommand

_PICTURE = "picture prompt look_at negative style size resize color_correction tiling clip_skip"
_SEEDS = "seed variation_seed variation_strength seed_resize"
_STEPS = (
    "strength sampler scheduler steps cfg guidance image_cfg eta s_churn s_tmin s_tmax s_noise s_min_uncond"
    " noise_multiplier"
)
_TOOL = (
    "left top right bottom to aspect anchor start context scale upscaler tile overlap loops final_strength curve"
    " x y z labels margin"
)
_MASK = "mask masks strength_map blend invert_mask mask_blur round_mask only_masked padding fill soft"
_HIRES = "hires hires_scale hires_size hires_upscaler hires_steps hires_strength hires_sampler hires_scheduler"
_FOLDERS = (
    "model models webui any_model vae text_encoder lora networks control refiner refiner_at device dtype backend"
    " device_memory"
)
_OUTPUT = "output overwrite show here as_json quiet only_plan format quality recursive shard"
GROUPS: Mapping[str, frozenset[str]] = {
    "Picture": frozenset(_PICTURE.split()),
    "Mask": frozenset(_MASK.split()),
    "Tool": frozenset(_TOOL.split()),
    "Strength and steps": frozenset(_STEPS.split()),
    "Seeds and how many": frozenset([*_SEEDS.split(), "count", "batch_size", "exact"]),
    "Second pass": frozenset([*_HIRES.split(), "hires_model", "hires_prompt", "hires_negative"]),
    "Models": frozenset([*_FOLDERS.split(), "reference", "set"]),
    "Many machines": frozenset(["ray", "pool", "cpus_per_worker", "gpus_per_worker", "dry_run"]),
    "Output": frozenset(
        [
            "output",
            "overwrite",
            "show",
            "here",
            "as_json",
            "quiet",
            "only_plan",
            "format",
            "kind",
            "quality",
            "recursive",
            "shard",
        ],
    ),
}

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "paint": (
        'overpaint paint photo.png "a watercolor painting"',
        'overpaint paint photo.png "a red car" --mask mask.png --only-masked',
        'overpaint paint photo.png "snow" --strength 0.5 --seed 7 --models ~/webui/models --model dreams',
    ),
    "txt2img": (
        'overpaint txt2img "a lighthouse at dusk"',
        'overpaint txt2img "a castle" --size 128x192 --count 4 -o castle.png',
        'overpaint txt2img "a lake" --hires-scale 2',
    ),
    "again": (
        "overpaint again painted.png",
        'overpaint again painted.png "at night" --strength 0.4',
        "overpaint again infotext.txt --picture photo.png --models ~/webui/models",
    ),
    "batch": (
        'overpaint batch photos out "a watercolor painting" --seed 7',
        "overpaint batch photos out --masks masks --only-masked",
        "overpaint batch rows.jsonl out --json",
    ),
    "mask": (
        'overpaint mask photo.png "ellipse 20%,10%,60%,70% | grow 8 | feather 12" -o area.png',
        'overpaint mask photo.png "wand 10,12 tolerance 20 | fill-holes" --show',
        'overpaint mask photo.png "cut-out 20%,20%,80%,80% - rectangle 0%,90%,100%,100%"',
    ),
    "outpaint": (
        'overpaint outpaint photo.png "a wide beach" --left 128 --right 128',
        'overpaint outpaint photo.png "a wide beach" --aspect 16:9 --anchor left --start mirror',
        'overpaint outpaint photo.png "a wide beach" --to 1024x768 --plan',
    ),
    "enlarge": ('overpaint enlarge photo.png "a sharp photo" --scale 2 --tile 512 --strength 0.3',),
    "loopback": ('overpaint loopback photo.png "a watercolor" --loops 5 --final-strength 0.6 -o loops/',),
    "grid": (
        'overpaint grid photo.png "a cat" --x steps=10,20,30 --y "cfg_scale=3-9 (+3)" -o grid/',
        'overpaint grid photo.png "a cat" --x "replace=cat,dog" --y checkpoint=dreams,real --models ~/webui/models',
    ),
    "compare": (
        "overpaint compare photo.png painted.png -o compared.png",
        'overpaint compare photo.png painted.png --mask "rectangle 0,0,50%,50%" --show',
    ),
    "sheet": ("overpaint sheet photos -o sheet.png", "overpaint sheet photos --captions name,settings --cell 128"),
    "plan": ('overpaint plan photo.png "a red car" --mask mask.png', 'overpaint plan "a castle" --txt2img'),
    "models": ("overpaint models ~/webui/models", "overpaint models --webui ~/webui --kind lora"),
    "doctor": ("overpaint doctor", "overpaint doctor --device cpu --dtype float32"),
    "bench": (
        "overpaint bench --quality",
        "overpaint bench --models ~/webui/models --model dreams --size 512 -o bench.png",
    ),
    "ui": ("overpaint ui", "overpaint ui --models ~/webui/models --model dreams"),
    "serve": ("overpaint serve --models ~/webui/models --model dreams", "overpaint serve --webui ~/webui"),
}


class Page(TyperCommand):
    """A command whose help has its options in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments = [each for each in self.params if each.param_type_name == "argument"]
        options = [each for each in self.get_params(ctx) if each.param_type_name == "option"]
        _write(formatter, ctx, "Arguments", arguments)
        taken: set[str] = set()
        for title, names in GROUPS.items():
            group = [each for each in options if each.name in names]
            if len(options) > _FEW:
                taken |= {str(each.name) for each in group}
                _write(formatter, ctx, title, group)
        _write(formatter, ctx, "Others" if taken else "Options", [each for each in options if each.name not in taken])
        if lines := EXAMPLES.get(str(self.name)):
            with formatter.section("Examples"):
                formatter.write("".join(f"{'':>{formatter.current_indent}}{line}\n" for line in lines))


_FEW = 12


def _write(formatter: Any, ctx: Any, title: str, parameters: Iterable[Any]) -> None:
    rows = [record for each in parameters if (record := _record(each, ctx)) is not None]
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)


def _record(parameter: Any, ctx: Any) -> tuple[str, str] | None:
    if parameter.param_type_name == "argument":
        return (str(parameter.metavar or parameter.name.upper()).strip("[]"), parameter.help or "")
    record: tuple[str, str] | None = parameter.get_help_record(ctx)
    return record
