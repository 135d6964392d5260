"""Every command of the guides to flow models paints, with a narrow model under the name that the guide gives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from overpaint.cli import main
from tests.engine.conftest import box, scene
from tests.flow_toys import toy_zimage
from tests.flux_toys import toy_chroma, toy_flux, toy_sd35
from tests.newer_toys import toy_klein, toy_qwen_edit, toy_qwen_image
from tests.test_docs import ROOT, commands

GUIDES = ("flow-models.md", "qwen-image-and-flux2.md")
TOYS: dict[str, Callable[..., object]] = {  # by how the file's name begins
    "z_image": toy_zimage,
    "flux1-": toy_flux,
    "Chroma": toy_chroma,
    "sd3": toy_sd35,
    "qwen_image_fp8": toy_qwen_image,
    "qwen_image_edit": toy_qwen_edit,
    "flux-2": toy_klein,
}
SHOWN = [
    (arguments, Path(arguments[arguments.index("--model") + 1]))
    for guide in GUIDES
    for arguments in commands(ROOT / "docs" / "guides" / guide)
    if "--model" in arguments
]
CASES = [(arguments, model) for arguments, model in SHOWN if model.name.startswith(tuple(TOYS))]
PARTS = {"t5xxl_fp16.safetensors": "t5xxl.safetensors", "tokenizer.json": "t5.tokenizer.json"}  # of a toy, otherwise


def test_every_family_has_a_command() -> None:
    names = {model.name for _, model in CASES}
    assert all(any(name.startswith(each) for name in names) for each in TOYS)
    assert {"flux1-schnell", "flux1-dev", "flux1-kontext-dev", "flux1-fill-dev"} <= {Path(each).stem for each in names}


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "model"), CASES, ids=[" ".join(each[:3]) + f" {at}" for each, at in CASES])
def test_it_paints(arguments: list[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = next(made for start, made in TOYS.items() if model.name.startswith(start))
    kind = [model.stem.removeprefix("flux1-")] if made is toy_flux else []
    made(tmp_path / "models", *kind)
    (transformer,) = (tmp_path / "models" / "diffusion_models").iterdir()
    if model.parent.name:
        transformer.rename(tmp_path / "models" / "diffusion_models" / model.name)
    else:  # everything is named
        lie_here(arguments, model, transformer)
    mask = box(32, 32, (8, 8, 24, 24))
    for name in ("photo", "hat", "cat", "scarf"):
        scene(32, 32).save(f"{name}.png")
    mask.save("mask.png")
    size = ["--size", "64x48"] if "--size" in arguments else []
    small = [*size, "--steps", "1", "--device", "cpu", "--dtype", "float32", "-o", "out.png"]
    assert main([*arguments, *small]) == 0
    with Image.open("out.png") as found:
        assert found.size == ((64, 48) if size else (32, 32))


def lie_here(arguments: list[str], model: Path, transformer: Path) -> None:
    """The model's files, in the current folder and nowhere else."""
    transformer.rename(model)
    parts = {each.name: each for folder in ("text_encoders", "vae") for each in Path("models", folder).iterdir()}
    for name in (each for each in arguments if each.endswith((".safetensors", ".json")) and each != str(model)):
        parts[PARTS.get(name, name)].rename(name)
