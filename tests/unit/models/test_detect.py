"""Families from shapes: every row of the table, facts and where they came from, messages for strangers."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from overpaint.errors import CheckpointError
from overpaint.models.detect import detect, nearest_family, normalised_keys
from overpaint.models.families import (
    FAMILIES,
    SD1_SPEC,
    UNET_PREFIX,
    VAE_PREFIX,
    LatentSpec,
    ModelSpec,
    TextSpec,
    UNetSpec,
    family_of,
)
from overpaint.models.shifts import NO_SHIFT, ConstantShift
from overpaint.models.spec_json import spec_from_json
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.text_networks import text_network
from overpaint.networks.unet import UNet
from tests.checkpoints import recorded_header, recorded_sidecar

Shapes = dict[str, tuple[int, ...]]

SD2_UNET = UNetSpec(
    in_channels=4,
    model_channels=320,
    channel_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    input_depths=SD1_SPEC.unet.input_depths,
    middle_depth=1,
    output_depths=SD1_SPEC.unet.output_depths,
    head_dim=64,
    context_dim=1024,
    linear_projections=True,
)
XL_UNET = UNetSpec(
    in_channels=4,
    model_channels=320,
    channel_mult=(1, 2, 4),
    num_res_blocks=2,
    input_depths=(0, 0, 2, 2, 10, 10),
    middle_depth=10,
    output_depths=(10, 10, 10, 2, 2, 2, 0, 0, 0),
    head_dim=64,
    context_dim=2048,
    linear_projections=True,
    adm_channels=2816,
)
REFINER_UNET = UNetSpec(
    in_channels=4,
    model_channels=384,
    channel_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    input_depths=(0, 0, 4, 4, 4, 4, 0, 0),
    middle_depth=4,
    output_depths=(0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0),
    head_dim=64,
    context_dim=1280,
    linear_projections=True,
    adm_channels=2560,
)


def open_clip(prefix: str, width: int, layers: int, *, pooled: bool) -> TextSpec:
    return TextSpec(
        kind="openclip",
        prefix=prefix,
        width=width,
        layers=layers,
        heads=width // 64,
        inner=4 * width,
        vocabulary=49408,
        positions=77,
        activation="gelu",
        layer=-2,
        final_norm=not pooled,
        follows_skip=False,
        pooled=pooled,
    )


def clip_of_xl() -> TextSpec:
    fields = vars(SD1_SPEC.texts[0]) | {"prefix": "conditioner.embedders.0.transformer.text_model."}
    return TextSpec(**(fields | {"layer": -2, "final_norm": False}))


def shapes(unet: UNetSpec, texts: tuple[TextSpec, ...], in_channels: int = 4) -> Shapes:
    """The header of a full-size file, laid out by the networks themselves."""
    parts: list[tuple[str, nn.Module]] = []
    with torch.device("meta"):
        parts.append((UNET_PREFIX, UNet(unet)))
        parts.append((VAE_PREFIX, AutoencoderKL(SD1_SPEC.vae)))
        parts += [(each.prefix, text_network(each)) for each in texts]
    found = {prefix + name: tuple(each.shape) for prefix, part in parts for name, each in part.named_parameters()}
    first = UNET_PREFIX + "input_blocks.0.0.weight"
    return found | {first: (found[first][0], in_channels, 3, 3)}


@pytest.fixture(scope="module")
def headers() -> dict[str, Shapes]:
    sd2 = (open_clip("cond_stage_model.model.", 1024, 24, pooled=False),)
    xl = (clip_of_xl(), open_clip("conditioner.embedders.1.model.", 1280, 32, pooled=True))
    refiner = (open_clip("conditioner.embedders.0.model.", 1280, 32, pooled=True),)
    return {
        "sd1": shapes(SD1_SPEC.unet, SD1_SPEC.texts),
        "sd1-inpaint": shapes(SD1_SPEC.unet, SD1_SPEC.texts, 9),
        "sd1-edit": shapes(SD1_SPEC.unet, SD1_SPEC.texts, 8),
        "sd2": shapes(SD2_UNET, sd2),
        "sd2-inpaint": shapes(SD2_UNET, sd2, 9),
        "sdxl": shapes(XL_UNET, xl),
        "sdxl-inpaint": shapes(XL_UNET, xl, 9),
        "sdxl-refiner": shapes(REFINER_UNET, refiner),
    }


FACTS = {  # ARCH: prediction, scale, conditioning, native size, transformer depths
    "sd1": ("eps", 0.18215, "text", 512, SD1_SPEC.unet),
    "sd1-inpaint": ("eps", 0.18215, "inpaint", 512, SD1_SPEC.unet),
    "sd1-edit": ("eps", 0.18215, "edit", 512, SD1_SPEC.unet),
    "sd2": ("eps", 0.18215, "text", 512, SD2_UNET),
    "sd2-inpaint": ("eps", 0.18215, "inpaint", 512, SD2_UNET),
    "sdxl": ("eps", 0.13025, "text", 1024, XL_UNET),
    "sdxl-inpaint": ("eps", 0.13025, "inpaint", 1024, XL_UNET),
    "sdxl-refiner": ("eps", 0.13025, "text", 1024, REFINER_UNET),
}


@pytest.mark.parametrize("family", FACTS)
def test_family_of_full_size_files(family: str, headers: dict[str, Shapes]) -> None:  # FAM, ARCH
    prediction, scale, conditioning, size, unet = FACTS[family]
    spec = detect(headers[family])
    assert (spec.family, spec.prediction, spec.latent.scale) == (family, prediction, scale)
    assert (spec.conditioning, spec.native_size) == (conditioning, size)
    channels = headers[family][UNET_PREFIX + "input_blocks.0.0.weight"][1]
    assert spec.unet == UNetSpec(**(vars(unet) | {"in_channels": channels}))
    assert spec.vae == SD1_SPEC.vae
    assert spec.facts["family"] == "weights"
    assert spec.facts["heads"] == spec.facts["prediction"] == "family default"


def test_spec_of_sd1_is_the_constant(headers: dict[str, Shapes]) -> None:
    found = detect(headers["sd1"])
    assert ModelSpec(**(vars(found) | {"facts": {}})) == SD1_SPEC


def test_text_encoders_of_sdxl(headers: dict[str, Shapes]) -> None:  # ENCODE-4, ENCODE-5
    small, large = detect(headers["sdxl"]).texts
    assert (small.layer, small.final_norm, small.follows_skip, small.pooled) == (-2, False, True, False)
    assert (large.layer, large.final_norm, large.follows_skip, large.pooled) == (-2, False, False, True)
    assert (large.heads, large.activation, small.activation) == (20, "gelu", "quick_gelu")


def test_sd2_without_its_unused_last_layer(headers: dict[str, Shapes]) -> None:
    trimmed = {key: shape for key, shape in headers["sd2"].items() if ".resblocks.23." not in key}
    text = detect(trimmed).texts[0]
    assert (text.layers, text.layer) == (23, -1)


@pytest.mark.parametrize(
    ("mark", "shape", "family"),
    [
        ("depth_model.model.pretrained.act_postprocess3.0.project.0.bias", (768,), "sd2-depth"),
        ("embedder.model.ln_final.weight", (768,), "sd2-unclip-l"),
        ("embedder.model.ln_final.weight", (1024,), "sd2-unclip-h"),
        ("cond_stage_model.roberta.embeddings.word_embeddings.weight", (9, 9), "altdiffusion"),
    ],
)
def test_families_that_are_known_but_not_supported(mark: str, shape: tuple[int, ...], family: str) -> None:  # FAM
    assert family_of({mark: shape}).name == family
    title = next(each.title for each in FAMILIES if each.name == family)
    with pytest.raises(CheckpointError, match=f"{title}.*not supported"):
        detect({mark: shape})


def test_sidecar_gives_heads_prediction_and_scale(headers: dict[str, Shapes]) -> None:  # FAM-5
    params = {"unet_config": {"params": {"num_heads": 4}}, "parameterization": "v", "scale_factor": 0.2}
    spec = detect(headers["sd1"], {}, {"model": {"params": params}})
    assert (spec.unet.heads, spec.prediction, spec.latent.scale) == (4, "v", 0.2)
    assert {spec.facts[name] for name in ("heads", "prediction", "scale_factor")} == {"sidecar"}


def test_sidecar_of_the_newer_layout(headers: dict[str, Shapes]) -> None:  # FAM-3
    config = """
    model:
      params:
        network_config: {params: {num_head_channels: 32}}
        denoiser_config: {params: {scaling_config: {target: sgm.modules.diffusionmodules.denoiser_scaling.VScaling}}}
    """
    spec = detect(headers["sdxl"], {}, yaml.safe_load(config))
    assert (spec.unet.head_dim, spec.prediction) == (32, "v")


def test_metadata_speaks_before_the_sidecar(headers: dict[str, Shapes]) -> None:
    sidecar = {"model": {"params": {"unet_config": {"params": {"num_heads": 4}}, "parameterization": "v"}}}
    metadata = {
        "overpaint.num_heads": "16",
        "overpaint.text_heads": "[6]",
        "modelspec.prediction_type": "epsilon",
    }
    spec = detect(headers["sd1"], metadata, sidecar)
    assert (spec.unet.heads, spec.texts[0].heads, spec.prediction) == (16, 6, "eps")
    assert spec.facts["heads"] == spec.facts["text_heads"] == spec.facts["prediction"] == "metadata"


def test_v_prediction_marked_by_an_empty_tensor(headers: dict[str, Shapes]) -> None:  # FAM-3
    spec = detect({**headers["sdxl"], "v_pred": (0,)})
    assert (spec.prediction, spec.facts["prediction"]) == ("v", "weights")


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("told", ["flow", "Rectified_Flow", "flow_matching"])
def test_a_unet_that_says_it_predicts_flow(told: str, family: str, headers: dict[str, Shapes]) -> None:
    """It is told of shares of noise as thousandths; its size, latents and texts are its family's."""
    plain = detect(headers[family])
    spec = detect(headers[family], {"modelspec.prediction_type": told, "overpaint.shift": "3"})
    assert (spec.family, spec.prediction, spec.facts["prediction"]) == (family, "flow", "metadata")
    assert spec.shift == ConstantShift(3.0) and spec.is_flow and not spec.sees_pictures
    assert spec.denoiser == replace(plain.unet, time_factor=1000.0) and plain.unet.time_factor == 1
    assert spec.title == f"{plain.title} (flow)" and spec.native_size == plain.native_size
    assert spec_from_json(json.loads(json.dumps(asdict(spec)))) == spec


