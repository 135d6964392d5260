"""ControlNets at work: several at once, for a part of the steps, on what the backend makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from overpaint.adapters.control import ControlBranch, Controlled, attach, controlled, hint_of
from overpaint.backends.port import Dtypes
from overpaint.backends.torch_backend import TorchBackend
from overpaint.errors import SamplingError
from overpaint.models.control_files import LoadedControl, load_controlnet
from overpaint.models.families import AutoencoderSpec, LatentSpec, UNetSpec
from overpaint.models.taesd_files import Taesd
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.taesd import taesd_decoder, taesd_encoder
from tests.unit.toy_control import (
    MODEL,
    SD1,
    SDXL,
    control_file,
    diffusers_control,
    diffusers_unet,
    inputs,
    model_spec,
    random_control,
    random_network,
    random_unet,
)

CODEC = AutoencoderSpec(channels=32, channel_mult=(1, 1), num_res_blocks=1)
Calls = list[int]


def backend(spec: UNetSpec = SD1, dtype: torch.dtype = torch.float32) -> TorchBackend:
    codec = random_network(partial(AutoencoderKL, CODEC), dtype=dtype)
    return TorchBackend(
        random_unet(spec).to(dtype), codec, (), device="cpu", dtypes=Dtypes(dtype, dtype, torch.float32)
    )


def loaded(tmp_path: Path, spec: UNetSpec = SD1, seed: int = 1, dtype: torch.dtype = torch.float32) -> LoadedControl:
    path = control_file(tmp_path / f"{seed}.safetensors", random_control(spec, seed))
    return load_controlnet(path, device="cpu", dtype=dtype, model=model_spec(spec))


def counted(branch: ControlBranch) -> Calls:
    """A list that grows by the number of rows at every call of the ControlNet."""
    calls: Calls = []
    branch.network.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    return calls


def test_pictures_become_hints() -> None:
    hint = hint_of(Image.fromarray(np.array([[[0, 255, 51]]], dtype=np.uint8)))
    assert hint.shape == (1, 3, 1, 1)
    torch.testing.assert_close(hint.flatten(), torch.tensor([0.0, 1.0, 0.2]))


@pytest.mark.parametrize("spec", [SD1, SDXL], ids=["sd1", "sdxl"])
def test_several_add_up_with_their_weights(spec: UNetSpec, tmp_path: Path) -> None:
    networks = backend(spec)
    first, second = loaded(tmp_path, spec, 1), loaded(tmp_path, spec, 2)
    x, t, context, vector, hint = inputs(spec)
    branches = [attach(first, hint, weight=0.5), attach(second, 1 - hint)]
    got = controlled(networks, branches, 0, 4)(x, t, context, vector)
    with torch.no_grad():
        one = random_control(spec, 1)
        two = random_control(spec, 2)
        a = one(x, t, context, vector, one.encode_hint(hint))
        b = two(x, t, context, vector, two.encode_hint(1 - hint))
        wanted = random_unet(spec)(x, t, context, vector, [0.5 * i + j for i, j in zip(a, b, strict=True)])
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert not got.requires_grad


def test_zero_weights_change_nothing(tmp_path: Path) -> None:
    networks, x = backend(), inputs()
    control = random_control()
    for name, parameter in control.named_parameters():
        if name.startswith(("zero_convs", "middle_block_out")):
            parameter.zero_()
    file = control_file(tmp_path / "a.safetensors", control)
    branch = attach(load_controlnet(file, device="cpu", dtype=torch.float32, model=MODEL), x[-1])
    plain = networks.denoise(*x[:3])
    assert torch.equal(controlled(networks, [branch], 0, 1)(*x[:3], None), plain)


def test_with_nothing_to_do_the_backends_network_answers_as_it_is(tmp_path: Path) -> None:
    networks, (x, t, context, _, hint) = backend(), inputs()
    branch = attach(loaded(tmp_path), hint, weight=0)
    plain = networks.denoise(x, t, context)
    for branches in ((), (branch,)):
        network = controlled(networks, branches, 0, 1)
        assert isinstance(network, Controlled) and network.branches == ()
        assert torch.equal(network(x, t, context, negative=[True] * len(x)), plain)


@pytest.mark.parametrize(
    ("start", "end", "steps", "on"),
    [
        (0.0, 1.0, 3, [0, 1, 2]),
        (0.0, 0.5, 4, [0, 1]),
        (0.5, 1.0, 4, [2, 3]),
        (0.0, 0.5, 3, [0]),
        (0.4, 0.6, 4, []),
        (0.0, 0.3, 10, [0, 1, 2]),
        (0.1, 0.7, 10, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_steps_that_lie_between_start_and_end(start: float, end: float, steps: int, on: list[int]) -> None:
    branch = ControlBranch(random_control(), torch.zeros(1), 1.0, start, end)
    assert [i for i in range(steps) if branch.is_on(i, steps)] == on
    # the rule of diffusers, as it is written there
    assert on == [i for i in range(steps) if not (i / steps < start or (i + 1) / steps > end)]


def test_calls_below_the_last_sigma_belong_to_the_last_step() -> None:
    branch = ControlBranch(random_control(), torch.zeros(1))
    assert branch.is_on(5, 5)


def test_a_control_that_is_off_is_not_run(tmp_path: Path) -> None:
    networks, (x, t, context, _, hint) = backend(), inputs()
    early, late = attach(loaded(tmp_path, seed=1), hint, end=0.5), attach(loaded(tmp_path, seed=2), hint, start=0.5)
    calls = [counted(early), counted(late)]
    for step in range(4):
        controlled(networks, [early, late], step, 4)(x, t, context, None)
    assert [len(each) for each in calls] == [2, 2]


def test_the_picture_is_looked_at_once_a_job(tmp_path: Path) -> None:
    networks, (x, t, context, _, hint) = backend(), inputs()
    control, seen = loaded(tmp_path), []
    control.network.input_hint_block.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    branch = attach(control, hint)
    for step in range(3):
        controlled(networks, [branch], step, 3)(x, t, context, None)
    assert seen == [hint.shape]  # one row, whatever the batch


def test_rows_do_not_see_each_other(tmp_path: Path) -> None:
    networks, (x, t, context, _, hint) = backend(), inputs()
    network = controlled(networks, [attach(loaded(tmp_path), hint)], 0, 1)
    torch.testing.assert_close(
        network(x, t, context, None)[1:], network(x[1:], t[1:], context[1:], None), atol=1e-4, rtol=1e-4
    )


def test_a_pass_of_another_size_is_refused(tmp_path: Path) -> None:
    networks, (x, t, context, _, hint) = backend(), inputs()
    network = controlled(networks, [attach(loaded(tmp_path), hint[..., :32])], 0, 1)
    with pytest.raises(SamplingError, match="made ready for 32x64, this pass is 64x64"):
        network(x, t, context, None)


def test_tiling_is_each_jobs_own(tmp_path: Path) -> None:  # ARCH-9
    networks, (x, t, context, _, hint) = backend(), inputs()
    control = loaded(tmp_path)
    plain, tiled = attach(control, hint), attach(control, hint, tiling=True)
    before = controlled(networks, [plain], 0, 1)(x, t, context, None)
    assert not torch.allclose(controlled(networks, [tiled], 0, 1)(x, t, context, None), before)
    assert torch.equal(controlled(networks, [plain], 0, 1)(x, t, context, None), before)


def test_half_precision(tmp_path: Path) -> None:
    x, t, context, _, hint = inputs()
    half = attach(loaded(tmp_path, dtype=torch.bfloat16), hint, weight=0.3)
    exact = attach(loaded(tmp_path), hint, weight=0.3)
    got = controlled(backend(dtype=torch.bfloat16), [half], 0, 1)(x, t, context, None)
    wanted = controlled(backend(), [exact], 0, 1)(x, t, context, None)
    assert got.dtype is torch.float32
    assert float((got - wanted).abs().mean() / wanted.abs().mean()) < 0.1


# -- a whole pipeline --------------------------------------------------------------------------------------------------


STEPS, STRENGTH, SCALE = 8, 0.75, 5.0
WEIGHTS, STARTS, ENDS = (0.6, 0.9), (0.0, 0.3), (0.7, 1.0)


def scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


def painted_by_diffusers(hints: Sequence[Tensor], source: Tensor, texts: Tensor) -> Tensor:
    """(1, 3, h, w) in 0..1 from their ControlNet pipeline, with the tiny codec."""
    from diffusers import AutoencoderTiny, StableDiffusionControlNetImg2ImgPipeline

    codec: Any = AutoencoderTiny()
    codec.encoder.layers.load_state_dict(random_network(taesd_encoder).state_dict())
    decoder = random_network(taesd_decoder)
    codec.decoder.layers.load_state_dict(torch.nn.Sequential(*list(decoder)[1:]).state_dict())
    parts: dict[str, Any] = {
        "vae": codec,
        "unet": diffusers_unet(random_unet()),
        "controlnet": [diffusers_control(random_control(seed=seed)) for seed in (1, 2)],
        "scheduler": scheduler(),
    }
    absent = ("text_encoder", "tokenizer", "safety_checker", "feature_extractor")
    pipeline: Any = StableDiffusionControlNetImg2ImgPipeline(
        **parts, **dict.fromkeys(absent), requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    painted: Tensor = pipeline(
        image=source,
        control_image=list(hints),
        prompt_embeds=texts[1:],
        negative_prompt_embeds=texts[:1],
        num_inference_steps=STEPS,
        strength=STRENGTH,
        guidance_scale=SCALE,
        controlnet_conditioning_scale=list(WEIGHTS),
        control_guidance_start=list(STARTS),
        control_guidance_end=list(ENDS),
        generator=torch.Generator().manual_seed(5),
        height=source.shape[2],
        width=source.shape[3],
        output_type="pt",
    ).images
    return painted


def painted_here(branches: Sequence[ControlBranch], source: Tensor, texts: Tensor) -> Tensor:
    networks, steps = backend(), scheduler()
    codec = Taesd(
        random_network(taesd_encoder),
        random_network(taesd_decoder),
        latent=LatentSpec(),
        device="cpu",
        dtype=torch.float32,
    )
    mean, _ = codec.encode(source * 2 - 1)
    latents = mean * 0.18215
    steps.set_timesteps(STEPS)
    used = steps.timesteps[-int(STEPS * STRENGTH) :]
    latents = steps.add_noise(latents, torch.randn(latents.shape, generator=torch.Generator().manual_seed(5)), used[:1])
    for i, t in enumerate(used):
        network = controlled(networks, branches, i, len(used))
        negative, positive = network(latents.repeat(2, 1, 1, 1), t.float().repeat(2), texts, None)
        latents = steps.step((negative + SCALE * (positive - negative))[None], t, latents).prev_sample
    return (codec.decode(latents / 0.18215) / 2 + 0.5).clamp(0, 1)


@pytest.mark.slow
def test_same_pictures_as_the_pipeline_of_diffusers(tmp_path: Path) -> None:
    """Two ControlNets with their weights and times, guidance and the tiny codec, from a picture to a picture."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    generator = torch.Generator().manual_seed(3)
    source, first, second = (torch.rand(1, 3, 64, 64, generator=generator) for _ in range(3))
    texts = torch.randn(2, 5, SD1.context_dim, generator=generator)
    branches = [
        attach(loaded(tmp_path, seed=seed), hint, weight=weight, start=start, end=end)
        for seed, hint, weight, start, end in zip((1, 2), (first, second), WEIGHTS, STARTS, ENDS, strict=True)
    ]
    wanted = painted_by_diffusers((first, second), source, texts)
    got = painted_here(branches, source, texts)
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=0)
    assert not torch.allclose(painted_here((), source, texts), wanted, atol=1e-2)


