"""The same weights in every form that people have them in answer the same: one table of families, one of forms.

Folders are as diffusers writes them; the other forms are of the tensors that its files hold, in the names of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.models.checkpoint import LoadedModel, load_checkpoint
from overpaint.models.companions import text_encoders_for, vae_for
from tests.networks_vs_diffusers.flow_files import save
from tests.networks_vs_diffusers.flow_sources import (
    FlowParts,
    chroma_parts,
    chroma_tensors,
    flux_parts,
    flux_tensors,
    t5_vocabulary,
)
from tests.networks_vs_diffusers.newer_sources import flux2_tensors, klein_parts
from tests.networks_vs_diffusers.original_layout import vae_tensors
from tests.networks_vs_diffusers.test_flux_files import as_folder, packed
from tests.networks_vs_diffusers.test_newer_files import answers as answers_of_newer
from tests.networks_vs_diffusers.test_newer_files import eight_bits, near

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Kind:
    """A family: how its parts are made, and what it is called where only a name tells."""

    made: Callable[[Path], FlowParts]
    named: Callable[[Tensors], dict[str, Tensor]]  # diffusers' tensors in the names of its authors
    family: str
    name: str  # of files and folders


KINDS: Mapping[str, Kind] = {
    "chroma": Kind(chroma_parts, chroma_tensors, "chroma", "Chroma1-HD"),
    "fill": Kind(lambda folder: flux_parts(folder, "fill"), flux_tensors, "flux-fill", "flux1-fill-dev"),
    "kontext": Kind(lambda folder: flux_parts(folder, "kontext-dev"), flux_tensors, "flux-kontext", "flux1-kontext"),
}


@dataclass(frozen=True)
class Model:
    kind: Kind
    parts: FlowParts
    answers: list[Tensor]

    @property
    def ours(self) -> dict[str, Tensor]:
        return self.kind.named(self.parts.transformer.state_dict())

    def loaded(self, path: Path) -> LoadedModel:
        """One file of a transformer, with the parts that lie beside the plain one."""
        return loaded(path, map(Path, text_encoders_for(self.parts.path)), vae_for(self.parts.path))


def loaded(path: Path, texts: Any = (), vae: Path | None = None) -> LoadedModel:
    return load_checkpoint(path, text_encoders=tuple(texts), vae_path=vae, hashing=False, dtype="float32")


def answers(model: LoadedModel) -> list[Tensor]:
    """What the networks say to the same question; an edit model is shown a source and a further picture."""
    generator = torch.Generator().manual_seed(0)
    spec, backend = model.spec, model.backend
    sees = spec.sees_pictures
    x = torch.randn(1, 32 if sees else spec.denoiser.in_channels, 4, 4, generator=generator)
    pixels = torch.rand(1, 3, 32, 32, generator=generator)
    ids = {"t5": [5, 9, 30, 2], "clip": [49406, 320, 7, 49407]}
    told = [backend.text(i, torch.tensor([ids[each.kind]])) for i, each in enumerate(spec.texts)]
    (words,) = [each.tokens for each, text in zip(told, spec.texts, strict=True) if text.kind == "t5"]
    vectors = [each.pooled for each in told if each.pooled is not None]
    vector = torch.cat([*vectors, torch.tensor([[spec.guidance]])], dim=1) if spec.guidance is not None else None
    seen = [torch.randn(1, 16, 2, 6, generator=generator)] if sees else []
    said = backend.denoise(x, torch.tensor([0.6]), words, vector, references=seen)
    return [words, *vectors, said, backend.encode(pixels)[0], backend.decode(x[:, :16])]


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    kind = KINDS[request.param]
    parts = kind.made(tmp_path_factory.mktemp(request.param))
    plain = loaded(parts.path, map(Path, text_encoders_for(parts.path)), vae_for(parts.path))
    assert plain.spec.family == kind.family
    yield Model(kind, parts, answers(plain))


def test_forms_of_the_same_numbers(model: Model, tmp_path: Path) -> None:
    """A folder of diffusers, a transformer in its names, other programs' prefixes, and all in one file: to the bit."""
    folder = loaded(as_folder(model.parts, tmp_path / model.kind.name, use_dynamic_shifting=True))
    theirs, prefixed = (tmp_path / f"{model.kind.name}-{each}.safetensors" for each in ("theirs", "prefixed"))
    save(model.parts.transformer.state_dict(), theirs)
    save({f"diffusion_model.{name}": each for name, each in model.ours.items()}, prefixed)
    for found in (folder, model.loaded(theirs), model.loaded(prefixed), loaded(whole(model, tmp_path))):
        assert found.spec.family == model.kind.family
        assert all(torch.equal(*pair) for pair in zip(answers(found), model.answers, strict=True))


def whole(model: Model, folder: Path) -> Path:
    names = ("clip_l", "t5xxl")[-len(model.parts.texts) :]
    tensors = {f"model.diffusion_model.{name}": each for name, each in model.ours.items()}
    for name, text in zip(names, model.parts.texts, strict=True):
        own = text.state_dict().items()  # T5's table of words is there under two names
        tensors |= {f"text_encoders.{name}.transformer.{key}": each.clone() for key, each in own}
    tensors |= {f"vae.{name}": each for name, each in vae_tensors(model.parts.vae).items()}
    path = folder / f"{model.kind.name}.safetensors"
    save(tensors, path)
    t5_vocabulary(folder / "t5.tokenizer.json")
    return path


def _bfloat16(model: Model, folder: Path) -> Path:
    path = folder / f"{model.kind.name}.safetensors"
    save(model.ours, path, torch.bfloat16)
    return path


FEWER: Mapping[str, tuple[float, Callable[[Model, Path], Path]]] = {  # how far off a type's rounding may lead
    "bf16": (0.05, _bfloat16),
    "fp8": (0.4, lambda model, folder: eight_bits(model.ours, folder / f"{model.kind.name}-fp8.safetensors")),
    "gguf": (0.05, lambda model, folder: packed(folder / f"{model.kind.name}-Q8_0.gguf", model.ours, "flux")),
}


@pytest.mark.parametrize("form", FEWER)
def test_forms_in_fewer_bits(form: str, model: Model, tmp_path: Path) -> None:
    """The transformer answers within the rounding of the type; the other parts as ever."""
    most, made = FEWER[form]
    found = model.loaded(made(model, tmp_path))
    assert found.spec.family == model.kind.family
    place = len(model.answers) - 3
    for i, (ours, wanted) in enumerate(zip(answers(found), model.answers, strict=True)):
        off = float((ours - wanted).abs().max())
        assert 0 < off < most * float(wanted.abs().max()) if i == place else off == 0


def test_klein_in_gguf(tmp_path: Path) -> None:
    """Which reads no T5; its other forms are with Qwen-Image's."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    parts = klein_parts(tmp_path)
    path = packed(tmp_path / "flux-2-klein-4b-Q8_0.gguf", flux2_tensors(parts.transformer.state_dict()), "flux")
    found, plain = (answers_of_newer(loaded(each, [parts.text_path], parts.vae_path)) for each in (path, parts.path))
    assert near(found[1], plain[1], 0.05)
    assert all(torch.equal(found[i], plain[i]) for i in (0, 2, 3))
