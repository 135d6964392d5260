"""The pictures that pages show, painted by what the pages say: run it after the built-in model has changed.

python docs/pictures.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import page_pictures

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
SCRIPTS = {"watercolor_forest.py": "watercolor-forest.png", "red_car.py": "red-car.png"}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "overpaint", "demo", "--to", folder], check=True)
        shutil.move(Path(folder) / "overpaint-demo.png", IMAGES / "demo.png")
        for script, picture in SCRIPTS.items():
            subprocess.run([sys.executable, str(ROOT / "examples" / script)], cwd=folder, check=True)
            shutil.move(Path(folder) / picture, IMAGES / picture)
    page_pictures.take(ROOT / "src" / "overpaint" / "data" / "demo" / "lake.png", IMAGES)


if __name__ == "__main__":
    main()
