"""Qwen-Image and Flux.2 klein in every form that people have them in: the same answers; and missing parts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from overpaint.errors import CheckpointError
from overpaint.models.checkpoint import LoadedModel, load_checkpoint
from overpaint.models.companions import text_encoders_for, vae_for
from overpaint.models.detect import autoencoder_spec
from overpaint.models.flow_rows import NEWER_FAMILIES
from overpaint.models.layouts import vae_names, wan_names
from overpaint.models.shifts import StepShift, TokenShift
from overpaint.models.spec_json import spec_from_json
from overpaint.models.specs import Flux2Spec, QwenImageSpec
from overpaint.models.transformer_shapes import transformer_part, transformer_spec
from overpaint.models.what_is import spec_of, what_is
from overpaint.service.store.forms import plain
from tests.networks_vs_diffusers.flow_files import save, small_vocabulary
from tests.networks_vs_diffusers.newer_sources import (
    KLEIN_WORDS,
    LATENTS,
    QWEN_WORDS,
    NewerParts,
    flux2_tensors,
    klein_parts,
    qwen_parts,
    wan_tensors,
)
from tests.networks_vs_diffusers.original_layout import vae_tensors
from tests.networks_vs_diffusers.test_flux_files import packed, same

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> NewerParts:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return qwen_parts(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> NewerParts:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return klein_parts(tmp_path_factory.mktemp("klein"))


def loaded(path: Path, *texts: Path, vae: Path | None = None) -> LoadedModel:
    return load_checkpoint(path, text_encoders=texts, vae_path=vae, hashing=False, dtype="float32")


def answers(model: LoadedModel) -> list[Tensor]:
    """What the networks say to the same question."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, model.spec.latent.channels, 4, 4, generator=generator)
    pixels = torch.rand(1, 3, 32, 32, generator=generator)
    words = model.backend.text(0, torch.arange(40)[None]).tokens
    said = model.backend.denoise(x, torch.tensor([0.6]), words)
    return [words, said, model.backend.encode(pixels)[0], model.backend.decode(x)]


@pytest.fixture(scope="module")
def of_qwen(qwen: NewerParts) -> list[Tensor]:
    return answers(loaded(qwen.path, qwen.text_path, vae=qwen.vae_path))


@pytest.fixture(scope="module")
def of_klein(klein: NewerParts) -> list[Tensor]:
    return answers(loaded(klein.path, klein.text_path, vae=klein.vae_path))


def test_what_they_are(qwen: NewerParts, klein: NewerParts) -> None:
    image, small = (spec_of(each.path, text_encoders_for(each.path)) for each in (qwen, klein))
    assert (image.title, image.cfg_scale, image.keeps_length) == ("Qwen-Image", 4.0, True)
    assert image.shift == TokenShift(most=(8192, 0.9), terminal=0.02)
    assert (small.title, small.cfg_scale, small.guidance, small.shift) == ("Flux.2 klein", 1.0, None, StepShift())
    assert (image.latent.channels, image.latent.factor) == (16, 8)
    assert (small.latent.channels, small.latent.factor) == (LATENTS, 16)
    (words,), (states,) = image.texts, small.texts
    assert (words.kind, words.width, words.unread, words.final_norm) == ("qwen25", QWEN_WORDS, 34, True)
    assert (states.kind, states.width, states.states) == ("qwen3_stacked", KLEIN_WORDS, (9, 18, 27))
    assert isinstance(image.denoiser, QwenImageSpec) and isinstance(small.denoiser, Flux2Spec)
    assert all(spec_from_json(plain(each)) == each for each in (image, small))


def test_info(qwen: NewerParts, klein: NewerParts) -> None:
    told = [what_is(each.path) for each in (qwen, klein)]
    assert [each["family"] for each in told] == ["Qwen-Image", "Flux.2 klein"]
    assert [each["problems"] for each in told] == [[], []]
    assert told[0]["beside"] == ["qwen_2.5_vl_7b.safetensors", "qwen_image_vae.safetensors"]
    assert told[1]["beside"] == ["qwen_3_4b.safetensors", "flux2-vae.safetensors"]
    assert what_is(qwen.text_path)["encoder"] == f"Qwen2.5-VL {QWEN_WORDS} wide with its vision tower"


def as_folder(parts: NewerParts, folder: Path, **scheduler: Any) -> Path:
    """As diffusers lays a model out."""
    for name, network in (("transformer", parts.transformer), ("text_encoder", parts.text), ("vae", parts.vae)):
        network.save_pretrained(folder / name)
    (folder / "tokenizer").mkdir()
    small_vocabulary(folder / "tokenizer" / "tokenizer.json")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler), encoding="utf-8")
    (folder / "model_index.json").write_text("{}", encoding="utf-8")
    return folder


