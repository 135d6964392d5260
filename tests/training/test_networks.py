"""Starts, words and the exported file: it must be an ordinary SD 1 checkpoint to the rest of the project."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from overpaint.models.checkpoint import load_checkpoint
from overpaint.models.detect import detect
from overpaint.models.files import read_checkpoint
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.text.tokens import clip_tokenizer
from training import specs
from training.denoiser import Denoiser, Material, draw_batch, level_weights, signal_shares
from training.export import _METADATA, checkpoint, folded
from training.hardware import Hardware
from training.initialise import fill, start_autoencoder, start_text, start_unet
from training.judge import FACETS, NOT_ASKED, Judge, answers, share_right
from training.latents import Scale, measure
from training.painting import Painter
from training.scenes.art import DrawnArt
from training.scenes.captions import caption
from training.scenes.labels import PLAIN, Item, Labels, draw_labels
from training.scenes.scene import render
from training.store import SHARD, Shelf, save_array
from training.trainee import Course, Trainee, step_generator
from training.vae import codec_loss, psnr, to_tensor
from training.words import UNKNOWN, encode, quiet_rows, trained_tokens, vocabulary

CPU = Hardware.cpu()
SCALE = Scale((0.5, -1.0, 0.25, 2.0), (1.5, 0.8, 2.0, 0.6))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that has learnt nothing."""
    from overpaint.models.files import write_safetensors

    path = tmp_path_factory.mktemp("export") / "mini.safetensors"
    denoiser, codec = Denoiser(), AutoencoderKL(specs.VAE)
    start_unet(denoiser.unet, 1)
    start_text(denoiser.text, quiet_rows(), 2)
    fill(codec, 3)
    notes = {"tokens": list(trained_tokens()), "scale": asdict(SCALE)}
    named = {name: values.detach() for name, values in denoiser.named_parameters()}
    write_safetensors(path, checkpoint(named, notes, codec.state_dict()), _METADATA)
    return path


def test_every_caption_is_made_of_trained_words() -> None:
    for seed in range(200):
        rng = np.random.default_rng((8, seed))
        ids = encode([caption(draw_labels(rng), rng)])
        assert (ids != UNKNOWN).all()
    assert vocabulary() == len(trained_tokens()) + 1
    tokenizer = clip_tokenizer()
    row = encode(["a red car"])[0]
    wanted = [tokenizer.start, *tokenizer.encode("a red car"), tokenizer.end]
    assert [trained_tokens()[i - 1] for i in row[: len(wanted)]] == wanted
    assert encode(["a red zyzzyva"])[0].tolist().count(UNKNOWN) > 0


def test_the_denoiser_starts_with_the_right_answer_for_pure_noise() -> None:
    denoiser = Denoiser()
    start_unet(denoiser.unet, 1)
    start_text(denoiser.text, quiet_rows(), 2)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        eps = denoiser(x, torch.tensor([999, 500]), torch.from_numpy(encode(["a fox", ""])))
    assert float((eps - x).abs().mean()) < 0.15


def test_the_padding_starts_as_the_sum_of_the_words() -> None:
    text = Denoiser().text
    start_text(text, quiet_rows(), 2)
    with torch.no_grad():
        red, blue, again = text.encode(
            torch.from_numpy(encode(["a red car on a road", "a blue fox", "on a red road a car"]))
        ).tokens[:, -1]
    assert float(torch.cosine_similarity(red, again, dim=0)) > 0.9
    assert abs(float(torch.cosine_similarity(red, blue, dim=0))) < 0.7
    assert float(red.std()) > 0.8


def test_the_codec_starts_with_pictures() -> None:
    pixels = [render((1, i), 64, DrawnArt()).pixels for i in range(3)]
    pictures = to_tensor(pixels, CPU)
    codec = AutoencoderKL(specs.VAE)
    start_autoencoder(codec, pictures[:2, :, :48, :48], 1)
    with torch.no_grad():
        mean, logvar = codec.encode(pictures)
        assert psnr(codec.decode(mean), pictures) > 13
    assert float(logvar.mean()) < -4
    loss, figures = codec_loss(codec, pictures[:1], step_generator(1, 1, CPU.device), CPU)
    assert loss.requires_grad and figures["psnr"] > 10


def test_a_narrow_codec_is_refused() -> None:
    codec = AutoencoderKL(replace(specs.VAE, channels=64))
    with pytest.raises(ValueError, match="use 96 or more"):
        start_autoencoder(codec, torch.zeros(1, 3, 32, 32), 1)


def test_noise_levels_are_those_of_sd1() -> None:
    shares = signal_shares()
    assert len(shares) == 1000
    assert float(shares[0]) == pytest.approx(0.99915, abs=1e-5)
    assert float(shares[-1]) == pytest.approx(0.0047, abs=1e-4)
    weights = level_weights()
    assert float(weights[-1]) == pytest.approx(1 / (0.0047 / 0.9953) + 1, rel=0.02)