def test_a_sidecar_says_flow(headers: dict[str, Shapes]) -> None:
    spec = detect(headers["sdxl"], {}, {"model": {"params": {"parameterization": "flow"}}})
    assert (spec.prediction, spec.facts["prediction"], spec.shift) == ("flow", "sidecar", NO_SHIFT)


def test_sd2_in_v_prediction_was_trained_on_larger_pictures(headers: dict[str, Shapes]) -> None:
    spec = detect(headers["sd2"], {"overpaint.prediction": '"v"'})
    assert (spec.prediction, spec.native_size) == ("v", 768)


def test_old_text_keys_get_their_level(headers: dict[str, Shapes]) -> None:  # KEYS-1
    old = {key.replace("transformer.text_model.", "transformer."): shape for key, shape in headers["sd1"].items()}
    assert detect(old) == detect(headers["sd1"])
    keys = normalised_keys(old)
    name = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
    assert keys[name] == "cond_stage_model.transformer.final_layer_norm.weight"


def test_turbo_of_sd2_in_the_newer_layout(headers: dict[str, Shapes]) -> None:  # KEYS-2
    turbo = {
        key.replace("cond_stage_model.", "conditioner.embedders.0."): shape for key, shape in headers["sd2"].items()
    }
    assert detect(turbo).family == "sd2"


