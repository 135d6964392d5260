"""The U-Net: names of the checkpoint, numbers of diffusers, sizes of the reference."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.models.families import SD1_SPEC, UNetSpec
from overpaint.networks.layers import blank, set_packed
from overpaint.networks.unet import SHALLOW, DeepMap, FeedForward, LessWork, TransformerBlock, UNet
from overpaint.planning.shortcuts import TokenMerging

SD1 = UNetSpec(
    in_channels=4,
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=2,
    input_depths=(1, 1, 1, 1),
    middle_depth=1,
    output_depths=(1,) * 6,
    heads=8,
    context_dim=24,
    linear_projections=False,
)
SDXL = UNetSpec(
    in_channels=4,
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=2,
    input_depths=(0, 0, 2, 2),
    middle_depth=2,
    output_depths=(2, 2, 2, 0, 0, 0),
    head_dim=16,
    context_dim=24,
    linear_projections=True,
    adm_channels=40,
)


def network(spec: UNetSpec) -> UNet:
    torch.manual_seed(0)
    unet = blank(partial(UNet, spec), "cpu", torch.float32)
    for parameter in unet.parameters():
        parameter.data.normal_(0, parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.5)
    return unet.requires_grad_(False)


def inputs(spec: UNetSpec, height: int = 8, width: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    torch.manual_seed(1)
    vector = torch.randn(2, spec.adm_channels) if spec.adm_channels else None
    x = torch.randn(2, spec.in_channels, height, width)
    return x, torch.tensor([3.0, 801.25]), torch.randn(2, 7, spec.context_dim), vector


def test_names_of_the_original_layout() -> None:  # ARCH-6
    with torch.device("meta"):
        shapes = {name: tuple(each.shape) for name, each in UNet(SD1_SPEC.unet).named_parameters()}
    assert len(shapes) == 686
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 859_520_964
    for name, shape in {
        "input_blocks.0.0.weight": (320, 4, 3, 3),
        "input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        "input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
        "middle_block.1.transformer_blocks.0.ff.net.0.proj.weight": (10240, 1280),
        "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        "output_blocks.11.1.proj_out.weight": (320, 320, 1, 1),
        "out.2.weight": (4, 320, 3, 3),
        "time_embed.2.weight": (1280, 1280),
    }.items():
        assert shapes[name] == shape


def test_ssd_1b_leaves_out_the_second_half_of_the_middle() -> None:  # FAM-4
    with torch.device("meta"):
        names = dict(UNet(replace(SDXL, middle_depth=None)).named_parameters())
    assert any(name.startswith("middle_block.0.") for name in names)
    assert not any(name.startswith("middle_block.1.") for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [SD1, SDXL], ids=["sd1", "sdxl"])
def test_same_numbers_as_diffusers(spec: UNetSpec) -> None:  # ARCH-2 to ARCH-5
    pytest.importorskip("diffusers")
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet = network(spec)
    deep = bool(spec.adm_channels)
    config: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D" if deep else "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D" if deep else "CrossAttnUpBlock2D"),
        "cross_attention_dim": spec.context_dim,
        "attention_head_dim": (2, 4) if deep else 8,
        "use_linear_projection": spec.linear_projections,
        "transformer_layers_per_block": (1, 2) if deep else 1,
    }
    if deep:
        config |= {
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": spec.adm_channels,
        }
    theirs: Any = UNet2DConditionModel(**config)
    named = {f"model.diffusion_model.{name}": value.clone() for name, value in unet.state_dict().items()}
    converted = convert_ldm_unet_checkpoint(named, {**theirs.config})
    if deep:
        for name in ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias"):
            layer = {"linear_1": 0, "linear_2": 2}[name.split(".")[0]]
            ours = f"model.diffusion_model.label_emb.0.{layer}.{name.split('.')[1]}"
            converted[f"class_embedding.{name}"] = unet.state_dict()[ours.removeprefix("model.diffusion_model.")]
    theirs.load_state_dict(converted)
    x, t, context, vector = inputs(spec)
    with torch.no_grad():
        wanted = theirs(x, t, context, class_labels=vector).sample
        for packed in (False, True):
            set_packed(unet, packed)
            got = unet(x.contiguous(memory_format=torch.channels_last), t, context, vector)
            torch.testing.assert_close(got.contiguous(), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(7, 9), (8, 11)])
def test_sizes_that_do_not_halve_evenly(height: int, width: int) -> None:  # ARCH-5
    x, t, context, _ = inputs(SD1, height, width)
    with torch.no_grad():
        assert network(SD1)(x, t, context).shape == (2, 4, height, width)


def test_rows_do_not_see_each_other() -> None:
    unet = network(SD1)
    x, t, context, _ = inputs(SD1)
    with torch.no_grad():
        both = unet(x, t, context)
        alone = unet(x[1:], t[1:], context[1:])
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


def test_inpainting_takes_nine_channels() -> None:
    spec = replace(SD1, in_channels=9)
    x, t, context, _ = inputs(spec)
    with torch.no_grad():
        assert network(spec)(x, t, context).shape == (2, 4, 8, 8)


# -- calls that leave something out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SD1, SDXL], ids=["sd1", "sdxl"])
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
@pytest.mark.parametrize("controlled", [False, True])
def test_deep_features_of_the_same_input_change_nothing(
    spec: UNetSpec, size: tuple[int, int], controlled: bool
) -> None:  # arXiv:2312.00858
    unet, given = network(spec), inputs(spec, *size)
    control = maps(unet, size) if controlled else None
    expected, deep = unet(*given, control), DeepMap()
    assert torch.equal(unet(*given, control, LessWork(deep=deep)), expected)
    assert deep.value is not None and len(deep.value) == 2
    assert torch.equal(unet(*given, control, LessWork(deep=deep)), expected)
    other = unet(given[0] + 0.5, *given[1:], control)
    shallow = unet(given[0] + 0.5, *given[1:], control, LessWork(deep=deep))
    assert not torch.equal(shallow, other) and not torch.equal(shallow, expected)


def maps(unet: UNet, size: tuple[int, int]) -> list[Tensor]:
    """What a ControlNet would add."""
    found: list[Tensor] = []
    stages = [*unet.input_blocks, unet.middle_block]
    hooks = [stage.register_forward_hook(lambda *call: found.append(call[2])) for stage in stages]
    unet(*inputs(unet.spec, *size))
    for each in hooks:
        each.remove()
    return [torch.tanh(each) for each in found]


def test_a_shallow_call_goes_through_few_stages() -> None:
    unet, given, deep, ran = network(SD1), inputs(SD1), DeepMap(), []
    unet(*given, None, LessWork(deep=deep))
    for stage in (*unet.input_blocks, unet.middle_block, *unet.output_blocks):
        stage.register_forward_hook(lambda stage, *_: ran.append(stage))
    unet(*given, None, LessWork(deep=deep))
    assert ran == [*list(unet.input_blocks)[:SHALLOW], *list(unet.output_blocks)[-SHALLOW:]]


@pytest.mark.parametrize(("spec", "level", "blocks"), [(SD1, 0, 2 + 3), (SD1, 1, 2 + 3), (SDXL, 0, 0), (SDXL, 1, 10)])
def test_tokens_merge_at_one_level(spec: UNetSpec, level: int, blocks: int) -> None:  # JOB-12
    unet, given, lengths = network(spec), inputs(spec), []
    for module in unet.modules():
        if isinstance(module, TransformerBlock):
            module.attn1.register_forward_pre_hook(lambda _, values: lengths.append(values[0].shape[1]))
    plain = unet(*given)
    lengths.clear()
    merged = unet(*given, None, LessWork(TokenMerging(0.5, level)))
    fewer = [each for each in lengths if each in (32, 8)]
    assert len(fewer) == blocks
    assert torch.equal(merged, plain) == (blocks == 0)
    if blocks:
        assert float((merged - plain).abs().mean() / plain.abs().mean()) < 0.5


@pytest.mark.parametrize("rows", [1, 2])
def test_a_long_sequence_is_fed_forward_in_parts(rows: int) -> None:  # ARCH-4
    """What is packed takes some rows at a time; the numbers are those of the whole."""
    torch.manual_seed(0)
    network = FeedForward(16).requires_grad_(False)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape) / 4
    x = torch.randn(rows, 1500, 16)
    with torch.no_grad():
        whole = network(x)
        set_packed(network, True)
        torch.testing.assert_close(network(x), whole, atol=1e-4, rtol=1e-5)
