"""Bring the foreground art into the state folder with npm: `python -m training.fetch --state DIR`. See LICENSES.md."""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from training.scenes.objects import THINGS
from training.store import Folder

PACKAGE, VERSION = "@lobehub/fluent-emoji-3d", "1.1.0"
SHA256 = "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"


def fetch(folder: Folder) -> None:
    """Fetch the package, check it, and unpack the pictures in use."""
    folder.emoji.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(folder.emoji.parent)]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1]
    archive = folder.emoji.parent / name
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{archive}: its SHA-256 is {found}, not {SHA256}; remove it and fetch it again")
    print(f"{unpack(archive, folder.emoji)} pictures in {folder.emoji}")


def unpack(archive: Path, target: Path) -> int:
    """Only the pictures that the scenes use."""
    wanted = {f"{thing.art}.webp" for thing in THINGS.values()}
    count = 0
    with tarfile.open(archive) as package:
        for member in package:
            path = PurePosixPath(member.name)
            opened = package.extractfile(member) if path.name in wanted and path.parent.name == "assets" else None
            if opened is not None:
                (target / path.name).write_bytes(opened.read())
                count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(prog="training.fetch", description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    fetch(Folder(parser.parse_args().state))


if __name__ == "__main__":
    main()
