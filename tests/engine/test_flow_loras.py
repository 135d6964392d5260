"""LoRAs of every trainer on every flow family: one table. Each adds its product to the weights, and leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from overpaint.engine import Engine, stages_of
from overpaint.errors import CheckpointError
from overpaint.events import Progress
from overpaint.networks.layers import Packable
from overpaint.parts import Lora
from overpaint.request import Txt2ImgRequest
from overpaint.settings import Settings
from tests.flow_toys import save, toy_zimage
from tests.flux_toys import toy_chroma, toy_flux, toy_sd35
from tests.newer_toys import toy_klein, toy_qwen_edit, toy_qwen_image

WEIGHT = 0.5
Parts = tuple[tuple[str, int], ...]  # what diffusers calls the parts of a layer, and how many rows each has
Layers = Mapping[str, Parts]  # of a LoRA, by our names


def _flux(width: int, inner: int, single: Parts) -> Layers:
    """Flux.1's, which Chroma and Flux.2 have, too."""
    double = "transformer_blocks.0.attn."
    return {
        "double_blocks.0.img_attn.qkv": tuple((f"{double}to_{each}", width) for each in "qkv"),
        "double_blocks.0.txt_attn.qkv": tuple((f"{double}add_{each}_proj", width) for each in "qkv"),
        "double_blocks.1.txt_attn.proj": (("transformer_blocks.1.attn.to_add_out", width),),
        "single_blocks.1.linear1": single,
    }


_SINGLE = "single_transformer_blocks.1."
FLUX = _flux(64, 96, (*((f"{_SINGLE}attn.to_{each}", 64) for each in "qkv"), (f"{_SINGLE}proj_mlp", 96)))
KLEIN = _flux(64, 96, ((f"{_SINGLE}attn.to_qkv_mlp_proj", 3 * 64 + 192),))
QWEN: Layers = {
    "transformer_blocks.0.attn.to_q": (("transformer_blocks.0.attn.to_q", 64),),
    "transformer_blocks.1.attn.add_k_proj": (("transformer_blocks.1.attn.add_k_proj", 64),),
    "transformer_blocks.1.txt_mlp.net.0.proj": (("transformer_blocks.1.txt_mlp.net.0.proj", 96),),
}
Z_IMAGE: Layers = {
    "layers.0.attention.qkv": tuple((f"layers.0.attention.to_{each}", 32) for each in "qkv"),
    "layers.1.feed_forward.w1": (("layers.1.feed_forward.w1", 64),),
    "layers.0.attention.out": (("layers.0.attention.to_out.0", 32),),
}
SD3: Layers = {
    "joint_blocks.0.x_block.attn.qkv": tuple((f"transformer_blocks.0.attn.to_{each}", 64) for each in "qkv"),
    "joint_blocks.0.context_block.mlp.fc1": (("transformer_blocks.0.ff_context.net.0.proj", 96),),
}


@dataclass(frozen=True)
class Kind:
    made: Callable[[Path], Path]
    layers: Layers
    width: int = 64


KINDS: Mapping[str, Kind] = {
    "zimage": Kind(lambda folder: toy_zimage(folder).path, Z_IMAGE, 32),
    "dev": Kind(lambda folder: toy_flux(folder).path, FLUX),
    "fill": Kind(lambda folder: toy_flux(folder, "fill-dev").path, FLUX),
    "kontext": Kind(lambda folder: toy_flux(folder, "kontext-dev").path, FLUX),
    "chroma": Kind(lambda folder: toy_chroma(folder).path, FLUX),
    "klein": Kind(lambda folder: toy_klein(folder).path, KLEIN),
    "qwen-image": Kind(lambda folder: toy_qwen_image(folder).path, QWEN),
    "qwen-image-edit": Kind(lambda folder: toy_qwen_edit(folder).path, QWEN),
    "sd35": Kind(lambda folder: toy_sd35(folder).path, SD3),
}
_XLABS = {  # names processors
    "double_blocks.0.img_attn.qkv": "double_blocks.0.processor.qkv_lora1",
    "double_blocks.0.txt_attn.qkv": "double_blocks.0.processor.qkv_lora2",
    "double_blocks.1.txt_attn.proj": "double_blocks.1.processor.proj_lora2",
}


