"""Chroma: its network, its text encoder and the engine's stages against diffusers and transformers.

NOTE: diffusers hands its mask to attention as numbers that are added, 1 where words are read and 0 where not, which
hides nothing. The authors' mask hides; their pipeline is given one that does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.engine import Engine
from overpaint.models.layout_tables import CHROMA_ROWS, origins
from overpaint.models.specs import UNET_PREFIX, ChromaSpec, TextSpec
from overpaint.models.transformer_layouts import transformer_names
from overpaint.models.transformer_shapes import transformer_part, transformer_spec
from overpaint.networks.chroma import Chroma
from overpaint.networks.t5_text import T5Text
from tests.engine.conftest import box, scene
from tests.networks_vs_diffusers.flow_sources import (
    FLUX_WIDTH,
    T5,
    FlowParts,
    chroma_parts,
    chroma_tensors,
    small_chroma,
    small_t5,
)
from tests.networks_vs_diffusers.pipelines import noise_like, sampled
from tests.networks_vs_diffusers.test_flow_networks import close as closely
from tests.networks_vs_diffusers.test_flow_networks import filled, noise
from tests.networks_vs_diffusers.test_flow_pipelines import HEIGHT, WIDTH, close, encoded, request, shares
from tests.networks_vs_diffusers.test_flux_networks import packed, places
from tests.networks_vs_diffusers.test_flux_pipelines import DYNAMIC, PROMPT, map_of, t5_tokenizer
from tests.networks_vs_diffusers.test_pipelines import values_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

CHROMA = ChromaSpec(
    in_channels=16,
    width=FLUX_WIDTH,
    double_blocks=2,
    single_blocks=2,
    heads=2,
    inner=4 * FLUX_WIDTH,
    context_dim=T5,
    told=64,
    told_width=40,
    told_layers=2,
    axes=(4, 14, 14),
)


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> FlowParts:
    return chroma_parts(tmp_path_factory.mktemp("chroma"))


@pytest.fixture(scope="module")
def engine(chroma: FlowParts) -> Iterator[Engine]:
    with Engine(chroma.path, device="cpu", dtype="float32") as made:
        yield made


def theirs_of(network: Any, x: Tensor, s: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
    high, wide = (side // 2 for side in x.shape[2:])
    found: Tensor = network(
        hidden_states=packed(x),
        encoder_hidden_states=context,
        timestep=s,
        img_ids=places(high, wide),
        txt_ids=torch.zeros(context.shape[1], 3),
        attention_mask=mask,
        return_dict=False,
    )[0]
    return found


@pytest.mark.parametrize(("high", "wide"), [(8, 8), (6, 10)])
def test_the_network(high: int, wide: int) -> None:
    theirs = small_chroma()
    ours = filled(Chroma(CHROMA), chroma_tensors(theirs.state_dict()))
    x, s, context = noise(2, 16, high, wide), torch.tensor([0.9, 0.25]), noise(2, 7, T5, seed=1)
    assert closely(packed(ours(x, s, context)), theirs_of(theirs, x, s, context))


def test_words_that_a_mask_hides_are_left_out() -> None:
    """What hides them from everybody comes to the same, and costs less."""
    theirs = small_chroma()
    ours = filled(Chroma(CHROMA), chroma_tensors(theirs.state_dict()))
    x, s, context = noise(1, 16, 8, 6), torch.tensor([0.6]), noise(1, 9, T5, seed=1)
    mask = torch.ones(1, 9 + 12, dtype=torch.bool)
    mask[:, 5:9] = False
    assert closely(packed(ours(x, s, context[:, :5])), theirs_of(theirs, x, s, context, mask))


def test_a_text_encoder_that_does_not_look_at_what_fills_up() -> None:
    theirs = small_t5()
    spec = TextSpec(
        kind="t5",
        prefix="",
        width=T5,
        layers=3,
        heads=4,
        head_dim=8,
        inner=40,
        vocabulary=64,
        positions=32,
        layer=-1,
        final_norm=True,
        masked=True,
    )
    tensors = {key: each for key, each in theirs.state_dict().items() if key != "encoder.embed_tokens.weight"}
    ours: Any = filled(T5Text(spec), tensors)
    ids = torch.tensor([[5, 9, 31, 1, 0, 0, 0, 0], [7, 1, 0, 0, 0, 0, 0, 0]])
    expected = theirs(ids, attention_mask=(ids != 0).long())[0]
    assert closely(ours.encode(ids).tokens, expected)
    assert closely(ours.encode(ids[:1, :5]).tokens, expected[:1, :5])  # one is enough
    plain: Any = filled(T5Text(replace(spec, masked=False)), tensors)
    assert not closely(plain.encode(ids).tokens, expected)


def test_what_a_file_of_diffusers_calls_its_layers() -> None:
    """Every tensor gets the name that the published file has, and its shape measures the network."""
    theirs = small_chroma().state_dict()
    wanted = chroma_tensors(theirs)
    found = transformer_names(theirs)
    assert found is not None and found[0] == "chroma"
    assert origins(theirs, CHROMA_ROWS) == found[1]
    assert {name: tuple(torch.cat([theirs[key] for key in each.keys]).shape) for name, each in found[1].items()} == {
        name: tuple(each.shape) for name, each in wanted.items()
    }
    for shapes in (theirs, wanted):
        part = transformer_part({UNET_PREFIX + name: tuple(each.shape) for name, each in shapes.items()})
        assert part is not None and part[0].name == "chroma"
        assert transformer_spec(part[1], part[0]) == CHROMA


def pipeline(parts: FlowParts, task: str, **scheduler: Any) -> Any:
    import diffusers

    made = getattr(diffusers, f"Chroma{task}Pipeline")(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**scheduler),
        vae=parts.vae,
        text_encoder=parts.texts[0],
        tokenizer=t5_tokenizer(parts),
        transformer=parts.transformer,
    )
    made.set_progress_bar_config(disable=True)
    kept = made._prepare_attention_mask

    def hiding(*args: Any, **named: Any) -> Any:
        mask = kept(*args, **named)
        return None if mask is None else mask.bool()

    made._prepare_attention_mask = hiding
    return made


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
def test_from_text(cfg_scale: float, chroma: FlowParts, engine: Engine) -> None:
    """Their own levels, and a negative text of another length."""
    said = {"negative_prompt": "a cat, a cat"} if cfg_scale > 1 else {}
    plan, ours = sampled(engine, request(images=(), width=WIDTH, height=HEIGHT, cfg_scale=cfg_scale, **said))
    pipe = pipeline(chroma, "", **DYNAMIC)
    theirs = pipe(
        prompt=PROMPT,
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=4,
        latents=packed(noise_like(torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8))),
        guidance_scale=cfg_scale,
        output_type="latent",
        **said,
    ).images
    assert shares(plan) == pytest.approx(pipe.scheduler.sigmas[:-1].tolist(), rel=1e-6)
    close(ours, map_of(theirs))


def test_img2img(chroma: FlowParts, engine: Engine) -> None:
    source = scene(WIDTH, HEIGHT)
    plan, ours = sampled(engine, request(images=(source,), strength=0.6, cfg_scale=3.0))
    s, init = shares(plan)[0], encoded(chroma.vae, source)
    theirs = pipeline(chroma, "Img2Img")(
        prompt=PROMPT,
        image=values_of(source),
        width=WIDTH,
        height=HEIGHT,
        strength=1.0,
        sigmas=shares(plan),
        latents=packed((1 - s) * init + s * noise_like(init)),
        guidance_scale=3.0,
        output_type="latent",
    ).images
    close(ours, map_of(theirs))


def test_inpainting_by_blending(chroma: FlowParts, engine: Engine) -> None:
    source, mask = scene(WIDTH, HEIGHT), box(WIDTH, HEIGHT, (48, 0, WIDTH, HEIGHT))
    plan, ours = sampled(engine, request(images=(source,), mask=mask, strength=0.7, cfg_scale=3.0))
    s, init = shares(plan)[0], encoded(chroma.vae, source)
    drawn = noise_like(init)
    chroma.transformer.register_to_config(guidance_embeds=False)  # which their pipeline asks for, and no Chroma has
    pipe = pipeline(chroma, "Inpaint")
    ids = pipe._prepare_latent_image_ids(1, HEIGHT // 16, WIDTH // 16, "cpu", torch.float32)
    start = packed((1 - s) * init + s * drawn)
    pipe.prepare_latents = lambda *args, **kwargs: (start, packed(drawn), packed(init), ids)
    theirs = pipe(
        prompt=PROMPT,
        image=values_of(source),
        mask_image=values_of(mask.convert("L")),
        width=WIDTH,
        height=HEIGHT,
        strength=1.0,
        sigmas=shares(plan),
        guidance_scale=3.0,
        output_type="latent",
    ).images
    close(ours, map_of(theirs))
