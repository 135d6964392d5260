"""What all requests together may hold: bodies, decoded pictures, fetches (N and N + 1), and what 32 clients cost."""

from __future__ import annotations

import asyncio
import io
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from PIL import Image

from overpaint.errors import PictureError
from overpaint.service.guard import budgets
from overpaint.service.guard.budgets import (
    Allowance,
    RequestBudget,
    ServerBudget,
    at_work,
    fetched,
    forget_body,
    reading,
    room_for,
    visiting,
)
from overpaint.service.guard.refusals import RequestRefused
from overpaint.service.limits import Limits
from overpaint.service.ports import Full
from tests.service.conftest import Server
from tests.service.test_requests import encoded


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


class TestRoom:
    def test_at_the_limit_and_beyond(self) -> None:
        room, inside, most = Allowance(100, "work"), [0], [0]
        lock = threading.Lock()

        def work(units: int) -> None:
            with room.of(units):
                with lock:
                    inside[0] += units
                    most[0] = max(most[0], inside[0])
                time.sleep(0.005)
                with lock:
                    inside[0] -= units

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, [50, 50, 1, 100, 30, 30, 30, 30] * 4))
        assert most[0] == 100 and inside[0] == 0

    def test_only_those_whose_turn_has_come_are_woken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Thirty threads that wake to find nothing keep the event loop from its turn."""
        woken: list[object] = []

        class Counted(threading.Event):
            def set(self) -> None:
                woken.append(self)
                super().set()

        monkeypatch.setattr(budgets, "threading", SimpleNamespace(Event=Counted, Lock=threading.Lock))
        room = Allowance(1, "work")

        def work() -> None:
            with room.of(1):
                pass

        with ThreadPoolExecutor(20) as pool:
            with room.of(1):
                done = [pool.submit(work) for _ in range(20)]
                while len(room._queue) < 20:
                    time.sleep(0.001)
                assert len(woken) == 1
            for each in done:
                each.result(5)
        assert len(woken) == len(set(woken)) == 21

    def test_few_read_at_one_time(self) -> None:
        hall, inside, most, lock = ServerBudget(Limits()), [0], [0], threading.Lock()

        def work(_: int) -> None:
            with visiting(RequestBudget(hall)), reading():
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.005)
                with lock:
                    inside[0] -= 1

        with ThreadPoolExecutor(12) as pool:
            list(pool.map(work, range(24)))
        assert most[0] == 2

    def test_what_is_larger_than_all_goes_alone(self) -> None:
        room, order = Allowance(10, "work"), list[str]()
        with ThreadPoolExecutor(2) as pool, room.of(1):

            def large() -> None:
                with room.of(10_000):
                    order.append("large")

            done = pool.submit(large)
            time.sleep(0.05)
            assert not order
        done.result(5)
        assert order == ["large"]

    def test_nobody_is_overtaken(self) -> None:
        room, order = Allowance(10, "work"), list[int]()

        def work(number: int, units: int) -> None:
            with room.of(units):
                order.append(number)

        with ThreadPoolExecutor(3) as pool:
            with room.of(6):
                for number, units in enumerate((10, 1, 1)):
                    pool.submit(work, number, units)
                    until(lambda: len(room._queue) == number + 1)  # noqa: B023
                assert not order  # the small ones would fit
            until(lambda: len(order) == 3)
        assert order[0] == 0

    def test_so_many_may_wait_and_no_more(self) -> None:
        room = Allowance(1, "work", waiting=2)

        def work() -> None:
            with room.of(1):
                pass

        with ThreadPoolExecutor(2) as pool, room.of(1):
            for number in (1, 2):
                pool.submit(work)
                until(lambda: len(room._queue) == number)  # noqa: B023
            with pytest.raises(Full, match="come back later") as caught, room.of(1):
                pass
            assert caught.value.retry_after == 5.0
        work()

    def test_an_accident_gives_its_room_back(self) -> None:
        room = Allowance(1, "work")
        for _ in range(2):
            with pytest.raises(ValueError), room.of(1):
                raise ValueError


class TestVisit:
    def test_bytes_at_the_limit_and_beyond(self) -> None:
        hall = ServerBudget(Limits(body_bytes=100))
        one, other = RequestBudget(hall), RequestBudget(hall)
        one.hold(700)
        other.hold(100)
        with pytest.raises(RequestRefused, match="too many large requests") as caught:
            other.hold(1)
        assert caught.value.status == 503 and caught.value.headers["Retry-After"]
        one.let_go()
        one.let_go()
        assert hall.bytes == 100

    def test_what_is_fetched_together_at_the_limit_and_beyond(self) -> None:
        limits = Limits(body_bytes=100)
        with visiting(RequestBudget(ServerBudget(limits))):
            assert len(fetched(lambda: b"x" * 60, limits, "a")) == 60
            assert len(fetched(lambda: b"x" * 40, limits, "b")) == 40
            with pytest.raises(PictureError, match="more than 100 bytes together"):
                fetched(lambda: b"x", limits, "c")
        assert len(fetched(lambda: b"x" * 101, limits, "a")) == 101  # outside of requests nobody counts

    def test_the_time_of_all_urls_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(budgets, "TOGETHER", 0.05)
        limits = Limits()

        def slow() -> bytes:
            time.sleep(0.06)
            return b"x"

        with visiting(RequestBudget(ServerBudget(limits))):
            fetched(slow, limits, "a")
            with pytest.raises(PictureError, match="took more than"):
                fetched(slow, limits, "b")

    def test_threads_of_a_request_know_it_and_others_do_not(self) -> None:
        hall = ServerBudget(Limits(source_pixels=10))

        async def inside() -> bool:
            with visiting(RequestBudget(hall)):
                with hall.decoding.of(20):
                    waiting = asyncio.create_task(asyncio.to_thread(_decode, 1))
                    await asyncio.sleep(0.05)
                    was_free = waiting.done()
                await waiting
            return was_free

        async def outside() -> bool:
            with hall.decoding.of(20):
                await asyncio.to_thread(_decode, 1)
            return True

        assert not asyncio.run(inside())
        assert asyncio.run(outside())

    def test_who_waits_for_room_keeps_no_quick_work_from_being_done(self) -> None:
        hall = ServerBudget(Limits(source_pixels=1))

        async def crowded() -> bool:
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
            with visiting(RequestBudget(hall)), hall.decoding.of(2):
                waiting = [asyncio.create_task(at_work(_decode, 1)) for _ in range(20)]
                await asyncio.sleep(0.05)
                quick = asyncio.create_task(asyncio.to_thread(str))
                done, _ = await asyncio.wait([quick], timeout=60)
                assert not any(each.done() for each in waiting)
            await asyncio.gather(*waiting)
            return bool(done)

        assert asyncio.run(crowded())

    def test_a_body_is_forgotten_once(self) -> None:
        visit = RequestBudget(ServerBudget(Limits()))
        forget_body()
        with visiting(visit):
            visit.hold(5)
            forget_body()
            assert visit.hall.bytes == 0
        assert visit.hall.bytes == 0


def _decode(pixels: int) -> None:
    with room_for(pixels):
        pass


# -- a started server --------------------------------------------------------------------------------------------

CLIENTS = {"/v1/jobs": 32}  # 4 elsewhere
PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "/v1/jobs": lambda picture: {"images": [picture], "width": 64, "height": 64, "steps": 1},
    "/v1/plan": lambda picture: {"images": [picture], "width": 64, "height": 64, "steps": 1},
    "/v1/images/edits": lambda picture: {"images": [{"image_url": picture}], "size": "64x64", "steps": 0},
    "/sdapi/v1/png-info": lambda picture: {"image": picture},
}


def largest_picture() -> str:
    data = io.BytesIO()
    Image.effect_noise((500, 250), 80).resize((10_000, 5_000)).convert("RGB").save(data, "JPEG", quality=30)
    return "data:image/jpeg;base64," + encoded(data.getvalue())


def peak_of(pid: int) -> float:
    """MiB, since the last `clear_refs`."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pictures_of_many_clients_are_decoded_in_turn(running_server: Server) -> None:
    pid, picture = running_server.process.pid, largest_picture()
    for place, body in PLACES.items():
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        before, started = peak_of(pid), time.monotonic()

        def asked(number: int, place: str = place, body: Any = body) -> int:
            with running_server.client(timeout=120.0) as client:
                return client.post(place, json=body(picture), headers={"X-Client": str(number)}).status_code

        health: list[float] = []
        clients = CLIENTS.get(place, 4)
        with ThreadPoolExecutor(clients) as pool, httpx.Client(base_url=running_server.url) as client:
            answers = [pool.submit(asked, number) for number in range(clients)]
            while not all(each.done() for each in answers):
                asked_at = time.monotonic()
                client.get("/healthz")
                health.append(time.monotonic() - asked_at)
                time.sleep(0.05)
        statuses = sorted({each.result() for each in answers})
        grown = peak_of(pid) - before
        told = f"{grown:.0f} MiB more, {time.monotonic() - started:.1f} s, /healthz at most {max(health):.2f} s"
        sys.stdout.write(f"\n{place}: {clients} clients, {statuses}, {told}")
        assert not any(status >= 500 for status in statuses), statuses
        assert grown < 1500
    with running_server.client() as client:
        for job in client.get("/v1/jobs?state=queued&state=running").json()["jobs"]:
            client.post(f"/v1/jobs/{job['id']}/cancel")