# -- who has the last word, and where ----------------------------------------------------------------------------------


def maps_of(seed: int, spec: UNetSpec = SD1) -> list[Tensor]:
    """What a ControlNet adds to two rows."""
    x, t, context, vector, hint = inputs(spec)
    network = random_control(spec, seed)
    with torch.no_grad():
        found: list[Tensor] = network(x, t, context, vector, network.encode_hint(hint))
    return found


def guided_by(maps: list[Tensor] | None) -> Tensor:
    x, t, context, vector, _ = inputs(SD1)
    with torch.no_grad():
        found: Tensor = random_unet(SD1)(x, t, context, vector, maps)
    return found


def test_a_prompt_with_the_last_word_fades_the_finer_maps(tmp_path: Path) -> None:
    x, t, context, vector, hint = inputs(SD1)
    branch = attach(loaded(tmp_path), hint, weight=0.5, mode="prompt")
    maps = maps_of(1)
    wanted = guided_by([0.5 * 0.825 ** (len(maps) - 1 - i) * each for i, each in enumerate(maps)])
    torch.testing.assert_close(controlled(backend(), [branch], 0, 4)(x, t, context, vector), wanted)


def test_a_controlnet_with_the_last_word_leaves_the_negative_alone(tmp_path: Path) -> None:
    x, t, context, vector, hint = inputs(SD1)
    branch = attach(loaded(tmp_path), hint, mode="control")
    rows = counted(branch)
    network = controlled(backend(), [branch], 0, 4)
    with torch.no_grad():
        got = network(x, t, context, vector, negative=[False, True])
        torch.testing.assert_close(got[:1], guided_by(maps_of(1))[:1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(got[1:], guided_by(None)[1:], atol=1e-4, rtol=1e-4)
        alone = network(x[1:], t[1:], context[1:], vector, negative=[True])
        torch.testing.assert_close(alone, guided_by(None)[1:], atol=1e-4, rtol=1e-4)
    assert rows == [1]  # of the negative row it is not even asked


def test_a_region_says_where_it_counts(tmp_path: Path) -> None:
    x, t, context, vector, hint = inputs(SD1)
    one, size = loaded(tmp_path), hint.shape[-2:]

    def with_region(region: Tensor) -> Tensor:
        branch = attach(one, hint, region=region)
        return controlled(backend(), [branch], 0, 4)(x, t, context, vector)

    torch.testing.assert_close(with_region(torch.ones(1, 1, *size)), guided_by(maps_of(1)))
    torch.testing.assert_close(with_region(torch.zeros(1, 1, *size)), guided_by(None))
    left = torch.zeros(1, 1, *size)
    left[..., : size[1] // 2] = 1
    halves = [each.clone() for each in maps_of(1)]
    for each in halves:
        each[..., each.shape[-1] // 2 :] = 0
    torch.testing.assert_close(with_region(left), guided_by(halves))
