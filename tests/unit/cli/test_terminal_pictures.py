"""`--show`: which kind of pictures a terminal gets, asked of a true terminal's answers, and nothing into a pipe."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from overpaint.cli import main
from overpaint.cli.terminal_pictures import Terminal, drawn, graphics_of, show_results, terminal_here
from overpaint.errors import RequestError
from tests.unit.command import Capture, painter
from tests.unit.fake_painter import FakePainter

__all__ = ["painter"]

KITTY, SIXEL, NEITHER = b"\x1b_Gi=31;OK\x1b\\\x1b[?62;c", b"\x1b[?62;4;22c", b"\x1b[?1;2c"


@pytest.mark.parametrize(
    ("environment", "answer", "graphics"),
    [
        ({"KITTY_WINDOW_ID": "1"}, b"", "kitty"),
        ({"TERM": "xterm-kitty"}, b"", "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, b"", "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, b"", "iterm2"),
        ({"TERM_PROGRAM": "WezTerm"}, SIXEL, "iterm2"),
        ({"LC_TERMINAL": "iTerm2", "TERM": "xterm-256color"}, b"", "iterm2"),
        ({"TERM": "xterm-256color"}, KITTY, "kitty"),
        ({"TERM": "xterm-256color"}, SIXEL, "sixel"),
        ({"TERM": "foot"}, b"\x1b[6;20;10t" + SIXEL, "sixel"),
        ({"TERM": "xterm-256color"}, NEITHER, "blocks"),
        ({"TERM": "xterm-256color"}, b"\x1b[?64;14;44c", "blocks"),
        ({"KITTY_WINDOW_ID": "1", "TMUX": "/tmp/x", "TERM": "tmux-256color"}, NEITHER, "blocks"),
        ({"LC_TERMINAL": "iTerm2", "TERM": "screen"}, SIXEL, "sixel"),
        ({}, b"", "blocks"),
    ],
)
def test_what_a_terminal_gets(environment: Mapping[str, str], answer: bytes, graphics: str) -> None:
    assert graphics_of(environment, answer) == graphics


def test_each_kind_is_drawn_within_the_room() -> None:
    picture = Image.new("RGB", (640, 640), "red")
    assert drawn(picture, Terminal("kitty", 80, 24)).startswith("\x1b_Ga=T,f=100,q=2,c=44,r=22,")
    assert ";width=44;height=22;" in drawn(picture, Terminal("iterm2", 80, 24))
    assert drawn(picture, Terminal("sixel", 80, 24)).startswith('\x1bP0;1q"1;1;352;352#')
    assert drawn(picture, Terminal("blocks", 80, 24)).count("\n") == 22
    assert drawn(picture, Terminal("blocks", 80, 200)).count("\n") == 40
    assert drawn(Image.new("RGB", (8, 8)), Terminal("blocks", 80, 24)).count("\u2580") == 8 * 4


class TestNothingIntoAPipe:
    def test_a_note_instead(self, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OVERPAINT_SHOW", "kitty")
        show_results([Image.new("RGB", (4, 4))])
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err == "overpaint: --show: stdout is no terminal that shows pictures, so nothing is shown\n"
        show_results([Image.new("RGB", (4, 4))], hushed=True)
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        "environment", [{"TERM": "dumb"}, {"OVERPAINT_SHOW": "none", "TERM": "xterm"}, {"OVERPAINT_SHOW": "none"}]
    )
    def test_a_terminal_of_text(self, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        assert terminal_here(environment) is None

    def test_an_unknown_kind(self) -> None:
        with pytest.raises(RequestError, match="choose one of kitty, iterm2, sixel, blocks, none"):
            terminal_here({"OVERPAINT_SHOW": "ansi"})

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ("paint cat.png --show --json", "--show: --json prints JSON and nothing else; leave out one of them"),
            ("paint cat.png --show -o -", "--output '-': the picture itself goes to stdout; leave out --show"),
        ],
    )
    def test_what_is_no_place_for_it(self, painter: FakePainter, capsys: Capture, line: str, told: str) -> None:
        assert main(line.split()) == 2
        assert told in capsys.readouterr().err
        assert not painter.requests

    def test_a_painted_picture(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["paint", "cat.png", "--show", "-q", "-o", "x.png", "--seed", "1"]) == 0
        assert capsys.readouterr().out == "x.png  seed 1\n"


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(
    ("answer", "begins"),
    [(KITTY, "\x1b_Ga=T,"), (SIXEL, "\x1bP0;1q"), (NEITHER, "\x1b[38;5;"), (b"", "\x1b[38;5;")],
    ids=["kitty", "sixel", "neither", "silent"],
)
def test_a_true_terminal_is_asked(tmp_path: Path, answer: bytes, begins: str) -> None:
    """A process of its own has a pseudo-terminal, at whose other end somebody answers, or does not."""
    Image.new("RGB", (32, 32), (255, 0, 0)).save(tmp_path / "red.png")
    patience = 60 if answer else 0.1  # a busy machine answers late
    code = (
        "from PIL import Image; from overpaint.cli import terminal_pictures\n"
        f"terminal_pictures._ANSWER_SECONDS = {patience}\n"
        f"terminal_pictures.show_results([Image.open({str(tmp_path / 'red.png')!r})]); print('end')"
    )
    shown = in_terminal([sys.executable, "-c", code], answer)
    asked, _, rest = shown.partition("\x1b[c")
    assert asked.endswith("\x1b[16t")
    assert begins in rest
    assert rest.rstrip().endswith("end")
    assert answer.decode() not in rest or not answer  # it is not echoed


def in_terminal(command: list[str], answer: bytes) -> str:
    import fcntl
    import pty
    import termios

    def own_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TERM", "COLORTERM"))}
    options: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    started = subprocess.Popen(
        command,
        **options,
        env={**environment, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"},
        start_new_session=True,
        preexec_fn=own_terminal,
    )
    os.close(theirs)
    heard, has_answered = b"", False
    try:
        while select.select([ours], [], [], 120)[0]:
            try:
                block = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not block:
                break
            heard += block
            if not has_answered and b"\x1b[c" in heard:
                has_answered = True
                os.write(ours, answer)
        assert started.wait(120) == 0
    finally:
        started.kill()
        started.wait()
        os.close(ours)
    return heard.decode()