def test_a_step_draws_the_same_batch_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    save_array(tmp_path / "00000.npy", rng.standard_normal((SHARD, 4, 2, 2)).astype(np.float16))
    shelf = Shelf(tmp_path, 1)
    ids = np.repeat(encode(["a fox on a beach"])[None], SHARD, axis=0)
    material = Material(latents=shelf, ids=ids, scale=measure(shelf), batch=64)
    first, again, other = (draw_batch(material, step, CPU) for step in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    latents, rows, levels = first
    assert abs(float(latents.std()) - 1) < 0.2
    assert rows.shape == (64, 77) and (rows == torch.from_numpy(encode([""]))).all(dim=1).any()
    assert levels.min() < 20 and levels.max() > 980


def test_an_exported_file_is_recognised(exported: Path) -> None:
    weights = read_checkpoint(exported)
    spec = detect(weights.shapes, weights.metadata)
    assert (spec.family, spec.prediction, spec.conditioning) == ("sd1", "eps", "text")
    assert spec.unet == specs.UNET and spec.vae == specs.VAE and spec.texts == (specs.TEXT,)
    assert {"heads": "metadata", "text_heads": "metadata"}.items() <= spec.facts.items()
    assert exported.stat().st_size < 45e6


def test_an_exported_file_loads_and_paints(exported: Path) -> None:
    model = load_checkpoint(exported, dtype="float32", hashing=False)
    assert not [key for key in model.ignored if "embed" not in key and "alphas" not in key]
    table = model.backend.networks.texts[0].state_dict()["embeddings.token_embedding.weight"]
    assert torch.equal(table[1], table[2])  # two tokens no caption holds


def test_the_product_paints_series(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.painting._BATCH", 2)
    painter = Painter(exported)
    painted = painter.from_nothing(["a fox"] * 3, 16, steps=1)  # more than fit into one batch
    assert painted.shape == (3, 16, 16, 3) and painted.dtype == np.uint8
    assert not np.array_equal(painted[0], painted[2])  # each has its own seed
    sources = np.full((2, 64, 64, 3), 128, dtype=np.uint8)
    masks = np.zeros((2, 64, 64), dtype=np.uint8)
    masks[:, :, 32:] = 255
    filled = painter.inside(masks, sources, ["a fox", "a car"], steps=2, strength=1.0)
    assert (filled[:, :, :16] == 128).all() and (filled[:, :, 40:] != 128).any()
    assert painter.through_codec(sources).shape == sources.shape
    assert painter.first_guesses(sources, ["a fox", ""], 1) > 0


def test_statistics_are_folded_into_the_codec() -> None:
    codec = AutoencoderKL(specs.VAE)
    fill(codec, 3)
    pictures = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    same = AutoencoderKL(specs.VAE)
    same.load_state_dict(folded(codec.state_dict(), SCALE))
    with torch.no_grad():
        mean, logvar = codec.encode(pictures)
        scaled, spread = same.encode(pictures)
        torch.testing.assert_close(scaled * 0.18215, SCALE.standard(mean), atol=1e-4, rtol=1e-4)
        gain = 1 / (torch.tensor(SCALE.spread).view(-1, 1, 1) * 0.18215)
        torch.testing.assert_close((0.5 * spread).exp(), (0.5 * logvar).exp() * gain, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(same.decode(scaled), codec.decode(mean), atol=1e-4, rtol=1e-4)


def test_a_frozen_half_is_not_trained() -> None:
    codec = AutoencoderKL(replace(specs.VAE, num_res_blocks=0))
    fill(codec, 3)
    codec.encoder.requires_grad_(False)
    trainee = Trainee(codec, Course(rate=1e-3, warm_up=1))
    assert len(trainee.weights) == len(trainee.averaged()) < len(list(codec.parameters()))


def test_the_judge_is_asked_only_what_shows() -> None:
    plain = answers(Labels(place=PLAIN, backdrop="red", items=(Item("car", "blue"),)))
    assert plain["time"] == plain["weather"] == NOT_ASKED
    assert FACETS["thing"][plain["thing"]] == "car" and FACETS["paint"][plain["paint"]] == "blue"
    sketch = answers(Labels(place="road", style="pencil sketch", items=(Item("car", "blue"),)))
    assert sketch["paint"] == NOT_ASKED and FACETS["weather"][sketch["weather"]] == "none"
    two = answers(Labels(place="road", items=(Item("car"), Item("bus"))))
    assert two["thing"] == NOT_ASKED
    wanted = [Labels(place="road"), Labels(place="sea", time="night")]
    found = {facet: np.array([answers(wanted[0])[facet]] * 2) for facet in FACETS}
    shares = share_right(found, wanted)
    assert shares["style"] == 1.0 and shares["place"] == shares["time"] == 0.5 and np.isnan(shares["paint"])
    scores = Judge().eval()(torch.zeros(1, 3, 128, 128))
    assert {facet: rows.shape[1] for facet, rows in scores.items()} == {name: len(v) for name, v in FACETS.items()}
