"""What a type checker says of a program that uses the library: ten wrong calls are ten errors, right ones none."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import overpaint
from overpaint import request_fields
from overpaint.request import SOURCE_FIELDS, Img2ImgRequest, MaskedContent, PaintRequest, ResizeMode, Txt2ImgRequest

SOURCE = Path(overpaint.__file__).parent

RIGHT = """
from pathlib import Path

import numpy as np
import overpaint
from overpaint import Engine, Img2ImgRequest, PaintedPicture, Processed, Progress, Txt2ImgRequest
from PIL import Image
from typing_extensions import assert_type

lake = Image.open("lake.png")

def watch(step: Progress) -> None:
    print(step.step, step.steps)

assert_type(overpaint.img2img("lake.png", "a lake", resize_mode="crop", masked_content="fill"), PaintedPicture)
assert_type(overpaint.img2img(lake, "a lake", mask=np.zeros((8, 8))), PaintedPicture)
assert_type(overpaint.img2img(Path("lake.png"), batch_size=2, progress=True), list[PaintedPicture])
assert_type(overpaint.img2img(b"", iterations=2, progress=watch), list[PaintedPicture])
assert_type(overpaint.txt2img("a moon", hires=overpaint.Hires(scale=2)), PaintedPicture)
assert_type(overpaint.txt2img(["a moon", "a sun"], batch_size=2, seed=[1, 2]), list[PaintedPicture])
overpaint.img2img(lake).save("x.png", optimize=True)
request = Img2ImgRequest(images=lake, prompt=["a", "b"], batch_size=2, resize_mode=overpaint.ResizeMode.FILL)
assert_type(request.images, tuple[Image.Image, ...])
assert_type(request.resize_mode, overpaint.ResizeMode)
Img2ImgRequest(images=[lake, np.zeros((8, 8))], batch_size=2).with_changes(steps=3, mask=lake)
with Engine("sd15.safetensors") as engine:
    assert_type(engine.paint(request, progress=True), Processed)
    assert_type(engine.paint(Txt2ImgRequest(prompt="a moon")).save("moon.png"), tuple[Path, ...])
either = overpaint.PaintRequest(prompt="a moon", hires=overpaint.Hires(scale=2))
assert_type(either.hires, overpaint.Hires | None)
assert_type(overpaint.PaintRequest.from_json(either.to_json()).has_source, bool)
with Engine() as engine:
    engine.paint(either.with_changes(steps=3))
assert_type(overpaint.save(lake, "x.png"), Path)
"""

WRONG = """
import overpaint
from overpaint import Engine, Img2ImgRequest, Txt2ImgRequest
from PIL import Image

lake = Image.open("lake.png")
overpaint.img2img("lake.png", "a lake", strenght=0.5)  # 1
overpaint.img2img("lake.png", "a lake", steps="20")  # 2
overpaint.img2img("lake.png", "a lake", resize_mode="squeeze")  # 3
overpaint.txt2img("a moon", strength=0.5)  # 4
overpaint.imgtoimg("lake.png", "a lake")  # 5
overpaint.img2img("lake.png", "a lake", batch_size=2).save("x.png")  # 6
Img2ImgRequest(prompt="a lake")  # 7
Img2ImgRequest(images=lake).with_changes(guidance_scale=7)  # 8
Engine().paint(Txt2ImgRequest(prompt="a moon"), progres=True)  # 9
Engine().paint("a moon")  # 10
"""


def checked(folder: Path, **programs: str) -> dict[str, list[str]]:
    """The lines that mypy finds wrong in each program. What is called says nothing of torch, which takes it long."""
    for name, program in programs.items():
        (folder / f"{name}.py").write_text(program, encoding="utf-8")
    (folder / "mypy.ini").write_text("[mypy]\n[mypy-torch.*]\nfollow_imports = skip\n", encoding="utf-8")
    options = ["--strict", "--no-error-summary", "--cache-dir", str(folder / "cache"), "--config-file", "mypy.ini"]
    command = [sys.executable, "-m", "mypy", *options, *(f"{name}.py" for name in programs)]
    is_installed = SOURCE.parent.name == "site-packages"  # mypy finds the package there, and refuses to be told twice
    environment = {"PATH": ""} if is_installed else {"MYPYPATH": str(SOURCE.parent), "PATH": ""}
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert not result.stderr, result.stderr
    lines = [line for line in result.stdout.splitlines() if ": error: " in line]
    found = {name: [line for line in lines if line.startswith(f"{name}.py:")] for name in programs}
    assert sum(map(len, found.values())) == len(lines), lines  # none elsewhere
    return found


@pytest.mark.slow
def test_mypy_finds_ten_of_ten_wrong_calls_and_nothing_in_right_ones(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    said = checked(tmp_path, right=RIGHT, wrong=WRONG)
    assert said["right"] == []
    wrong = {number for number, line in enumerate(WRONG.splitlines(), 1) if re.search(r"# \d+$", line)}
    assert len(wrong) == 10
    found = {int(line.split(":")[1]) for line in said["wrong"]}
    assert found == wrong


def keywords(name: str) -> set[str]:
    return set(getattr(request_fields, name).__annotations__)


def test_the_typed_keywords_are_the_requests_fields() -> None:
    own, new = Img2ImgRequest.field_names(), Txt2ImgRequest.field_names() - SOURCE_FIELDS
    assert keywords("Img2ImgFields") == own
    assert keywords("Txt2ImgFields") == new
    assert keywords("PaintFields") == own | new
    assert keywords("Img2ImgOptions") == own - {"images", "prompt", "mask", "checkpoint", "batch_size", "iterations"}
    assert keywords("Txt2ImgOptions") == new - {"prompt", "checkpoint", "batch_size", "iterations"}


def test_what_is_kept_may_be_given() -> None:
    """The wide types hold the words of the enums, all of them."""
    tree = ast.parse(Path(request_fields.__file__).read_text(encoding="utf-8"))
    kinds = {
        each.target.id: ast.unparse(each.annotation)
        for each in ast.walk(tree)
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    for name, kind in (("resize_mode", ResizeMode), ("masked_content", MaskedContent)):
        words: Any = eval(kinds[name].partition("| ")[2], {"Literal": __import__("typing").Literal})
        assert [each.value for each in kind] == list(get_args(words))
    hints = get_type_hints(Img2ImgRequest)
    assert set(hints) >= {each.name for each in fields(Img2ImgRequest)}


def test_help_tells_of_every_field() -> None:
    for text, kind in (
        (PaintRequest.__doc__, PaintRequest),
        (Img2ImgRequest.__doc__, Img2ImgRequest),
        (overpaint.img2img.__doc__, Img2ImgRequest),
    ):
        assert text is not None
        for name in kind.field_names():
            assert re.search(rf"^    {name}: .+\n        [A-Z`].+", text, re.MULTILINE), name
    assert "hires: Hires | None = None" in (overpaint.txt2img.__doc__ or "")


def test_the_package_names_what_it_has_to_a_type_checker() -> None:
    """A module-level __getattr__ that a checker sees would make every name one of any type."""
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    seen = {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}
    assert "__getattr__" not in seen
    imported = {
        alias.name
        for each in tree.body
        if isinstance(each, ast.If) and ast.unparse(each.test) == "TYPE_CHECKING"
        for node in each.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == set(overpaint.__all__)