def test_folders(
    qwen: NewerParts, klein: NewerParts, of_qwen: list[Tensor], of_klein: list[Tensor], tmp_path: Path
) -> None:
    """A shift that follows the size is the family's own."""
    image = loaded(as_folder(qwen, tmp_path / "qwen", use_dynamic_shifting=True, shift=1.0))
    small = loaded(as_folder(klein, tmp_path / "klein", use_dynamic_shifting=True, shift=3.0))
    assert same(answers(image), of_qwen) and same(answers(small), of_klein)
    assert isinstance(image.spec.shift, TokenShift) and isinstance(small.spec.shift, StepShift)


def whole(path: Path, **parts: dict[str, Tensor]) -> Path:
    names = {"transformer": "model.diffusion_model.", "text": "text_encoders.x.transformer.", "vae": "vae."}
    tensors = {names[part] + key: each.clone() for part, inner in parts.items() for key, each in inner.items()}
    save(tensors, path)
    small_vocabulary(path.with_name("tokenizer.json"))
    return path


def test_whole_files(
    qwen: NewerParts, klein: NewerParts, of_qwen: list[Tensor], of_klein: list[Tensor], tmp_path: Path
) -> None:
    """The codecs in the names of their authors, too: klein's has the convolutions beside the latents inside."""
    image = whole(
        tmp_path / "qwen.safetensors",
        transformer=qwen.transformer.state_dict(),
        text=qwen.text.state_dict(),
        vae=wan_tensors(qwen.vae.state_dict()),
    )
    assert same(answers(loaded(image)), of_qwen)
    sides = {"quant_conv": "encoder.quant_conv", "post_quant_conv": "decoder.post_quant_conv"}
    codec = {
        ".".join([sides.get(key.split(".")[0], key.split(".")[0]), *key.split(".")[1:]]): each
        for key, each in vae_tensors(klein.vae).items()
    }
    small = whole(
        tmp_path / "klein.safetensors",
        transformer=flux2_tensors(klein.transformer.state_dict()),
        text=klein.text.state_dict(),
        vae=codec,
    )
    assert same(answers(loaded(small)), of_klein)


def test_published_shapes() -> None:
    """diffusers' own configurations, which are those of the published models, are measured as our rows expect them."""
    diffusers = pytest.importorskip("diffusers")

    with torch.device("meta"):
        image = diffusers.QwenImageTransformer2DModel(num_layers=3)
        klein = diffusers.Flux2Transformer2DModel(
            num_layers=5, num_single_layers=3, num_attention_heads=24, joint_attention_dim=7680, guidance_embeds=False
        )
        films, patches = diffusers.AutoencoderKLQwenImage(), diffusers.AutoencoderKLFlux2()
    found = transformer_part({key: tuple(each.shape) for key, each in image.state_dict().items()})
    assert found is not None and found[0].name == "qwen-image"
    spec = transformer_spec(found[1], found[0])
    assert isinstance(spec, QwenImageSpec)
    assert (spec.width, spec.heads, spec.inner, spec.context_dim, spec.axes) == (3072, 24, 12288, 3584, (16, 56, 56))
    found = transformer_part({key: tuple(each.shape) for key, each in klein.state_dict().items()})
    assert found is not None and found[0].name == "flux2-klein"
    small = transformer_spec(found[1], found[0])
    assert isinstance(small, Flux2Spec)
    assert (small.width, small.inner, small.double_blocks, small.single_blocks) == (3072, 9216, 5, 3)
    assert small.axes == (32, 32, 32, 32) and small.text_widths == (2560,)
    codecs = {family.name: family.vae for family in NEWER_FAMILIES}
    named = wan_names(films.state_dict())
    shapes = {ours: tuple(films.state_dict()[theirs].shape) for ours, theirs in named.items()}
    shapes = {ours: (*each[:2], *each[3:]) if len(each) == 5 else each for ours, each in shapes.items()}
    assert autoencoder_spec(shapes) == codecs["qwen-image"]
    named = vae_names(key for key in patches.state_dict() if "num_batches" not in key)
    shapes = {ours: tuple(patches.state_dict()[theirs].shape) for theirs, ours in named.items()}
    assert autoencoder_spec(shapes) == codecs["flux2-klein"]


def test_transformers_alone_in_the_names_of_diffusers(
    klein: NewerParts, of_klein: list[Tensor], tmp_path: Path
) -> None:
    save(klein.transformer.state_dict(), tmp_path / "klein.safetensors")
    assert same(answers(loaded(tmp_path / "klein.safetensors", klein.text_path, vae=klein.vae_path)), of_klein)


def eight_bits(tensors: dict[str, Tensor], path: Path) -> Path:
    """Matrices beside a scale."""
    made: dict[str, Tensor] = {}
    for name, each in tensors.items():
        few = each.dim() > 1
        made[name] = (each / 0.5).to(torch.float8_e4m3fn) if few else each
        if few:
            made[name.removesuffix("weight") + "scale_weight"] = torch.tensor([0.5])
    save_file({name: each.contiguous() for name, each in made.items()}, path)
    return path


