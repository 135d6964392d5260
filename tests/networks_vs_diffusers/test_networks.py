"""Network by network, on random weights: what is loaded from the original layout computes what diffusers computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.models.checkpoint import LoadedModel, load_checkpoint
from tests.networks_vs_diffusers.conftest import Build
from tests.networks_vs_diffusers.families import RECIPES

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

Load = Callable[..., LoadedModel]
END = 49407


def close(got: Tensor, wanted: Tensor, tolerance: float = 1e-4) -> None:
    """Within this part of the largest value."""
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ids(padding: int) -> Tensor:
    """Two texts of different lengths."""
    tokens = torch.randint(300, 40000, (2, 77), generator=stream(3))
    tokens[:, 0] = 49406
    for row, end in enumerate((9, 40)):
        tokens[row, end] = END
        tokens[row, end + 1 :] = padding
    return tokens


@pytest.mark.parametrize("name", RECIPES)
def test_the_family_is_recognised(name: str, loaded: Load) -> None:  # FAM, FAM-2, FAM-3, FAM-4
    recipe, model = RECIPES[name], loaded(name)
    assert model.spec.family == recipe.family
    assert model.spec.prediction == recipe.prediction
    assert model.spec.unet.in_channels == recipe.unet.get("in_channels", 4)
    assert set(model.ignored) == set(recipe.extra)
    known = {"sd2": "probe", "sd2-v": "probe", "sd2-inpaint": "sidecar", "sdxl-v": "weights"}
    assert model.spec.facts["prediction"] == known.get(name, "family default")
    assert model.spec.facts["heads"] == ("sidecar" if recipe.sidecar else "metadata")


def test_the_arrangement_of_layers(loaded: Load) -> None:  # ARCH-6, FAM-4
    refiner, ssd, sdxl = (loaded(name).spec.unet for name in ("sdxl-refiner", "ssd-1b", "sdxl"))
    assert (refiner.input_depths, refiner.middle_depth) == ((0, 0, 4, 4, 4, 4, 0, 0), 4)
    assert refiner.output_depths == (0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0)
    assert (sdxl.input_depths, sdxl.middle_depth) == ((0, 0, 2, 2, 10, 10), 10)
    assert (ssd.input_depths, ssd.middle_depth) == ((0, 0, 2, 2, 4, 4), None)
    assert ssd.output_depths == (4, 4, 10, 2, 1, 1, 0, 0, 0)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("side", [(16, 24), (8, 8)], ids=str)
def test_the_unet(name: str, side: tuple[int, int], built: Build, loaded: Load) -> None:  # ARCH-2 to ARCH-6
    theirs, model = built(name).unet, loaded(name)
    spec = model.spec.unet
    x = torch.randn(2, spec.in_channels, *side, generator=stream(1))
    context = torch.randn(2, 77, spec.context_dim, generator=stream(2))
    t = torch.tensor([981.0, 3.5])
    vector, told = sizes_and_vector(spec.adm_channels)
    wanted = theirs(x, t, context, added_cond_kwargs=told).sample
    close(model.backend.denoise(x, t, context, vector), wanted)


def sizes_and_vector(width: int | None) -> tuple[Tensor | None, dict[str, Tensor] | None]:
    """A pooled text and some sizes, as diffusers wants them and as the one vector that the network sees."""
    from diffusers.models.embeddings import get_timestep_embedding

    if width is None:
        return None, None
    pooled = torch.randn(2, 64, generator=stream(4))
    numbers = torch.tensor([[1024.0, 768, 0, 8, 6, 512], [512.0, 640, 16, 0, 2.5, 1024]])[:, : (width - 64) // 256]
    sizes = get_timestep_embedding(numbers.flatten(), 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    vector = torch.cat([pooled, sizes.reshape(2, -1)], dim=1)
    return vector, {"text_embeds": pooled, "time_ids": numbers}


@pytest.mark.parametrize("name", RECIPES)
def test_the_codec(name: str, built: Build, loaded: Load) -> None:  # ARCH-7
    theirs, ours = built(name).vae, loaded(name).backend
    pictures = torch.rand(2, 3, 64, 40, generator=stream(5)) * 2 - 1
    posterior = theirs.encode(pictures).latent_dist
    mean, logvar = ours.encode(pictures)
    close(mean, posterior.mean)
    close(logvar, posterior.logvar)
    z = torch.randn(2, 4, 8, 5, generator=stream(6))
    close(ours.decode(z), theirs.decode(z).sample)


@pytest.mark.parametrize("name", RECIPES)
def test_the_texts(name: str, built: Build, loaded: Load) -> None:  # ARCH-8, ENCODE-4, ENCODE-5
    model = loaded(name)
    for i, (theirs, kind) in enumerate(zip(built(name).texts, RECIPES[name].texts.values(), strict=True)):
        tokens = ids(END if kind == "clip" else 0)
        wanted = theirs(tokens, output_hidden_states=True)
        got = model.backend.text(i, tokens)
        below = wanted.hidden_states[-2]
        close(got.tokens, final_norm(theirs)(below) if kind == "openclip" else below)
        if kind == "bigG":
            assert got.pooled is not None
            close(got.pooled, wanted.text_embeds)
        else:
            assert got.pooled is None


def final_norm(text: Any) -> Callable[[Tensor], Tensor]:
    found: Callable[[Tensor], Tensor] = getattr(text, "text_model", text).final_layer_norm
    return found


@pytest.mark.parametrize("name", ["sd2-inpaint", "sdxl-refiner"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_files_in_half_precision(name: str, dtype: torch.dtype, built: Build, loaded: Load) -> None:  # KEYS
    theirs, model = built(name, dtype), loaded(name, dtype)
    spec = model.spec.unet
    x = torch.randn(1, spec.in_channels, 16, 16, generator=stream(1))
    context, t = torch.randn(1, 77, spec.context_dim, generator=stream(2)), torch.tensor([500.0])
    vector, told = sizes_and_vector(spec.adm_channels)
    if vector is not None and told is not None:
        vector, told = vector[:1], {key: value[:1] for key, value in told.items()}
    wanted = theirs.unet(x, t, context, added_cond_kwargs=told).sample
    close(model.backend.denoise(x, t, context, vector), wanted)
    z = torch.randn(1, 4, 8, 8, generator=stream(6))
    close(model.backend.decode(z), theirs.vae.decode(z).sample)
    # And computed in bfloat16 from the same file.
    rounded = load_checkpoint(theirs.path, dtype="bfloat16", hashing=False).backend
    close(rounded.denoise(x, t, context, vector), wanted, 0.05)
