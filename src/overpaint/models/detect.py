"""What a checkpoint is, from its tensor shapes alone: {key: shape} -> ModelSpec. Pure, and without torch.

What shapes cannot say comes, in this order, from the file's metadata, from a configuration file beside it, and from
the family's default; where each fact came from is kept in `ModelSpec.facts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from overpaint.errors import CheckpointError
from overpaint.models.families import (
    FAMILIES,
    SD1_SPEC,
    UNET_PREFIX,
    VAE_PREFIX,
    AutoencoderSpec,
    Family,
    ModelSpec,
    Prediction,
    Source,
    TextRow,
    TextSpec,
    UNetSpec,
    family_called,
    family_of,
    fitting,
)
from overpaint.models.header import Said
from overpaint.models.shifts import ConstantShift, Shift
from overpaint.models.text_shapes import text_spec
from overpaint.models.transformer_shapes import is_there, require_parts, transformer_spec
from overpaint.models.unet_shapes import Header, context_dim, count, is_linear, kernel, size_of_input, unet_spec

_OLD_CLIP = "cond_stage_model.transformer."
_OLD_CLIP_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")
_TURBO_MARK = "conditioner.embedders.0.model.ln_final.weight"

# What a file that is no checkpoint probably is: a mark in one of its keys, and what to do with it.
_STRANGERS = (
    (
        re.compile(r"^lora_|\.lora_(up|down|[AB])\."),
        "it looks like a LoRA: put it into the LoRA folder and name it in the prompt",
    ),
    (re.compile(r"^(encoder|decoder)\.(conv_in|mid)\."), "it looks like a VAE: choose it as the VAE instead"),
    (
        re.compile(r"^(text_model\.)?(embeddings\.|encoder\.layers\.)|^(token_embedding|ln_final)\."),
        "it looks like a text encoder: name it in the setting text_encoder_files",
    ),
    (
        re.compile(r"^(model\.)?(embed_tokens|layers\.\d+\.self_attn\.)|^(shared|encoder\.block\.0)\."),
        "it looks like a text encoder: name it in the setting text_encoder_files",
    ),
    (
        re.compile(r"double_blocks\.|joint_blocks\."),
        "it looks like a part of a Flux or Stable Diffusion 3 model, or like one of a kind that is not supported; "
        "use a complete file of a supported model",
    ),
    (
        re.compile(r"^control_model\.|^zero_convs\.|^controlnet_(cond_embedding|down_blocks)\."),
        "it looks like a ControlNet, not a checkpoint",
    ),
    (
        re.compile(r"^(string_to_param|emb_params|clip_[lg])$"),
        "it looks like a textual inversion: put it into the embeddings folder",
    ),
)


FLOW_TIMES = 1000.0  # what a U-Net that predicts n - x0 is told of noise alone
_PATCH = 2  # cells a side that make one latent of a codec with statistics
_OLD_LATENTS = 4  # channels of the codecs that always have convolutions beside the latents

_OF_VAE = re.compile(rf"({VAE_PREFIX})?((post_)?quant_conv|(encoder|decoder)\.(conv_|down|mid|up|norm_out))")


def detect(
    header: Header,
    metadata: Mapping[str, str] | None = None,
    sidecar: Mapping[str, Any] | None = None,
    name: str = "",
) -> ModelSpec:
    """Recognise the family (FAM) and measure the networks; a file that cannot be one raises CheckpointError.

    The file's name is asked where families have equal tensors.
    """
    shapes = {new: header[old] for new, old in normalised_keys(header).items()}
    said = Said(metadata or {}, sidecar or {})
    family, facts = told_family(_family(shapes), said, name)
    if not family.supported:
        raise CheckpointError(
            f"this file is a {family.title} model, which is not supported; use one of: {supported_titles()}"
        )
    _require(shapes, family)
    prediction = _prediction(shapes, family, said, facts)
    title, denoiser = family.title, transformer_spec(shapes, family) or unet_spec(shapes, family, said, facts)
    if prediction == "flow" and isinstance(denoiser, UNetSpec):
        denoiser, title = replace(denoiser, time_factor=FLOW_TIMES), f"{family.title} (flow)"
    size = 768 if family.name == "sd2" and prediction == "v" else family.native_size
    vae = _vae(shapes, family, facts)
    texts = _texts(shapes, family, said, facts)
    scale = float(said.fact("scale_factor", family.latent.scale, facts))
    spec = ModelSpec(
        family=family.name,
        title=title,
        denoiser=denoiser,
        vae=vae,
        texts=texts,
        prediction=prediction,
        latent=replace(family.latent, channels=vae.latent_channels, scale=scale),
        conditioning=family.conditioning,
        native_size=int(said.fact("native_size", size, facts)),
        facts=facts,
        shift=_shift(family, prediction, said, facts),
        cfg_scale=family.cfg_scale,
        strength=family.strength,
        steps=family.steps,
        guidance=family.guidance,
        keeps_length=family.keeps_length,
        blank_words=sum(row.length for row in family.texts if row.optional and not is_there(row, shapes)),
    )
    return fitting(spec)


def normalised_keys(keys: Header) -> dict[str, str]:
    """Our name of every key -> its name in the file: old text names get their level back (KEYS-1, KEYS-2)."""
    if keys.get(_TURBO_MARK, ())[:1] == (1024,):
        old, new = "conditioner.embedders.0.", "cond_stage_model."
        return {new + key.removeprefix(old) if key.startswith(old) else key: key for key in keys}
    return {_with_text_level(key): key for key in keys}


def _family(shapes: Header) -> Family:
    """FAM, or for a U-Net without text encoders the families that its shapes allow."""
    holds_unet = len(shapes.get(UNET_PREFIX + "input_blocks.0.0.weight", ())) == 4
    if not holds_unet or any(key.startswith(_TEXT_ROOTS) for key in shapes):
        return family_of(shapes)
    unet = {key.removeprefix(UNET_PREFIX): shape for key, shape in shapes.items() if key.startswith(UNET_PREFIX)}
    return families_of_unet(unet)[0]


def told_family(family: Family, said: Said, name: str) -> tuple[Family, dict[str, Source]]:
    """Where shapes leave several, the one that a name tells: one written into the file, or else the file's own."""
    facts: dict[str, Source] = {"family": "weights", "conditioning": "weights", "shapes": "weights"}
    names: tuple[tuple[str, Source], ...] = (said.find("called") or ("", "metadata"), (name, "file name"))
    for called, source in names:
        told = family_called(family, called)
        if told is not family:
            return told, {**facts, "family": source, "conditioning": source}
    return family, facts