def _factors(layer: int, rows: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(layer)
    return torch.randn(4, width, generator=generator), torch.randn(rows, 4, generator=generator)


Lora_ = tuple[dict[str, Tensor], dict[str, Tensor]]  # the tensors of a file, and what it adds to which of our layers


def in_one(kind: Kind, start: str, join: str, down: str, up: str) -> Lora_:
    """Trainers that keep our layers."""
    tensors: dict[str, Tensor] = {}
    added: dict[str, Tensor] = {}
    for i, (layer, parts) in enumerate(kind.layers.items()):
        factors = _factors(i, sum(rows for _, rows in parts), kind.width)
        key = start + layer.replace(".", join)
        tensors[f"{key}.{down}.weight"], tensors[f"{key}.{up}.weight"] = factors
        added[layer] = factors[1] @ factors[0]
    return tensors, added


def split(kind: Kind) -> Lora_:
    """diffusers: each part of a layer has factors of its own; the second of several has none."""
    tensors: dict[str, Tensor] = {}
    added: dict[str, Tensor] = {}
    for i, (layer, parts) in enumerate(kind.layers.items()):
        sums = []
        for j, (name, rows) in enumerate(parts):
            down, up = _factors(10 * i + j, rows, kind.width)
            if j != 1:
                tensors[f"transformer.{name}.lora_A.weight"], tensors[f"transformer.{name}.lora_B.weight"] = down, up
            sums.append(up @ down if j != 1 else torch.zeros(rows, kind.width))
        added[layer] = torch.cat(sums)
    return tensors, added


def xlabs(kind: Kind) -> Lora_:
    tensors: dict[str, Tensor] = {}
    added: dict[str, Tensor] = {}
    for i, (layer, name) in enumerate(_XLABS.items()):
        down, up = _factors(i, sum(rows for _, rows in kind.layers[layer]), kind.width)
        tensors[f"{name}.down.weight"], tensors[f"{name}.up.weight"] = down, up
        added[layer] = up @ down
    return tensors, added


def lokr(kind: Kind) -> Lora_:
    """A Kronecker product, its larger factor a product again; alpha counts by the rank of that."""
    tensors: dict[str, Tensor] = {}
    added: dict[str, Tensor] = {}
    for i, (layer, parts) in enumerate(kind.layers.items()):
        rows, generator = sum(rows for _, rows in parts), torch.Generator().manual_seed(i)
        w1 = torch.randn(2, 2, generator=generator)
        a, b = torch.randn(rows // 2, 4, generator=generator), torch.randn(4, kind.width // 2, generator=generator)
        key = "lora_unet_" + layer.replace(".", "_")
        tensors |= {f"{key}.lokr_w1": w1, f"{key}.lokr_w2_a": a, f"{key}.lokr_w2_b": b}
        tensors[f"{key}.alpha"] = torch.tensor(2.0)
        added[layer] = torch.kron(w1, a @ b) * 2.0 / 4
    return tensors, added


STYLES: Mapping[str, Callable[[Kind], Lora_]] = {
    "kohya": lambda kind: in_one(kind, "lora_unet_", "_", "lora_down", "lora_up"),
    "comfyui": lambda kind: in_one(kind, "diffusion_model.", ".", "lora_A", "lora_B"),
    "diffusers": split,
    "xlabs": xlabs,
    "lokr": lokr,
}


@pytest.fixture(scope="module", params=KINDS)
def worn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kind, Engine]]:
    kind = KINDS[request.param]
    path = kind.made(tmp_path_factory.mktemp(request.param))
    with Engine(path, device="cpu", dtype="float32") as engine:
        yield kind, engine


def weights(engine: Engine, folder: Path, *names: str) -> dict[str, Tensor]:
    """The denoiser's, as they are while a picture is painted that wears these."""
    loras = tuple(Lora(name=each, weight=WEIGHT) for each in names)
    asked = Txt2ImgRequest(prompt="cat", steps=1, cfg_scale=1, width=32, height=32, seed=1, loras=loras)
    found: dict[str, Tensor] = {}
    for event in engine.run(asked, Settings(lora_dir=str(folder))):
        if isinstance(event, Progress):
            network = stages_of(engine).loaded.backend.networks.denoiser
            found = {name: each.detach().clone() for name, each in network.state_dict().items()}
            layers = ((name, each) for name, each in network.named_modules() if isinstance(each, Packable))
            found |= {f"{name}.weight": each.dense_weight().clone() for name, each in layers}
    return found


def test_on_and_off(worn: tuple[Kind, Engine], tmp_path: Path) -> None:
    """Every style by itself, and nothing of it stays in any layer, to the last bit."""
    kind, engine = worn
    plain = weights(engine, tmp_path)
    for style, made in STYLES.items():
        if style == "xlabs" and not _XLABS.keys() <= kind.layers.keys():
            continue  # its trainer knows Flux alone
        tensors, added = made(kind)
        save(tensors, tmp_path / f"{style}.safetensors")
        found = weights(engine, tmp_path, style)
        changed = {name.removesuffix(".weight") for name, each in found.items() if not torch.equal(each, plain[name])}
        assert changed == added.keys(), style
        for layer, delta in added.items():
            torch.testing.assert_close(found[f"{layer}.weight"], plain[f"{layer}.weight"] + WEIGHT * delta)
        after = weights(engine, tmp_path)
        assert all(torch.equal(each, after[name]) for name, each in plain.items()), style


def test_one_that_fits_no_layer_is_an_error(worn: tuple[Kind, Engine], tmp_path: Path) -> None:
    """Of Stable Diffusion, and of another flow family; what is painted next is as if nobody had asked."""
    kind, engine = worn
    plain = weights(engine, tmp_path)
    stranger = KINDS["zimage" if kind.layers is not Z_IMAGE else "dev"]
    down, up = _factors(0, 64, 64)
    old = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    save(in_one(stranger, "lora_unet_", "_", "lora_down", "lora_up")[0], tmp_path / "other.safetensors")
    save({f"{old}.lora_down.weight": down, f"{old}.lora_up.weight": up}, tmp_path / "old.safetensors")
    for name in ("other", "old"):
        with pytest.raises(CheckpointError, match=rf"{name}.*no layer of it belongs to a {_title(engine)}"):
            weights(engine, tmp_path, name)
    after = weights(engine, tmp_path)
    assert all(torch.equal(each, after[name]) for name, each in plain.items())


def _title(engine: Engine) -> str:
    return engine.plan(Txt2ImgRequest(prompt="cat", width=32, height=32)).spec.title.replace(".", r"\.")
