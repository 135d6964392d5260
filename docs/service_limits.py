"""The server's part of docs/reference/limits.md, told from the limits and constants of the code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields

from overpaint.service import request_limits, serve
from overpaint.service.doors.openai import requests as openai_requests
from overpaint.service.guard import bodies, budgets, fetching, guards, jsonshape
from overpaint.service.limits import Limits
from overpaint.service.store import room
from overpaint.service.workers import worker_process

# name -> (of what, beyond it)
MEANINGS: Mapping[str, tuple[str, str]] = {
    "body_bytes": ("Bytes of a request's body, counted as it comes in, unpacked.", "413"),
    "picture_bytes": ("Bytes of one picture, decoded from base64 or as a file.", "413"),
    "pictures": ("Pictures of one request.", "413"),
    "source_pixels": ("Pixels of one picture, by its header.", "422"),
    "source_side": ("Pixels of a picture's longest side.", "422"),
    "source_aspect": ("Times the longer side of a picture is the shorter one.", "422"),
    "text_chunk_bytes": ("Bytes of all texts in a picture's file together, unpacked.", "422"),
    "exif_bytes": ("Bytes of a picture's EXIF.", "422"),
    "icc_bytes": ("Bytes of a picture's colour profile, unpacked.", "422"),
    "pass_pixels": ("Width times height of one pass through the networks.", "422"),
    "steps": ("Steps of a pass.", "422"),
    "images": ("Batch size times iterations.", "422"),
    "sequence": ("Steps of a grid, a loopback or another tool that paints more than once.", "422"),
    "prompt_chars": ("Characters of a prompt.", "422"),
    "prompt_rows": (
        "Rows of the network in a step, for one picture: parts between ANDs times the chunks of 75 tokens of the "
        "longest, and the chunks of the negative prompt. Styles and the prompts of a second pass count.",
        "422",
    ),
    "prompt_chunks": (
        "Chunks of 75 tokens to be encoded for one picture, of all versions that prompt editing makes.",
        "422",
    ),
    "loras": ("LoRAs of a picture, in the list and in the prompt.", "422"),
    "cfg_scale": ("The greatest guidance; the least is 0.", "422"),
    "waiting": ("Jobs that wait.", "429"),
    "waiting_per_client": ("Jobs of one client that wait; as many as `waiting`, unless it is given.", "429"),
    "queue_deadline": ("Seconds that a job may wait.", "the job fails, 504"),
    "run_deadline": ("Seconds that a job may run.", "the job fails, 504"),
    "watchdog": ("Seconds of a running job without a step.", "the worker is killed, the job fails, 504"),
    "disconnect_grace": ("Seconds that a job runs on when the client that waits for it went away.", "it is cancelled"),
    "drain": ("Seconds for the running job after SIGTERM.", "it goes on at the next start"),
    "result_seconds": ("Seconds that results are kept.", "410"),
    "result_bytes": ("Bytes of all results that are kept.", "the oldest go, 410"),
    "events_per_job": ("Events of a job that are kept for replay.", "steps and previews are thinned out"),
}

# (name, value, of what, beyond it)
FIXED: tuple[tuple[str, float, str, str], ...] = (
    ("CONNECTIONS", serve.CONNECTIONS, "Connections, and requests, at one time.", "503"),
    ("HEADER_SECONDS", serve.HEADER_SECONDS, "Seconds until the headers of a request are there.", "hung up on"),
    ("READER_SECONDS", serve.READER_SECONDS, "Seconds in which a client takes nothing of its answer.", "hung up on"),
    ("KEEP_ALIVE", serve.KEEP_ALIVE, "Seconds between two requests of one connection.", "closed"),
    ("LONGEST_TARGET", guards.LONGEST_TARGET, "Bytes of path and query.", "414"),
    ("HEADER_BYTES", guards.HEADER_BYTES, "Bytes of all headers.", "431"),
    ("PATIENCE", bodies.PATIENCE, "Seconds without a byte of a body that comes.", "408"),
    ("SLOWEST", bodies.SLOWEST, "Bytes in a second that a body comes with at least, after the first 20.", "408"),
    ("RATIO", bodies.RATIO, "Times its size that a packed body may unpack to, from 1 MiB on.", "413"),
    ("DEEPEST", jsonshape.DEEPEST, "Levels of JSON.", "400"),
    ("MOST_PARTS", jsonshape.MOST_PARTS, "Texts, brackets, commas and colons of JSON.", "400"),
    ("LONGEST_PART", jsonshape.LONGEST_PART, "Characters of a number, or of blanks, in JSON.", "400"),
    ("BODIES", budgets.BODIES, "Bodies of the largest size, held at one time.", "503"),
    ("DECODED", budgets.DECODED, "Pictures of the largest size, decoded at one time.", "waits"),
    ("WAITING", budgets.WAITING, "Requests that wait for that.", "429"),
    ("PICTURES_TOGETHER", request_limits.PICTURES_TOGETHER, "Times `source_pixels` in one request.", "422"),
    ("FETCHED", budgets.FETCHED, "URLs that are fetched at one time.", "waits"),
    ("SECONDS", fetching.SECONDS, "Seconds to fetch one URL, whatever takes them.", "422"),
    ("TOGETHER", budgets.TOGETHER, "Seconds to fetch the URLs of one request.", "422"),
    ("MOST_PICTURES", openai_requests.MOST_PICTURES, "OpenAI's `n`.", "400"),
    ("MOST_PARTIALS", openai_requests.MOST_PARTIALS, "OpenAI's `partial_images`.", "400"),
    ("QUESTIONS", worker_process.QUESTIONS, "Questions that wait for the worker.", "429"),
    ("DISK_ROOM", room.DISK_ROOM, "Bytes of free disk, below which `/readyz` says 503.", "503"),
)

TEXT = """\
## A server

`overpaint serve --limit NAME=VALUE` sets one, as often as there are some to be set; `GET /v1/limits` tells those of a
running server. Beyond them, an answer has this status; OpenAI's API says 400 where the
others say 422, and 429 and 503 come with `Retry-After`.

{limits}
These hold for every server:

{fixed}
Pictures that are sent to a server are PNG, JPEG or WebP of one frame. A PNG or JPEG whose header promises more than
1,100 times what its packed pixels can hold is refused as broken, before anything is decoded. Pictures at URLs, where a
server fetches any, may together be as large as a body may.
"""


def section() -> str:
    """Both tables."""
    defaults = Limits()
    names = [each.name for each in fields(Limits)]
    if wrong := set(names).symmetric_difference(MEANINGS):
        raise SystemExit(f"docs/service_limits.py: add or remove {', '.join(sorted(wrong))}")
    limits = [(f"`{name}`", f"{getattr(defaults, name):,.0f}", *MEANINGS[name]) for name in names]
    fixed = [(f"`{name}`", f"{value:,.0f}", what, beyond) for name, value, what, beyond in FIXED]
    head = ("limit", "default", "of what", "beyond it")
    return TEXT.format(limits=_table(head, limits), fixed=_table(("", "at most", *head[2:]), fixed))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, tuple("---" for _ in head), *rows)) + "\n"