def families_of_unet(unet: Header) -> tuple[Family, ...]:
    """What a U-Net by itself can be, likeliest first: by what attends to the text, and by the vector it is given."""
    context, vector = context_dim(unet), size_of_input(unet, "label_emb.0.0.weight")
    if vector:
        fits = {"sdxl-refiner": vector - _SIZES_OF_REFINER == context, "sdxl": 0 < vector - _SIZES_OF_XL < context}
        names = [name for name, holds in fits.items() if holds]
    else:
        names = _BY_CONTEXT.get(context) or (["sd2", "sd1"] if is_linear(unet) else ["sd1", "sd2"])
    takes = size_of_input(unet, "input_blocks.0.0.weight")
    rows = {family.name: family for family in FAMILIES}
    suffix = _BY_INPUT.get(takes, " of another kind")
    found = tuple(rows[name + suffix] for name in names if name + suffix in rows)
    if not found:
        raise CheckpointError(
            f"the U-Net takes {takes} channels, a text {context} and a vector {vector} wide, which no supported family "
            "does: use another file"
        )
    return found


# What follows the pooled text in an SDXL network's vector: sinusoids of 256 numbers.
_SIZES_OF_REFINER, _SIZES_OF_XL = 5 * 256, 6 * 256
_BY_CONTEXT = {768: ["sd1"], 1024: ["sd2"]}
_BY_INPUT = {4: "", 9: "-inpaint", 8: "-edit"}
_TEXT_ROOTS = ("cond_stage_model.", "conditioner.", "embedder.", "depth_model.")


def text_widths(family: Family, unet: Header) -> tuple[int, ...]:
    """How wide the text encoders beside such a U-Net are, in the order of the family's row."""
    context = context_dim(unet)
    if len(family.texts) == 1:
        return (context,)
    pooled = size_of_input(unet, "label_emb.0.0.weight") - _SIZES_OF_XL
    return (context - pooled, pooled)


def supported_titles() -> str:
    return ", ".join(sorted(each.title for each in FAMILIES if each.supported))


