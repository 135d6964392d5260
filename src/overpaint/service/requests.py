"""Requests on their way in and out of the store: every picture judged before it is decoded, every seed known.

What is stored is the request's own JSON with "sha256:<hex>" where pictures were; a job of extras says so in "kind".
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from overpaint.errors import OverpaintError, RequestError
from overpaint.extras import LARGEST_RESULT, ExtrasRequest
from overpaint.pictures import open_picture
from overpaint.request import PaintRequest
from overpaint.seeds import fix_seed
from overpaint.sequences.forms import KINDS, SCRIPT
from overpaint.sequences.story import PaintingSequence, SequenceStep
from overpaint.service.config import ServeConfig
from overpaint.service.drawn_masks import MASK_FIELDS, MaskInWords, drawn_for
from overpaint.service.guard.budgets import apart_of, picture_apart, room_for
from overpaint.service.guard.inputs import SentPicture, admit_picture, decoded_text, picture_from_text
from overpaint.service.guard.pictures_apart import PictureApart
from overpaint.service.jobs import PICTURE_REFERENCE, Json, Kind
from overpaint.service.limits import Limits
from overpaint.service.ports import TooLarge
from overpaint.service.request_limits import check_extras, check_name, check_request, check_together, job_settings
from overpaint.service.sequence_orders import (
    SEQUENCE,
    SequenceOrder,
    is_sequence,
    judged_tool,
    tool_and_request,
)
from overpaint.service.shapes import shaped_fields
from overpaint.settings import Settings

JobRequest: TypeAlias = PaintRequest | ExtrasRequest
AnyRequest: TypeAlias = PaintRequest | ExtrasRequest | SequenceOrder
TextReader: TypeAlias = Callable[[str, str], bytes]  # (text, field) -> the picture's file

EXTRAS: Kind = "extras"
REFERENCE = re.compile(f"{PICTURE_REFERENCE}[0-9a-f]{{64}}")

_DEFAULT_SETTINGS = Settings()

Looks = Literal["everything", "all but sources", "nothing"]
"""Of which pictures judging itself needs pixels, and not only what they say of themselves."""


class PictureStore(Protocol):
    """The part of a store that pictures need."""

    def put_picture(self, data: bytes) -> str: ...
    def take_picture(self, path: Path, digest: str) -> str: ...
    def picture(self, reference: str) -> bytes: ...


@dataclass
class RequestSources:
    """The pictures of one request while it is judged; they are kept when all of it is good.

    Those that were read apart have been decoded once; they are not again, unless somebody looks at their pixels.
    """

    store: PictureStore
    limits: Limits
    read: TextReader
    looks: Looks = "everything"
    given: dict[str, bytes] = field(default_factory=dict)  # by reference
    apart: dict[str, PictureApart] = field(default_factory=dict)  # by reference
    count: int = 0
    pixels: int = 0
    to_decode: int = 0  # pixels
    first: str | None = None  # the source that masks in words are drawn on

    def reference(self, name: str, value: Any) -> str:
        """The reference that stands for a picture, which is fit to be decoded."""
        if name in MASK_FIELDS and isinstance(value, Mapping):
            return self.reference(name, drawn_for(self, MaskInWords.read(name, value)))
        self.count += 1
        if self.count > self.limits.pictures:
            raise TooLarge(f"{name}: the request holds more than {self.limits.pictures} pictures; send fewer")
        reference, pixels = self._apart(value) or self._given(name, value)
        self.first = reference if name == "images[0]" else self.first
        self.pixels += pixels
        self.to_decode += pixels if self._is_looked_at(name) or reference not in self.apart else 0
        check_together(name, pixels, self.pixels, self.limits)
        return reference

    def _apart(self, value: Any) -> tuple[str, int] | None:
        """One that was read apart, and how many pixels it has."""
        found = picture_apart(value) if isinstance(value, str) else None
        if isinstance(value, bytes):
            found = apart_of(value)
        if found is None or found.pixels is None:
            return None
        reference = PICTURE_REFERENCE + found.digest
        self.apart[reference] = found
        return reference, found.pixels

    def _given(self, name: str, value: Any) -> tuple[str, int]:
        if isinstance(value, str) and value.startswith(PICTURE_REFERENCE):
            reference, data = value, uploaded(name, value, self.store)
        else:
            data = picture_bytes(name, value, self.read)
            reference = reference_of(data)
        self.given[reference] = data
        return reference, admit_picture(data, self.limits, name)

    def opened(self, name: str, reference: Any) -> Any:
        """The picture."""
        found = self.apart.get(reference)
        data = self.given[reference] if found is None else found.read(name)
        return open_picture(data, max_pixels=self.limits.source_pixels)

    def measured(self, name: str, reference: Any) -> Any:
        """The picture or, where nobody looks at its pixels, one like it."""
        found = None if self._is_looked_at(name) else self.apart.get(reference)
        stand_in = None if found is None else found.measure() if self.looks == "nothing" else found.stand_in()
        return self.opened(name, reference) if stand_in is None else stand_in

    def _is_looked_at(self, name: str) -> bool:
        return self.looks == "everything" or (
            self.looks == "all but sources" and not name.startswith(("images[", "references["))
        )

    def keep(self) -> None:
        for data in self.given.values():
            self.store.put_picture(data)
        for each in self.apart.values():
            assert each.path is not None
            self.store.take_picture(each.path, each.digest)


def stored_request(
    values: Json,
    store: PictureStore,
    limits: Limits,
    *,
    settings: Settings = _DEFAULT_SETTINGS,
    read: TextReader | None = None,
    rng: random.Random | None = None,
) -> dict[str, Any]:
    """A client's request, judged whole, as it is stored; its pictures are in the store when this returns.

    Pictures may be bytes, references to uploads, or texts that `read` understands: base64 and data URLs, if none is
    given. It decodes, so it belongs in a thread. The same `rng` gives the same seeds: what is sent again under one key
    is then the same request.
    """
    tool: dict[str, Any] | None = None
    if is_sequence(values):
        tool, values = tool_and_request(values)
    with ExitStack() as held:
        sources = _sources(store, limits, read, looks="nothing" if tool is None else "everything")
        told, request = _judged(values, sources, settings, held)
        beside: dict[str, Any] = {"kind": EXTRAS}
        if not isinstance(request, ExtrasRequest):
            asked, request = request, request.with_changes(**_fixed(request, rng))
            beside = {} if tool is None else _with_tool(tool, asked, limits, settings)
        plain = _with_pictures(request.to_json(pictures=False), told)
        del request  # the room that is given back now is that of its pictures
    sources.keep()
    return {**beside, **plain}


def _with_tool(tool: Json, request: PaintRequest, limits: Limits, settings: Settings) -> dict[str, Any]:
    """What is stored beside the request of a sequence; each of its steps is judged."""
    check_name("upscaler", str(tool.get("upscaler", "")))
    site = job_settings(settings, limits)

    def check(step: SequenceStep) -> None:
        within = limits if step.tiles is None else replace(limits, pass_pixels=limits.source_pixels)
        check_request(step.request, within, settings)

    return {"kind": SEQUENCE, SEQUENCE: judged_tool(tool, request, limits, site, check)}


def judged_sequence(
    values: Json,
    store: PictureStore,
    limits: Limits,
    *,
    settings: Settings = _DEFAULT_SETTINGS,
    read: TextReader | None = None,
    held: ExitStack,
) -> PaintingSequence:
    """A tool that is only to be planned; each of its steps is judged, and nothing is kept."""
    tool, rest = tool_and_request(values)
    _, request = _judged(rest, _sources(store, limits, read, looks="everything"), settings, held)
    assert not isinstance(request, ExtrasRequest)  # a tool's kind is none of those
    _with_tool(tool, request, limits, settings)
    return SequenceOrder(tool, request).sequence(job_settings(settings, limits))


def judged_request(
    values: Json,
    store: PictureStore,
    limits: Limits,
    *,
    settings: Settings = _DEFAULT_SETTINGS,
    read: TextReader | None = None,
    held: ExitStack | None = None,
) -> PaintRequest:
    """The same for a painting job that is only to be planned: nothing is kept. `held` is closed when it is planned."""
    with ExitStack() as short:
        sources = _sources(store, limits, read, looks="all but sources")  # of which a plan takes the sizes
        _, request = _judged(values, sources, settings, held or short)
    if isinstance(request, ExtrasRequest):
        raise RequestError("kind", EXTRAS, "only painting has a plan")
    return request


def _sources(store: PictureStore, limits: Limits, read: TextReader | None, *, looks: Looks) -> RequestSources:
    return RequestSources(store, limits, read or (lambda text, name: decoded_text(text, limits, name)), looks)


def _judged(
    values: Json, sources: RequestSources, settings: Settings, held: ExitStack
) -> tuple[dict[str, Any], JobRequest]:
    """Plain values with references for pictures, and the request; `held` has the room that the pictures take."""
    given = {name: value for name, value in values.items() if name != "kind"}
    if "images" in given:  # first: masks in words are drawn on one of them
        given = {"images": given.pop("images"), **given}
    told = shaped_fields("", given, _kind(values), sources.reference)
    held.enter_context(room_for(sources.to_decode))
    request = _read(told, values.get("kind") == EXTRAS, sources.measured)
    if isinstance(request, ExtrasRequest):
        check_extras(request, sources.limits)
    else:
        check_request(request, sources.limits, settings)
    return told, request


def loaded_request(stored: Json, read: Callable[[str], bytes]) -> AnyRequest:
    """The request that was stored, its pictures read through `read`."""

    def opened(name: str, reference: Any) -> Any:
        return open_picture(read(str(reference)), max_pixels=LARGEST_RESULT)

    values = {name: value for name, value in stored.items() if name not in ("kind", SEQUENCE)}
    request = _read(values, stored.get("kind") == EXTRAS, opened)
    if stored.get("kind") == SEQUENCE and not isinstance(request, ExtrasRequest):
        return SequenceOrder(stored[SEQUENCE], request)
    return request


def kind_of(stored: Json) -> Kind:
    """Which kind of job a stored request is."""
    kinds: dict[Any, Kind] = {EXTRAS: EXTRAS, SEQUENCE: "sequence"}
    return kinds.get(stored.get("kind"), "paint")


def reference_of(data: bytes) -> str:
    """What stands for these bytes in a request."""
    return PICTURE_REFERENCE + hashlib.sha256(data).hexdigest()


def kept(sent: SentPicture, store: PictureStore) -> str:
    """The reference of a picture that was sent alone, to be named in requests; it is in the store when this returns."""
    if sent.apart is None:
        return store.put_picture(sent.file)
    assert sent.apart.path is not None
    return store.take_picture(sent.apart.path, sent.apart.digest)


def picture_bytes(name: str, value: Any, read: TextReader) -> bytes:
    """The file that stands in a request."""
    if isinstance(value, str):
        return read(value, name)
    if not isinstance(value, bytes):
        raise RequestError(name, value, 'give a picture as base64, as a data URL, or uploaded as "sha256:..."')
    return value


def reader_for(config: ServeConfig) -> TextReader:
    """How a server reads pictures from texts; URLs only where it is allowed to fetch them."""
    return lambda text, name: picture_from_text(text, config, name)


def uploaded(name: str, reference: str, store: PictureStore) -> bytes:
    """The bytes of an earlier upload."""
    if REFERENCE.fullmatch(reference):
        try:
            return store.picture(reference)
        except (OverpaintError, LookupError, OSError):
            pass
    raise RequestError(name, reference, "no such picture is kept; upload it first with PUT /v1/pictures")


def _kind(values: Json) -> type[JobRequest]:
    if values.get("kind") == EXTRAS:
        return ExtrasRequest
    if values.get("kind", "paint") != "paint":
        raise RequestError("kind", values["kind"], f"give paint, extras, {', '.join(KINDS)} or {SCRIPT}")
    return PaintRequest


def _read(told: Json, is_extras: bool, opened: Callable[[str, Any], Any]) -> JobRequest:
    kind: type[JobRequest] = ExtrasRequest if is_extras else PaintRequest
    values = shaped_fields("", told, kind, opened)
    return ExtrasRequest.from_json(values) if is_extras else PaintRequest.from_json(values)


def _fixed(request: PaintRequest, rng: random.Random | None) -> dict[str, Any]:
    return {name: fix_seed(getattr(request, name), rng) for name in ("seed", "variation_seed")}


def _with_pictures(plain: dict[str, Any], told: Json) -> dict[str, Any]:
    """What `to_json` leaves out, put back from what was told: the references of pictures."""
    result = dict(plain)
    for name, value in told.items():
        ours = result.get(name)
        if name not in result:
            result[name] = value
        elif isinstance(ours, dict) and isinstance(value, Mapping):
            result[name] = _with_pictures(ours, value)
        elif isinstance(ours, list) and isinstance(value, list):
            pairs = zip(ours, value, strict=True)
            result[name] = [_with_pictures(a, b) if isinstance(a, dict) else a for a, b in pairs]
    return result
