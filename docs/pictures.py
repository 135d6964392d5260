"""The pictures that pages show, painted by what the pages say: run it after the built-in model has changed.

python docs/pictures.py
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from overpaint.pixels.grid import image_grid

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
        for page in PAGES:
            _paint_commands_of(ROOT / "docs" / "guides" / f"{page}.md", Path(folder))


PAGES = ("outpainting", "enlarging", "loopback", "grids")
SHOWN = {"wide-lake.png": "wide-lake.png", "large-lake.png": "large-lake.png", "lake-grid/grid.png": "grid.png"}


def _paint_commands_of(page: Path, folder: Path) -> None:
    """The commands of a guide that name a picture of the examples; what they write is what the guide shows."""
    if not (folder / "examples").exists():
        shutil.copytree(ROOT / "examples", folder / "examples")
    for line in page.read_text(encoding="utf-8").splitlines():
        words = shlex.split(line) if line.startswith("    overpaint ") and "examples/" in line else []
        if words:
            subprocess.run([sys.executable, "-m", *words], cwd=folder, check=True)
    for made, shown in SHOWN.items():
        if (folder / made).exists():
            shutil.move(folder / made, IMAGES / shown)
    loops = [Image.open(each) for each in sorted((folder / "forest-loops").glob("loop-*.png"))]
    if loops:
        image_grid(loops, 1, "white").save(IMAGES / "loops.png")


if __name__ == "__main__":
    main()
