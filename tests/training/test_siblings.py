"""The siblings: what they are shown, what is frozen, and the small files they are kept in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from overpaint.models.built_in import default_path
from overpaint.models.detect import detect
from overpaint.models.files import read_all, read_checkpoint, write_safetensors
from overpaint.models.shifts import ConstantShift
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.unet import UNet
from training import lessons, specs
from training.denoiser import Denoiser, signal_shares
from training.export import _METADATA, checkpoint
from training.flow import Teacher, flow_unet, mixed, some_swapped
from training.hardware import Hardware
from training.initialise import fill, start_unet
from training.latents import Scale
from training.lessons import LATENTS, Lessons, Source, prepare
from training.lowrank import DOWN, UP, LowRank
from training.masks import around, draw_mask
from training.measures import alike as correlation
from training.measures import edges, lightness
from training.pairs import draw_change, draw_pair
from training.scenes.art import DrawnArt
from training.scenes.captions import command
from training.scenes.labels import Item, Labels
from training.scenes.scene import render
from training.siblings import KINDS, Kind, delta, left_out, read_base, sibling, train_sibling, widened, write_merged
from training.store import Folder, Shelf
from training.trainee import Budget
from training.words import tokens, trained_tokens

CPU = Hardware.cpu()
SIZE = 32


@pytest.fixture(scope="module")
def base_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "mini.safetensors"
    denoiser, codec = Denoiser(), AutoencoderKL(specs.VAE)
    fill(denoiser.text, 2)
    start_unet(denoiser.unet, 1)
    fill(codec, 3)
    notes = {"tokens": list(trained_tokens()), "scale": asdict(Scale((0.0,) * 4, (1.0,) * 4))}
    named = {name: values.detach() for name, values in denoiser.named_parameters()}
    write_safetensors(path, checkpoint(named, notes, codec.state_dict()), _METADATA)
    return path


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shards of four."""
    for module in ("training.store", "training.lessons"):
        monkeypatch.setattr(f"{module}.SHARD", 4)
    monkeypatch.setattr("training.siblings._FITTED", 8)
    monkeypatch.setattr(lessons, "EmojiArt", lambda folder: DrawnArt())
    monkeypatch.setattr("training.store.EmojiArt", lambda folder: DrawnArt())
    yield


def test_factors_change_nothing_at_first_and_become_a_lora() -> None:
    weight = torch.randn(6, 5, 3, 3)
    layer = LowRank(weight, 4, torch.Generator().manual_seed(1))
    assert torch.equal(layer(weight), weight)
    assert layer.up.shape == (6, 4) and layer.down.shape == (4, 45)
    assert LowRank(torch.randn(2, 50), 16, torch.Generator()).up.shape == (2, 2)


def test_a_widened_network_is_blind_and_frozen() -> None:
    unet = UNet(replace(specs.UNET, model_channels=32))
    start_unet(unet, 1)
    wide = widened(unet, 5)
    x, levels, context = torch.randn(1, 4, 16, 16), torch.tensor([500]), torch.randn(1, 77, specs.UNET.context_dim)
    with torch.no_grad():
        shown = wide(torch.cat([x, torch.randn(1, 5, 16, 16)], dim=1), levels, context)
        torch.testing.assert_close(shown, unet(x, levels, context))
    learning = {name for name, each in wide.named_parameters() if each.requires_grad}
    assert {"input_blocks.0.0.weight", "input_blocks.0.0.bias"} <= learning
    assert all(name.startswith("input_blocks.0.0.") or name.endswith((".up", ".down")) for name in learning)


