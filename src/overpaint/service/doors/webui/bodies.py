"""The bodies of the reference's API (I2I, EX, PNG, IGT): field names, types, defaults. Unknown keys are kept apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    model_validator,
)
from typing_extensions import Self

from overpaint.service.shapes import plain


def _truncated(value: Any) -> Any:
    """API-4: 5.9 for a whole number is 5."""
    return int(value) if isinstance(value, float) and abs(value) < 2**63 else value


def _as_text(value: Any) -> Any:
    """API-4: a number for a text is its digits."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _writable(text: str) -> str:
    """JSON can name half a character, which no answer could hold."""
    if not text.isascii():
        text.encode()
    return text


def _plain(value: Any) -> Any:
    """Of any shape, but finite, flat and writable."""
    return plain("value", value)


_Whole = Annotated[int, BeforeValidator(_truncated)]
_Real = Annotated[float, Field(allow_inf_nan=False)]
Int = _Whole | None
Float = _Real | None
Text = Annotated[str, BeforeValidator(_as_text), AfterValidator(_writable)]
Str = Text | None
Table = Annotated[dict[str, Any], AfterValidator(_plain)]
Bool = bool | None


class Body(BaseModel):
    """A request of the reference's API."""

    model_config = ConfigDict(extra="allow")
    _cut: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _compared(cls, given: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """What was read of whole numbers against what was given."""
        body = read(given)
        if isinstance(given, Mapping):
            fractions = (name for name, value in given.items() if isinstance(value, float) and not value.is_integer())
            body._cut = tuple(name for name in fractions if isinstance(getattr(body, str(name), None), int))
        return body

    def forget(self) -> None:
        """Let go of what it holds."""
        for name in self.__dict__:
            self.__dict__[name] = None

    def cut(self) -> tuple[str, ...]:
        """Fields of whole numbers that were given fractions, which are cut off (API-4)."""
        return self._cut

    def unknown(self) -> tuple[str, ...]:
        """Keys that no field has."""
        return tuple(sorted(self.model_extra or {}))

    def known(self) -> dict[str, Any]:
        """The fields as they were received, defaults included."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    def effective(self) -> dict[str, Any]:
        """The fields with null where null is the default, else with the default in its place (API-4)."""
        defaults = {name: each.default for name, each in type(self).model_fields.items()}
        return {name: defaults[name] if value is None else value for name, value in self.known().items()}


class _Painting(Body):
    """What both kinds of job have."""

    prompt: Str = ""
    negative_prompt: Str = ""
    styles: list[Text] | None = None
    seed: Int = -1
    subseed: Int = -1
    subseed_strength: Float = 0
    seed_resize_from_h: Int = -1
    seed_resize_from_w: Int = -1
    sampler_name: Str = None
    scheduler: Str = None
    batch_size: Int = 1
    n_iter: Int = 1
    steps: Int = 50
    cfg_scale: Float = 7.0
    width: Int = 512
    height: Int = 512
    restore_faces: Bool = None
    tiling: Bool = None
    do_not_save_samples: Bool = False
    do_not_save_grid: Bool = False
    eta: Float = None
    denoising_strength: Float = None
    s_min_uncond: Float = None
    s_churn: Float = None
    s_tmax: Float = None
    s_tmin: Float = None
    s_noise: Float = None
    override_settings: Table | None = None
    override_settings_restore_afterwards: Bool = True
    refiner_checkpoint: Str = None
    refiner_switch_at: Float = None
    disable_extra_networks: Bool = False
    firstpass_image: Str = None
    comments: Table | None = None
    force_task_id: Str = None
    sampler_index: Str = "Euler"
    script_name: Str = None
    script_args: Annotated[list[Any], AfterValidator(_plain)] | None = []
    send_images: Bool = True
    save_images: Bool = False
    alwayson_scripts: Table | None = {}
    infotext: Str = None


class StableDiffusionProcessingImg2Img(_Painting):
    """POST /sdapi/v1/img2img."""

    denoising_strength: Float = 0.75
    init_images: list[Text] | None = None
    resize_mode: Int = 0
    image_cfg_scale: Float = None
    mask: Str = None
    mask_blur_x: Int = 4
    mask_blur_y: Int = 4
    mask_blur: Int = None
    mask_round: Bool = True
    inpainting_fill: Int = 0
    inpaint_full_res: Bool = True
    inpaint_full_res_padding: Int = 0
    inpainting_mask_invert: Int = 0
    initial_noise_multiplier: Float = None
    latent_mask: Str = None
    include_init_images: Bool = False


class StableDiffusionProcessingTxt2Img(_Painting):
    """POST /sdapi/v1/txt2img."""

    enable_hr: Bool = False
    firstphase_width: Int = 0
    firstphase_height: Int = 0
    hr_scale: Float = 2.0
    hr_upscaler: Str = None
    hr_second_pass_steps: Int = 0
    hr_resize_x: Int = 0
    hr_resize_y: Int = 0
    hr_checkpoint_name: Str = None
    hr_sampler_name: Str = None
    hr_scheduler: Str = None
    hr_prompt: Str = ""
    hr_negative_prompt: Str = ""


PaintingBody = StableDiffusionProcessingImg2Img | StableDiffusionProcessingTxt2Img

_Part = Annotated[_Real, Field(ge=0, le=1)] | None
_Side = Annotated[_Whole, Field(ge=1)] | None


class _Extras(Body):
    resize_mode: Literal[0, 1] | None = 0
    show_extras_results: Bool = True
    gfpgan_visibility: _Part = 0
    codeformer_visibility: _Part = 0
    codeformer_weight: _Part = 0
    upscaling_resize: Annotated[_Real, Field(gt=0)] | None = 2
    upscaling_resize_w: _Side = 512
    upscaling_resize_h: _Side = 512
    upscaling_crop: Bool = True
    upscaler_1: Str = "None"
    upscaler_2: Str = "None"
    extras_upscaler_2_visibility: _Part = 0
    upscale_first: Bool = False


class ExtrasSingleImageRequest(_Extras):
    """POST /sdapi/v1/extra-single-image."""

    image: Str = ""


class FileData(BaseModel):
    data: Text
    name: Text


class ExtrasBatchImagesRequest(_Extras):
    """POST /sdapi/v1/extra-batch-images."""

    imageList: list[FileData]  # noqa: N815 (the reference's word)


ExtrasBody = ExtrasSingleImageRequest | ExtrasBatchImagesRequest


class PNGInfoRequest(Body):
    image: Text


class InterrogateRequest(Body):
    image: Str = ""
    model: Str = "clip"


class ProgressTaskRequest(Body):
    """POST /internal/progress (PROG-4)."""

    id_task: Str = None
    id_live_preview: Int = -1
    live_preview: Bool = True


class SdapiErrorBody(BaseModel):
    """API-2."""

    error: str
    detail: str
    body: str
    errors: str


class WrongField(BaseModel):
    loc: list[str | int]
    msg: str
    type: str


class WrongFields(BaseModel):
    """API-2: a body whose fields are of other types."""

    detail: list[WrongField]


class PaintingResponse(BaseModel):
    images: list[str]
    parameters: dict[str, Any]
    info: str


class ExtrasSingleImageResponse(BaseModel):
    html_info: str
    image: str | None = None


class ExtrasBatchImagesResponse(BaseModel):
    html_info: str
    images: list[str]


class PNGInfoResponse(BaseModel):
    info: str
    items: dict[str, Any]
    parameters: dict[str, Any]


class ProgressResponse(BaseModel):
    progress: float
    eta_relative: float
    state: dict[str, Any]
    current_image: str | None = None
    textinfo: str | None = None
