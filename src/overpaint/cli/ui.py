"""`overpaint ui`: the service, and its page in the browser."""

from __future__ import annotations

import threading
import webbrowser
from typing import Annotated

import typer

from overpaint.cli.options import JOB_OPTIONS, GivenOptions, takes
from overpaint.cli.output import note
from overpaint.cli.serve import Data, Host, Limit, Port, Token, started

# A PNG of 50 megapixels: who paints on their own machine goes on from a result as large as the picture was.
LARGE_PICTURES = ("picture_bytes=268435456", "body_bytes=268435456")

Open = Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser, or only say where.")]


@takes(*JOB_OPTIONS)
def ui(
    *,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    data: Data = None,
    token: Token = None,
    limit: Limit = None,
    browser: Open = True,
    asked: GivenOptions,
) -> int:
    """Open the page: paint a mask, press a button, keep what is good.

    It starts the same service as `overpaint serve`, which this page belongs to, and opens it in the browser. Files of
    pictures may have 256 MiB here.
    """

    def opened(url: str) -> None:
        # Not here: some systems wait for their browser, and the server has to answer it meanwhile.
        threading.Thread(target=_open, args=(url,), daemon=True).start()

    limits = [*LARGE_PICTURES, *(limit or ())]
    then = opened if browser else None
    return started(asked, then, host=host, port=port, data=data, token=token, limit=limits, announces_page=True)


def _open(url: str) -> None:
    if not webbrowser.open(url):
        note(f"there is no browser to open here; the page is at {url}")
