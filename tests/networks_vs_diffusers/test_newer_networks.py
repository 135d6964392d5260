"""Qwen-Image, Flux.2 and what belongs to them against diffusers and transformers, with narrow random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from overpaint.models.specs import AutoencoderSpec, Flux2Spec, QwenImageSpec, TextSpec
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.decoder_text import QwenText
from overpaint.networks.flux2 import Flux2
from overpaint.networks.qwen_image import QwenImage
from overpaint.networks.wan_autoencoder import WanAutoencoder
from tests.networks_vs_diffusers.newer_sources import (
    KLEIN_WIDTH,
    KLEIN_WORDS,
    LATENTS,
    QWEN_WIDTH,
    QWEN_WORDS,
    VOCABULARY,
    flux2_tensors,
    small_deep_qwen3,
    small_flux2,
    small_flux2_vae,
    small_qwen25,
    small_qwen_image,
    small_wan_vae,
    wan_tensors,
)
from tests.networks_vs_diffusers.original_layout import vae_tensors
from tests.networks_vs_diffusers.test_flow_networks import close, filled, noise
from tests.networks_vs_diffusers.test_flux_networks import packed

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

QWEN = QwenImageSpec(
    in_channels=16,
    out_channels=16,
    width=QWEN_WIDTH,
    blocks=2,
    heads=2,
    inner=4 * QWEN_WIDTH,
    context_dim=QWEN_WORDS,
    axes=(4, 14, 14),
)
KLEIN = Flux2Spec(
    in_channels=LATENTS,
    width=KLEIN_WIDTH,
    double_blocks=2,
    single_blocks=2,
    heads=2,
    inner=3 * KLEIN_WIDTH,
    context_dim=3 * KLEIN_WORDS,
    axes=(4, 4, 4, 4),
    states=3,
)
WAN = AutoencoderSpec(kind="wan", channels=8, channel_mult=(1, 2, 2, 2), num_res_blocks=1, latent_channels=16)
FLUX2_VAE = AutoencoderSpec(
    channels=32, channel_mult=(1, 1, 1, 1), num_res_blocks=1, latent_channels=LATENTS, quant_convs=True, patch=2
)


@pytest.mark.parametrize(("high", "wide", "words"), [(8, 8, 16), (6, 10, 7), (10, 6, 30)])
def test_qwen_image(high: int, wide: int, words: int) -> None:
    theirs = small_qwen_image()
    ours = filled(QwenImage(QWEN), theirs.state_dict())
    x, s, context = noise(2, 16, high, wide), torch.tensor([0.9, 0.25]), noise(2, words, QWEN_WORDS, seed=1)
    expected = theirs(
        hidden_states=packed(x),
        encoder_hidden_states=context,
        timestep=s,
        img_shapes=[[(1, high // 2, wide // 2)]] * 2,
        return_dict=False,
    )[0]
    assert close(packed(ours(x, s, context)), expected)


@pytest.mark.parametrize(("high", "wide", "words"), [(4, 4, 16), (3, 5, 7)])
def test_flux2(high: int, wide: int, words: int) -> None:
    theirs = small_flux2()
    ours = filled(Flux2(KLEIN), flux2_tensors(theirs.state_dict()))
    x, s, context = noise(2, LATENTS, high, wide), torch.tensor([0.9, 0.25]), noise(2, words, 3 * KLEIN_WORDS, seed=1)
    rows = torch.cartesian_prod(torch.arange(1), torch.arange(high), torch.arange(wide), torch.arange(1))
    letters = torch.cartesian_prod(torch.arange(1), torch.arange(1), torch.arange(1), torch.arange(words))
    expected = theirs(
        hidden_states=x.flatten(2).transpose(1, 2),
        encoder_hidden_states=context,
        timestep=s,
        img_ids=rows,
        txt_ids=letters,
        guidance=None,
        return_dict=False,
    )[0]
    assert close(ours(x, s, context).flatten(2).transpose(1, 2), expected)


@pytest.mark.parametrize("clean", [False, True])
def test_pictures_that_qwen_image_looks_at(clean: bool) -> None:
    """They have a number each, and for later models the time of a clean picture; the source comes behind x."""
    theirs = small_qwen_image(clean=clean)
    ours = filled(QwenImage(replace(QWEN, clean_pictures=clean)), theirs.state_dict())
    x, s, context = noise(2, 16, 8, 6), torch.tensor([0.9, 0.25]), noise(2, 9, QWEN_WORDS, seed=1)
    under, other = noise(2, 16, 8, 6, seed=3), noise(2, 16, 6, 14, seed=4)
    expected = theirs(
        hidden_states=torch.cat([packed(each) for each in (x, under, other)], dim=1),
        encoder_hidden_states=context,
        timestep=s,
        img_shapes=[[(1, 4, 3), (1, 4, 3), (1, 3, 7)]] * 2,
        return_dict=False,
    )[0][:, :12]
    assert close(packed(ours(torch.cat([x, under], dim=1), s, context, references=[other])), expected)


def test_pictures_that_flux2_looks_at() -> None:
    theirs = small_flux2()
    ours = filled(Flux2(KLEIN), flux2_tensors(theirs.state_dict()))
    x, s, context = noise(2, LATENTS, 4, 3), torch.tensor([0.9, 0.25]), noise(2, 9, 3 * KLEIN_WORDS, seed=1)
    maps = [x, noise(2, LATENTS, 4, 3, seed=3), noise(2, LATENTS, 3, 5, seed=4)]
    places = [
        torch.cartesian_prod(torch.tensor([10 * i]), *map(torch.arange, each.shape[2:]), torch.arange(1))
        for i, each in enumerate(maps)
    ]
    expected = theirs(
        hidden_states=torch.cat([each.flatten(2).transpose(1, 2) for each in maps], dim=1),
        encoder_hidden_states=context,
        timestep=s,
        img_ids=torch.cat(places),
        txt_ids=F.pad(torch.arange(9)[:, None], (3, 0)),
        guidance=None,
        return_dict=False,
    )[0][:, :12]
    got = ours(torch.cat(maps[:2], dim=1), s, context, references=maps[2:])
    assert close(got.flatten(2).transpose(1, 2), expected)


def _text_spec(kind: Any, **fields: Any) -> TextSpec:
    return TextSpec(kind=kind, prefix="", vocabulary=VOCABULARY, layer=-1, **fields)


def test_qwen25() -> None:
    """Behind its last norm, and without the tokens that nothing reads."""
    theirs = small_qwen25()
    spec = _text_spec(
        "qwen25", width=QWEN_WORDS, layers=2, heads=2, key_heads=1, head_dim=128, inner=64, final_norm=True, unread=5
    )
    ours = QwenText(spec)
    filled(ours, theirs.model.language_model.state_dict())
    ids = torch.randint(0, VOCABULARY, (2, 37), generator=torch.Generator().manual_seed(0))
    expected = theirs(ids, output_hidden_states=True).hidden_states[-1]
    assert close(ours.encode(ids).tokens, expected[:, 5:])


def test_states_side_by_side_and_filling() -> None:
    """Nothing attends to what fills a text up, but it is read."""
    theirs = small_deep_qwen3()
    states = (9, 18, 27)
    spec = _text_spec(
        "qwen3_stacked",
        width=KLEIN_WORDS,
        layers=28,
        heads=2,
        key_heads=1,
        head_dim=8,
        inner=24,
        final_norm=False,
        states=states,
    )
    state = theirs.model.state_dict()
    ours = QwenText(spec)
    filled(ours, {k: v for k, v in state.items() if not k.startswith(("layers.27.", "norm."))})
    ids = torch.randint(0, VOCABULARY, (1, 24), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[:, 15:] = 0
    found = theirs(ids, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
    expected = torch.cat([found[each] for each in states], dim=-1)
    assert close(ours.encode(torch.where(mask == 0, -1 - ids, ids)).tokens, expected)
    assert not close(ours.encode(ids).tokens, expected)


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    mean, width = (torch.tensor(each)[:, None, None] for each in (vae.config.latents_mean, vae.config.latents_std))
    return mean, width


@pytest.mark.parametrize(("high", "wide"), [(32, 32), (48, 64)])
def test_the_codec_of_films_on_a_picture(high: int, wide: int) -> None:
    theirs = small_wan_vae()
    tensors = {
        key: each[:, :, -1] if each.dim() == 5 else each.flatten() if key.endswith("gamma") else each
        for key, each in wan_tensors(theirs.state_dict()).items()
        if ".time_conv." not in key
    }
    ours = WanAutoencoder(WAN)
    filled(ours, tensors)
    pixels, z = noise(2, 3, high, wide), noise(2, 16, high // 8, wide // 8)
    mean, width = _statistics(theirs)
    posterior = theirs.encode(pixels[:, :, None]).latent_dist
    found, logvar = ours.encode(pixels)
    assert close(found, (posterior.mean[:, :, 0] - mean) / width)
    assert close(logvar.clamp(-30, 20) + 2 * width.log(), posterior.logvar[:, :, 0])
    decoded = theirs.decode((z * width + mean)[:, :, None]).sample[:, :, 0]  # within the colours that a picture has
    assert close(ours.decode(z).clamp(-1, 1), decoded) and float(decoded.std()) > 0.1


def test_the_names_of_that_codec_are_those_that_diffusers_reads() -> None:
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    tensors = small_wan_vae().state_dict()
    named = wan_tensors(tensors)
    assert len(named) == len(tensors)
    down = {key: each for key, each in named.items() if ".upsamples." not in key}
    back = convert_wan_vae_to_diffusers(dict(down))
    assert set(back) == {key for key in tensors if ".up_blocks." not in key}


def test_the_codec_of_flux2() -> None:
    theirs = small_flux2_vae()
    named = {key: each for key, each in vae_tensors(theirs).items() if not key.endswith("num_batches_tracked")}
    ours = AutoencoderKL(FLUX2_VAE)
    filled(ours, named)
    pixels, z = noise(2, 3, 32, 64), noise(2, LATENTS, 2, 4)
    mean = theirs.bn.running_mean[:, None, None]
    width = (theirs.bn.running_var + theirs.config.batch_norm_eps).sqrt()[:, None, None]
    posterior = theirs.encode(pixels).latent_dist
    found, logvar = ours.encode(pixels)
    assert close(found, (F.pixel_unshuffle(posterior.mean, 2) - mean) / width)
    assert close(logvar + 2 * width.log(), F.pixel_unshuffle(posterior.logvar, 2))
    assert close(ours.decode(z), theirs.decode(F.pixel_shuffle(z * width + mean, 2)).sample)


def test_odd_sides() -> None:
    """What is missing for a whole token repeats the edge, and nothing of it comes back."""
    ours = filled(QwenImage(QWEN), small_qwen_image().state_dict())
    x, s, context = noise(1, 16, 5, 6), torch.tensor([0.5]), noise(1, 9, QWEN_WORDS)
    larger = torch.cat([x, x[:, :, -1:]], dim=2)
    assert torch.equal(ours(x, s, context), ours(larger, s, context)[:, :, :5])
