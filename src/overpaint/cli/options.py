"""The options that the painting commands share, as tables: a new request field is one line here.

NOTE: nothing heavy may be imported at the top of this package's modules; `overpaint --help` has to be instant.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli.option_values import read_option
from overpaint.cli.sizes import gibibytes
from overpaint.errors import RequestError

if TYPE_CHECKING:
    from overpaint.models.installation import Installation
    from overpaint.models.ui_defaults import Tab
    from overpaint.settings import Settings


@dataclass(frozen=True)
class PaintOption:
    """One option: its flag, its kind, and the request's fields it fills (none: it belongs to the job).

    A field "hires.steps" is one of the request's `hires`.
    """

    flag: str
    kind: Any
    help: str
    fields: tuple[str, ...] = ()
    read: Callable[[str, Any], tuple[Any, ...]] | None = None  # (flag, value) -> one value per field
    of_source: bool = False  # means nothing where there is no picture to paint over

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.flag.split("/")[0].removeprefix("--").replace("-", "_")

    @property
    def main_flag(self) -> str:
        """The flag that switches it on."""
        return self.flag.split("/")[0]

    def values(self, value: Any) -> dict[str, Any]:
        """The request's fields that a given value fills."""
        values = self.read(self.main_flag, value) if self.read else (value,) * len(self.fields)
        return dict(zip(self.fields, values, strict=True))


def read_size(flag: str, text: str) -> tuple[int, int]:
    """640x480."""
    wide, cross, high = text.lower().partition("x")
    if not (cross and wide.strip().isdecimal() and high.strip().isdecimal()):
        raise RequestError(flag, text, "give width x height, like 640x480")
    return int(wide), int(high)


def _sides(flag: str, text: str) -> tuple[int | None, int | None]:
    """640x480, or 640x and x480: the other side keeps the shape."""
    wide, cross, high = (each.strip() for each in text.lower().partition("x"))
    if not cross or not (wide or high) or any(each and not each.isdecimal() for each in (wide, high)):
        raise RequestError(flag, text, "give width x height, like 1280x960, or one of them, like 1280x")
    return int(wide) if wide else None, int(high) if high else None


def _pair(flag: str, text: str) -> tuple[tuple[int, int]]:
    return (read_size(flag, text),)


def _part(flag: str, wanted: bool) -> tuple[dict[str, Any] | None]:
    return ({} if wanted else None,)


def _loras(flag: str, texts: list[str]) -> tuple[list[dict[str, Any]]]:
    from overpaint.text.shorthand import lora_from_text

    return ([lora_from_text(each, flag) for each in texts],)


def _controls(flag: str, texts: list[str]) -> tuple[list[dict[str, Any]]]:
    from overpaint.text.shorthand import control_from_text

    return ([control_from_text(each, flag) for each in texts],)


def _quality(value: int) -> int:
    if not 1 <= value <= 100:
        raise RequestError("--quality", value, "give a quality from 1 to 100")
    return value


_ON_OFF = bool | None
_MANY = list[str] | None
_TEXT = str | None
_WHOLE = int | None
_NUMBER = float | None
_METAVARS: Mapping[Any, str] = {_MANY: "TEXT", _TEXT: "TEXT", _WHOLE: "INTEGER", _NUMBER: "NUMBER"}


def _of_source(
    flag: str, kind: Any, help: str, fields: tuple[str, ...], read: Callable[[str, Any], tuple[Any, ...]] | None = None
) -> PaintOption:
    return PaintOption(flag, kind, help, fields, read, of_source=True)


