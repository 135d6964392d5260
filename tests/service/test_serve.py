"""From the command line to the last breath: sockets, signals, dawdling clients."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import httpx
import pytest

from overpaint.cli import main
from overpaint.cli.serve import TOKEN_VARIABLE
from overpaint.errors import CheckpointError, OverpaintError
from overpaint.service import serve as serving
from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.guard.guards import HEADER_BYTES, LONGEST_TARGET
from overpaint.service.limits import Limits
from overpaint.service.queue.desk import LocalDesk
from overpaint.service.serve import STOPPED, _Server, listening, serve, url_of, uvicorn_config
from overpaint.service.store.sqlite_store import JobStore
from overpaint.service.workers import worker_process
from overpaint.settings import Quirks, Settings
from tests.service.conftest import StartServer
from tests.service.fake_desk import FakeDesk
from tests.service.queue.desk_tools import FAKE_WORKER, wanted

Capture = pytest.CaptureFixture[str]
JOB = {"prompt": "x", "steps": 3, "width": 64, "height": 64}


class TestCommand:
    @pytest.fixture
    def served(self, monkeypatch: pytest.MonkeyPatch) -> list[ServeConfig]:
        """What the server was started with."""
        found: list[ServeConfig] = []

        def run(config: ServeConfig, announce: Callable[[str], None]) -> int:
            found.append(config)
            announce("http://127.0.0.1:1234")
            return 0

        monkeypatch.setattr(serving, "serve", run)
        monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
        return found

    def test_defaults(self, served: list[ServeConfig], capsys: Capture) -> None:
        assert main(["serve"]) == 0
        config = served[0]
        assert (config.host, config.port, config.token, config.url_inputs) == ("127.0.0.1", 7860, None, False)
        assert config.checkpoint is None and config.data.is_absolute()
        assert config.settings == Settings()
        assert capsys.readouterr().out == f"overpaint serves http://127.0.0.1:1234 (data in {config.data})\n"

    def test_all_options(self, served: list[ServeConfig], tmp_path: Path) -> None:
        (tmp_path / "Lora").mkdir()
        (tmp_path / "m.safetensors").touch()
        line = "serve --host 0.0.0.0 --port 0 --token t --model m --device cpu --dtype float32 --reference --url-inputs"
        names = "--allow-host a.example --allow-host b.example --allow-origin https://c.example"
        folders = ["--data", str(tmp_path / "data"), "--models", str(tmp_path), "--set", "live_previews_enable=false"]
        assert main([*line.split(), *names.split(), *folders]) == 0
        config = served[0]
        assert (config.host, config.port, config.token, config.url_inputs) == ("0.0.0.0", 0, "t", True)
        assert (config.checkpoint, config.worker_devices, config.dtype) == ("m", ("cpu",), "float32")
        assert config.allowed_hosts == ("a.example", "b.example")
        assert config.allowed_origins == ("https://c.example",)
        assert config.settings.quirks == Quirks.reference()
        assert config.settings.models_dir == str(tmp_path)
        assert config.settings.lora_dir == str(tmp_path / "Lora")
        assert not config.settings.live_previews_enable
        assert config.data == tmp_path / "data"

    def test_how_many_jobs_go_on_at_once(self, served: list[ServeConfig], capsys: Capture) -> None:
        assert main(["serve"]) == main(["serve", "--jobs-per-worker", "4"]) == 0
        assert [each.jobs_per_worker for each in served] == [None, 4]
        for wrong in ("0", "65"):
            assert main(["serve", "--jobs-per-worker", wrong]) == 2
            said = capsys.readouterr().err
            assert f"--jobs-per-worker {wrong}: " in said and "1 to 64" in said
        assert len(served) == 2

    @pytest.mark.parametrize(
        ("options", "devices"),
        [
            ((), ("auto",)),
            (("--device", "cuda:0", "--device", "cuda:1"), ("cuda:0", "cuda:1")),
            (("--devices", "cuda:0,cuda:1"), ("cuda:0", "cuda:1")),
            (("--device", "cpu", "--workers", "3"), ("cpu", "cpu", "cpu")),
        ],
    )
    def test_a_worker_on_each_device(
        self, served: list[ServeConfig], options: tuple[str, ...], devices: tuple[str, ...]
    ) -> None:
        assert main(["serve", *options]) == 0
        assert served[0].worker_devices == devices

    def test_a_device_that_is_none_is_refused(
        self, served: list[ServeConfig], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["serve", "--device", "cuda:0", "--device", "gpu"]) == 2
        assert "--device='gpu'" in capsys.readouterr().err.replace("--device 'gpu'", "--device='gpu'")
        assert not served

    def test_offline_is_the_default_and_may_be_said(self, served: list[ServeConfig]) -> None:
        assert main(["serve", "--offline"]) == 0
        assert not served[0].url_inputs

    def test_the_token_of_the_environment_is_taken_out_of_it(
        self, served: list[ServeConfig], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(TOKEN_VARIABLE, "secret")
        assert main(["serve", "--host", "0.0.0.0"]) == 0
        assert served[0].token == "secret"
        assert TOKEN_VARIABLE not in os.environ

    @pytest.mark.parametrize("given", [" secret", "secret\n", "\tsecret\r\n"])
    @pytest.mark.parametrize("as_option", [True, False])
    def test_what_files_leave_around_a_token_is_no_part_of_it(
        self, served: list[ServeConfig], monkeypatch: pytest.MonkeyPatch, given: str, as_option: bool
    ) -> None:
        monkeypatch.setenv(TOKEN_VARIABLE, "other" if as_option else given)
        assert main(["serve", "--host", "0.0.0.0", *(["--token", given] if as_option else [])]) == 0
        assert served[0].token == "secret"

    @pytest.mark.parametrize("given", [" ", "\n", " \t ", "se\ncret", "se\x00cret"])
    @pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
    def test_what_nobody_could_present_is_no_token(
        self, served: list[ServeConfig], capsys: Capture, given: str, host: str
    ) -> None:
        assert main(["serve", "--host", host, "--token", given]) == 2
        assert not served
        told = capsys.readouterr().err
        assert "--token" in told and "cret" not in told

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
    def test_other_addresses_need_a_token(self, served: list[ServeConfig], capsys: Capture, host: str) -> None:
        assert main(["serve", "--host", host]) == 2
        assert not served
        assert "give --token" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "options", [["--port", "65536"], ["--port", "-1"], ["--set", "no_such=1"], ["--models", "/none"]]
    )
    def test_wrong_usage(self, served: list[ServeConfig], options: list[str]) -> None:
        assert main(["serve", *options]) == 2
        assert not served

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--model", "nope"], "--model 'nope': there is no such file or name"),
            (["--device", "qpu"], "--device 'qpu': use auto, cpu"),
            (["--dtype", "int3"], "--dtype 'int3': use auto, float32"),
            (["--limit", "waiting"], "--limit 'waiting': give a whole number from 1 up"),
            (["--limit", "waiting=0"], "give a whole number from 1 up"),
            (["--limit", "result_seconds=nan"], "give a number from 0 up"),
            (["--limit", "nope=1"], "give NAME=VALUE, and as NAME one of body_bytes, "),
        ],
    )
    def test_words_known_to_be_wrong(
        self, served: list[ServeConfig], capsys: Capture, options: list[str], said: str
    ) -> None:
        assert main(["serve", *options]) == 2
        assert not served and said in capsys.readouterr().err

    def test_limits(self, served: list[ServeConfig]) -> None:
        given = "--limit waiting=200 --limit result_seconds=0 --limit cfg_scale=30.5 --limit watchdog=1e3"
        assert main(["serve", *given.split()]) == 0
        assert served[0].limits == Limits(
            waiting=200, waiting_per_client=200, result_seconds=0, cfg_scale=30.5, watchdog=1000
        )

    def test_a_folder_that_cannot_be_written_to(
        self, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*given: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "server.lock"))

        monkeypatch.setattr(serving, "JobStore", refused)
        assert main(["serve", "--data", str(tmp_path), "--port", "0"]) == 2
        said = capsys.readouterr().err
        assert f"--data {str(tmp_path)!r}: nothing can be kept there (Read-only file system); give a folder" in said

    def test_an_address_that_is_none(self, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(TOKEN_VARIABLE, "x")
        for host in ("nope.invalid", "192.0.2.1", "a..b"):
            monkeypatch.setenv(TOKEN_VARIABLE, "x")
            assert main(["serve", "--data", str(tmp_path), "--host", host]) == 2
            assert f"--host {host!r}: this is no address of this machine" in capsys.readouterr().err

    def test_a_port_that_is_taken(self, tmp_path: Path, capsys: Capture) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert main(["serve", "--data", str(tmp_path), "--port", str(port)]) == 2
        assert f"127.0.0.1:{port}" in capsys.readouterr().err


class TestFirstStart:
    """A worker that cannot paint from the first moment ends the server; its fake dies or is unfit."""

    @pytest.mark.parametrize(
        ("how", "said"),
        [("is unfit", "there is no such checkpoint"), ("dies at once", "the worker ended each time it was started")],
    )
    def test_a_worker_that_is_of_no_use(
        self, config: ServeConfig, monkeypatch: pytest.MonkeyPatch, how: str, said: str
    ) -> None:
        monkeypatch.setattr(serving, "LocalDesk", partial(LocalDesk, command=FAKE_WORKER))
        monkeypatch.setattr(worker_process, "_BACKOFF", (0.0,))
        config.data.mkdir()
        store = JobStore(config.data)
        store.accept(wanted("waits", "step=1", client="x"))
        store.close()
        announced: list[str] = []
        with pytest.raises(OverpaintError, match=said) as caught:
            serve(replace(config, port=0, checkpoint=how), announced.append)
        assert isinstance(caught.value, CheckpointError) is (how == "is unfit")
        store = JobStore(config.data)
        record = store.get("waits")
        store.close()
        assert record is not None and not record.state.is_end, "it waits for a server that can paint"


@dataclass
class SlowDesk(FakeDesk):
    """A desk whose running job takes its time to end."""

    seconds: float = 0.0
    story: list[str] = field(default_factory=list)

    async def start(self) -> None:
        self.story.append("started")

    async def drain(self, seconds: float) -> None:
        self.story.append(f"draining for {seconds:g}")
        await asyncio.sleep(min(seconds, self.seconds))
        self.story.append("drained")

    async def close(self) -> None:
        self.story.append("closed")


class TestSignals:
    """The whole of `serve` in this process, but for the worker."""

    def run(
        self,
        config: ServeConfig,
        monkeypatch: pytest.MonkeyPatch,
        seconds: float,
        whenever: Callable[[str, SlowDesk], None],
    ) -> tuple[int, SlowDesk, float]:
        """Serve, and call `whenever` with the URL in another thread; the exit code, and the seconds from then on."""
        config.data.mkdir(exist_ok=True)
        desk = SlowDesk(config.data, seconds=seconds)
        monkeypatch.setattr(serving, "LocalDesk", lambda store, config: desk)
        threads: list[threading.Thread] = []
        asked: list[float] = []

        def announce(url: str) -> None:
            def act() -> None:
                whenever(url, desk)
                asked.append(time.monotonic())

            threads.append(threading.Thread(target=act))
            threads[0].start()

        code = serve(replace(config, port=0), announce)
        ended = time.monotonic()
        threads[0].join()
        return code, desk, ended - asked[0]

    def test_the_first_lets_the_running_job_end(self, config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        def whenever(url: str, desk: SlowDesk) -> None:
            assert httpx.get(f"{url}/healthz").status_code == 200
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            assert httpx.get(f"{url}/healthz").status_code == 200  # clients may still hear how their jobs end

        code, desk, _ = self.run(config, monkeypatch, 0.5, whenever)
        assert code == 0
        assert desk.story == ["started", "draining for 30", "drained", "closed"]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    def test_a_job_that_takes_too_long_is_not_waited_for(
        self, config: ServeConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quick = replace(config, limits=Limits(drain=0.2))
        code, desk, seconds = self.run(quick, monkeypatch, 60, lambda url, desk: os.kill(os.getpid(), signal.SIGINT))
        assert (code, desk.story[-1]) == (0, "closed")
        assert seconds < 3

    def test_the_second_ends_at_once(self, config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        def whenever(url: str, desk: SlowDesk) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGTERM)

        code, desk, seconds = self.run(config, monkeypatch, 60, whenever)
        assert code == STOPPED
        assert desk.story == ["started", "draining for 30", "closed"]
        assert seconds < 3

    def test_open_streams_do_not_keep_it(self, config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        def whenever(url: str, desk: SlowDesk) -> None:
            desk.held = True
            job = httpx.post(f"{url}/v1/jobs", json={"prompt": "x"}).json()["id"]
            threading.Thread(target=watch, args=(f"{url}/v1/jobs/{job}/events",), daemon=True).start()
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGTERM)

        def watch(url: str) -> None:
            try:
                with httpx.stream("GET", url, timeout=30) as response:
                    list(response.iter_lines())
            except httpx.HTTPError:
                pass  # it is cut off

        code, _, seconds = self.run(config, monkeypatch, 0, whenever)
        assert code == 0
        assert seconds < 5


@contextmanager
def served(config: ServeConfig) -> Iterator[tuple[str, int]]:
    """The app on a fake desk behind the real uvicorn, in a thread."""
    config.data.mkdir(exist_ok=True)
    app = create_app(FakeDesk(config.data), config)
    with listening(replace(config, port=0)) as listener:
        server = _Server(uvicorn_config(app, config))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            yield listener.getsockname()[:2]
        finally:
            server.should_exit = True
            thread.join(60)


def told(address: tuple[str, int], *pieces: bytes, pause: float = 0.0, seconds: float = 5.0) -> tuple[bytes, float]:
    """What a server says to these bytes until it hangs up, and after how long."""
    started = time.monotonic()
    with socket.create_connection(address, timeout=seconds) as connection:
        answer = b""
        try:
            for each in pieces:
                connection.sendall(each)
                time.sleep(pause)
            while piece := connection.recv(65_536):
                answer += piece
        except ConnectionError:
            pass
        return answer, time.monotonic() - started


class TestWire:
    def test_dawdling_over_headers(self, config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serving, "HEADER_SECONDS", 0.3)
        monkeypatch.setattr(serving, "KEEP_ALIVE", 1)
        with served(config) as address:
            whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
            for pieces in ([], [b"GET /healthz HTTP/1.1\r\n"], [b"GET /healthz HTTP/1.1\r\n", *[b"X: y\r\n"] * 20]):
                answer, seconds = told(address, *pieces, pause=0.1)
                assert not answer and 0.2 < seconds < 3
            answer, seconds = told(address, whole, b"GET /", pause=0.1)  # the second request of a connection
            assert answer.count(b"HTTP/1.1 200") == 1 and seconds < 3
            answer, seconds = told(address, whole)  # nothing more comes
            assert answer.count(b"HTTP/1.1 200") == 1 and 0.8 < seconds < 4

    def test_what_takes_long_is_not_hung_up_on(self, config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serving, "HEADER_SECONDS", 0.2)
        with served(config) as (host, port):
            head = b"POST /v1/pictures HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 10\r\n\r\n"
            answer, _ = told((host, port), head, b"12345", b"67890", pause=0.4)
            assert b"HTTP/1.1 422" in answer

    def test_headers_at_the_limit_and_beyond(self, config: ServeConfig) -> None:
        with served(config) as address:
            for size, status in ((HEADER_BYTES - 1000, b"200"), (HEADER_BYTES + 1000, b"431"), (70_000, b"4")):
                head = (
                    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " + b"y" * size + b"\r\n\r\n"
                )
                assert told(address, head)[0].startswith(b"HTTP/1.1 " + status)

    def test_targets_at_the_limit_and_beyond(self, config: ServeConfig) -> None:
        with served(config) as (host, port):
            for extra, status in ((0, 200), (1, 414)):
                query = "x" * (LONGEST_TARGET - len("/readyz") + extra)
                assert httpx.get(f"http://{host}:{port}/readyz?{query}").status_code == status

    def test_bodies_beyond_the_limit_get_their_answer(self, config: ServeConfig) -> None:
        """Also when the client reads nothing before it has sent all."""
        limited = replace(config, limits=Limits(body_bytes=1_000_000))
        with served(limited) as (host, port):
            url = f"http://{host}:{port}/v1/jobs"
            for body in (b"x" * 5_000_000, iter([b"x" * 100_000] * 50)):
                response = httpx.post(url, content=body, timeout=30)
                assert response.status_code == 413
                assert response.headers["connection"] == "close"
                assert response.json()["error"]["code"] == "too_large"

    def test_a_second_host_and_broken_requests(self, config: ServeConfig) -> None:
        with served(config) as address:
            for head in (
                b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
                b"GET /readyz HTTP/1.1\r\n\r\n",
                b"nonsense\r\n\r\n",
                b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
                b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\nx",
            ):
                assert b" 4" in told(address, head, seconds=10)[0][:12] or b" 501" in told(address, head)[0][:13]

    def test_no_server_name_and_no_upgrade(self, config: ServeConfig) -> None:
        with served(config) as (host, port):
            upgrade = {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Key": "x",
                "Sec-WebSocket-Version": "13",
            }
            response = httpx.get(f"http://{host}:{port}/healthz", headers=upgrade)
            assert response.status_code == 200
            assert "server" not in response.headers

    def test_answers_are_not_held_back(self, config: ServeConfig) -> None:
        """Nagle's algorithm and delayed acknowledgements together take 40 ms of every request."""
        with served(config) as (host, port), httpx.Client(base_url=f"http://{host}:{port}") as client:
            times = []
            for _ in range(50):
                started = time.perf_counter()
                client.get("/healthz")
                times.append(time.perf_counter() - started)
        assert sorted(times)[5] < 0.02

    def test_ipv6(self, config: ServeConfig) -> None:
        try:
            with listening(replace(config, host="::1", port=0)) as listener:
                assert re.fullmatch(r"http://\[::1\]:\d+", url_of(listener))
        except Exception as error:
            pytest.skip(f"this machine has no IPv6 ({error})")


