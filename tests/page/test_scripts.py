"""The page's scripts without a browser: their own tests under node, and their types."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from overpaint.service.page_files import FOLDER

TYPESCRIPT = "5.9.3"
TESTS = Path(__file__).parent / "js"

NODE, NPX = shutil.which("node"), shutil.which("npx")


def node_version() -> tuple[int, ...]:
    if NODE is None:
        return ()
    told = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(each) for each in told.strip().removeprefix("v").split(".")[:2])


@pytest.mark.skipif(node_version() < (20, 19), reason="needs node 20.19, which knows modules by their words")
def test_rooms_that_need_no_browser() -> None:
    assert NODE is not None
    files = sorted(map(str, TESTS.glob("*.test.mjs")))
    ran = subprocess.run([NODE, "--test", *files], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:]
    assert "# fail 0" in ran.stdout and re.search(r"# pass [2-9]\d", ran.stdout)


def test_types(tmp_path: Path) -> None:
    """TypeScript reads the comments; nothing of it is served."""
    compiler = shutil.which("tsc")
    if compiler is None and (NPX is None or "CI" not in os.environ):
        pytest.skip("needs tsc (npm install --global typescript), or npx and the variable CI")
    options = {
        "checkJs": True,
        "allowJs": True,
        "noEmit": True,
        "strict": True,
        "skipLibCheck": True,
        "types": [],
        "target": "es2022",
        "module": "es2022",
        "moduleResolution": "bundler",
        "lib": ["es2022", "dom", "dom.iterable"],
    }
    project = tmp_path / "tsconfig.json"
    project.write_text(json.dumps({"compilerOptions": options, "include": [f"{FOLDER.as_posix()}/**/*.js"]}))
    command = [compiler] if compiler else [str(NPX), "--yes", "--package", f"typescript@{TYPESCRIPT}", "tsc"]
    ran = subprocess.run([*command, "-p", str(project)], capture_output=True, text=True, check=False)
    if compiler is None and "npm error" in ran.stderr:
        pytest.skip("needs tsc: npx could not fetch it")
    assert ran.returncode == 0, ran.stdout