PROMPT_OPTION = PaintOption("--prompt", _TEXT, "What the picture should show.", ("prompt",))
REQUEST_OPTIONS = (
    PaintOption("--negative", _TEXT, "What the picture should not show.", ("negative_prompt",)),
    PaintOption("--style", _MANY, "A style of the styles file, by name; may be repeated.", ("styles",)),
    _of_source("--strength", _NUMBER, "How much to change, 0 to 1 (default: the model's own).", ("strength",)),
    PaintOption(
        "--size",
        _TEXT,
        "WIDTHxHEIGHT of the result (default: the picture's, or the model's own).",
        ("width", "height"),
        read_size,
    ),
    _of_source("--resize", _TEXT, "A source of another shape: stretch, crop, fill or latent.", ("resize_mode",)),
    _of_source("--invert-mask/--no-invert-mask", _ON_OFF, "Repaint what the mask leaves black.", ("invert_mask",)),
    _of_source(
        "--mask-blur", _WHOLE, "Softness of the mask's edge in pixels (default 4).", ("mask_blur_x", "mask_blur_y")
    ),
    _of_source("--round-mask/--no-round-mask", _ON_OFF, "Read the mask's gray as black or white.", ("round_mask",)),
    _of_source("--only-masked/--whole", _ON_OFF, "Paint the mask's surroundings at full size.", ("only_masked",)),
    _of_source("--padding", _WHOLE, "Pixels round the mask that --only-masked sees (default 32).", ("padding",)),
    _of_source("--fill", _TEXT, "What masked parts start from: original, fill, noise or nothing.", ("masked_content",)),
    _of_source("--soft/--no-soft", _ON_OFF, "Soft inpainting: gray changes a little.", ("soft_inpainting",), _part),
    _of_source(
        "--blend",
        _TEXT,
        "auto: mend colours at the mask's edge where it shows (default); plain: leave them.",
        ("blend",),
    ),
    PaintOption("--seed", _WHOLE, "The number the noise comes from (default: a new one).", ("seed",)),
    PaintOption("--variation-seed", _WHOLE, "A second seed to mix in.", ("variation_seed",)),
    PaintOption("--variation-strength", _NUMBER, "How much of it, 0 to 1.", ("variation_strength",)),
    PaintOption("--seed-resize", _TEXT, "WIDTHxHEIGHT the seed was found at.", ("seed_resize",), _pair),
    PaintOption("--count", _WHOLE, "How many pictures, one after another.", ("iterations",)),
    PaintOption("--batch-size", _WHOLE, "How many at once (faster, needs more memory).", ("batch_size",)),
    PaintOption("--sampler", _TEXT, "See `overpaint samplers` (default DPM++ 2M).", ("sampler",)),
    PaintOption("--scheduler", _TEXT, "See `overpaint samplers` (default Automatic).", ("scheduler",)),
    PaintOption("--steps", _WHOLE, "Sampling steps at full strength (default: the model's own).", ("steps",)),
    PaintOption("--cfg", _NUMBER, "How closely to follow the prompt (default: the model's own).", ("cfg_scale",)),
    PaintOption("--guidance", _NUMBER, "The same, as models such as Flux.1 dev are told it.", ("guidance",)),
    _of_source("--image-cfg", _NUMBER, "How closely an edit model follows the picture.", ("image_cfg_scale",)),
    PaintOption("--eta", _NUMBER, "Noise that ancestral samplers and DDIM add.", ("eta",)),
    PaintOption("--s-churn", _NUMBER, "Noise that Euler, Heun and DPM2 add.", ("s_churn",)),
    PaintOption("--s-tmin", _NUMBER, "The smallest sigma it is added at.", ("s_tmin",)),
    PaintOption("--s-tmax", _NUMBER, "The largest sigma it is added at.", ("s_tmax",)),
    PaintOption("--s-noise", _NUMBER, "A factor on added noise.", ("s_noise",)),
    PaintOption(
        "--s-min-uncond", _NUMBER, "Skip the negative prompt in late steps below this sigma.", ("s_min_uncond",)
    ),
    _of_source("--noise-multiplier", _NUMBER, "A factor on the noise over the picture.", ("noise_multiplier",)),
    PaintOption("--clip-skip", _WHOLE, "Text layers to leave out, counted from 1.", ("clip_skip",)),
    _of_source(
        "--color-correction/--no-color-correction", _ON_OFF, "Keep the source's colours.", ("color_correction",)
    ),
    PaintOption("--tiling/--no-tiling", _ON_OFF, "Make a picture that repeats without seams.", ("tiling",)),
    PaintOption(
        "--lora", _MANY, "NAME[:WEIGHT[:TEXT_WEIGHT]] of a LoRA in lora_dir; may be repeated.", ("loras",), _loras
    ),
    PaintOption("--networks/--no-networks", _ON_OFF, "Apply the prompt's `<lora:...>` tags.", ("use_networks",)),
    PaintOption(
        "--control",
        _MANY,
        "MODEL=PICTURE[,weight=1][,start=0][,end=1][,pre=canny|invert]: a ControlNet and what it follows; "
        "may be repeated.",
        ("controls",),
        _controls,
    ),
    PaintOption("--look-at", _MANY, "A picture that an edit model looks at, too; may be repeated.", ("references",)),
    PaintOption("--refiner", _TEXT, "Another checkpoint for the last steps: file or name.", ("refiner",)),
    PaintOption("--refiner-at", _NUMBER, "When it takes over, 0 to 1 (default 0.8).", ("refiner_switch_at",)),
    PaintOption("--exact/--no-exact", _ON_OFF, "Same bytes whatever else is painted with it.", ("exact",)),
)
NEW_PICTURE_OPTIONS = tuple(each for each in REQUEST_OPTIONS if not each.of_source)
HIRES_OPTIONS = (
    PaintOption(
        "--hires/--no-hires",
        _ON_OFF,
        "A second pass over the enlarged picture; each option of it switches it on.",
        ("hires",),
        _part,
    ),
    PaintOption("--hires-scale", _NUMBER, "How much larger it gets (default 2).", ("hires.scale",)),
    PaintOption(
        "--hires-size",
        _TEXT,
        "WIDTHxHEIGHT instead; WIDTHx and xHEIGHT keep the shape.",
        ("hires.width", "hires.height"),
        _sides,
    ),
    PaintOption(
        "--hires-upscaler",
        _TEXT,
        "Latent, Lanczos, or one of `overpaint models --kind upscaler` (default Latent).",
        ("hires.upscaler",),
    ),
    PaintOption("--hires-steps", _WHOLE, "Steps of the second pass (default: the same).", ("hires.steps",)),
    PaintOption("--hires-strength", _NUMBER, "How much it changes, 0 to 1 (default 0.75).", ("hires.strength",)),
    PaintOption("--hires-sampler", _TEXT, "Its sampler (default: the same).", ("hires.sampler",)),
    PaintOption("--hires-scheduler", _TEXT, "Its scheduler (default: the same).", ("hires.scheduler",)),
    PaintOption("--hires-model", _TEXT, "Its checkpoint: file or name (default: the same).", ("hires.checkpoint",)),
    PaintOption("--hires-prompt", _TEXT, "Its prompt (default: the same).", ("hires.prompt",)),
    PaintOption("--hires-negative", _TEXT, "Its negative prompt (default: the same).", ("hires.negative_prompt",)),
)
JOB_OPTIONS = (
    PaintOption("--model", _TEXT, "Checkpoint: file, name or hash (default: the one of --models, or overpaint-mini)."),
    PaintOption(
        "--models",
        _TEXT,
        "Folder of checkpoints, or a whole models folder such as the webui's: LoRAs, VAEs ... are found, too "
        "(environment: OVERPAINT_MODELS).",
    ),
    PaintOption(
        "--webui",
        _TEXT,
        "Folder of an installed AUTOMATIC1111 webui: its models, styles and options are used as they lie "
        "(environment: OVERPAINT_WEBUI).",
    ),
    PaintOption("--vae", _TEXT, "VAE file to use instead of the checkpoint's."),
    PaintOption(
        "--text-encoder", _MANY, "Text encoder file for a model that brings none; may be repeated (default: beside it)."
    ),
    PaintOption("--quality", _WHOLE, "Of JPEG, lossy WebP, AVIF and HEIC, 1 to 100 (default 95)."),
    PaintOption("--set", _MANY, "OPTION=VALUE, see `overpaint settings`; may be repeated."),
    PaintOption("--reference/--no-reference", _ON_OFF, "Paint as AUTOMATIC1111 1.10.1 does, accidents included."),
    PaintOption("--device", _TEXT, "auto, cpu, cuda, cuda:1, mps ..."),
    PaintOption("--dtype", _TEXT, "auto, float32, float16 or bfloat16."),
    PaintOption("--backend", _TEXT, "Who computes on a CPU: auto, torch or openvino."),
    PaintOption("--device-memory", _TEXT, "What a model may take of the device, such as 16GB (default: what is free)."),
)


