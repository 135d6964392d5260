"""Flow models as people have them: in one file or several, in a folder, in few bits; and missing parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint.errors import CheckpointError
from overpaint.models.checkpoint import LoadedModel, load_checkpoint
from overpaint.models.companions import text_encoders_for, vae_for
from overpaint.models.shifts import ConstantShift
from overpaint.models.spec_json import spec_from_json
from overpaint.models.what_is import spec_of, what_is
from overpaint.service.store.forms import plain
from tests.flow_toys import QWEN, VAE, ZIMAGE, ToyFiles, as_folder, save, toy_zimage, whole


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyFiles:
    return toy_zimage(tmp_path_factory.mktemp("zimage"))


def loaded(path: Path, *texts: Path, vae: Path | None = None) -> LoadedModel:
    return load_checkpoint(path, text_encoders=texts, vae_path=vae, hashing=False, dtype="float32")


def answers(model: LoadedModel) -> list[Tensor]:
    """What the three networks say to the same question."""
    generator = torch.Generator().manual_seed(0)
    x, pixels = torch.randn(1, 16, 4, 4, generator=generator), torch.rand(1, 3, 32, 32, generator=generator)
    words = model.backend.text(0, torch.tensor([[5, 9, 70, 2]])).tokens
    said = model.backend.denoise(x, torch.tensor([0.6]), words)
    return [words, said, model.backend.encode(pixels)[0], model.backend.decode(x)]


@pytest.fixture(scope="module")
def plain_answers(toy: ToyFiles) -> list[Tensor]:
    return answers(loaded(toy.path, toy.text_path, vae=toy.vae_path))


def test_what_it_is(toy: ToyFiles) -> None:
    spec = spec_of(toy.path, text_encoders_for(toy.path))
    assert (spec.family, spec.prediction, spec.denoiser) == ("zimage", "flow", ZIMAGE)
    assert (spec.latent.channels, spec.latent.scale, spec.latent.shift) == (16, 0.3611, 0.1159)
    (text,) = spec.texts
    assert (text.kind, text.width, text.heads, text.key_heads) == ("qwen3", QWEN.width, QWEN.heads, QWEN.key_heads)
    assert Path(text.tokenizer).name == "tokenizer.json"
    assert spec_from_json(plain(spec)) == spec


def test_a_folder_and_a_whole_file_say_the_same(toy: ToyFiles, plain_answers: list[Tensor], tmp_path: Path) -> None:
    folder, file = loaded(as_folder(toy, tmp_path / "z", 6.0)), loaded(whole(toy, tmp_path / "aio.safetensors"))
    for model in (folder, file):
        assert model.spec.vae == VAE
        assert all(torch.equal(*pair) for pair in zip(answers(model), plain_answers, strict=True))
    assert (folder.spec.shift, file.spec.shift) == (ConstantShift(6.0), ConstantShift(3.0))


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "transformer."])
def test_prefixes_of_other_programs(prefix: str, toy: ToyFiles, tmp_path: Path) -> None:
    path = save({prefix + name: each for name, each in toy.transformer.items()}, tmp_path / "z.safetensors")
    assert spec_of(path, [toy.text_path]).denoiser == ZIMAGE


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 0.02), (torch.float8_e4m3fn, 0.3)])
def test_fewer_bits(
    dtype: torch.dtype, error: float, toy: ToyFiles, plain_answers: list[Tensor], tmp_path: Path
) -> None:
    """Within the rounding of the type; 8 bits come beside a scale."""
    tensors = {}
    for name, each in toy.transformer.items():
        few = each.dim() > 1 and dtype.itemsize == 1
        tensors[name] = (each / 0.5).to(dtype) if few else each.to(torch.bfloat16)
        if few:
            tensors[name.removesuffix("weight") + "scale_weight"] = torch.tensor([0.5])
    path = save(tensors, tmp_path / "z.safetensors")
    found = answers(loaded(path, toy.text_path, vae=toy.vae_path))[1]
    assert 0 < float((found - plain_answers[1]).abs().max()) < error * float(plain_answers[1].abs().max())


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


_LLAMA_NAMES = (
    ("embed_tokens.", "token_embd."),
    ("layers.", "blk."),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
)


def llama_named(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for name, each in tensors.items():
        for ours, theirs in _LLAMA_NAMES:
            name = name.replace(ours, theirs)
        named[name] = each
    return named


def test_gguf(toy: ToyFiles, plain_answers: list[Tensor], tmp_path: Path) -> None:
    """Transformer and text encoder, the latter in the names of language models."""
    path = packed(tmp_path / "z-image-turbo-Q8_0.gguf", toy.transformer, "lumina2")
    text = packed(tmp_path / "Qwen3-4B-Q8_0.gguf", llama_named(toy.text), "qwen3")
    found = answers(loaded(path, text, vae=toy.vae_path))
    for ours, wanted in zip(found[:2], plain_answers[:2], strict=True):
        assert 0 < float((ours - wanted).abs().max()) < 0.05 * float(wanted.abs().max())


def test_what_lies_in_the_usual_folders_is_found(toy: ToyFiles) -> None:
    assert text_encoders_for(toy.path) == (str(toy.text_path),)
    assert text_encoders_for(toy.path, ("other.safetensors",)) == ("other.safetensors",)
    assert vae_for(toy.path) == toy.vae_path
    assert vae_for(toy.vae_path) is None
    assert text_encoders_for(toy.text_path) == ()


def test_missing_parts_are_named(toy: ToyFiles, tmp_path: Path) -> None:
    path = save(toy.transformer, tmp_path / "models" / "z.safetensors")
    wanted = r"z\.safetensors: .*Z-Image transformer and no text encoder: give --text-encoder FILE.*Qwen3 32 wide; "
    with pytest.raises(CheckpointError, match=wanted):
        text_encoders_for(path)
    with pytest.raises(CheckpointError, match=r"no VAE: give --vae FILE.*16 channels.*ae\.safetensors.*looked in"):
        vae_for(path)
    save(toy.vae, path.with_name("sd3_vae.safetensors"))  # of the same shape, but of another family
    with pytest.raises(CheckpointError, match="no VAE"):
        vae_for(path)


@pytest.mark.parametrize(
    ("width", "wanted"),
    [(64, r"needs Qwen3 32 wide, and there is: .*Qwen3 64 wide"), (None, r"holds no text encoder that a Z-Image")],
)
def test_a_text_encoder_of_another_kind(width: int | None, wanted: str, toy: ToyFiles, tmp_path: Path) -> None:
    t5 = {"encoder.block.0.layer.0.SelfAttention.q.weight": torch.zeros(8, 8), "shared.weight": torch.zeros(9, 8)}
    tensors = t5 if width is None else {**toy.text, "embed_tokens.weight": torch.zeros(288, width)}
    path = save(tensors, tmp_path / "text.safetensors")
    with pytest.raises(CheckpointError, match=rf"text_encoder_files: .*{wanted}"):
        loaded(toy.path, path, vae=toy.vae_path)


def test_a_language_model_is_no_checkpoint(toy: ToyFiles, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="text encoder"):
        loaded(toy.text_path)
    packed_one = packed(tmp_path / "Qwen3-4B.gguf", llama_named(toy.text), "qwen3")
    with pytest.raises(CheckpointError, match=r"Qwen3-4B\.gguf: it is a text encoder: give it as --text-encoder"):
        loaded(packed_one)
    with pytest.raises(CheckpointError, match="'llama' model and no U-Net"):
        loaded(packed(tmp_path / "llama.gguf", {"blk.0.attn_q.weight": torch.zeros(32, 32)}, "llama"))


def test_a_file_that_lacks_a_tensor(toy: ToyFiles, tmp_path: Path) -> None:
    cut = {name: each for name, each in toy.transformer.items() if name != "layers.1.attention.out.weight"}
    path = save(cut, tmp_path / "z.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.1\.attention\.out\.weight"):
        loaded(path, toy.text_path, vae=toy.vae_path)


def test_a_transformer_of_no_known_family(tmp_path: Path) -> None:
    path = save({"double_blocks.0.img_attn.qkv.weight": torch.zeros(6, 2)}, tmp_path / "flux.safetensors")
    with pytest.raises(CheckpointError, match="Flux"):
        loaded(path)


def test_info_tells_of_every_part(toy: ToyFiles, tmp_path: Path) -> None:
    told = what_is(toy.path)
    assert (told["family"], told["problems"], told["shift"]) == ("Z-Image", [], 3.0)
    assert told["needs"] == ["Qwen3 32 wide", "a VAE"]
    assert told["beside"] == ["qwen_3_4b.safetensors", "ae.safetensors"]
    assert what_is(toy.text_path) | {"kind": "text_encoder", "encoder": "Qwen3 32 wide"} == what_is(toy.text_path)
    assert what_is(toy.vae_path)["latent_channels"] == 16
    alone = what_is(save(toy.transformer, tmp_path / "z.safetensors"))
    assert alone["family"] == "Z-Image" and "give --text-encoder FILE" in alone["problems"][0]
