"""What a ControlNet is, from shapes and words; which checkpoint it fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from overpaint.errors import CheckpointError
from overpaint.models.control_spec import Header, check_fits, check_heads, detect_control, original_names
from overpaint.models.families import SD1_SPEC, UNetSpec
from overpaint.networks.controlnet import ControlNet
from tests.unit.toy_control import (
    MODEL,
    SD1,
    SDXL,
    SMALL_SDXL,
    control_spec,
    diffusers_config,
    diffusers_control,
    model_spec,
    random_control,
)

NETWORKS = pytest.mark.parametrize("unet", [SD1, SDXL, SMALL_SDXL], ids=["sd1", "sdxl", "sdxl-small"])


def header(unet: UNetSpec = SD1, prefix: str = "control_model.") -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = ControlNet(control_spec(unet))
    return {prefix + name: tuple(each.shape) for name, each in network.named_parameters()}


def full_size(context: int, heads: int | None, head_dim: int | None) -> Header:
    """The widths of SD 1 and SD 2."""
    return header(replace(SD1_SPEC.unet, context_dim=context, heads=heads, head_dim=head_dim))


@NETWORKS
@pytest.mark.parametrize("prefix", ["control_model.", ""])
def test_measured_from_shapes(unet: UNetSpec, prefix: str) -> None:
    wanted = control_spec(unet)
    assert detect_control(header(unet, prefix), like=unet) == wanted


def test_training_files_hold_the_checkpoint_as_well() -> None:
    names = {**header(), "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3), "betas": (1000,)}
    assert detect_control(names, like=SD1) == control_spec()
    assert len(original_names(names)) == len(header())


@pytest.mark.slow
@NETWORKS
def test_names_of_diffusers_are_brought_back(unet: UNetSpec) -> None:
    pytest.importorskip("diffusers")
    network = random_control(unet)
    theirs = diffusers_control(network).state_dict()
    names = original_names({key: tuple(each.shape) for key, each in theirs.items()})
    assert set(names) == set(network.state_dict())
    for ours, key in names.items():
        assert torch.equal(theirs[key], network.state_dict()[ours])
    shapes = {key: tuple(each.shape) for key, each in theirs.items()}
    assert detect_control(shapes, config=diffusers_config(unet)) == detect_control(shapes, like=unet)


@pytest.mark.parametrize(
    ("context", "heads", "head_dim", "family"), [(768, 8, None, "SD 1.x"), (1024, None, 64, "SD 2.x")]
)
def test_heads_of_the_families(context: int, heads: int | None, head_dim: int | None, family: str) -> None:
    found = detect_control(full_size(context, heads, head_dim))
    assert (found.unet.heads, found.unet.head_dim) == (heads, head_dim)
    assert found.family == f"{family} (context {context})"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"metadata": {"overpaint.num_heads": "2"}, "config": {"attention_head_dim": 4}}, (2, None)),
        ({"metadata": {"overpaint.head_dim": "16"}}, (None, 16)),
        ({"config": {"attention_head_dim": 4}, "like": SD1}, (4, None)),
        ({"config": {"attention_head_dim": [4, 4], "block_out_channels": [32, 64]}}, (4, None)),
        ({"config": {"attention_head_dim": [2, 4], "block_out_channels": [32, 64]}}, (None, 16)),
        ({"config": {"num_attention_heads": 2, "attention_head_dim": 4}}, (2, None)),
        ({"like": SD1}, (8, None)),
    ],
)
def test_who_says_the_heads(said: dict[str, Any], wanted: tuple[int | None, int | None]) -> None:
    found = detect_control(header(), **said)
    assert (found.unet.heads, found.unet.head_dim) == wanted


def test_a_configuration_of_the_original_layout() -> None:
    def sidecar(**params: int) -> dict[str, Any]:
        return {"model": {"params": {"control_stage_config": {"params": params}}}}

    assert detect_control(header(), sidecar=sidecar(num_heads=4)).unet.heads == 4
    assert detect_control(header(), sidecar=sidecar(num_heads=-1, num_head_channels=8)).unet.head_dim == 8


def test_widths_that_cannot_be() -> None:
    names = header()
    odd = {key: tuple(20 if size == 32 else size for size in shape) for key, shape in names.items()}
    with pytest.raises(CheckpointError, match="unequal depth or width"):
        detect_control(odd, like=SD1)


def test_heads_that_cannot_be() -> None:
    check_heads(control_spec())
    check_heads(control_spec(SMALL_SDXL))
    with pytest.raises(CheckpointError, match=r"heads of 64 channels do not divide its layers of 32, 64"):
        check_heads(detect_control(header(replace(SD1, input_depths=(1, 1, 1, 1)))))
    with pytest.raises(CheckpointError, match="5 heads"):
        check_heads(detect_control(header(), metadata={"overpaint.num_heads": "5"}))
    with pytest.raises(CheckpointError, match="attention_head_dim"):
        detect_control(header(), config={"attention_head_dim": [3, 4], "block_out_channels": [32, 64]})


def test_colours_the_other_way_round() -> None:
    config = {"controlnet_conditioning_channel_order": "bgr", "attention_head_dim": 8}
    assert detect_control(header(), config=config).bgr


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({**header(), "difference": ()}, "differences to a base model"),
        ({"lora_controlnet": (), "input_blocks.0.0.up": (1, 1)}, "Control-LoRA"),
        ({"lllite_unet_input_blocks_4_1.down.0.weight": (1, 1)}, "LLLite"),
        ({"body.0.block1.weight": (1, 1)}, "T2I-Adapter"),
        ({"image_proj.proj.weight": (1, 1)}, "IP-Adapter"),
        ({**header(), "control_add_embedding.linear_1.weight": (1, 1)}, "union"),
        ({"controlnet_blocks.0.weight": (1, 1)}, "another family"),
        ({"lora_unet_x.lora_up.weight": (1, 1)}, "LoRA"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "checkpoint"),
        ({"something": (1,)}, "tensors that a ControlNet has are missing"),
        ({**header(), "control_model.input_hint_block.0.weight": (4, 1, 3, 3)}, "1 channels"),
        ({**header(), "control_model.input_hint_block.2.weight": (0, 4, 3, 3)}, "empty"),
        (
            {key: shape for key, shape in header().items() if ".input_blocks.2." not in key},
            "unequal depth",
        ),
    ],
)
def test_files_that_are_something_else(names: Header, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        detect_control(names, like=SD1)


@pytest.mark.parametrize(
    "said",
    [
        {"config": {"global_pool_conditions": True}},
        {"sidecar": {"model": {"params": {"global_average_pooling": True}}}},
    ],
)
def test_averages_are_refused(said: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="averages"):
        detect_control(header(), like=SD1, **said)


def test_fits_its_family_and_the_inpainting_models_of_it() -> None:
    check_fits(control_spec(), MODEL)
    check_fits(control_spec(), model_spec(replace(SD1, in_channels=9)))
    check_fits(control_spec(SDXL), model_spec(SDXL))
    check_fits(control_spec(SMALL_SDXL), model_spec(SDXL))
    check_fits(control_spec(replace(SDXL, adm_channels=None)), model_spec(SDXL))


def test_another_family_is_refused_in_one_sentence() -> None:
    xl = control_spec(replace(SDXL, context_dim=2048))
    with pytest.raises(CheckpointError) as caught:
        check_fits(xl, SD1_SPEC, "controls[0].model='depth-xl'")
    assert str(caught.value) == (
        "controls[0].model='depth-xl': it is made for SDXL (context 2048), the checkpoint is SD 1.x (768); "
        "choose one made for SD 1.x, or another checkpoint"
    )


@pytest.mark.parametrize(
    ("control", "model", "says"),
    [
        (SMALL_SDXL, SD1, "a size vector of 64, the checkpoint .* has None"),
        (replace(SD1, model_channels=64), SD1, "a width of 64"),
        (replace(SD1, channel_mult=(1, 1)), SD1, "levels of"),
        (SD1, replace(SD1, num_res_blocks=1), "blocks a level"),
    ],
)
def test_other_widths_are_refused(control: UNetSpec, model: UNetSpec, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        check_fits(control_spec(control), model_spec(model))
