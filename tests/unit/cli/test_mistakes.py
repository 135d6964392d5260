"""What the command says to mistakes, word by word: mistakes.txt holds a line, its exit code and its whole message.

To mend a message, mend the code first, and read what the test shows before you copy it.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from overpaint.cli import main
from tests.unit.cli.mistakes_folder import folder, painter
from tests.unit.command import Capture
from tests.unit.fake_painter import FakePainter

__all__ = ["folder", "painter"]

TABLE = Path(__file__).with_name("mistakes.txt")


def rows() -> list[tuple[str, int, str]]:
    """(line, exit code, message)"""
    pairs = [each.split("\n", 1) for each in TABLE.read_text(encoding="utf-8").strip().split("\n\n")]
    told = [(line.removeprefix("$ "), *answer.split(" ", 1)) for line, answer in pairs]
    return [(line, int(code), message) for line, code, message in told]


@pytest.mark.parametrize(("line", "code", "message"), rows())
def test_a_mistake_is_told_in_one_sentence(
    folder: FakePainter, capsys: Capture, line: str, code: int, message: str
) -> None:
    before = sorted(Path().rglob("*"))
    assert main(shlex.split(line)) == code
    assert capsys.readouterr().err == f"overpaint: {message}\n"
    assert folder.requests == []  # no engine was asked
    assert sorted(each for each in Path().rglob("*") if ".overpaint" not in str(each) and each.name != "out") == before


def test_there_are_seventy_of_them() -> None:
    assert len({line for line, _, _ in rows()}) >= 70


@pytest.mark.parametrize("words", ["[Errno", "docs/", "Traceback", "PosixPath", "None'"])
def test_no_message_shows_what_is_inside(words: str) -> None:
    assert not [message for _, _, message in rows() if words in message]


WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch was asked for")

sys.meta_path.insert(0, NoTorch())
from overpaint.cli import main
for line in sys.stdin.read().splitlines():
    print(main(line.split()))
"""


def test_wrong_names_are_told_before_torch_is_loaded(folder: FakePainter) -> None:
    lines = (
        "paint cat.png moon --sampler eulr",
        "paint cat.png moon --lora nobody",
        "paint cat.png moon --model nobody",
        "paint cat.png moon --mask wide.png",
        "paint cat.png moon --vae nobody",
        "paint cat.png moon --device gpu",
        "txt2img moon --hires-upscaler nobody",
        "batch photos out --scheduler nobody",
        "paint cat.png moon",
    )
    command = [sys.executable, "-c", WITHOUT_TORCH]
    ran = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True)
    # The last one is right, and so it is the only one that gets as far as torch.
    assert ran.stdout.split() == ["2", "2", "3", "2", "3", "2", "2", "2", "1"], ran.stderr
    assert ran.stderr.count("torch was asked for") == 1