def test_a_delta_makes_the_network_that_was_trained(base_file: Path, tmp_path: Path) -> None:
    wide = widened(read_base(base_file).unet, 4)
    with torch.no_grad():
        for name, values in wide.named_parameters():
            if values.requires_grad:
                values.add_(torch.randn(values.shape, generator=torch.Generator().manual_seed(len(name))) * 0.02)
    changes = delta(wide, {name: each.detach() for name, each in wide.named_parameters() if each.requires_grad})
    assert all(values.dtype == np.float16 for values in changes.values())
    downs = [name for name in changes if name.endswith(DOWN)]
    assert len(downs) == len([name for name in changes if name.endswith(UP)]) > 100
    metadata = {"overpaint.kind": "edit", "overpaint.base": read_base(base_file).digest}
    write_safetensors(tmp_path / "small.safetensors", changes, metadata)
    whole = write_merged(base_file, tmp_path / "small.safetensors", tmp_path / "whole.safetensors")
    header = read_checkpoint(whole)
    assert detect(header.shapes, header.metadata).conditioning == "edit"
    found = read_all(whole)["model.diffusion_model.middle_block.0.in_layers.2.weight"]
    wanted = dict(wide.named_modules())["middle_block.0.in_layers.2"].weight
    assert isinstance(wanted, torch.Tensor)
    torch.testing.assert_close(found.float(), wanted.detach(), atol=2e-3, rtol=2e-3)
    write_safetensors(tmp_path / "other.safetensors", changes, {"overpaint.base": "another"})
    with pytest.raises(ValueError, match="another base"):
        write_merged(base_file, tmp_path / "other.safetensors", tmp_path / "no.safetensors")


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", KINDS)
def test_a_sibling_learns_stops_and_goes_on(kind: str, base_file: Path, tmp_path: Path) -> None:
    base, folder = read_base(base_file), Folder(tmp_path)

    def run(steps: int) -> Path:
        budget = Budget(minutes=1, steps=steps, report_steps=1)
        return train_sibling(folder, kind, base, budget, CPU, size=SIZE, shards=1, batch=4, workers=1)

    path = run(1)
    assert sibling(folder, kind, base, CPU).step == 1
    run(1)
    assert sibling(folder, kind, base, CPU).step == 2
    told = read_checkpoint(path)
    assert told.metadata["overpaint.base"] == base.digest and told.metadata["overpaint.kind"] == kind
    channels = LATENTS + KINDS[kind].channels
    assert told.shapes["model.diffusion_model.input_blocks.0.0.weight"] == (64, channels, 3, 3)
    with pytest.raises(ValueError, match="another base"):
        sibling(folder, kind, replace(base, digest="another"), CPU)


@pytest.mark.usefixtures("few")
def test_lessons_hold_what_the_product_shows(base_file: Path, tmp_path: Path) -> None:
    """COND-2 and COND-3: scaled latents beside a binary mask; unscaled latents of the picture before."""
    source = Source(Folder(tmp_path), SIZE, read_base(base_file).codec, Hardware(CPU.device, half=False))
    masked = prepare("inpainting", source, 1, 1).rows
    row = torch.from_numpy(np.stack([masked[i] for i in range(4)]).astype(np.float32))
    assert row.shape[1] == 2 * LATENTS + 1 and set(row[:, LATENTS].flatten().tolist()) <= {0.0, 1.0}
    everything = row[row[:, LATENTS].flatten(1).all(dim=1)]
    gray = specs.MODEL.latent.scaled(source.encode(torch.zeros(1, 3, SIZE, SIZE)))
    if len(everything):
        torch.testing.assert_close(everything[:1, LATENTS + 1 :], gray, atol=2e-2, rtol=2e-2)
    edits = prepare("edit", source, 1, 1)
    pair = draw_pair((4, 1), SIZE, DrawnArt())
    before = torch.from_numpy(pair.before).permute(2, 0, 1)[None].float() / 127.5 - 1
    found = torch.from_numpy(edits.rows[1][LATENTS:].astype(np.float32))
    torch.testing.assert_close(found, source.encode(before)[0], atol=2e-2, rtol=2e-2)
    assert edits.ids.shape == (4, 4, 77)


def test_the_teacher_tells_the_base_s_answer_as_a_velocity(base_file: Path) -> None:
    """From (1 - s) x0 + s n, the picture and the noise that it tells are those that the base names there."""
    base = read_base(base_file)
    teacher, generator = Teacher.of(base.unet, torch.device("cpu")), torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(3, 4, 4, 4, generator=generator) for _ in range(2))
    s, context = torch.tensor([0.1, 0.5, 0.9]), torch.randn(3, 77, 128, generator=generator)
    velocity = teacher.velocity(latents, noise, s, context, Hardware(CPU.device, half=False))
    x, share = mixed(latents, noise, s), s.view(-1, 1, 1, 1)
    clean, named = x - share * velocity, x + (1 - share) * velocity
    width = ((1 - share) ** 2 + share**2).sqrt()
    with torch.no_grad():
        wanted = base.unet(x / width, teacher.level(s), context)
    torch.testing.assert_close(named, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed(clean, named, s), x, atol=1e-5, rtol=1e-5)


def test_the_teacher_s_levels() -> None:
    """sqrt((1 - a) / a) = s / (1 - s) at every level that the base was trained at, and its ends beyond them."""
    levels = torch.tensor([0.0, 1.0, 400.0, 998.0, 999.0])
    a = signal_shares()[levels.long()]
    k = ((1 - a) / a).sqrt()
    teacher = Teacher.of(UNet(specs.UNET), torch.device("cpu"))
    torch.testing.assert_close(teacher.level(k / (1 + k)), levels, atol=2e-2, rtol=1e-3)
    assert teacher.level(torch.tensor([0.0, 1.0])).tolist() == [0.0, 999.0]


