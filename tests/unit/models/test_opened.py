"""One checkpoint from whatever a model comes as: parts in files, prefixes, storage in 8 bits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from overpaint.errors import CheckpointError
from overpaint.models.checkpoint import load_checkpoint
from overpaint.models.detect import detect
from overpaint.models.families import SD1_SPEC
from overpaint.models.files import Weights, read_all, write_safetensors
from overpaint.models.opened import open_model
from overpaint.models.vaes import open_vae
from tests.unit.models.other_layouts import TEXT, UNET, VAE, Tensors, diffusers_unet, diffusers_vae, saved, tensors_of

FACTS = {"overpaint.num_heads": "8"}
TEXT_FACTS = {"overpaint.text_heads": "[1]"}


def numbers(weights: Weights, keys: Iterable[str] | None = None) -> dict[str, torch.Tensor]:
    read = dict(weights.read(weights.shapes if keys is None else keys))
    for key, tensor in read.items():
        assert tuple(tensor.shape) == weights.shapes[key], key
    return read


def same_numbers(got: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    assert got.keys() == wanted.keys()
    assert [key for key in got if not torch.equal(got[key], wanted[key])] == []


def without(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(prefix)}


@pytest.fixture(scope="module")
def text_file(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its text encoder alone, as transformers names it."""
    folder = tmp_path_factory.mktemp("texte") / "Größe ü"
    return saved(folder / "clip_l.safetensors", tensors_of(tiny, TEXT), TEXT_FACTS)


@pytest.fixture(scope="module")
def vae_file(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("vae") / "vae.safetensors", tensors_of(tiny, VAE))


def test_whole_checkpoint_is_opened_as_it_is(tiny: Path, text_file: Path) -> None:
    weights = open_model(tiny, text_encoders=[text_file.with_name("not there")])
    same_numbers(numbers(weights), read_all(tiny))


NAMED: Mapping[str, Any] = {
    "bare": lambda unet: unet,
    "whole": lambda unet: {UNET + name: each for name, each in unet.items()},
    "half": lambda unet: {"diffusion_model." + name: each for name, each in unet.items()},
    "diffusers": diffusers_unet,
    "diffusers below a prefix": lambda unet: {"unet." + name: each for name, each in diffusers_unet(unet).items()},
}


@pytest.mark.parametrize("way", NAMED)
def test_a_unet_alone_with_its_text_encoder(way: str, tiny: Path, text_file: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "モデル.safetensors", NAMED[way](tensors_of(tiny, UNET)), FACTS)
    weights = open_model(path, text_encoders=[text_file])
    same_numbers(numbers(weights), without(read_all(tiny), VAE))
    spec = detect(weights.shapes, weights.metadata)
    assert (spec.family, spec.unet.heads, spec.texts[0].heads) == ("sd1", 8, 1)
    assert spec.facts["vae"] == "family default"
    assert spec.vae == SD1_SPEC.vae


def test_the_parts_paint_what_the_whole_paints(tiny: Path, text_file: Path, vae_file: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "unet.safetensors", diffusers_unet(tensors_of(tiny, UNET)), FACTS)
    parts = load_checkpoint(path, dtype="float32", hashing=False, text_encoders=(text_file,), vae_path=vae_file)
    whole = load_checkpoint(tiny, dtype="float32", hashing=False)
    assert answer(parts.backend).equal(answer(whole.backend))
    assert parts.ignored == ()
    with pytest.raises(CheckpointError, match=r"unet\.safetensors: .*sd_vae"):
        load_checkpoint(path, dtype="float32", hashing=False, text_encoders=(text_file,))


