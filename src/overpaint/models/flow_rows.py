"""Rows of the table of families for the flow models of 2025: Qwen-Image and Flux.2."""

from __future__ import annotations

from dataclasses import replace

from overpaint.models.shifts import StepShift, TokenShift
from overpaint.models.specs import UNET_PREFIX, AutoencoderSpec, Family, LatentSpec, Mark, TextRow
from overpaint.models.vision_specs import Eyes

_WAN_VAE = AutoencoderSpec(
    kind="wan", channels=96, channel_mult=(1, 2, 4, 4), num_res_blocks=2, latent_channels=16, quant_convs=True
)
_FLUX2_VAE = AutoencoderSpec(
    channels=128, channel_mult=(1, 2, 4, 4), num_res_blocks=2, latent_channels=128, quant_convs=True, patch=2
)
_FLUX2 = Mark(UNET_PREFIX + "single_stream_modulation.lin.weight")
_QWEN_IMAGE = (
    Mark(UNET_PREFIX + "txt_norm.weight"),
    Mark(UNET_PREFIX + "transformer_blocks.0.attn.add_q_proj.weight"),
)
_QWEN_TEXT = TextRow(
    kind="qwen25",
    prefix="text_encoders.qwen25_7b.transformer.model.",
    layer=-1,
    final_norm=True,
    unread=34,
    head_dim=128,
)
_EDIT_TEXT = replace(_QWEN_TEXT, kind="qwen25_edit", unread=64, eyes=Eyes(side=0, several=False))
_SEVERAL = Eyes(side=384, several=True)
BASE = r"(?<![a-z])base(?![a-z])"  # what was not distilled yet
_READ = (9, 18, 27)  # layers of klein's text encoder

_KLEIN = Family(
    name="flux2-klein",
    title="Flux.2 klein",
    marks=(_FLUX2,),
    texts=(
        TextRow(
            kind="qwen3_stacked",
            prefix="text_encoders.qwen3_4b.transformer.model.",
            layer=-1,
            final_norm=False,
            states=_READ,
        ),
    ),
    prediction="flow",
    latent=LatentSpec(channels=128, factor=16, scale=1.0),
    conditioning="edit",
    strength=1.0,
    steps=4,
    native_size=1024,
    network="flux2",
    shift=StepShift(),
    cfg_scale=1.0,
    vae=_FLUX2_VAE,
    vae_names=("flux2", "flux.2", "ae"),
)


def _qwen_image(
    name: str,
    title: str,
    text: TextRow,
    *,
    native_size: int = 1024,
    called: str = "",
    clean_pictures: bool = False,
) -> Family:
    """The rows of Qwen-Image differ in what they are shown, and how."""
    return Family(
        name=name,
        title=title,
        marks=_QWEN_IMAGE,
        texts=(text,),
        prediction="flow",
        latent=LatentSpec(channels=16, scale=1.0),
        conditioning="text" if text.eyes is None else "edit",
        strength=None if text.eyes is None else 1.0,
        steps=None if text.eyes is None else 40,
        native_size=native_size,
        network="qwen_image",
        shift=TokenShift(most=(8192, 0.9), terminal=0.02),
        cfg_scale=4.0,
        keeps_length=True,
        clean_pictures=clean_pictures,
        vae=_WAN_VAE,
        called=called,
        vae_names=("qwen", "wan"),
    )


NEWER_FAMILIES: tuple[Family, ...] = (
    _qwen_image("qwen-image", "Qwen-Image", _QWEN_TEXT, native_size=1328),
    _qwen_image(
        "qwen-image-edit-2511",
        "Qwen-Image-Edit-2511",
        replace(_EDIT_TEXT, eyes=_SEVERAL),
        called="edit.*(2511|zero_cond_t)",
        clean_pictures=True,
    ),
    _qwen_image(
        "qwen-image-edit-2509",
        "Qwen-Image-Edit-2509",
        replace(_EDIT_TEXT, eyes=_SEVERAL),
        called="edit.*(2509|plus)",
    ),
    _qwen_image("qwen-image-edit", "Qwen-Image-Edit", _EDIT_TEXT, called="edit"),
    Family(
        name="flux2-dev",
        title="Flux.2 dev",
        marks=(_FLUX2, Mark(UNET_PREFIX + "guidance_in.in_layer.weight")),
        texts=(TextRow(kind="qwen3_stacked", prefix="text_encoders.mistral.", layer=-1, final_norm=False),),
        prediction="flow",
        network="flux2",
        supported=False,  # its text encoder is a Mistral of 24 billion parameters
    ),
    _KLEIN,
    replace(_KLEIN, name="flux2-klein-base", title="Flux.2 klein base", called=BASE, cfg_scale=4.0, steps=50),
)