@dataclass(frozen=True)
class GivenOptions:
    """What was said on the command line, and what holds for all of a user's commands; what was not said is not here."""

    given: Mapping[str, Any]
    standing: Mapping[str, Any] = field(default_factory=dict)  # from the environment and overpaint.toml

    def fields(self, hires: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The request's fields, control pictures still as paths; `hires` is what there is of a second pass already."""
        named = {each.name: each for each in (PROMPT_OPTION, *REQUEST_OPTIONS, *HIRES_OPTIONS)}
        result: dict[str, Any] = {}
        for name, value in self.given.items():
            if name in named:
                result.update(named[name].values(value))
        parts = {name.removeprefix("hires."): result.pop(name) for name in list(result) if name.startswith("hires.")}
        if parts:
            _check_hires(self.given)
            kept = dict(hires or {})
            if "scale" in parts:  # it takes the place of a size that was there before
                kept |= dict.fromkeys(kept.keys() & {"width", "height"})
            result["hires"] = kept | parts
        elif hires is not None and result.get("hires") == {}:
            result["hires"] = dict(hires)
        return result

    def fields_over(self, tab: Tab | None) -> dict[str, Any]:
        """The same over what a webui's page has as defaults in a tab, where there is one."""
        return {**self.defaults_of(tab), **self.fields()}

    def defaults_of(self, tab: Tab | None) -> dict[str, Any]:
        webui = None if tab is None else self.installation()
        return {} if webui is None or tab is None else webui.defaults.of(tab)

    def settings(self, base: Settings | None = None) -> Settings:
        """The site's settings for this job; those of an earlier picture keep what it was painted with."""
        from overpaint.settings import Settings

        # Nobody looks at previews here, and only the pictures themselves are kept.
        quiet = {"live_previews_enable": False, "return_grid": False}
        return self.over((base or Settings()).with_changes(quiet), repeats=base is not None)

    def over(self, settings: Settings, *, repeats: bool = False) -> Settings:
        """Some settings with what was asked on top; what stands for all commands does not change a repeated picture."""
        from dataclasses import replace

        from overpaint.settings import Quirks

        said = self.given if repeats else {**self.standing, **self.given}
        if "reference" in said:
            settings = replace(settings, quirks=Quirks.reference() if said["reference"] else Quirks.none())
        options = self._of_folders(settings, repeats=repeats)
        standing = self.standing.get("set", {}).items()
        options |= {name: value for name, value in standing if not (repeats and _paints(name))}
        options |= dict(read_option(each) for each in self.given.get("set", ()))
        if "quality" in self.given:
            options["jpeg_quality"] = _quality(self.given["quality"])
        if "backend" in said:
            options["backend"] = str(said["backend"])
        if "device_memory" in said:
            options["device_memory"] = gibibytes(str(said["device_memory"]))
        if "vae" in said:
            options["sd_vae"] = str(said["vae"])
        if said.get("text_encoder"):
            options["text_encoder_files"] = tuple(map(str, said["text_encoder"]))
        return settings.with_changes(options)

    def _of_folders(self, settings: Settings, *, repeats: bool) -> dict[str, Any]:
        """What a webui's folder says, and the folder of models over it; neither over what the command needs."""
        webui, models = self.installation(), self.text("models")
        options = dict(webui.folders) if webui is not None else {}
        if webui is not None and not repeats:
            options = {**webui.options_for(settings), **options}
        if "webui" in self.given and "models" not in self.given:
            models = ""  # the one that stands for all commands
        return options | (_folders(models) if models else {})

    def installation(self) -> Installation | None:
        """The webui that was named, as it is now."""
        named = self.text("webui")
        if not named:
            return None
        from overpaint.models.installation import read_installation

        return read_installation(named)

    def text(self, name: str, default: str = "") -> str:
        """A job's option by name."""
        return str(self.given.get(name, self.standing.get(name, default)))

    def with_prompt(self, prompt: str) -> GivenOptions:
        """The same with a prompt from its place on the line."""
        if not prompt:
            return self
        if "prompt" in self.given:
            raise RequestError("--prompt", self.given["prompt"], f"it is given twice, as {prompt!r} too; leave one out")
        return GivenOptions({**self.given, "prompt": prompt}, self.standing)

    def machine_alone(self) -> GivenOptions:
        """Without what a user's file and environment say of models and options: for the built-in model's own show."""
        return GivenOptions(
            self.given, {name: self.standing[name] for name in ("device", "dtype") if name in self.standing}
        )

    def with_model(self, model: str | None) -> GivenOptions:
        """The same with a model chosen; None leaves the built-in one."""
        return GivenOptions({**self.given, "model": model or ""}, self.standing)


def _paints(option: str) -> bool:
    """Whether an option changes pictures, and so belongs to their recipes."""
    from overpaint.files.recipe import PAINTING_OPTIONS

    return option in PAINTING_OPTIONS


def _check_hires(given: Mapping[str, Any]) -> None:
    if given.get("hires") is False:
        raise RequestError("--no-hires", None, "leave it out, or the other options of the second pass")
    if "hires_scale" in given and "hires_size" in given:
        raise RequestError("--hires-size", given["hires_size"], "give it or --hires-scale, not both")


def _folders(root: str) -> dict[str, str]:
    from overpaint.cli.folders import folders_below

    return folders_below(root)


def takes(*options: PaintOption) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command these options; it receives what was given as `asked`."""

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        own = inspect.signature(function, eval_str=True).parameters
        extra = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    each.kind,
                    typer.Option(each.flag, help=each.help, show_default=False, metavar=_METAVARS.get(each.kind)),
                ],
            )
            for each in options
        ]

        def command(**values: Any) -> int:
            taken = {each.name: values.pop(each.name) for each in options}
            given = {name: value for name, value in taken.items() if value is not None and value != []}
            from overpaint.cli.standing import standing_values

            return function(**values, asked=GivenOptions(given, standing_values()))

        kept = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own.values() if each.name != "asked"]
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = inspect.Signature([*kept, *extra])  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in (*kept, *extra)}
        return command

    return decorate
