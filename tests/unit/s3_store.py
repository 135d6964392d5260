"""A store of S3 on loopback, by moto: nobody here wrote it. Everything that speaks to it is a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
IS_HERE = all(find_spec(name) is not None for name in ("moto", "flask", "flask_cors", "s3fs"))
SECRET = "a-secret-that-is-told-to-nobody"
PATIENCE = 180.0
# Signatures are not looked at, only who says to have signed.
_AS_SOMEBODY = {
    "Content-Type": "image/png",
    "Authorization": "AWS4-HMAC-SHA256 Credential=somebody/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, "
    "Signature=0",
}
_SPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@dataclass(frozen=True)
class LocalS3:
    """One bucket, named `bucket`."""

    address: str

    @property
    def environment(self) -> Mapping[str, str]:
        """Of who speaks to it; the secrets are there and nowhere else."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
        return own | {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }

    def put(self, key: str, data: bytes) -> None:
        self._ask("PUT", f"/bucket/{quote(key)}", data)

    def fill(self, prefix: str, folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            self.put(f"{prefix}/{path.name}", path.read_bytes())

    def remove(self, key: str) -> None:
        self._ask("DELETE", f"/bucket/{quote(key)}")

    def contents(self, prefix: str) -> dict[str, bytes]:
        """The results below a prefix, by name: what the batch keeps for itself is left out."""
        found = {key[len(prefix) + 1 :] for key in self.keys(prefix)}
        return {
            name: self._ask("GET", f"/bucket/{quote(f'{prefix}/{name}')}")
            for name in found
            if not name.startswith(".overpaint-batch/")
        }

    def keys(self, prefix: str) -> list[str]:
        keys: list[str] = []
        while True:
            after = f"&start-after={quote(keys[-1])}" if keys else ""
            page = ElementTree.fromstring(self._ask("GET", f"/bucket?list-type=2&prefix={quote(prefix)}/{after}"))
            keys += [unquote(each.findtext(f"{_SPACE}Key") or "") for each in page.iter(f"{_SPACE}Contents")]
            if page.findtext(f"{_SPACE}IsTruncated") != "true":
                return keys

    def _ask(self, verb: str, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.address + path, data=data, method=verb, headers=_AS_SOMEBODY)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            read: bytes = answer.read()
        return read


@contextmanager
def local_s3(folder: Path) -> Iterator[LocalS3]:
    """Until the end of the block."""
    command = [sys.executable, "-c", _SERVER]
    log = folder / "s3.log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd=folder) as process:
        try:
            store = LocalS3(_address(log, process))
            store._ask("PUT", "/bucket")
            yield store
        finally:
            process.kill()


# The port is the system's choice, so that it is free.
_SERVER = """
import sys
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
app = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, app, threaded=True)
print(f"port {server.server_port}", flush=True)
server.serve_forever()
"""


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(rb"^port (\d+)$", log.read_bytes(), re.MULTILINE):
            return f"http://127.0.0.1:{int(found[1])}"
        time.sleep(0.05)
    raise RuntimeError(log.read_text(encoding="utf-8", errors="replace")[-2000:])
