"""What the project says of itself is true: pages follow from the code, code and commands run, links lead somewhere."""

from __future__ import annotations

import ast
import itertools
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

import modules.shared as shared
import overpaint
from overpaint import cli, errors
from overpaint.demo import SIDE, SOURCES
from overpaint.planning import hires
from overpaint.planning import plan as planning
from overpaint.request import Img2ImgRequest, decided

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MOST_PICTURE_BYTES = 100_000
MOST_STEPS = 3
AS_PROGRAMS = ("dry_run.py", "one_line.py")  # the first looks whether torch is loaded
USAGE = {"watercolor_forest.py": "watercolor-forest.png", "red_car.py": "red-car.png"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of every `overpaint` command that a page shows."""
    shown = blocks(page, "sh")
    if page.name != "cli.md":  # which shows what commands look like, not commands
        shown += re.findall(r"^    (overpaint .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    for line in "\n".join(shown).replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words and words[0].removeprefix(".venv/bin/") == "overpaint":
                yield words[1:]


WITH_PYTHON = [each for each in PAGES if blocks(each, "python")]
WITH_COMMANDS = [each for each in PAGES if any(commands(each))]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples' pictures, as commands and code blocks expect it."""
    shutil.copytree(ROOT / "examples" / "pictures", tmp_path / "examples" / "pictures")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown has to run; it need not look good, and so takes no more steps than that takes."""
    for module in (planning, hires):
        whole = module.plan_sampler

        def short(request: Img2ImgRequest, *rest: Any, _whole: Any = whole) -> Any:
            return _whole(request.with_changes(steps=min(decided(request.steps), MOST_STEPS)), *rest)

        monkeypatch.setattr(module, "plan_sampler", short)


def test_reference_pages_follow_from_the_code() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"run docs/generate.py\n{result.stdout}{result.stderr}"


@pytest.fixture
def shared_as_new() -> Iterator[None]:
    """What a page sets for the whole process holds for that page."""
    yield
    shared.opts.reset()
    vars(shared.cmd_opts).clear()


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=named)
def test_python_blocks_run(page: Path, checkout: Path, shared_as_new: None, few_steps: None) -> None:
    for block in blocks(page, "python"):
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=named)
def test_commands_are_understood(page: Path) -> None:
    group: Any = typer.main.get_command(cli.app)
    for arguments in commands(page):
        if arguments and not arguments[0].startswith("-"):
            command = group.commands[arguments[0]]
            if not {"-h", "--help"} & set(arguments):
                command.make_context(arguments[0], arguments[1:])


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=named)
def test_commands_on_the_examples_run(page: Path, checkout: Path, few_steps: None) -> None:
    """In their order; those that name files the reader has are left out."""
    for arguments in commands(page):
        if len(arguments) > 1 and Path(arguments[1]).exists() and "--model" not in arguments:
            assert cli.main(arguments) == 0, arguments


def outputs(page: Path) -> Iterator[tuple[str, str]]:
    """Every file or folder that the page's commands and blocks write, and what writes it."""
    for arguments in commands(page):
        for flag, place in itertools.pairwise(arguments):
            if flag in ("-o", "--output"):
                yield place, shlex.join(arguments)
    for block in blocks(page, "python"):
        for call in ast.walk(ast.parse(block)):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "save":
                said = [each.value for each in call.args if isinstance(each, ast.Constant)]
                yield from ((each, ast.unparse(call)) for each in said if isinstance(each, str))


def test_what_examples_write_does_not_collide_in_one_folder() -> None:
    """A reader tries several in the same folder; a job that is watched again writes where it wrote before."""
    by: dict[str, dict[str, str]] = {}
    for page in PAGES:
        for place, writer in outputs(page):
            if not writer.startswith("watch "):
                by.setdefault(place, {}).setdefault(writer, named(page))
    assert len(by) > 10
    assert {place: writers for place, writers in by.items() if len(writers) > 1} == {}


@pytest.mark.slow
@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.name not in AS_PROGRAMS], ids=named)
def test_examples_run(
    example: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shared_as_new: None,
    few_steps: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out or list(tmp_path.glob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize("name", AS_PROGRAMS)
def test_examples_run_as_programs(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / name)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout or list(tmp_path.glob("*.png"))


def test_example_pictures_are_small_and_those_of_the_demo() -> None:
    kept = sorted((ROOT / "examples" / "pictures").iterdir())
    assert sum(each.stat().st_size for each in kept) < MOST_PICTURE_BYTES
    for source in SOURCES.iterdir():
        assert (ROOT / "examples/pictures" / source.name).read_bytes() == source.read_bytes()


@pytest.mark.parametrize("script", sorted(USAGE), ids=str)
def test_pictures_of_the_usage_examples_are_shown_with_their_sources(script: str) -> None:
    guide = (ROOT / "docs/guides/from-a1111.md").read_text(encoding="utf-8")
    picture = USAGE[script]
    assert f"../images/{picture}" in guide and f"../../examples/{script}" in guide
    assert f'.save("{picture}")' in (ROOT / "examples" / script).read_text(encoding="utf-8")
    with Image.open(ROOT / "docs/images" / picture) as shown:
        assert shown.size == (SIDE, SIDE)


def heading_anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in heading_anchors(linked), target


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.name == "index.md" or page.relative_to(ROOT / "docs").as_posix() in index


def test_every_public_name_is_documented() -> None:
    text = "\n".join(each.read_text(encoding="utf-8") for each in PAGES)
    text += "\n".join(each.read_text(encoding="utf-8") for each in EXAMPLES)
    missing = [name for name in overpaint.__all__ if not name.startswith("__") and not re.search(rf"\b{name}\b", text)]
    assert not missing


EXPECTED_CODES: list[tuple[errors.OverpaintError, int]] = [
    (errors.RequestError("strength", 2, "x"), 2),
    (errors.SettingError("x", 2, "x"), 2),
    (errors.PictureError("x"), 3),
    (errors.CheckpointError("x"), 3),
    (errors.SaveError("x"), 4),
    (errors.SamplingError("x"), 1),
]


@pytest.mark.parametrize(("error", "code"), EXPECTED_CODES, ids=lambda each: type(each).__name__)
def test_exit_codes_are_the_documented_ones(error: errors.OverpaintError, code: int) -> None:
    page = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{type(error).__name__}`.*\| (\d+) \|$", page, re.MULTILINE)
    assert row is not None
    assert int(row[1]) == code == cli._exit_code(error)


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    (command,) = [each for each in blocks(ROOT / "README.md", "sh") if "pytest" in each]
    script = ROOT / ".ci" / "run"
    for part in command.strip().split(" && "):
        assert part.strip() in script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK)
