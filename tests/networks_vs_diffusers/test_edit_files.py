"""Qwen-Image-Edit in every form that people have it in: the same answers, with pictures in the text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.models.checkpoint import LoadedModel, load_checkpoint
from overpaint.models.companions import text_encoders_for, vae_for
from overpaint.models.spec_json import spec_from_json
from overpaint.models.specs import QwenImageSpec
from overpaint.models.vision_specs import Eyes
from overpaint.models.what_is import spec_of
from overpaint.networks.layers import set_packed
from overpaint.networks.text import TokenPicture
from overpaint.service.store.forms import plain
from tests.networks_vs_diffusers.edit_sources import MARKS, PAD, edit_parts, picture
from tests.networks_vs_diffusers.flow_files import save, small_vocabulary
from tests.networks_vs_diffusers.newer_sources import NewerParts, wan_tensors
from tests.networks_vs_diffusers.test_flux_files import same
from tests.networks_vs_diffusers.test_newer_files import near

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def edit(tmp_path_factory: pytest.TempPathFactory) -> NewerParts:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return edit_parts(tmp_path_factory.mktemp("edit"), "qwen_image_edit_2511_bf16", clean=True)


def loaded(path: Path, *texts: Path, vae: Path | None = None) -> LoadedModel:
    return load_checkpoint(path, text_encoders=texts, vae_path=vae, hashing=False, dtype="float32")


def answers(model: LoadedModel) -> list[Tensor]:
    """What the networks say to the same question, and to the same pictures."""
    shown = [TokenPicture(67, picture(84, 56)), TokenPicture(70, picture(28, 56, seed=1))]
    words = model.backend.text(0, torch.arange(90)[None], pictures=shown).tokens
    x, seen = (torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(i)) for i in range(2))
    return [words, model.backend.denoise(x, torch.tensor([0.6]), words, references=[seen])]


@pytest.fixture(scope="module")
def of_parts(edit: NewerParts) -> list[Tensor]:
    found = answers(loaded(edit.path, edit.text_path, vae=edit.vae_path))
    assert found[0].shape[1] == 90 - 64 + 6 + 2
    return found


def test_what_it_is(edit: NewerParts) -> None:
    assert text_encoders_for(edit.path) == (str(edit.text_path),) and vae_for(edit.path) == edit.vae_path
    spec = spec_of(edit.path, text_encoders_for(edit.path))
    assert (spec.title, spec.cfg_scale, spec.keeps_length) == ("Qwen-Image-Edit-2511", 4.0, True)
    assert isinstance(spec.denoiser, QwenImageSpec) and spec.denoiser.clean_pictures
    assert spec.vision is not None and spec.vision.eyes == Eyes(side=384, several=True)
    assert (spec.vision.layers, spec.vision.heads, spec.vision.inner) == (9, 2, 40)
    assert spec_from_json(json.loads(json.dumps(plain(spec)))) == spec


@pytest.mark.parametrize(
    ("kind", "clean", "title"),
    [
        ("QwenImageEditPlusPipeline", True, "Qwen-Image-Edit-2511"),
        ("QwenImageEditPlusPipeline", False, "Qwen-Image-Edit-2509"),
        ("QwenImageEditPipeline", False, "Qwen-Image-Edit"),
    ],
)
def test_folders(kind: str, clean: bool, title: str, edit: NewerParts, of_parts: list[Tensor], tmp_path: Path) -> None:
    """Its own words tell which it is, whatever the folder is called."""
    folder = tmp_path / "mine"
    edit.text.save_pretrained(folder / "text_encoder")
    edit.vae.save_pretrained(folder / "vae")
    edit.transformer.save_pretrained(folder / "transformer")
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "zero_cond_t": clean}), encoding="utf-8")
    (folder / "tokenizer").mkdir()
    small_vocabulary(folder / "tokenizer" / "tokenizer.json", *MARKS)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}), encoding="utf-8")
    model = loaded(folder)
    assert (model.spec.title, model.spec.facts["family"]) == (title, "metadata")
    found = answers(model)
    assert torch.equal(found[0], of_parts[0])
    assert torch.equal(found[1], of_parts[1]) == clean


def test_whole_files(edit: NewerParts, of_parts: list[Tensor], tmp_path: Path) -> None:
    """The text encoder in the names of either version of transformers."""
    layouts: tuple[dict[str, str], ...] = ({}, {"model.language_model.": "model.", "model.visual.": "visual."})
    for number, layout in enumerate(layouts):
        text = dict(edit.text.state_dict())
        for new, old in layout.items():
            text = {key.replace(new, old): each for key, each in text.items()}
        named = {f"model.diffusion_model.{key}": each for key, each in edit.transformer.state_dict().items()}
        named |= {f"text_encoders.qwen25_7b.transformer.{key}": each.clone() for key, each in text.items()}
        named |= {f"vae.{key}": each for key, each in wan_tensors(edit.vae.state_dict()).items()}
        path = tmp_path / f"qwen_image_edit_2511_whole{number}.safetensors"
        save(named, path)
        small_vocabulary(tmp_path / "tokenizer.json", *MARKS)
        assert same(answers(loaded(path)), of_parts)


def test_half_precision(edit: NewerParts, of_parts: list[Tensor]) -> None:
    """The vision tower computes in what the rest of the text encoder does."""
    model = loaded(edit.path, edit.text_path, vae=edit.vae_path)
    network = model.backend.networks.texts[0]
    set_packed(network, False)
    network.to(torch.bfloat16)
    said: Any = {"pictures": [TokenPicture(67, picture(84, 56)), TokenPicture(70, picture(28, 56, seed=1))]}
    found = network.encode(torch.arange(90)[None], **said).tokens
    assert found.dtype == torch.bfloat16 and near(found.float(), of_parts[0], 0.1)


def test_published_shapes() -> None:
    """transformers' own configuration, which is that of the published model, is measured as our row expects it."""
    transformers = pytest.importorskip("transformers")
    from overpaint.models.flow_rows import NEWER_FAMILIES
    from overpaint.models.text_shapes import text_spec
    from overpaint.models.vision_specs import VisionSpec

    vision = {"hidden_size": 1280, "out_hidden_size": 3584, "intermediate_size": 3420, "depth": 32, "num_heads": 16}
    text = {"num_hidden_layers": 1, "vocab_size": PAD + 1, "hidden_size": 3584, "num_attention_heads": 28}
    text |= {"num_key_value_heads": 4, "intermediate_size": 64}
    with torch.device("meta"):
        made = transformers.Qwen2_5_VLForConditionalGeneration(
            transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
        )
    family = next(each for each in NEWER_FAMILIES if each.name == "qwen-image-edit")
    (row,) = family.texts
    shapes = {f"{row.prefix}{key}": tuple(each.shape) for key, each in made.model.language_model.state_dict().items()}
    shapes |= {f"{row.prefix}visual.{key}": tuple(each.shape) for key, each in made.model.visual.state_dict().items()}
    shapes[f"{row.prefix}visual.patch_embed.proj.weight"] = (1280, 3 * 14 * 14)
    wanted = VisionSpec(width=1280, layers=32, heads=16, inner=3420, out=3584, eyes=Eyes(side=0, several=False))
    assert text_spec(shapes, row, "").vision == wanted
    told = made.config.vision_config
    assert (told.patch_size, told.spatial_merge_size, told.window_size) == (14, 2, wanted.window * wanted.unit)
    assert [i + 1 for i in told.fullatt_block_indexes] == list(range(wanted.whole_every, 33, wanted.whole_every))
