"""Nothing that lies in the folder in which a server is started is ever run."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import pytest

from overpaint.service.children import command_of, environment, niceness
from overpaint.service.wire import encoded, read
from overpaint.service.workers import examiner, readers
from overpaint.service.workers.worker_process import COMMAND
from tests.service.conftest import STOP_SECONDS, StartServer

LIBRARIES = (
    "torch",
    "numpy",
    "PIL",
    "yaml",
    "safetensors",
    "tokenizers",
    "fastapi",
    "starlette",
    "pydantic",
    "uvicorn",
)
OURS = ("overpaint", "modules", "sitecustomize", "usercustomize", "tests")


def trapped(folder: Path, names: Iterable[str]) -> Path:
    """A file that tells when any module in the folder is run: it stays away."""
    mark = folder.with_name(f"{folder.name}.sprung")
    code = f"import os\nos.close(os.open({str(mark)!r}, os.O_CREAT | os.O_WRONLY))\nraise SystemExit('sprung')\n"
    folder.mkdir()
    for name in names:
        (folder / f"{name}.py").write_text(code)
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)
    return mark


def everything() -> tuple[str, ...]:
    return tuple(sorted({*sys.stdlib_module_names, *LIBRARIES, *OURS}))


def test_the_trap_works(tmp_path: Path) -> None:
    mark = trapped(tmp_path / "downloads", everything())
    subprocess.run([sys.executable, "-m", "queue"], cwd=tmp_path / "downloads", capture_output=True, check=False)
    assert mark.exists()


@pytest.mark.parametrize(
    "path",
    [pytest.param("", marks=pytest.mark.long), os.pathsep, pytest.param(None, marks=pytest.mark.long)],
    ids=["no path", "a path with an empty part", "unset"],
)
def test_a_worker_runs_nothing_of_the_current_folder(
    path: str | None, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = trapped(tmp_path / "downloads", everything())
    if path is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", path)
    with subprocess.Popen(
        COMMAND,
        cwd=tmp_path / "downloads",
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        values = {"data": str(tmp_path), "device": "cpu", "dtype": "float32", "settings": {}}
        process.stdin.write(encoded({"type": "start", "checkpoint": str(tiny_checkpoint), **values}))
        process.stdin.flush()
        kinds = []
        while (message := read(process.stdout)) is not None:  # type: ignore[arg-type]
            kinds.append(message["type"])
            if message["type"] in ("ready", "unfit"):
                break
        process.stdin.close()
        process.wait(STOP_SECONDS)
    assert not mark.exists()
    assert kinds[0] == "hello" and kinds[-1] == "ready"


@pytest.mark.parametrize("command", [examiner.COMMAND, readers.COMMAND], ids=["examiner", "reader"])
def test_a_helper_runs_nothing_of_the_current_folder(command: tuple[str, ...], tmp_path: Path) -> None:
    mark = trapped(tmp_path / "downloads", everything())
    done = subprocess.run(command, cwd=tmp_path / "downloads", env=environment(), input=b"", check=False)
    assert done.returncode == 0
    assert not mark.exists()


def test_what_the_user_put_on_the_path_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "extra_module.py").write_text("def started(): print('found')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(("", str(tmp_path / "theirs"))))
    monkeypatch.setenv("OVERPAINT_TOKEN", "secret")
    own = environment(without=["OVERPAINT_TOKEN"])
    assert own["PYTHONPATH"] == str(tmp_path / "theirs") and "OVERPAINT_TOKEN" not in own
    done = subprocess.run(command_of("extra_module"), cwd=tmp_path, env=own, capture_output=True, text=True, check=True)
    assert done.stdout == "found\n"


def test_the_command_runs_nothing_of_the_current_folder(tmp_path: Path) -> None:
    mark = trapped(tmp_path / "downloads", everything())
    command = [str(Path(sysconfig.get_path("scripts")) / "overpaint"), "samplers"]
    done = subprocess.run(command, cwd=tmp_path / "downloads", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()


def test_python_m_overpaint_runs_no_library_of_the_current_folder(tmp_path: Path) -> None:
    """NOTE: what is imported before our first line runs, and an overpaint.py, nobody can keep Python from."""
    mark = trapped(tmp_path / "downloads", (*LIBRARIES, "queue", "json", "modules", "sitecustomize"))
    command = [sys.executable, "-m", "overpaint", "samplers"]
    done = subprocess.run(command, cwd=tmp_path / "downloads", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()


@pytest.mark.slow
def test_a_server_runs_nothing_of_the_current_folder(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = trapped(tmp_path / "downloads", (*LIBRARIES, "queue", "modules", "sitecustomize", "usercustomize"))
    monkeypatch.chdir(tmp_path / "downloads")
    assert start_server().stop() == 0
    assert not mark.exists()


@pytest.mark.parametrize(
    ("server", "worker", "reader", "examiner"),
    [(-10, -5, -8, 0), (0, 5, 2, 10), (5, 7, 7, 10), (10, 12, 12, 12)],
)
def test_a_server_that_is_nice_has_processes_that_are_hardly_nicer(
    server: int, worker: int, reader: int, examiner: int
) -> None:
    assert [niceness(server, behind) for behind in (5, 2, 10)] == [worker, reader, examiner]


@pytest.mark.skipif(not hasattr(os, "nice"), reason="there is no niceness here")
def test_a_process_lets_its_server_go_first() -> None:
    code = "from overpaint.service.children import *; print(os.nice(0)); let_the_server_go_first(10); print(os.nice(0))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own, found = map(int, ended.stdout.split())
    assert found == min(niceness(own, 10), 19)