def near(found: Tensor, wanted: Tensor, share: float) -> bool:
    return 0 < float((found - wanted).abs().max()) < share * float(wanted.abs().max())


def test_eight_bits(
    qwen: NewerParts, klein: NewerParts, of_qwen: list[Tensor], of_klein: list[Tensor], tmp_path: Path
) -> None:
    """Transformers within the rounding of the type."""
    image = eight_bits(qwen.transformer.state_dict(), tmp_path / "qwen_image_fp8_e4m3fn.safetensors")
    small = eight_bits(flux2_tensors(klein.transformer.state_dict()), tmp_path / "flux-2-klein-4b-fp8.safetensors")
    assert near(answers(loaded(image, qwen.text_path, vae=qwen.vae_path))[1], of_qwen[1], 0.4)
    assert near(answers(loaded(small, klein.text_path, vae=klein.vae_path))[1], of_klein[1], 0.4)


_LLAMA = (
    ("embed_tokens.", "token_embd."),
    (".input_layernorm.", ".attn_norm."),
    (".post_attention_layernorm.", ".ffn_norm."),
    (".self_attn.q_proj.", ".attn_q."),
    (".self_attn.k_proj.", ".attn_k."),
    (".self_attn.v_proj.", ".attn_v."),
    (".self_attn.o_proj.", ".attn_output."),
    (".mlp.gate_proj.", ".ffn_gate."),
    (".mlp.up_proj.", ".ffn_up."),
    (".mlp.down_proj.", ".ffn_down."),
    ("layers.", "blk."),
)


def test_gguf(qwen: NewerParts, of_qwen: list[Tensor], tmp_path: Path) -> None:
    """Transformer and text encoder, the latter in the names of language models."""
    path = packed(tmp_path / "qwen-image-Q8_0.gguf", qwen.transformer.state_dict(), "qwen_image")
    text = {}
    for name, each in qwen.text.model.language_model.state_dict().items():
        name = "output_norm.weight" if name == "norm.weight" else name
        for theirs, new in _LLAMA:
            name = name.replace(theirs, new)
        text[name] = each
    words = packed(tmp_path / "Qwen2.5-VL-7B-Instruct-Q8_0.gguf", text, "qwen2vl")
    small_vocabulary(tmp_path / "tokenizer.json")
    found = answers(loaded(path, words, vae=qwen.vae_path))
    assert near(found[0], of_qwen[0], 0.05) and near(found[1], of_qwen[1], 0.05)


def test_what_is_missing_or_wrong_is_named(qwen: NewerParts, klein: NewerParts, tmp_path: Path) -> None:
    alone = Path(shutil.copy(klein.path, tmp_path / "flux-2-klein-4b.safetensors"))
    told = what_is(alone)
    assert told["needs"] == [f"Qwen3 {KLEIN_WORDS} wide", "a VAE"]
    assert "give --text-encoder FILE" in told["problems"][0]
    with pytest.raises(CheckpointError, match=r"no VAE: give --vae FILE.*32 channels.*flux2\.safetensors"):
        vae_for(alone)
    with pytest.raises(CheckpointError, match=r"Flux\.2 klein transformer like this needs Qwen3 16 wide.*Qwen2\.5-VL"):
        loaded(klein.path, qwen.text_path, vae=klein.vae_path)
    with pytest.raises(CheckpointError, match=r"its latents have 128 channels, the model's 16; choose a VAE"):
        loaded(qwen.path, qwen.text_path, vae=klein.vae_path)


def test_a_vae_of_another_kind(qwen: NewerParts, tmp_path: Path) -> None:
    """That of Flux.1 has as many channels, and another form."""
    from tests.networks_vs_diffusers.flow_files import small_vae

    save(vae_tensors(small_vae()), tmp_path / "ae.safetensors")
    with pytest.raises(CheckpointError, match=r"ae\.safetensors: it is a VAE of another family; choose one of the"):
        loaded(qwen.path, qwen.text_path, vae=tmp_path / "ae.safetensors")


def test_flux2_dev_is_refused_by_its_name(klein: NewerParts, tmp_path: Path) -> None:
    tensors = flux2_tensors(klein.transformer.state_dict())
    tensors["guidance_in.in_layer.weight"] = torch.zeros(32, 256)
    save(tensors, tmp_path / "flux2-dev.safetensors")
    with pytest.raises(CheckpointError, match=r"this file is a Flux\.2 dev model, which is not supported"):
        spec_of(tmp_path / "flux2-dev.safetensors", text_encoders_for(tmp_path / "flux2-dev.safetensors"))
    assert "Flux.2 dev" in what_is(tmp_path / "flux2-dev.safetensors")["problems"][0]
