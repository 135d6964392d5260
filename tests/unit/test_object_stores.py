"""The service's pictures in object stores that nobody here wrote: S3 by moto, Google's and Azure's by emulators."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.unit.s3_store import IS_HERE, PATIENCE, ROOT, local_s3

# The key that every Azurite has, as its documentation says.
_AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_GOOGLE = (
    "import sys; from gcp_storage_emulator.server import create_server; "
    "create_server('127.0.0.1', int(sys.argv[1]), in_memory=True, default_bucket='bucket').run()"
)
_BUCKET = "import adlfs; adlfs.AzureBlobFileSystem().mkdir('bucket')"


def ask(url: str, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "tests.unit.objects_run", url]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@contextmanager
def listening(command: list[str], port: int, folder: Path) -> Iterator[None]:
    """A server, until the end of the block."""
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process:
        try:
            end = time.monotonic() + PATIENCE
            while not _answers(port):
                assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()[-2000:]
                time.sleep(0.1)
            yield
        finally:
            process.kill()


def _answers(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


@pytest.mark.skipif(not IS_HERE, reason="moto's server or s3fs is not installed")
def test_s3(tmp_path: Path) -> None:
    with local_s3(tmp_path) as store:
        ask("s3://bucket/overpaint", store.environment)


@pytest.mark.long
@pytest.mark.skipif(
    find_spec("gcp_storage_emulator") is None or find_spec("gcsfs") is None,
    reason="gcp-storage-emulator or gcsfs is not installed",
)
def test_google_cloud_storage(tmp_path: Path) -> None:
    port = free_port()
    with listening([sys.executable, "-c", _GOOGLE, str(port)], port, tmp_path):
        ask("gs://bucket/overpaint", {**os.environ, "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"})


@pytest.mark.long
@pytest.mark.skipif(
    shutil.which("azurite-blob") is None or find_spec("adlfs") is None, reason="azurite or adlfs is not installed"
)
def test_azure(tmp_path: Path) -> None:
    port, program = free_port(), shutil.which("azurite-blob")
    assert program is not None
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--blobPort", str(port)]
    told = {
        "DefaultEndpointsProtocol": "http",
        "AccountName": "devstoreaccount1",
        "AccountKey": _AZURITE_KEY,
        "BlobEndpoint": f"http://127.0.0.1:{port}/devstoreaccount1",
    }
    given = "".join(f"{name}={value};" for name, value in told.items())
    environment = {**os.environ, "AZURE_STORAGE_CONNECTION_STRING": given}
    with listening([program, *options], port, tmp_path):
        subprocess.run([sys.executable, "-c", _BUCKET], env=environment, timeout=PATIENCE, check=True)
        ask("az://bucket/overpaint", environment)