def test_ssd_1b(headers: dict[str, Shapes]) -> None:  # FAM-4
    def kept(key: str) -> bool:
        name = key.removeprefix(UNET_PREFIX)
        block = int(name.split("transformer_blocks.")[1].split(".")[0]) if "transformer_blocks." in name else 0
        wide = name.startswith(("input_blocks.7.", "input_blocks.8.", "output_blocks.0.", "output_blocks.1."))
        narrow = name.startswith(("output_blocks.4.", "output_blocks.5."))
        gone = name.startswith(("middle_block.1.", "middle_block.2."))
        return not (gone or (wide and block >= 4) or (narrow and block >= 1))

    spec = detect({key: shape for key, shape in headers["sdxl"].items() if kept(key)})
    assert spec.unet.input_depths == (0, 0, 2, 2, 4, 4)
    assert spec.unet.middle_depth is None
    assert spec.unet.output_depths == (4, 4, 10, 2, 1, 1, 0, 0, 0)


def test_every_recorded_checkpoint() -> None:
    families = {
        "tiny-sd15": ("sd1", "eps", 8, None),
        "tiny-sd15-inpainting": ("sd1-inpaint", "eps", 8, None),
        "tiny-sd15-edit": ("sd1-edit", "eps", 8, None),
        "tiny-sd21-v": ("sd2", "v", None, 16),
        "tiny-sdxl": ("sdxl", "eps", None, 64),
    }
    for name, facts in families.items():
        raw = recorded_header(name)
        header: dict[str, Any] = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
        header.pop("__metadata__", None)
        found = {key: tuple(entry["shape"]) for key, entry in header.items()}
        spec = detect(found, {}, yaml.safe_load(recorded_sidecar(name)))
        assert (spec.family, spec.prediction, spec.unet.heads, spec.unet.head_dim) == facts
        assert spec.facts["heads"] == "sidecar"


