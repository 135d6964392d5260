"""Flux.1 and Stable Diffusion 3 as people have them: alone, whole, in folders, in few bits; and missing parts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint.errors import CheckpointError
from overpaint.models.checkpoint import LoadedModel, load_checkpoint
from overpaint.models.companions import needs_of, text_encoders_for, vae_for
from overpaint.models.shifts import NO_SHIFT, ConstantShift, TokenShift
from overpaint.models.spec_json import spec_from_json
from overpaint.models.specs import FluxSpec, MmditSpec
from overpaint.models.what_is import spec_of, what_is
from overpaint.service.store.forms import plain
from tests.networks_vs_diffusers.flow_files import save
from tests.networks_vs_diffusers.flow_sources import (
    CLIP_G,
    CLIP_L,
    T5,
    FlowParts,
    flux_parts,
    flux_tensors,
    sd3_parts,
    sd3_tensors,
    t5_vocabulary,
)
from tests.networks_vs_diffusers.original_layout import vae_tensors

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> FlowParts:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return flux_parts(tmp_path_factory.mktemp("flux"))


@pytest.fixture(scope="module")
def sd35(tmp_path_factory: pytest.TempPathFactory) -> FlowParts:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return sd3_parts(tmp_path_factory.mktemp("sd35"))


def loaded(path: Path, *texts: Path, vae: Path | None = None) -> LoadedModel:
    return load_checkpoint(path, text_encoders=texts, vae_path=vae, hashing=False, dtype="float32")


def beside(parts: FlowParts, path: Path | None = None) -> LoadedModel:
    texts = map(Path, text_encoders_for(parts.path))
    return loaded(path or parts.path, *texts, vae=vae_for(parts.path))


def answers(model: LoadedModel) -> list[Tensor]:
    """What the networks say to the same question."""
    generator = torch.Generator().manual_seed(0)
    x, pixels = torch.randn(1, 16, 4, 4, generator=generator), torch.rand(1, 3, 32, 32, generator=generator)
    spec = model.spec
    told = [
        model.backend.text(i, torch.tensor([[5, 9, 30, 2] if each.kind == "t5" else [49406, 320, 7, 49407]]))
        for i, each in enumerate(spec.texts)
    ]
    (words,) = [each.tokens for each, text in zip(told, spec.texts, strict=True) if text.kind == "t5"]
    pooled = torch.cat([each.pooled for each in told if each.pooled is not None], dim=1)
    vector = pooled if spec.guidance is None else torch.cat([pooled, torch.tensor([[3.5]])], dim=1)
    said = model.backend.denoise(x, torch.tensor([0.6]), words, vector)
    return [words, pooled, said, model.backend.encode(pixels)[0], model.backend.decode(x)]


@pytest.fixture(scope="module")
def of_flux(flux: FlowParts) -> list[Tensor]:
    return answers(beside(flux))


@pytest.fixture(scope="module")
def of_sd35(sd35: FlowParts) -> list[Tensor]:
    return answers(beside(sd35))


def same(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


def test_what_they_are(flux: FlowParts, sd35: FlowParts, tmp_path: Path) -> None:
    dev, large = spec_of(flux.path, text_encoders_for(flux.path)), spec_of(sd35.path, text_encoders_for(sd35.path))
    assert (dev.title, dev.guidance, dev.cfg_scale, dev.shift) == ("Flux.1 dev", 3.5, 1.0, TokenShift())
    assert [(each.kind, each.width, each.as_tokens, each.length) for each in dev.texts] == [
        ("clip", CLIP_L, False, 0),
        ("t5", T5, True, 512),
    ]
    assert (large.title, large.guidance, large.shift) == ("Stable Diffusion 3.5", None, ConstantShift(3.0))
    assert (large.latent.scale, large.latent.shift) == (1.5305, 0.0609)
    assert [(each.kind, each.width, each.projected) for each in large.texts] == [
        ("clip", CLIP_L, True),
        ("openclip", CLIP_G, False),
        ("t5", T5, False),
    ]
    assert isinstance(dev.denoiser, FluxSpec) and isinstance(large.denoiser, MmditSpec)
    assert all(spec_from_json(plain(each)) == each for each in (dev, large))
    schnell = {key: each for key, each in flux_tensors(flux.transformer.state_dict()).items() if "guidance" not in key}
    told = spec_of(save_at(schnell, tmp_path / "s.safetensors"), text_encoders_for(flux.path))
    assert (told.title, told.guidance, told.shift, told.texts[1].length) == ("Flux.1 schnell", None, NO_SHIFT, 256)


def save_at(tensors: dict[str, Tensor], path: Path, dtype: torch.dtype = torch.float32) -> Path:
    save(tensors, path, dtype)
    return path


def texts_in(parts: FlowParts, names: tuple[str, ...]) -> dict[str, Tensor]:
    return {
        f"text_encoders.{name}.transformer.{key}": each.clone()  # T5's table of words is there under two names
        for name, text in zip(names, parts.texts, strict=True)
        for key, each in text.state_dict().items()
    }


def test_whole_files(
    flux: FlowParts, sd35: FlowParts, of_flux: list[Tensor], of_sd35: list[Tensor], tmp_path: Path
) -> None:
    """As other programs write them, with the codec under one prefix or the other."""
    prefix = "model.diffusion_model."
    tensors = {prefix + key: each for key, each in flux_tensors(flux.transformer.state_dict()).items()}
    tensors |= texts_in(flux, ("clip_l", "t5xxl"))
    tensors |= {f"vae.{key}": each for key, each in vae_tensors(flux.vae).items()}
    path = save_at(tensors, tmp_path / "flux.safetensors")
    t5_vocabulary(tmp_path / "t5.tokenizer.json")
    assert same(answers(loaded(path)), of_flux)
    assert (needs_of(path) or pytest.fail()).titles() == ()
    assert what_is(path)["problems"] == [] and spec_of(path).vae == loaded(path).spec.vae
    tensors = {prefix + key: each for key, each in sd3_tensors(sd35.transformer.state_dict()).items()}
    tensors |= texts_in(sd35, ("clip_l", "clip_g", "t5xxl"))
    tensors |= {f"first_stage_model.{key}": each for key, each in vae_tensors(sd35.vae).items()}
    assert same(answers(loaded(save_at(tensors, tmp_path / "sd3.safetensors"))), of_sd35)


def as_folder(parts: FlowParts, folder: Path, **scheduler: Any) -> Path:
    """As diffusers lays a model out."""
    parts.transformer.save_pretrained(folder / "transformer")
    parts.vae.save_pretrained(folder / "vae")
    for i, text in enumerate(parts.texts):
        text.save_pretrained(folder / ("text_encoder" if i == 0 else f"text_encoder_{i + 1}"))
    last = f"_{len(parts.texts)}" if len(parts.texts) > 1 else ""
    t5_vocabulary(folder / f"tokenizer{last}" / "tokenizer.json")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler), encoding="utf-8")
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}', encoding="utf-8")
    return folder


def test_folders(
    flux: FlowParts, sd35: FlowParts, of_flux: list[Tensor], of_sd35: list[Tensor], tmp_path: Path
) -> None:
    """A shift that follows the size is the family's own; a constant one is the folder's."""
    dev = loaded(as_folder(flux, tmp_path / "flux", use_dynamic_shifting=True, shift=3.0))
    later = loaded(as_folder(sd35, tmp_path / "sd35", shift=2.0))
    assert same(answers(dev), of_flux) and same(answers(later), of_sd35)
    assert (dev.spec.shift, later.spec.shift) == (TokenShift(), ConstantShift(2.0))


def test_a_transformer_alone_in_the_names_of_diffusers(flux: FlowParts, of_flux: list[Tensor], tmp_path: Path) -> None:
    path = save_at(flux.transformer.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    assert same(answers(beside(flux, path)), of_flux)


def test_eight_bits(flux: FlowParts, of_flux: list[Tensor], tmp_path: Path) -> None:
    """Matrices beside a scale, within the rounding of the type."""
    tensors: dict[str, Tensor] = {}
    for name, each in flux_tensors(flux.transformer.state_dict()).items():
        few = each.dim() > 1
        tensors[name] = (each / 0.5).to(torch.float8_e4m3fn) if few else each
        if few:
            tensors[name.removesuffix("weight") + "scale_weight"] = torch.tensor([0.5])
    path = tmp_path / "flux1-dev-fp8.safetensors"
    from safetensors.torch import save_file

    save_file({name: each.contiguous() for name, each in tensors.items()}, path)
    found, wanted = answers(beside(flux, path))[2], of_flux[2]
    assert 0 < float((found - wanted).abs().max()) < 0.4 * float(wanted.abs().max())


_LLAMA = (
    ("shared.", "token_embd."),
    ("encoder.final_layer_norm.", "enc.output_norm."),
    ("encoder.block.", "enc.blk."),
    ("layer.0.SelfAttention.relative_attention_bias.", "attn_rel_b."),
    ("layer.0.SelfAttention.", "attn_"),
    ("layer.0.layer_norm.", "attn_norm."),
    ("layer.1.layer_norm.", "ffn_norm."),
    ("layer.1.DenseReluDense.wi_0.", "ffn_gate."),
    ("layer.1.DenseReluDense.wi_1.", "ffn_up."),
    ("layer.1.DenseReluDense.wo.", "ffn_down."),
)


def test_gguf(flux: FlowParts, of_flux: list[Tensor], tmp_path: Path) -> None:
    """Transformer and T5, the latter in the names of language models."""
    path = packed(tmp_path / "flux1-dev-Q8_0.gguf", flux_tensors(flux.transformer.state_dict()), "flux")
    text = {}
    for name, each in flux.texts[1].state_dict().items():
        for theirs, new in _LLAMA:
            name = name.replace(theirs, new)
        text[name] = each
    text.pop("encoder.embed_tokens.weight", None)
    t5 = packed(tmp_path / "t5-v1_1-xxl-encoder-Q8_0.gguf", text, "t5encoder")
    t5_vocabulary(tmp_path / "t5.tokenizer.json")
    clip = flux.folder / "text_encoders" / "clip_l.safetensors"
    found = answers(loaded(path, clip, t5, vae=vae_for(flux.path)))
    for ours, wanted in ((found[0], of_flux[0]), (found[2], of_flux[2])):
        assert 0 < float((ours - wanted).abs().max()) < 0.05 * float(wanted.abs().max())


def packed(path: Path, tensors: dict[str, Tensor], architecture: str) -> Path:
    gguf: Any = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, architecture)
    for name, each in tensors.items():
        fits = each.dim() == 2 and each.shape[1] % 32 == 0
        kind = gguf.GGMLQuantizationType.Q8_0 if fits else gguf.GGMLQuantizationType.F32
        values: Any = each.numpy().astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, kind) if fits else values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_lies_in_the_usual_folders_is_found(flux: FlowParts, sd35: FlowParts, tmp_path: Path) -> None:
    """Text encoders of other checkpoints are not taken, whatever folder they are in."""
    names = [Path(each).name for each in text_encoders_for(flux.path)]
    assert names == ["clip_l.safetensors", "t5xxl_fp16.safetensors"]
    names = [Path(each).name for each in text_encoders_for(sd35.path)]
    assert names == ["clip_l.safetensors", "clip_g.safetensors", "t5xxl_fp16.safetensors"]
    assert vae_for(sd35.path) == sd35.folder / "vae" / "sd3_vae.safetensors"
    other = shutil.copytree(flux.folder, tmp_path / "flux")
    clip = other / "text_encoders" / "clip_l.safetensors"
    whole = {f"cond_stage_model.transformer.{key}": each for key, each in flux.texts[0].state_dict().items()}
    whole["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(4, 4, 3, 3)
    save_at(whole, other / "diffusion_models" / "a_checkpoint.safetensors")
    assert text_encoders_for(other / "diffusion_models" / flux.name)[0] == str(clip)
    clip.unlink()
    with pytest.raises(CheckpointError, match=r"Flux\.1 dev transformer and no text encoder.*looked for CLIP 24 wide"):
        text_encoders_for(other / "diffusion_models" / flux.name)


def test_the_vocabulary_of_t5(flux: FlowParts, tmp_path: Path) -> None:
    """Beside the encoder, or named like one; without it, the error says where to get it."""
    folder = flux.folder / "text_encoders"
    clip, t5 = (Path(shutil.copy(folder / f"{name}.safetensors", tmp_path)) for name in ("clip_l", "t5xxl_fp16"))
    with pytest.raises(CheckpointError, match=r"t5xxl_fp16\.safetensors: the vocabulary of T5.*t5\.tokenizer\.json"):
        loaded(flux.path, clip, t5, vae=vae_for(flux.path))
    named = loaded(flux.path, clip, t5, flux.tokenizer, vae=vae_for(flux.path))
    assert named.spec.texts[1].tokenizer == str(flux.tokenizer)
    own = t5_vocabulary(tmp_path / "t5xxl_fp16.tokenizer.json")
    assert loaded(flux.path, clip, t5, vae=vae_for(flux.path)).spec.texts[1].tokenizer == str(own)


def test_a_t5_of_another_width(flux: FlowParts, sd35: FlowParts, tmp_path: Path) -> None:
    """It is told of with both models, though one of them can do without."""
    folder = flux.folder / "text_encoders"
    tensors = {key: each for key, each in flux.texts[1].state_dict().items() if "embed_tokens" not in key}
    tensors["shared.weight"] = torch.zeros(64, 16)
    wide = save_at(tensors, tmp_path / "t5_base.safetensors")
    clips = [folder / "clip_l.safetensors", sd35.folder / "text_encoders" / "clip_g.safetensors"]
    with pytest.raises(CheckpointError, match=r"Flux\.1 dev.*needs T5 64 wide, and there is: .*T5 16 wide"):
        loaded(flux.path, clips[0], wide)
    projecting = sd35.folder / "text_encoders" / "clip_l.safetensors"
    with pytest.raises(CheckpointError, match=r"Stable Diffusion 3\.5.*needs T5 64 wide, and there is: .*T5 16 wide"):
        loaded(sd35.path, projecting, clips[1], wide)


def test_what_is_missing_is_named(flux: FlowParts, sd35: FlowParts, tmp_path: Path) -> None:
    alone = Path(shutil.copy(flux.path, tmp_path / "flux1-dev.safetensors"))
    told = what_is(alone)
    assert told["needs"] == ["CLIP 24 wide", "T5 64 wide", "a VAE"]
    assert "give --text-encoder FILE" in told["problems"][0]
    with pytest.raises(CheckpointError, match=r"no VAE: give --vae FILE.*16 channels.*ae\.safetensors"):
        vae_for(alone)
    told = what_is(flux.path)
    assert (told["family"], told["guidance"], told["problems"]) == ("Flux.1 dev", 3.5, [])
    assert told["beside"] == ["clip_l.safetensors", "t5xxl_fp16.safetensors", "ae.safetensors"]
    assert what_is(flux.folder / "text_encoders" / "t5xxl_fp16.safetensors")["encoder"] == "T5 64 wide"
    without = spec_of(sd35.path, text_encoders_for(sd35.path)[:2])
    assert (len(without.texts), without.blank_words) == (2, 256)
    assert replace(without, blank_words=0, texts=()) != without


def test_a_file_that_lacks_a_part_of_a_layer(flux: FlowParts, tmp_path: Path) -> None:
    tensors = dict(flux.transformer.state_dict())
    del tensors["single_transformer_blocks.1.attn.to_k.weight"]
    path = save_at(tensors, tmp_path / "flux.safetensors")
    with pytest.raises(CheckpointError, match=r"tensor single_transformer_blocks\.1\.attn\.to_k\.weight is missing"):
        beside(flux, path)
