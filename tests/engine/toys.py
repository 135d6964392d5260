"""A site's folders, full of small things to hang on the tiny checkpoint, each strong enough to be seen."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from overpaint.models.checkpoint import recognise
from overpaint.models.families import UNetSpec
from overpaint.networks.controlnet import ControlNet
from overpaint.networks.taesd import taesd_decoder, taesd_encoder
from overpaint.request import Picture, Txt2ImgRequest
from overpaint.settings import Settings
from tests.engine.conftest import scene
from tests.tiny import make_tiny_checkpoint
from tests.unit.esrgan import old_state
from tests.unit.toy_control import control_file, control_spec, random_network
from tests.unit.toy_loras import lora_of

UNET = "model.diffusion_model."
TEXT = "cond_stage_model.transformer.text_model."
ATTENTION = "middle_block.1.transformer_blocks.0.attn2.to_v"
TEXT_LAYER = "encoder.layers.1.mlp.fc1"


@dataclass(frozen=True)
class Site:
    """Where everything is, and options that say so."""

    root: Path

    def folder(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(exist_ok=True)
        return path

    @property
    def settings(self) -> Settings:
        return Settings(
            models_dir=str(self.folder("models")),
            vae_dir=str(self.folder("vaes")),
            lora_dir=str(self.folder("loras")),
            embeddings_dir=str(self.folder("embeddings")),
            hypernetwork_dir=str(self.folder("hypernets")),
            controlnet_dir=str(self.folder("controls")),
            esrgan_dir=str(self.folder("upscalers")),
            taesd_dir=str(self.folder("taesd")),
        )

    def with_options(self, **changes: Any) -> Settings:
        return self.settings.with_changes(changes)

    @property
    def reference(self) -> Settings:
        return replace(self.settings, quirks=Settings.reference().quirks)

    def model(self, name: str) -> str:
        return str(self.folder("models") / f"{name}.safetensors")


def make_site(root: Path) -> Site:
    site = Site(root)
    models = site.folder("models")
    for seed, name in enumerate(("tiny", "other")):
        make_tiny_checkpoint(models / f"{name}.safetensors", seed=seed)
    twin(models / "tiny.safetensors", models / "twin.safetensors")
    for seed, name in enumerate(("red", "blue", "text")):
        lora(site.folder("loras") / f"{name}.safetensors", seed=seed, on_text=name == "text")
    hypernet(site.folder("hypernets") / "waves.pt")
    save_file({"emb_params": vectors(2)}, site.folder("embeddings") / "zorbleflux.safetensors")
    control(site, "edges", seed=1)
    control(site, "depth", seed=2)
    torch.save(old_state(doublings=1), site.folder("upscalers") / "grow.pth")
    taesd(site.folder("taesd"))
    vae(models / "other.safetensors", site.folder("vaes") / "pale.safetensors")
    return site


def copy_of(site: Site, root: Path) -> Site:
    """A site of one's own, whose files may be changed."""
    shutil.copytree(site.root, root, dirs_exist_ok=True)
    return Site(root)


def twin(source: Path, path: Path) -> None:
    """Another U-Net with the same text encoder and VAE."""
    tensors = load_file(source)
    generator = torch.Generator().manual_seed(3)
    name = f"{UNET}{ATTENTION}.weight"
    tensors[name] = (tensors[name].float() + torch.randn(tensors[name].shape, generator=generator) / 4).half()
    save_file(tensors, path, {"overpaint.num_heads": "8", "overpaint.text_heads": "[1]"})


def lora(path: Path, *, seed: int = 0, on_text: bool = False, width: int = 64, factor: float = 1.0) -> Path:
    """A LoRA for one layer of the U-Net, or for the text encoder too."""
    layers: dict[str, Mapping[str, Tensor]] = {
        f"lora_unet_{ATTENTION.replace('.', '_')}": lora_of((32, width), seed=seed),
        "lora_unet_input_blocks_1_0_in_layers_2": lora_of((32, 32, 3, 3), seed=seed + 50),
    }
    if on_text:
        layers = {f"lora_te_text_model_{TEXT_LAYER.replace('.', '_')}": lora_of((256, 64), seed=seed)}
    tensors = {
        f"{layer}.{part}": (tensor * factor if "up" in part else tensor)
        for layer, parts in layers.items()
        for part, tensor in parts.items()
    }
    save_file(tensors, path)
    return path


def vectors(count: int, width: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def hypernet(path: Path, width: int = 64) -> Path:
    generator = torch.Generator().manual_seed(5)
    tables = []
    for _ in range(2):
        shapes = {"0.weight": (width, width), "0.bias": (width,)}
        tables.append({f"linear.{key}": torch.randn(shape, generator=generator) for key, shape in shapes.items()})
    torch.save({width: tuple(tables), "name": path.stem, "step": 1, "activation_func": "linear"}, path)
    return path


def unet_spec(site: Site) -> UNetSpec:
    return recognise(Path(site.model("tiny"))).unet


def control(site: Site, name: str, seed: int, spec: UNetSpec | None = None) -> Path:
    network = random_network(partial(ControlNet, control_spec(spec or unet_spec(site))), seed)
    return control_file(site.folder("controls") / f"{name}.safetensors", network)


def taesd(folder: Path) -> None:
    save_file(dict(random_network(taesd_encoder).state_dict()), folder / "taesd_encoder.safetensors")
    save_file(dict(random_network(taesd_decoder).state_dict()), folder / "taesd_decoder.safetensors")


def vae(checkpoint: Path, path: Path) -> Path:
    """The autoencoder of a checkpoint in a file of its own."""
    prefix = "first_stage_model."
    found = {name.removeprefix(prefix): each for name, each in load_file(checkpoint).items() if name.startswith(prefix)}
    save_file(
        {name: each.clone() * (0.9 if name == "decoder.conv_out.weight" else 1) for name, each in found.items()}, path
    )
    return path


def hint(width: int = 32, height: int = 32) -> Picture:
    return scene(width, height, seed=4).rotate(90)


def dreamt(**fields: Any) -> Txt2ImgRequest:
    """A job without a source, small enough to run in a tenth of a second."""
    given = {
        "prompt": "a cat",
        "negative_prompt": "dog",
        "sampler": "Euler",
        "steps": 3,
        "seed": 1,
        "variation_seed": 5,
        "width": 32,
        "height": 32,
        **fields,
    }
    return Txt2ImgRequest(**given)
