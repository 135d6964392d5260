"""The command on S3, against a server that nobody here wrote. Each thing that speaks to it is a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.files.test_batch import fill
from tests.unit.s3_store import IS_HERE, ROOT, SECRET, LocalS3, local_s3

pytestmark = pytest.mark.skipif(not IS_HERE, reason="moto and s3fs are not installed")

# Several batches in one process, since most of a process's time goes to imports.
_BATCHES = """
import json, sys
from overpaint.cli import main, session
from tests.unit.fake_painter import FakePainter
session.open_engine = lambda *args: FakePainter()
for line in json.loads(sys.argv[1]):
    print("ended", main(["batch", *line, "--seed", "3"]), flush=True)
"""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    with local_s3(tmp_path_factory.mktemp("s3")) as store:
        yield store


def batches(s3: LocalS3, *lines: list[str]) -> tuple[list[str], str]:
    """(the exit codes, and all that was said)"""
    import json

    command = [sys.executable, "-c", _BATCHES, json.dumps(lines)]
    ended = subprocess.run(
        command, env=s3.environment, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return [each.split()[1] for each in ended.stdout.splitlines() if each.startswith("ended")], ended.stderr


def test_the_command_paints_there_what_it_paints_in_folders(tmp_path: Path, s3: LocalS3) -> None:
    """Sub-folders, masks and shards; then everything is done; and of the secrets nothing is kept or said."""
    source, masks = fill(tmp_path / "in", "a.png", "a.jpg", "b.png"), fill(tmp_path / "masks", "a.png", "b.png")
    s3.fill("in", source)
    s3.fill("masks", masks)
    where = ["s3://bucket/in", "s3://bucket/out", "--masks", "s3://bucket/masks"]
    codes, said = batches(
        s3,
        [str(source), str(tmp_path / "out"), "--masks", str(masks)],
        [*where, "--shard", "1/2"],
        [*where, "--shard", "0/2"],
        where,
        ["s3://bucket/in", "s3://nowhere/out"],
        ["s3://nowhere/in", "s3://bucket/out"],
        ["s3://bucket/nothing", "s3://bucket/out"],
    )
    assert codes == ["0", "0", "0", "0", "4", "3", "3"], said
    assert "0 painted, 3 skipped, 0 failed" in said
    assert said.count("there is no such bucket or file") == 2 and "no picture in it" in said
    assert s3.contents("out") == {each.name: each.read_bytes() for each in (tmp_path / "out").glob("*.png")}
    kept = b"".join(s3._ask("GET", f"/bucket/{key}") for key in s3.keys("out"))
    assert SECRET.encode() not in kept and SECRET not in said


def test_pages_of_a_listing(s3: LocalS3) -> None:
    """S3 gives at most so many names at once as are asked for; here it is asked for two."""
    for number in range(5):
        s3.put(f"pages/p{number}.png", b"x")
    s3.put("pages/deep/p9.png", b"x")
    code = """
import s3fs
from overpaint.stores import StoreFile, listed_below
call = s3fs.S3FileSystem.call_s3
def two(self, method, *values, **named):
    return call(self, method, *values, **named, MaxKeys=2)
s3fs.S3FileSystem.call_s3 = two
for recursive in (False, True):
    print([each.name for each in listed_below(StoreFile("s3://bucket/pages"), recursive)])
print(all(each.mark for each in listed_below(StoreFile("s3://bucket/pages"), True)))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], env=s3.environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = [f"p{number}.png" for number in range(5)]
    assert ended.stdout.splitlines() == [str(names), str(["p9.png", *names]), "True"], ended.stderr
