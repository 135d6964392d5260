"""The ControlNet: names of the original files, numbers of diffusers, and nothing at all where it adds zeros."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from overpaint.models.control_spec import ControlSpec
from overpaint.models.families import SD1_SPEC, UNetSpec
from overpaint.networks.controlnet import ControlNet
from overpaint.networks.layers import set_packed, set_tiling, sinusoid
from tests.unit.toy_control import (
    POOLED,
    SD1,
    SDXL,
    SINUSOID,
    SIZES,
    SMALL_SDXL,
    diffusers_control,
    diffusers_unet,
    inputs,
    random_control,
    random_unet,
)


def test_names_of_the_original_files() -> None:
    spec = ControlSpec(unet=SD1_SPEC.unet, hint_channels=(16, 16, 32, 32, 96, 96, 256))
    with torch.device("meta"):
        shapes = {name: tuple(each.shape) for name, each in ControlNet(spec).named_parameters()}
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 361_279_120  # as published
    for name, shape in {
        "input_hint_block.0.weight": (16, 3, 3, 3),
        "input_hint_block.4.weight": (32, 16, 3, 3),
        "input_hint_block.14.weight": (320, 256, 3, 3),
        "zero_convs.0.0.weight": (320, 320, 1, 1),
        "zero_convs.11.0.bias": (1280,),
        "middle_block_out.0.weight": (1280, 1280, 1, 1),
        "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
        "input_blocks.3.0.op.weight": (320, 320, 3, 3),
    }.items():
        assert shapes[name] == shape
    assert not any(name.startswith(("output_blocks", "out.")) for name in shapes)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [SD1, SDXL, SMALL_SDXL], ids=["sd1", "sdxl", "sdxl-small"])
def test_same_numbers_as_diffusers(spec: UNetSpec) -> None:
    pytest.importorskip("diffusers")
    ours = random_control(spec)
    theirs = diffusers_control(ours)
    x, t, context, vector, hint = inputs(spec)
    extra: dict[str, dict[str, Tensor]] = {}
    if spec.adm_channels:
        pooled, sizes = torch.randn(2, POOLED), torch.randint(0, 2000, (2, SIZES))
        vector = torch.cat([pooled, sinusoid(sizes.flatten(), SINUSOID).reshape(2, -1)], dim=1)
        extra = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
    with torch.no_grad():
        sides, middle = theirs(x, t, context, hint.expand(2, -1, -1, -1), return_dict=False, **extra)
        for packed in (False, True):
            set_packed(ours, packed)
            got = ours(x.contiguous(memory_format=torch.channels_last), t, context, vector, ours.encode_hint(hint))
            for each, wanted in zip(got, (*sides, middle), strict=True):
                torch.testing.assert_close(each.contiguous(), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [SD1, SDXL], ids=["sd1", "sdxl"])
def test_the_guided_unet_gives_the_numbers_of_diffusers(spec: UNetSpec) -> None:
    pytest.importorskip("diffusers")
    unet, control = random_unet(spec), random_control(spec)
    x, t, context, vector, hint = inputs(spec)
    extra: dict[str, dict[str, Tensor]] = {}
    if vector is not None:
        pooled, sizes = vector[:, :POOLED], torch.randint(0, 2000, (2, SIZES))
        vector = torch.cat([pooled, sinusoid(sizes.flatten(), SINUSOID).reshape(2, -1)], dim=1)
        extra = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
    with torch.no_grad():
        sides, middle = diffusers_control(control)(
            x, t, context, hint.expand(2, -1, -1, -1), conditioning_scale=0.7, return_dict=False, **extra
        )
        wanted = diffusers_unet(unet)(
            x,
            t,
            context,
            down_block_additional_residuals=sides,
            mid_block_additional_residual=middle,
            **extra,
        ).sample
        added = control(x, t, context, vector, control.encode_hint(hint))
        got = unet(x, t, context, vector, [0.7 * each for each in added])
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(got, unet(x, t, context, vector), atol=1e-2)


@pytest.mark.parametrize("spec", [SD1, SDXL], ids=["sd1", "sdxl"])
def test_zero_convolutions_change_nothing(spec: UNetSpec) -> None:
    unet, control = random_unet(spec), random_control(spec)
    for name, parameter in control.named_parameters():
        if name.startswith(("zero_convs", "middle_block_out")):
            parameter.zero_()
    x, t, context, vector, hint = inputs(spec)
    with torch.no_grad():
        added = control(x, t, context, vector, control.encode_hint(hint))
        assert len(added) == len(unet.input_blocks) + 1
        assert torch.equal(unet(x, t, context, vector, added), unet(x, t, context, vector))


def test_residuals_have_the_shapes_of_the_skips_at_odd_sizes() -> None:  # ARCH-5
    unet, control = random_unet(), random_control()
    x, t, context, _, hint = inputs(size=7)
    x, hint = x[..., :5], hint[..., :40]
    with torch.no_grad():
        assert unet(x, t, context, None, control(x, t, context, None, control.encode_hint(hint))).shape == x.shape


def test_of_an_inpainting_models_channels_it_sees_the_noisy_latent() -> None:
    control = random_control()
    x, t, context, _, hint = inputs()
    with torch.no_grad():
        encoded = control.encode_hint(hint)
        wide = control(torch.cat([x, torch.randn(2, 5, 8, 8)], dim=1), t, context, None, encoded)
        for ours, plain in zip(wide, control(x, t, context, None, encoded), strict=True):
            assert torch.equal(ours, plain)


def test_a_control_without_a_size_vector_takes_no_notice_of_one() -> None:
    control = random_control()
    x, t, context, _, hint = inputs()
    with torch.no_grad():
        encoded = control.encode_hint(hint)
        with_vector = control(x, t, context, torch.randn(2, 64), encoded)
        assert torch.equal(with_vector[-1], control(x, t, context, None, encoded)[-1])


def test_blue_first() -> None:
    spec = ControlSpec(unet=replace(SD1, output_depths=()), hint_channels=(4, 4, 8, 8, 12, 12, 20), bgr=True)
    with torch.device("meta"):
        swapped = ControlNet(spec)
    swapped = swapped.to_empty(device="cpu")
    plain = random_control()
    swapped.load_state_dict(plain.state_dict())
    hint = inputs()[-1]
    with torch.no_grad():
        assert torch.equal(swapped.encode_hint(hint), plain.encode_hint(hint.flip(1)))


def test_tiling_turns_with_the_picture() -> None:  # ARCH-9
    control = random_control()
    x, t, context, _, hint = inputs()
    set_tiling(control, True)
    with torch.no_grad():
        still = control(x, t, context, None, control.encode_hint(hint))[-1]
        moved_hint = control.encode_hint(hint.roll((16, 32), (2, 3)))
        moved = control(x.roll((2, 4), (2, 3)), t, context, None, moved_hint)[-1]
    torch.testing.assert_close(moved, still.roll((1, 2), (2, 3)), atol=1e-4, rtol=1e-4)


def test_half_precision_stays_near() -> None:
    control, x_t_c = random_control(), inputs()
    x, t, context, _, hint = x_t_c
    with torch.no_grad():
        wanted = control(x, t, context, None, control.encode_hint(hint))
        control.to(torch.bfloat16)
        set_packed(control, True)
        half = [each.bfloat16().contiguous(memory_format=torch.channels_last) for each in (x, hint)]
        got = control(half[0], t, context.bfloat16(), None, control.encode_hint(half[1]))
    for each, exact in zip(got, wanted, strict=True):
        assert each.dtype is torch.bfloat16
        assert float((each.float() - exact).abs().mean() / exact.abs().mean()) < 0.05