def test_the_flow_sibling_starts_as_the_base(base_file: Path) -> None:
    """Told of 1000 s it embeds nearly what the base does at its level, and what is frozen is the base's."""
    base = read_base(default_path())
    network, teacher = flow_unet(base.unet, 1), Teacher.of(base.unet, torch.device("cpu"))
    s = torch.linspace(0.05, 0.95, 40)
    with torch.no_grad():
        told, wanted = network.embed(s, None, torch.float32), base.unet.embed(teacher.level(s), None, torch.float32)
    assert float((told - wanted).pow(2).mean() / wanted.var()) < 0.05
    learnt = {name: each.detach() for name, each in network.named_parameters() if each.requires_grad}
    assert {"out.2.weight", "time_embed.0.weight", "middle_block.0.in_layers.2.bias"} <= learnt.keys()
    header = read_checkpoint(base_file)
    assert all(name in header.shapes or name.endswith((UP, DOWN)) for name in delta(network, learnt))
    spec = detect(header.shapes, {**header.metadata, **KINDS["flow"].tells})
    assert (spec.prediction, spec.shift) == ("flow", ConstantShift(1.5))


def test_texts_are_swapped_with_neighbours() -> None:
    context = torch.arange(8.0).view(8, 1, 1).expand(8, 77, 2)
    assert some_swapped(context)[:, 0, 0].tolist() == [7, 1, 2, 3, 3, 5, 6, 7]


def test_what_is_left_out() -> None:
    rng = np.random.default_rng(0)
    blind, mute = left_out(Kind(channels=4, no_text=0.05, no_picture=0.05, neither=0.05), rng, 20_000)
    shares = [float(each.mean()) for each in (blind & ~mute, mute & ~blind, blind & mute)]
    assert shares == pytest.approx([0.05, 0.05, 0.05], abs=0.006)
    assert not left_out(KINDS["inpainting"], rng, 1000)[0].any()


def test_masks_are_of_all_kinds() -> None:
    box = (0.25, 0.25, 0.75, 0.5)
    drawn = [draw_mask(np.random.default_rng((1, i)), 64, [box]) for i in range(200)]
    shares = [float(mask.mean()) for mask in drawn]
    assert min(shares) > 0.02 and max(shares) == 1 and all(mask.shape == (64, 64) for mask in drawn)
    assert around(box, 64).sum() == 32 * 16
    assert np.array_equal(drawn[3], draw_mask(np.random.default_rng((1, 3)), 64, [box]))


@pytest.mark.parametrize(
    ("changed", "alike"),
    [
        ({"time": "night"}, 0.7),
        ({"weather": "rain"}, 0.65),
        ({"weather": "snow"}, 0.5),
        ({"items": (Item("sports car", "blue"),)}, 0.95),
    ],
)
def test_a_change_keeps_the_layout(changed: dict[str, object], alike: float) -> None:
    """Edges below the horizon; drawn the ordinary way they share 0.2 of them at night or in the snow."""
    labels = Labels(place="meadow", items=(Item("sports car", "red"),))
    after = replace(labels, **changed)  # type: ignore[arg-type]
    found = []
    for number in range(6):
        first, second = (render((5, number), 64, DrawnArt(), each, steady=True) for each in (labels, after))
        assert first.boxes == second.boxes
        steep = [edges(lightness(each.pixels[32:])) for each in (first, second)]
        found.append(correlation(*steep))
    assert np.mean(found) > alike


def test_pairs_differ_in_one_facet_that_is_named() -> None:
    for seed in range(150):
        rng = np.random.default_rng((6, seed))
        before, after = draw_change(rng)
        differing = [name for name, value in asdict(before).items() if value != asdict(after)[name]]
        assert len(differing) == 1, (before, after)
        assert command(before, after, rng).startswith(("make", "turn"))
    with pytest.raises(ValueError, match="change one facet"):
        command(before, before, np.random.default_rng(1))


def test_a_batch_is_drawn_from_the_step(tmp_path: Path) -> None:
    rows = np.arange(512 * 9 * 4, dtype=np.float32).reshape(512, 9, 2, 2)
    np.save(tmp_path / "00000.npy", rows)
    kept = Lessons(Shelf(tmp_path, 1), np.repeat(tokens(["a fox"])[None], 512, axis=0))
    first, again = (kept.batch(np.random.default_rng(3), 8, CPU) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (8, 4, 2, 2) and first[1].shape == (8, 5, 2, 2) and first[2].shape == (8, 77)
