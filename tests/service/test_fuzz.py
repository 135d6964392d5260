"""Whatever comes through a started server's doors: no accident, no long wait, no growth.

The long form: OVERPAINT_FUZZ=150 python -m pytest -s --timeout 0 tests/service/test_fuzz.py
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from PIL import Image

from tests.service.conftest import Server, _end, start
from tests.service.test_requests import MASK, SOURCE, encoded, file_of

LONG = "OVERPAINT_FUZZ" in os.environ
EXAMPLES = int(os.environ.get("OVERPAINT_FUZZ", "4"))
SLOWEST = 2.0  # seconds
MOST_GROWTH = 64  # MiB, of one test
NOT_OFFERED = 501
JOB = {"width": 64, "height": 64, "steps": 1}


@dataclass
class Door:
    """A started server, and what it was like to ask it."""

    server: Server
    client: httpx.Client
    asked: int = 0
    slowest: tuple[float, str] = (0.0, "")
    statuses: dict[int, int] = field(default_factory=dict)

    def send(self, method: str, place: str, **body: Any) -> httpx.Response:
        return self.note(place, lambda: self.client.request(method, place, **body))

    def note(self, place: str, ask: Callable[[], httpx.Response]) -> httpx.Response:
        answer, seconds = timed(ask)
        for _ in range(3):
            if seconds > SLOWEST:  # by others, or by the start of a helper: what is slow by itself is so each time
                answer, seconds = timed(ask)
        self.asked += 1
        if place not in PAINTS or answer.status_code != 200:  # how long painting takes is no question here
            self.slowest = max(self.slowest, (seconds, place))
        self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
        is_no_accident = answer.status_code < 500 or _is_told(answer)
        assert is_no_accident, (place, answer.status_code, answer.text[:500], self.server.lines[-20:])
        return answer

    def submit(self, job: Any) -> None:
        """And cancel: a queue that is full teaches nothing."""
        answer = self.send("POST", "/v1/jobs", content=json_of(job), headers={"Content-Type": "application/json"})
        if answer.status_code == 202:
            self.client.post(f"/v1/jobs/{answer.json()['id']}/cancel")

    def memory(self) -> float:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.server.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024


def timed(ask: Callable[[], httpx.Response]) -> tuple[httpx.Response, float]:
    started = time.monotonic()
    return ask(), time.monotonic() - started


def _is_told(answer: httpx.Response) -> bool:
    """The reference's API calls much an error of its own; an accident has none of our words."""
    if answer.status_code == NOT_OFFERED:
        return True
    is_reference = re.match("/(sdapi|internal|controlnet)/", answer.url.path) is not None
    return is_reference and "went wrong here" not in answer.text


@pytest.fixture(scope="module")
def door(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    models = tmp_path_factory.mktemp("many")
    server = start(
        tmp_path_factory.mktemp("data"), "--models", str(models), "--model", str(tiny_checkpoint), "--device", "cpu"
    )
    try:
        server.wait_ready()
        with server.client(timeout=30.0) as client:
            yield Door(server, client)
    finally:
        _end(server)


@pytest.fixture(autouse=True)
def no_growth(door: Door, request: pytest.FixtureRequest) -> Iterator[None]:
    before, asked = door.memory() if sys.platform == "linux" else 0.0, door.asked
    yield
    grown = door.memory() - before if sys.platform == "linux" else 0.0
    slowest, door.slowest = door.slowest, (0.0, "")
    statuses, door.statuses = dict(sorted(door.statuses.items())), {}
    told = f"{request.node.name}: {door.asked - asked} asked, {grown:+.1f} MiB, slowest {slowest[0]:.2f} s {slowest[1]}"
    sys.stdout.write(f"\n{told}, {statuses}")
    assert slowest[0] < SLOWEST, slowest
    assert grown < MOST_GROWTH
    assert door.client.get("/readyz").status_code == 200


def tried(work: Callable[..., None], **given_values: st.SearchStrategy[Any]) -> None:
    how = settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=not LONG,
        database=None,
        phases=[Phase.explicit, Phase.generate] if not LONG else list(Phase),
        suppress_health_check=list(HealthCheck),
    )
    how(given(**given_values)(work))()


# -- pictures and masks --------------------------------------------------------------------------------------------

