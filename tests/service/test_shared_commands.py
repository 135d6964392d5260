"""`overpaint serve --store` and `overpaint worker`: what is said before anything is begun."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from overpaint.cli import main
from overpaint.service.store.postgres_address import SECRETS, VARIABLE
from overpaint.service.workers.worker_process import SECRETS as KEPT_FROM_WORKERS

ADDRESS = "postgresql://ann@127.0.0.1:1/jobs"


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["worker", "--data", "x"], "--store: give the address"),
        (["worker", "--store", ADDRESS], "--data: give the folder"),
        (["serve", "--store", ADDRESS], "--data: give the folder"),
        (["serve", "--store", ADDRESS, "--data", "x", "--device", "cuda"], "give it to `overpaint worker`"),
        (["serve", "--store", ADDRESS, "--data", "x", "--workers", "2"], "give it to `overpaint worker`"),
        (["serve", "--store", ADDRESS, "--data", "x", "--jobs-per-worker", "2"], "give it to `overpaint worker`"),
        (["serve", "--store", "jobs.db", "--data", "x"], "give postgresql://USER@HOST/DATABASE"),
        (["serve", "--blobs", "s3://bucket/x"], "give --store, too"),
        (["serve", "--store", ADDRESS, "--blobs", "memory://x"], "it is in the memory of one process"),
        (["worker", "--store", ADDRESS, "--blobs", "/srv/x"], "a folder is given as --data"),
        (["worker", "--store", ADDRESS, "--blobs", "s3://ann:geheim@x/y"], "give keys and tokens in the environment"),
        (["worker", "--store", "postgresql://ann:geheim@db/x", "--data", "x"], "lists of processes show the password"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_made(
    command: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if any(each.startswith("postgresql://ann:") for each in command):
        pytest.importorskip("psycopg", reason="psycopg is not installed")
    assert main(command) == 2
    told = capsys.readouterr().err
    assert said in told and "geheim" not in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_address_is_taken_out_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "mysql://ann:geheim@db/x")
    assert main(["worker", "--data", str(tmp_path / "x")]) == 2
    told = capsys.readouterr().err
    assert "give postgresql://USER@HOST/DATABASE" in told and "geheim" not in told
    assert VARIABLE not in os.environ
    assert set(SECRETS) <= set(KEPT_FROM_WORKERS)


def test_nobody_who_needs_no_postgres_loads_its_driver() -> None:
    import subprocess
    import sys

    code = "import sys, overpaint.service.serve, overpaint.service.worker_host; sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