@pytest.mark.parametrize(
    ("keys", "advice"),
    [
        (["lora_unet_down_blocks_0.lora_up.weight"], "LoRA"),
        (["encoder.conv_in.weight", "decoder.mid.block_1.norm1.weight"], "VAE"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "text encoder"),
        (["double_blocks.0.img_attn.qkv.weight"], "Flux"),
        (["something.else"], "complete checkpoint"),
    ],
)
def test_strangers_are_told_what_they_are(keys: list[str], advice: str) -> None:
    with pytest.raises(CheckpointError, match=advice) as caught:
        detect(dict.fromkeys(keys, (4, 4)))
    assert "6 tensors" in str(caught.value)
    assert "Stable Diffusion 1" in str(caught.value)


def test_missing_parts_name_the_nearest_family(headers: dict[str, Shapes]) -> None:
    torn = {key: shape for key, shape in headers["sdxl"].items() if not key.startswith(UNET_PREFIX)}
    assert nearest_family(torn) == "SDXL"
    with pytest.raises(CheckpointError, match=r"3 tensors that a SDXL checkpoint has are missing \(model.diffusion"):
        detect(torn)


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"overpaint.num_heads": "7"}, "do not divide"),
        ({"overpaint.num_heads": "0"}, "num_heads=0"),
        ({"overpaint.num_heads": "true"}, "num_heads=True"),
        ({"overpaint.prediction": '"x0"'}, "prediction='x0'"),
        ({"overpaint.text_heads": "[8, 8]"}, "1 text encoders"),
        ({"overpaint.scale_factor": "-1"}, "scale_factor=-1"),
    ],
)
def test_facts_that_cannot_be(metadata: dict[str, str], match: str, headers: dict[str, Shapes]) -> None:
    with pytest.raises(CheckpointError, match=match):
        detect(headers["sd1"], metadata)


def test_damaged_shapes_are_errors_not_crashes(headers: dict[str, Shapes]) -> None:
    first = headers["sd1"]
    for key in ("input_blocks.1.0.out_layers.3.weight", "out.2.weight", "input_blocks.4.0.out_layers.3.weight"):
        with pytest.raises(CheckpointError):
            detect({**first, UNET_PREFIX + key: ()})
        with pytest.raises(CheckpointError):
            detect({name: shape for name, shape in first.items() if name != UNET_PREFIX + key})


def test_latents_are_scaled_around_their_shift() -> None:
    """x = scale (z - shift), as diffusers' pipelines of models with a shift do before and after their VAE."""
    flux = LatentSpec(channels=16, scale=0.3611, shift=0.1159)
    z = torch.tensor([0.1159, 1.1159, -0.8841])
    assert torch.allclose(flux.scaled(z), torch.tensor([0.0, 0.3611, -0.3611]), atol=1e-6)
    assert torch.allclose(flux.unscaled(flux.scaled(z)), z, atol=1e-6)
    assert torch.equal(LatentSpec(scale=0.18215).scaled(z), z * 0.18215)