@pytest.mark.slow
class TestServer:
    """A started server with its worker."""

    def test_its_life(self, start_server: StartServer, capsys: Capture) -> None:
        server = start_server(token="a-secret-token")
        with server.client() as client:
            assert client.get("/readyz").json()["status"] in ("READY", "BUSY")
            assert httpx.get(f"{server.url}/readyz").status_code == 401
            answers: list[httpx.Response] = []
            asking = threading.Thread(target=lambda: answers.append(client.post("/sdapi/v1/txt2img", json=JOB)))
            asking.start()
            with server.client() as other:
                while other.get("/readyz").json()["status"] != "BUSY" and asking.is_alive():
                    time.sleep(0.01)
            assert main(["serve", "--data", str(server.data), "--port", "0"]) == 2  # a second one on this folder
            assert "another server" in capsys.readouterr().err
            assert server.stop() == 0
            asking.join(60)
        assert answers[0].status_code == 200  # what ran was finished, and its client heard of it
        assert answers[0].json()["images"]
        log = "".join(server.lines)
        assert "event=finished job=" in log and "event=stopped" in log
        assert "a-secret-token" not in log

    def test_results_are_gone_after_their_time(self, start_server: StartServer) -> None:
        server = start_server("--limit", "result_seconds=1")
        with server.client() as client:
            job = client.post("/v1/jobs", json=JOB, headers={"Prefer": "wait"}).json()
            assert client.get(job["images"][0]).status_code == 200
            end = time.monotonic() + 60  # what is old is looked for every 30 s
            while (answer := client.get(job["images"][0])).status_code != 410:
                assert time.monotonic() < end
                time.sleep(0.5)
            assert answer.json()["error"]["code"] == "gone"

    def test_a_second_signal_ends_it_at_once_and_the_job_goes_on_later(self, start_server: StartServer) -> None:
        server = start_server()
        with server.client() as client:
            job = client.post("/v1/jobs", json={**JOB, "steps": 150, "width": 512, "height": 512}).json()["id"]
            while client.get(f"/v1/jobs/{job}").json()["step"] == 0:
                time.sleep(0.05)
            started = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert server.stop() == STOPPED
            assert time.monotonic() - started < 8
        again = start_server(data=server.data, ready=False)
        with again.client() as client:
            assert client.get(f"/v1/jobs/{job}").json()["state"] in ("queued", "running")
            assert client.post(f"/v1/jobs/{job}/cancel").status_code < 300