MODES = st.sampled_from(("1", "L", "LA", "P", "RGB", "RGBA", "I;16"))
SIDES = st.integers(1, 90)


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    """Files of every kind, whole, cut off or damaged, and bytes that never were one."""
    kind = draw(st.sampled_from(("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "bytes")))
    if kind == "bytes":
        start = draw(st.sampled_from((b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBPVP8 ")))
        return start + draw(st.binary(max_size=300))
    mode = draw(MODES) if kind == "PNG" else draw(st.sampled_from(("L", "RGB")))
    data = io.BytesIO()
    Image.new(mode, (draw(SIDES), draw(SIDES)), draw(st.integers(0, 255)) if mode in "1LPI;16" else None).save(
        data, kind
    )
    file = bytearray(data.getvalue())
    for _ in range(draw(st.integers(0, 3))):
        file[draw(st.integers(0, len(file) - 1))] = draw(st.integers(0, 255))
    return bytes(file[: draw(st.integers(0, len(file)))]) if draw(st.booleans()) else bytes(file)


def test_pictures_and_masks(door: Door) -> None:
    def work(picture: bytes, mask: bytes, has_mask: bool, only_masked: bool) -> None:
        name = {"mask": encoded(mask)} if has_mask else {}
        job = {"images": [encoded(picture)], **name, "only_masked": only_masked, **JOB}
        door.send("POST", "/v1/plan", json=job)
        door.submit(job)
        door.submit({"kind": "extras", "images": [encoded(picture)], "scale": 2})
        door.send("PUT", "/v1/pictures", content=picture)
        door.send("POST", "/sdapi/v1/png-info", json={"image": encoded(picture)})

    tried(work, picture=pictures(), mask=pictures(), has_mask=st.booleans(), only_masked=st.booleans())


def test_forms_of_files(door: Door) -> None:
    """Refused ones only: an edit that is good is waited for."""

    def work(picture: bytes, mask: bytes, size: str) -> None:
        files = {"image": ("a", picture), "mask": ("b", mask)}
        for place in ("edits", "variations"):
            door.send("POST", f"/v1/images/{place}", files=files, data={"prompt": "x", "size": size, "sampler": "none"})

    tried(work, picture=pictures(), mask=pictures(), size=st.sampled_from(("auto", "64x64", "0x0", "9", "99999x1")))


# -- texts -----------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ("(", ")", "[", "]", "{", "}", ":", "|", "\\", "<lora:", "<hypernet:a:", ">", "AND", "BREAK", "1.5", "-", "0.5",
     ",", "cat", "\n", '"', "Steps: 20", "Negative prompt:", "Seed: 1", "Size: 9x9", "Hires upscale: 2", "Model: x",
     "\0", "\u200b", "é", "😀", "\ud800", "NaN", "1e308", "-1")
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(WORDS, max_size=60).map("".join),
    st.tuples(WORDS, st.integers(1, 6000)).map(lambda each: (each[0] * each[1])[:30_000]),
)


def json_of(values: Any) -> bytes:
    """With halves of characters as JSON can have them."""
    return json.dumps(values).encode("ascii")


def test_prompts(door: Door) -> None:
    def work(prompt: str, negative: str) -> None:
        job = {"prompt": prompt, "negative_prompt": negative, **JOB}
        headers = {"Content-Type": "application/json"}
        door.submit(job)
        for place in ("/v1/plan", "/sdapi/v1/txt2img", "/v1/images/generations"):
            door.send("POST", place, content=json_of(job), headers=headers)

    tried(work, prompt=TEXTS, negative=TEXTS)


def test_infotexts(door: Door) -> None:
    def work(text: str) -> None:
        headers = {"Content-Type": "application/json"}
        job = {"infotext": text, **JOB}
        door.send("POST", "/sdapi/v1/txt2img", content=json_of(job), headers=headers)
        file = with_text(text)
        door.send("POST", "/sdapi/v1/png-info", json={"image": encoded(file)})
        door.send("POST", "/v1/plan", json={"images": [encoded(file)], **JOB})

    tried(work, text=TEXTS)


def with_text(text: str) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info, data = PngInfo(), io.BytesIO()
    info.add_itxt("parameters", text.encode("utf-8", "replace").decode())
    Image.new("RGB", (8, 8)).save(data, "PNG", pnginfo=info)
    return data.getvalue()


# -- models ------------------------------------------------------------------------------------------------------------


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Files that say they are safetensors."""
    shapes = st.lists(st.integers(-1, 2**40), max_size=5)
    offsets = st.lists(st.integers(-5, 2**40), max_size=3)
    kinds = st.sampled_from(("F32", "F16", "BF16", "F8_E4M3", "none", 5))
    keys = st.sampled_from(
        ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight", "a", "")
    )
    entry = st.fixed_dictionaries({"dtype": kinds, "shape": shapes, "data_offsets": offsets})
    table: dict[str, Any] = draw(
        st.dictionaries(keys, st.one_of(entry, st.none(), st.integers(), st.text(max_size=5)), max_size=4)
    )
    if draw(st.booleans()):
        table["__metadata__"] = draw(
            st.one_of(st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.integers())
        )
    text = draw(st.one_of(st.just(json_of(table)), st.binary(max_size=50), st.just(b"[" * 5000)))
    length = draw(st.one_of(st.just(len(text)), st.integers(0, 2**64 - 1)))
    return struct.pack("<Q", length) + text + draw(st.binary(max_size=40))


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".gguf"])
def test_model_files(door: Door, suffix: str) -> None:
    """A folder of models in which anything may lie."""
    file = Path(next(each.split("=", 1)[1] for each in _started_with(door)) + f"/found{suffix}")

    def work(data: bytes) -> None:
        file.write_bytes(data)
        door.send("GET", "/v1/models")
        door.send("GET", "/v1/models/found")
        door.send("GET", "/sdapi/v1/sd-models")
        door.send("POST", "/v1/plan", json={"prompt": "x", "checkpoint": "found", **JOB})

    try:
        tried(work, data=headers())
    finally:
        file.unlink(missing_ok=True)


def _started_with(door: Door) -> list[str]:
    arguments = list(map(str, door.server.process.args if isinstance(door.server.process.args, list) else []))
    return [f"models={arguments[arguments.index('--models') + 1]}"]


# -- the whole document ------------------------------------------------------------------------------------------------

NATIVE = re.compile(r"/v1/(jobs|pictures|plan|models|samplers|limits)")
ENDS_THE_SERVER = re.compile(r"/sdapi/v1/server-(kill|restart|stop)")
QUICK = {**JOB, "n_iter": 1, "batch_size": 1, "enable_hr": False}  # painting large pictures is other tests' business
PAINTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("/sdapi/v1/txt2img", "/sdapi/v1/img2img"), QUICK),
    **{
        f"/v1/images/{each}": {"size": "64x64", **JOB, "hires": None} for each in ("generations", "edits", "variations")
    },
}


@pytest.mark.slow
def test_every_other_operation_of_the_document(door: Door) -> None:
    """The native API's have tests of their own, in test_openapi.py."""
    schemathesis = pytest.importorskip("schemathesis")
    picture = st.sampled_from([encoded(each) for each in (SOURCE, MASK, file_of("RGBA", (20, 20), (1, 2, 3, 0)))])
    schemathesis.openapi.format("picture", picture)
    schema = schemathesis.openapi.from_url(f"{door.server.url}/openapi.json")
    for place, operations in schema.raw_schema["paths"].items():
        if NATIVE.match(place) or ENDS_THE_SERVER.match(place):
            continue
        for method in operations:
            for mode in ("POSITIVE", "NEGATIVE"):
                operated(door, schema[place][method.upper()], place, schemathesis.GenerationMode[mode])


def operated(door: Door, operation: Any, place: str, mode: Any) -> None:
    def work(case: Any) -> None:
        if place in PAINTS and isinstance(case.body, dict):
            case.body = {**case.body, **PAINTS[place]}
        request = httpx.Request("GET", door.server.url + re.sub("[{}]", "", place))

        def ask() -> httpx.Response:
            answer = case.call(timeout=30)
            return httpx.Response(answer.status_code, content=answer.content, request=request)

        door.note(place, ask)

    try:
        tried(work, case=operation.as_strategy(generation_mode=mode))
    except Unsatisfiable:  # nothing that may be said there could be wrong
        assert mode.name == "NEGATIVE", place