def autoencoder_spec(shapes: Header, prefix: str = "") -> AutoencoderSpec:
    """The codec's widths; `prefix` is empty for VAE files."""
    if f"{prefix}decoder.middle.0.residual.0.gamma" in shapes:
        return _wan_spec(shapes, prefix)
    conv_in, latent_in = (kernel(shapes, f"{prefix}{side}.conv_in.weight") for side in ("encoder", "decoder"))
    levels = range(count(shapes, f"{prefix}decoder.up."))
    widths = [kernel(shapes, f"{prefix}decoder.up.{i}.block.0.conv1.weight")[0] for i in levels]
    channels, patch = conv_in[0], _PATCH if f"{prefix}bn.running_mean" in shapes else 1
    if not widths or any(width == 0 or width % channels for width in widths) or not latent_in[1]:
        raise CheckpointError(f"vae: {prefix or 'this file '}has no usable encoder and decoder; use another file")
    return AutoencoderSpec(
        channels=channels,
        channel_mult=tuple(width // channels for width in widths),
        num_res_blocks=count(shapes, f"{prefix}decoder.up.0.block.") - 1,
        latent_channels=latent_in[1] * patch**2,
        quant_convs=latent_in[1] == _OLD_LATENTS or f"{prefix}quant_conv.weight" in shapes,
        patch=patch,
    )


def _wan_spec(shapes: Header, prefix: str) -> AutoencoderSpec:
    """The codec of Qwen-Image, whose blocks are one list with steps to the next size between them."""
    first, last = (kernel(shapes, f"{prefix}{side}.conv1.weight") for side in ("encoder", "decoder"))
    start, channels = f"{prefix}encoder.downsamples.", first[0]
    steps = [i for i in range(count(shapes, start)) if f"{start}{i}.resample.1.weight" in shapes]
    widths = [kernel(shapes, f"{start}{i - 1}.residual.6.weight")[0] for i in steps] + [last[0]]
    if not steps or not channels or any(width == 0 or width % channels for width in widths) or not last[1]:
        raise CheckpointError(f"vae: {prefix or 'this file '}has no usable encoder and decoder; use another file")
    return AutoencoderSpec(
        kind="wan",
        channels=channels,
        channel_mult=tuple(width // channels for width in widths),
        num_res_blocks=steps[0],
        latent_channels=last[1],
    )


def _with_text_level(key: str) -> str:
    rest = key.removeprefix(_OLD_CLIP)
    return f"{_OLD_CLIP}text_model.{rest}" if rest != key and rest.startswith(_OLD_CLIP_PARTS) else key


def _require(shapes: Header, family: Family) -> None:
    """The corner stones of every network; without them no shape can be measured."""
    if family.network != "unet":
        require_parts(shapes, family)
        return
    wanted = [UNET_PREFIX + name for name in ("input_blocks.0.0.weight", "time_embed.0.weight", "out.2.weight")]
    lacks_texts = not any(key.startswith(row.prefix) for row in family.texts for key in shapes)
    if lacks_texts and all(len(shapes.get(key, ())) >= 2 for key in wanted):
        names = " and ".join({"clip": "CLIP-L", "openclip": "OpenCLIP"}[row.kind] for row in family.texts)
        raise CheckpointError(
            f"it holds a {family.title} U-Net but no text encoder: name {names} in the setting text_encoder_files"
        )
    if _has_vae(shapes) or lacks_texts:
        wanted += [VAE_PREFIX + name for name in ("encoder.conv_in.weight", "decoder.conv_in.weight")]
    wanted += [row.prefix + _NAMES[row.kind]["tokens"] for row in family.texts]
    missing = [key for key in wanted if len(shapes.get(key, ())) < 2]
    if missing:
        advice = next((text for mark, text in _STRANGERS if any(mark.search(key) for key in shapes)), None)
        raise CheckpointError(missing_message(missing, nearest_family(shapes), advice))


def _has_vae(shapes: Header) -> bool:
    return any(key.startswith(VAE_PREFIX) for key in shapes)


def _vae(shapes: Header, family: Family, facts: dict[str, Source]) -> AutoencoderSpec:
    """The file's codec; where it has none, the one that such families share, until `sd_vae` brings another."""
    facts["vae"] = "weights" if _has_vae(shapes) else "family default"
    return autoencoder_spec(shapes, VAE_PREFIX) if _has_vae(shapes) else family.vae or SD1_SPEC.vae


def _shift(family: Family, prediction: Prediction, said: Said, facts: dict[str, Source]) -> Shift:
    """The family's, or what the file or the scheduler of a folder says."""
    if prediction != "flow":
        return family.shift
    told = said.fact("shift", None, facts)
    return family.shift if told is None else ConstantShift(float(told))


def missing_message(missing: list[str], nearest: str, advice: str | None = None) -> str:
    """The first missing keys, how many there are, the nearest family, and what to do."""
    shown = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
    lacks_vae = all(_OF_VAE.match(key) for key in missing)
    remedy = advice or ("choose a VAE with the setting sd_vae" if lacks_vae else "use a complete checkpoint")
    return f"{len(missing)} tensors that a {nearest} checkpoint has are missing ({shown}): {remedy}"


def nearest_family(shapes: Header) -> str:
    """The title of the supported family whose parts the file has most of."""

    def likeness(family: Family) -> int:
        stones = [mark.holds(shapes) for mark in family.marks]
        return sum(stones) + sum(any(key.startswith(row.prefix) for key in shapes) for row in family.texts)

    candidates = [each for each in reversed(FAMILIES) if each.supported]
    return max(candidates, key=likeness).title


def _prediction(shapes: Header, family: Family, said: Said, facts: dict[str, Source]) -> Prediction:
    if "v_pred" in shapes:  # FAM-3: trainers mark v-prediction SDXL files with an empty tensor of this name
        facts["prediction"] = "weights"
        return "v"
    if family.prediction == "flow":
        facts["prediction"] = "weights"
        return "flow"
    prediction: Prediction = said.fact("prediction", family.prediction, facts)
    return prediction


_NAMES = {
    "clip": {
        "tokens": "embeddings.token_embedding.weight",
        "positions": "embeddings.position_embedding.weight",
        "layers": "encoder.layers.",
        "inner": "encoder.layers.0.mlp.fc1.weight",
    },
    "openclip": {
        "tokens": "token_embedding.weight",
        "positions": "positional_embedding",
        "layers": "transformer.resblocks.",
        "inner": "transformer.resblocks.0.mlp.c_fc.weight",
    },
}
# Files made by converters leave out SD 2's last layer, which is never used: 23 of 24.
_TRIMMED_SD2 = (1024, 23)


def _texts(shapes: Header, family: Family, said: Said, facts: dict[str, Source]) -> tuple[TextSpec, ...]:
    told = {name: said.fact(f"text_{name}", None, facts) for name in ("heads", "layers", "activations")}
    for name, values in told.items():
        if values is not None and len(values) != len(family.texts):
            raise CheckpointError(
                f"text_{name}={values}: a {family.title} model has {len(family.texts)} text encoders; give one each"
            )
    tokenizers = said.fact("tokenizers", [""] * len(family.texts), {})
    return tuple(
        _text(shapes, row, family, {name: values[i] for name, values in told.items() if values is not None})
        if row.kind in _NAMES
        else text_spec(shapes, row, str(tokenizers[i]))
        for i, row in enumerate(family.texts)
        if is_there(row, shapes) or not row.optional
    )


def _text(shapes: Header, row: TextRow, family: Family, told: Mapping[str, Any]) -> TextSpec:
    names = {part: row.prefix + name for part, name in _NAMES[row.kind].items()}
    missing = [names[part] for part in ("tokens", "positions", "inner") if len(shapes.get(names[part], ())) != 2]
    if missing:
        raise CheckpointError(missing_message(missing, family.title))
    vocabulary, width = shapes[names["tokens"]]
    layers = count(shapes, names["layers"])
    heads = told.get("heads") or max(1, width // row.head_dim)
    if width % heads:
        raise CheckpointError(f"text_heads={heads}: they do not divide a text encoder {width} wide; give a divisor")
    trimmed = family.name.startswith("sd2") and (width, layers) == _TRIMMED_SD2
    layer = told.get("layers", -1 if trimmed else row.layer)
    if not -layers <= layer + 1 <= 0:
        raise CheckpointError(f"text_layers={layer}: the text encoder has {layers} layers; give -1 to {-layers - 1}")
    return TextSpec(
        kind=row.kind,
        prefix=row.prefix,
        width=width,
        layers=layers,
        heads=heads,
        inner=shapes[names["inner"]][0],
        vocabulary=vocabulary,
        positions=shapes[names["positions"]][0],
        activation=told.get("activations", row.activation),
        layer=layer,
        final_norm=row.final_norm,
        follows_skip=row.follows_skip,
        pooled=row.pooled,
        projected=row.projected,
        as_tokens=row.as_tokens,
    )
