"""How many painters, and what each takes; where a cluster may be; and what is wrong with what was asked."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from overpaint.cli import main
from overpaint.cluster import ray_head
from overpaint.cluster.room import PainterRoom, RoomAsked, room_for
from overpaint.errors import RequestError
from tests.unit.files.test_batch import fill

GPUS = [{"CPU": 16.0, "GPU": 8.0}, {"CPU": 4.0, "GPU": 1.0}]
CORES = [{"CPU": 8.0}, {"CPU": 2.0}]


@pytest.mark.parametrize(
    ("asked", "machines", "room"),
    [
        (RoomAsked(), GPUS, PainterRoom(1.0, 1.0, 1, 9)),
        (RoomAsked(), CORES, PainterRoom(0.0, 2.0, 1, 5)),
        (RoomAsked(gpus=0.5), GPUS, PainterRoom(0.5, 1.0, 1, 18)),
        (RoomAsked(gpus=0.0, cpus=2.0), GPUS, PainterRoom(0.0, 2.0, 1, 10)),
        (RoomAsked(gpus=8.0), GPUS, PainterRoom(8.0, 1.0, 1, 1)),
        (RoomAsked(cpus=8.0, least=2, most=3), CORES, PainterRoom(0.0, 8.0, 2, 3)),
        (RoomAsked(least=12), GPUS, PainterRoom(1.0, 1.0, 12, 12)),
    ],
)
def test_room(asked: RoomAsked, machines: list[dict[str, float]], room: PainterRoom) -> None:
    assert room_for(asked, machines) == room


@pytest.mark.parametrize(
    ("asked", "machines", "told"),
    [
        (
            RoomAsked(gpus=1),
            CORES,
            "--gpus-per-worker=1: no machine of the cluster has as many; the largest of 2 has 0",
        ),
        (RoomAsked(cpus=32), GPUS, "--cpus-per-worker=32: no machine"),
        (RoomAsked(gpus=1), [], "the largest of 0 has 0 GPUs and 0 cores"),
    ],
)
def test_no_room_at_all(asked: RoomAsked, machines: list[dict[str, float]], told: str) -> None:
    with pytest.raises(RequestError) as caught:
        room_for(asked, machines)
    assert told in str(caught.value)


@pytest.mark.parametrize(("text", "least", "most"), [("3", 3, 3), ("1,8", 1, 8), (" 2,2 ", 2, 2)])
def test_a_pool(text: str, least: int, most: int) -> None:
    asked = RoomAsked.parse(text, None, None)
    assert (asked.least, asked.most) == (least, most)


def batch(tmp_path: Path, *options: str) -> tuple[int, bool]:
    """(exit code, whether anything was written)"""
    if not (tmp_path / "in").exists():
        fill(tmp_path / "in", "a.png")
    status = main(["batch", str(tmp_path / "in"), str(tmp_path / "out"), *options])
    return status, (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--ray", "auto"], "give local, or the HOST:PORT of a head"),
        (["--ray", "10.0.0.5"], "give local, or the HOST:PORT of a head"),
        (["--ray", "10.0.0.5:99999"], "give local, or the HOST:PORT of a head"),
        (["--ray", "ray://10.0.0.5:10001"], "start the command on a machine of the cluster"),
        (["--ray", "local", "--shard", "0/2"], "leave one of the two out"),
        (["--ray", "local", "--pool", "0,2"], "1 <= MIN <= MAX"),
        (["--ray", "local", "--pool", "3,2"], "1 <= MIN <= MAX"),
        (["--ray", "local", "--pool", "many"], "give MIN,MAX"),
        (["--ray", "local", "--gpus-per-worker", "1.5"], "a part of one GPU, or whole ones"),
        (["--ray", "local", "--cpus-per-worker", "-1"], "give 0 to 1024"),
        (["--pool", "2"], "it is of --ray"),
        (["--gpus-per-worker", "1"], "it is of --ray"),
    ],
)
def test_what_the_command_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert batch(tmp_path, *options) == (2, False)
    assert told in capsys.readouterr().err


def test_without_ray(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_head, "find_spec", lambda name: None)
    assert batch(tmp_path, "--ray", "local") == (2, False)
    assert "pip install 'overpaint[ray]'" in capsys.readouterr().err


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_head, "find_spec", lambda name: object())


@pytest.mark.usefixtures("installed")
def test_nobody_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as door:  # taken, and nobody listens
        door.bind(("127.0.0.1", 0))
        assert batch(tmp_path, "--ray", f"127.0.0.1:{door.getsockname()[1]}") == (2, False)
    assert "no cluster answers there" in capsys.readouterr().err


Modes = set[str]


def checked(monkeypatch: pytest.MonkeyPatch, address: str, answers: Modes, **environment: str) -> dict[str, str]:
    """The mode to connect with; `answers` are those that the head takes."""

    def healthy(address: str, mode: Mapping[str, str], is_here: bool) -> bool:
        return mode["RAY_AUTH_MODE"] in answers

    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ray_head, "_answers", lambda host, port: None)
    monkeypatch.setattr(ray_head, "_is_healthy", healthy)
    return ray_head._checked_mode(address, ray_head.is_loopback(ray_head.split_address(address)[0]))


@pytest.mark.parametrize(
    ("address", "answers", "mode"),
    [
        ("127.0.0.1:6379", {"disabled", "token"}, "disabled"),  # an open head takes whatever comes
        ("localhost:6379", {"token"}, "token"),
        ("[::1]:6379", {"token"}, "token"),
        ("10.0.0.5:6379", {"token"}, "token"),
        ("head.example:6379", {"token"}, "token"),
    ],
)
def test_heads_that_may_be_used(monkeypatch: pytest.MonkeyPatch, address: str, answers: Modes, mode: str) -> None:
    assert checked(monkeypatch, address, answers) == {"RAY_AUTH_MODE": mode}


@pytest.mark.parametrize("address", ["10.0.0.5:6379", "head.example:6379", "[2001:db8::1]:6379", "0.0.0.0:6379"])
@pytest.mark.parametrize("environment", [{}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 32}])
def test_a_head_elsewhere_that_obeys_everybody_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str, environment: dict[str, str]
) -> None:
    """Whatever is set here: what counts is what the head does without a token."""
    with pytest.raises(RequestError, match="obeys whoever reaches its port; start it with RAY_AUTH_MODE=token"):
        checked(monkeypatch, address, {"disabled", "token"}, **environment)


@pytest.mark.parametrize(
    ("environment", "told"),
    [({}, "give it in RAY_AUTH_TOKEN"), ({"RAY_AUTH_TOKEN": "secret"}, "the one in RAY_AUTH_TOKEN is another")],
)
def test_a_head_that_does_not_know_us(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], told: str) -> None:
    with pytest.raises(RequestError, match="no head of Ray answers there, or it asks for a token") as caught:
        checked(monkeypatch, "10.0.0.5:6379", set(), **environment)
    assert told in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_head_that_listens_everywhere_is_not_on_loopback(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """By whatever address it is named."""
    asked: list[str] = []

    def answers(place: str, port: int) -> str | None:
        asked.append(place)
        return None if host == "0.0.0.0" else "refused"

    monkeypatch.setattr(ray_head, "_answers", answers)
    monkeypatch.setattr(socket, "socket", FakeDoor)
    assert ray_head._is_open_outward(6379) is (host == "0.0.0.0")
    assert asked == ["10.0.0.7"]


class FakeDoor(socket.socket):
    """A machine with a way out, whatever this one has."""

    def connect(self, address: Any) -> None:
        return None

    def getsockname(self) -> Any:
        return ("10.0.0.7", 40000)


def test_what_ray_says_of_versions_is_told() -> None:
    words = "Version mismatch: The cluster was started with:\n  Ray: 2.40.0\n  Python: 3.12.1"
    error = ray_head._told("10.0.0.5:6379", RuntimeError(words))
    assert "install the Ray and Python of the cluster here" in str(error) and "Ray: 2.40.0 Python: 3.12.1" in str(error)
    assert "start the command on a machine of the cluster" in str(ray_head._told("h:1", ConnectionError("no raylet")))