def answer(backend: Any) -> torch.Tensor:
    """Something that depends on every network."""
    text = backend.text(0, torch.tensor([[49406, 320, 2368, *[49407] * 74]])).tokens
    mean, _ = backend.encode(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    eps = backend.denoise(mean, torch.tensor([500.0]), text)
    result: torch.Tensor = torch.cat([eps.flatten(), backend.decode(mean).flatten()])
    return result


@pytest.mark.parametrize(
    "named",
    [
        lambda name: name,
        lambda name: name.removeprefix("text_model."),
        lambda name: TEXT + name,
        lambda name: "text_encoders.clip_l.transformer." + name,
    ],
    ids=["transformers 4", "transformers 5", "checkpoint", "bundle"],
)
def test_text_encoders_under_any_prefix(named: Any, tiny: Path, tmp_path: Path) -> None:
    unet = saved(tmp_path / "unet.safetensors", tensors_of(tiny, UNET), FACTS)
    text: Tensors = {named(name): each for name, each in tensors_of(tiny, TEXT).items()}
    text["vision_model.embeddings.class_embedding"] = np.zeros(8, dtype=np.float32)
    text["logit_scale"] = np.zeros((), dtype=np.float32)
    weights = open_model(unet, text_encoders=[saved(tmp_path / "text.safetensors", text)])
    same_numbers(numbers(weights), without(read_all(tiny), VAE))


def test_a_whole_checkpoint_lends_its_text_encoder(tiny: Path, tmp_path: Path) -> None:
    unet = saved(tmp_path / "unet.safetensors", tensors_of(tiny, UNET), FACTS)
    same_numbers(numbers(open_model(unet, text_encoders=[tiny])), without(read_all(tiny), VAE))


def test_a_unet_without_text_encoders_says_which_setting_gives_them(tiny: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "unet.safetensors", tensors_of(tiny, UNET), FACTS)
    with pytest.raises(CheckpointError, match=r"Diffusion 1 U-Net but no text encoder: .*CLIP-L.* text_encoder_files"):
        detect(open_model(path).shapes)


def test_a_unet_of_no_family_is_named(text_file: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "odd.safetensors", unet_like(64, channels=5))
    with pytest.raises(CheckpointError, match=r"odd\.safetensors: the U-Net takes 5 channels"):
        open_model(path, text_encoders=[text_file])


def test_text_encoders_that_do_not_fit(tiny: Path, tmp_path: Path, vae_file: Path) -> None:
    path = saved(tmp_path / "unet.safetensors", tensors_of(tiny, UNET), FACTS)
    other = saved(tmp_path / "wide.safetensors", clip(96, layers=1))
    with pytest.raises(CheckpointError, match=r"text_encoder_files: .* 64 wide, and there are: wide\.s.* \(96 wide\)"):
        open_model(path, text_encoders=[other])
    with pytest.raises(CheckpointError, match=r"text_encoder_files: vae\.safetensors holds no CLIP text encoder"):
        open_model(path, text_encoders=[vae_file])


def clip(width: int, layers: int = 1, *, projects: bool = False, blank: bool = False) -> Tensors:
    """A small CLIP as transformers names it; every tensor is different, or all are blank and quickly made."""
    stream = np.random.default_rng(width)

    def some(*shape: int) -> NDArray[Any]:
        return np.zeros(shape, dtype=np.uint8) if blank else stream.standard_normal(shape).astype(np.float32)

    tensors = {
        "text_model.embeddings.token_embedding.weight": some(100, width),
        "text_model.embeddings.position_embedding.weight": some(77, width),
        "text_model.embeddings.position_ids": np.arange(77, dtype=np.int64)[None],
    }
    for layer in range(layers):
        start = f"text_model.encoder.layers.{layer}."
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"):
            tensors |= {f"{start}{name}.weight": some(width, width), f"{start}{name}.bias": some(width)}
        for name, rows, columns in (("mlp.fc1", 2 * width, width), ("mlp.fc2", width, 2 * width)):
            tensors |= {f"{start}{name}.weight": some(rows, columns), f"{start}{name}.bias": some(rows)}
        for name in ("layer_norm1", "layer_norm2"):
            tensors |= {f"{start}{name}.weight": some(width), f"{start}{name}.bias": some(width)}
    for last in ("weight", "bias"):
        tensors[f"text_model.final_layer_norm.{last}"] = some(width)
    if projects:
        tensors["text_projection.weight"] = some(width, width)
    return tensors


def unet_like(context: int, vector: int | None = None, *, linear: bool = False, channels: int = 4) -> Tensors:
    """The corner stones of a U-Net, enough to tell what it is."""

    def zeros(*shape: int) -> NDArray[Any]:
        return np.zeros(shape, dtype=np.float16)

    tensors = {
        "input_blocks.0.0.weight": zeros(32, channels, 3, 3),
        "input_blocks.1.0.out_layers.3.weight": zeros(32, 32, 3, 3),
        "input_blocks.1.1.proj_in.weight": zeros(32, 32) if linear else zeros(32, 32, 1, 1),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": zeros(32, context),
        "output_blocks.0.0.in_layers.2.weight": zeros(32, 64, 3, 3),
        "time_embed.0.weight": zeros(128, 32),
        "out.2.weight": zeros(4, 32, 3, 3),
    }
    return {**tensors, "label_emb.0.0.weight": zeros(128, vector)} if vector else tensors


@pytest.mark.parametrize(
    ("unet", "title"),
    [
        (unet_like(768), "Stable Diffusion 1"),
        (unet_like(768, channels=9), "Stable Diffusion 1 inpainting"),
        (unet_like(768, channels=8), "InstructPix2Pix"),
        (unet_like(1024, linear=True), "Stable Diffusion 2"),
        (unet_like(1024, linear=True, channels=9), "Stable Diffusion 2 inpainting"),
        (unet_like(2048, 2816, linear=True), "SDXL"),
        (unet_like(2048, 2816, linear=True, channels=9), "SDXL inpainting"),
        (unet_like(1280, 2560, linear=True), "SDXL refiner"),
        (unet_like(48, linear=True), "Stable Diffusion 2"),  # narrow ones of the tests
        (unet_like(48), "Stable Diffusion 1"),
    ],
    ids=str,
)
def test_family_of_a_unet_alone(unet: Tensors, title: str) -> None:  # ARCH: context and vector widths
    shapes = {UNET + name: each.shape for name, each in unet.items()}
    with pytest.raises(CheckpointError, match=f"it holds a {title} U-Net but no text encoder"):
        detect(shapes)


@pytest.mark.parametrize("unet", [unet_like(768, channels=5), unet_like(2048, 4000), unet_like(2048, 2816, channels=8)])
def test_unets_of_no_family(unet: Tensors) -> None:
    with pytest.raises(CheckpointError, match="which no supported family does"):
        detect({UNET + name: each.shape for name, each in unet.items()})


def fused(tensors: Tensors, layer: str, last: str) -> NDArray[Any]:
    return np.concatenate([tensors[f"text_model.{layer}.self_attn.{each}_proj.{last}"] for each in "qkv"])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("openclip", [False, True], ids=["transformers", "OpenCLIP"])
def test_both_encoders_of_sdxl_in_any_order(reverse: bool, openclip: bool, tmp_path: Path) -> None:  # ARCH-8
    small, large = clip(32, projects=True), clip(64, layers=2, projects=True)
    unet = saved(tmp_path / "xl.safetensors", unet_like(96, 64 + 6 * 256, linear=True))
    files = [saved(tmp_path / "l.safetensors", small), saved(tmp_path / "g.safetensors", large)]
    files.insert(1, saved(tmp_path / "of another model.safetensors", clip(48)))
    if openclip:
        saved(files[2], as_openclip(large, 2))
    weights = open_model(unet, text_encoders=files[::-1] if reverse else files)
    read = numbers(weights)
    start = "conditioner.embedders.0.transformer."
    wanted = {start + name: each for name, each in small.items() if "text_model" in name and "position_ids" not in name}
    assert {key for key in read if key.startswith(start)} == wanted.keys()
    assert all(np.array_equal(read[key].numpy(), each) for key, each in wanted.items())
    start = "conditioner.embedders.1.model."
    wanted = {start + name: each for name, each in as_openclip(large, 2).items()}
    assert {key for key in read if key.startswith(start)} == wanted.keys()
    assert all(np.array_equal(read[key].numpy(), each) for key, each in wanted.items())


def as_openclip(tensors: Tensors, layers: int) -> Tensors:
    """By hand: fused queries, keys and values, and the projection with rows and columns exchanged."""
    found: Tensors = {
        "token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
    }
    for layer in range(layers):
        old, new = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for last in ("weight", "bias"):
            found[f"{new}.attn.in_proj_{last}"] = fused(tensors, old, last)
            found[f"{new}.attn.out_proj.{last}"] = tensors[f"text_model.{old}.self_attn.out_proj.{last}"]
            for ours, theirs in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2")):
                found[f"{new}.{ours}.{last}"] = tensors[f"text_model.{old}.{theirs}.{last}"]
            for ours, theirs in (("c_fc", "fc1"), ("c_proj", "fc2")):
                found[f"{new}.mlp.{ours}.{last}"] = tensors[f"text_model.{old}.mlp.{theirs}.{last}"]
    for last in ("weight", "bias"):
        found[f"ln_final.{last}"] = tensors[f"text_model.final_layer_norm.{last}"]
    return {**found, "text_projection": tensors["text_projection.weight"].T}


@pytest.mark.parametrize(
    ("unet", "widths", "prefix"),
    [
        (unet_like(768), [1024, 1280, 768], "cond_stage_model.transformer.text_model.embeddings.token_embedding"),
        (unet_like(1024, linear=True), [768, 1024], "cond_stage_model.model.token_embedding"),
        (unet_like(1280, 2560, linear=True), [768, 1280], "conditioner.embedders.0.model.token_embedding"),
        (unet_like(64 + 48, 48 + 6 * 256, linear=True), [48, 64], "conditioner.embedders.1.model.token_embedding"),
        (unet_like(256 + 48, 48 + 6 * 256, linear=True), [48, 256], "conditioner.embedders.1.model.token_embedding"),
        (unet_like(48, 48 + 5 * 256, linear=True), [32, 48], "conditioner.embedders.0.model.token_embedding"),
    ],
    ids=["sd1", "sd2", "refiner", "narrow sdxl", "sdxl as wide as a refiner", "narrow refiner"],
)
def test_the_encoder_that_fits_is_taken(unet: Tensors, widths: list[int], prefix: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "unet.safetensors", unet)
    files = [
        saved(tmp_path / f"{width}.safetensors", clip(width, projects=width > 768, blank=True)) for width in widths
    ]
    assert f"{prefix}.weight" in open_model(path, text_encoders=files).shapes


def test_a_text_encoder_with_a_hole(tmp_path: Path) -> None:
    path = saved(tmp_path / "unet.safetensors", unet_like(1024, linear=True))
    torn = {name: each for name, each in clip(1024, blank=True).items() if "k_proj.bias" not in name}
    with pytest.raises(CheckpointError, match=r"torn\.safetensors: tensor .*k_proj\.bias is missing"):
        open_model(path, text_encoders=[saved(tmp_path / "torn.safetensors", torn)])


def test_mark_of_v_prediction_beside_a_unet_alone(tiny: Path, tmp_path: Path, text_file: Path) -> None:  # FAM-3
    tensors = {**diffusers_unet(tensors_of(tiny, UNET)), "v_pred": np.zeros(0, dtype=np.float32)}
    weights = open_model(saved(tmp_path / "v.safetensors", tensors, FACTS), text_encoders=[text_file])
    assert detect(weights.shapes, weights.metadata).prediction == "v"


def test_names_that_no_unet_has(tiny: Path, tmp_path: Path) -> None:
    tensors = diffusers_unet(tensors_of(tiny, UNET))
    tensors["time_embedding.cond_proj.weight"] = np.zeros((4, 4), dtype=np.float32)
    with pytest.raises(
        CheckpointError, match=r"x\.safetensors: tensor 'time_embedding\.cond_proj\.weight' belongs to no U-Net"
    ):
        open_model(saved(tmp_path / "x.safetensors", tensors))


@pytest.mark.parametrize(
    ("keys", "advice"),
    [
        (["text_model.embeddings.token_embedding.weight"], "text_encoder_files"),
        (["conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "controlnet_down_blocks.0.weight"], "ControlNet"),
        (["input_blocks.0.0.weight", "out.2.weight", "zero_convs.0.0.weight"], "ControlNet"),
        (["encoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"], "VAE"),
    ],
)
def test_other_files_are_told_apart(keys: list[str], advice: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {key: np.zeros((4, 4), dtype=np.float32) for key in keys}, {})
    with pytest.raises(CheckpointError, match=advice):
        detect(open_model(path).shapes)


@pytest.mark.parametrize("old", [False, True])
def test_vae_files_in_the_layout_of_diffusers(old: bool, tiny: Path, vae_file: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "vae.safetensors", diffusers_vae(tensors_of(tiny, VAE), old=old))
    same_numbers(numbers(open_vae(path).weights), read_all(vae_file))
    assert open_vae(path).spec == open_vae(vae_file).spec


def test_a_whole_checkpoint_lends_its_vae(tiny: Path, vae_file: Path) -> None:
    same_numbers(numbers(open_vae(tiny).weights), read_all(vae_file))


def in_eight_bits(tiny: Path, path: Path, dtype: torch.dtype, *, scale: float | None = None) -> dict[str, torch.Tensor]:
    """Every matrix and kernel of the U-Net in 8 bits, some of them beside a scale; what they stand for is returned."""
    from safetensors.torch import save_file

    stored = read_all(tiny)
    wanted = dict(stored)
    for name in [name for name, each in stored.items() if name.startswith(UNET) and each.dim() > 1]:
        by = torch.tensor(scale) if scale and ".attn1.to_" in name else torch.tensor(1.0)
        small = (stored[name].float() / by).to(dtype)
        stored[name], wanted[name] = small, small.float() * by
        if by != 1:
            stored[name.removesuffix("weight") + "scale_weight"] = by
            stored[name.removesuffix("weight") + "scale_input"] = torch.tensor(3.0)
    if scale:
        stored["scaled_fp8"] = torch.zeros(2).to(dtype)
    save_file(stored, path, metadata={**FACTS, **TEXT_FACTS})
    return wanted


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float8_e4m3fn, None), (torch.float8_e4m3fn, 0.125), (torch.float8_e5m2, None)],
    ids=["E4M3", "E4M3 scaled", "E5M2"],
)
def test_storage_in_eight_bits_is_computed_in_a_wider_type(
    dtype: torch.dtype, scale: float | None, tiny: Path, tmp_path: Path
) -> None:
    wanted = in_eight_bits(tiny, tmp_path / "small.safetensors", dtype, scale=scale)
    model = load_checkpoint(tmp_path / "small.safetensors", dtype="float32", hashing=False)
    assert model.ignored == ()
    unet = model.backend.networks.unet
    for name, parameter in unet.named_parameters():
        layer: Any = unet.get_submodule(name.rpartition(".")[0])
        got = layer.dense_weight() if hasattr(layer, "packed") and name.endswith(".weight") else parameter
        assert torch.equal(got, wanted[UNET + name].float()), name
    assert bool(torch.isfinite(answer(model.backend)).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_widths_of_storage(dtype: torch.dtype, tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    stored = {name: each.to(dtype) for name, each in read_all(tiny).items()}
    save_file(stored, tmp_path / "x.safetensors", metadata={**FACTS, **TEXT_FACTS})
    backend = load_checkpoint(tmp_path / "x.safetensors", dtype="float32", hashing=False).backend
    name = "out.2"
    layer: Any = backend.networks.unet.get_submodule(name)
    assert torch.equal(layer.dense_weight(), stored[f"{UNET}{name}.weight"].float())
    if dtype is torch.float64:
        assert answer(backend).equal(answer(load_checkpoint(tiny, dtype="float32", hashing=False).backend))


def test_native_size_is_told_by_metadata(tiny: Path) -> None:
    weights = open_model(tiny)
    spec = detect(weights.shapes, {**weights.metadata, "overpaint.native_size": "128"})
    assert (spec.native_size, spec.facts["native_size"]) == (128, "metadata")
    assert detect(weights.shapes, weights.metadata).facts["native_size"] == "family default"


def test_a_file_that_cannot_be_read(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("overpaint.models.opened.is_gguf", refused)
    with pytest.raises(CheckpointError, match=r"sketch\.safetensors: .*Permission denied"):
        open_model(tiny)
