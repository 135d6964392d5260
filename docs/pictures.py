"""The pictures that pages show, painted by what the pages say: run it after the built-in model has changed.

python docs/pictures.py
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import page_pictures
from PIL import Image

from overpaint.pixels.grid import image_grid

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
GUIDES = tuple(ROOT / "docs" / "guides" / f"{name}.md" for name in ("masks", "strength-maps"))
SHOWN = ("car-area-shown.png", "not-the-sky-shown.png", "sunset-lake.png")
SCRIPTS = {"watercolor_forest.py": "watercolor-forest.png", "red_car.py": "red-car.png"}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "overpaint", "demo", "--to", folder], check=True)
        shutil.move(Path(folder) / "overpaint-demo.png", IMAGES / "demo.png")
        for script, picture in SCRIPTS.items():
            subprocess.run([sys.executable, str(ROOT / "examples" / script)], cwd=folder, check=True)
            shutil.move(Path(folder) / picture, IMAGES / picture)
        follow_guides(Path(folder))
        for page in PAGES:
            _paint_commands_of(ROOT / "docs" / "guides" / f"{page}.md", Path(folder))
    page_pictures.take(ROOT / "src" / "overpaint" / "data" / "demo" / "lake.png", IMAGES)


def follow_guides(folder: Path) -> None:
    """What the guides' own commands show, three times as large."""
    shutil.copytree(ROOT / "examples" / "pictures", folder / "examples" / "pictures", dirs_exist_ok=True)
    for line in (line for guide in GUIDES for line in guide.read_text(encoding="utf-8").splitlines()):
        if line.startswith("overpaint ") and any(line.endswith(f" -o {_file_of(name)}") for name in SHOWN):
            subprocess.run([sys.executable, "-m", *shlex.split(line)], cwd=folder, check=True)
    for name in SHOWN:
        with Image.open(folder / name) as shown:
            shown.resize((3 * shown.width, 3 * shown.height), Image.Resampling.NEAREST).save(IMAGES / name)


def _file_of(shown: str) -> str:
    """The output that a command names, where it shows another one."""
    return f"{shown.removesuffix('-shown.png')}.png --show" if shown.endswith("-shown.png") else shown


PAGES = ("outpainting", "enlarging", "loopback", "grids", "looking", "seams", "scripts")
SHEETS = ("looking", "seams")  # pages with commands whose pictures others of them made
PAINTED = {"wide-lake.png": "wide-lake.png", "large-lake.png": "large-lake.png", "lake-grid/grid.png": "grid.png"}
PAINTED |= {each: each for each in ("lake-blends.png", "lake-matrix.png")}
PAINTED |= {"car-compared.png": "car-compared.png", "lakes-sheet.png": "lakes-sheet.png"}


def _paint_commands_of(page: Path, folder: Path) -> None:
    """The commands and code of a guide that name a picture of the examples; what they write is what it shows."""
    shutil.copytree(ROOT / "examples", folder / "examples", dirs_exist_ok=True)
    text = page.read_text(encoding="utf-8")
    for line in text.splitlines():
        paints = "examples/" in line or page.stem in SHEETS
        words = shlex.split(line) if line.startswith("    overpaint ") and paints else []
        if words:
            subprocess.run([sys.executable, "-m", *words], cwd=folder, check=True)
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if any(f'.save("{made}")' in block for made in PAINTED):
            subprocess.run([sys.executable, "-c", block], cwd=folder, check=True)
    for made, shown in PAINTED.items():
        if (folder / made).exists():
            shutil.move(folder / made, IMAGES / shown)
    loops = [Image.open(each) for each in sorted((folder / "forest-loops").glob("loop-*.png"))]
    if loops:
        image_grid(loops, 1, "white").save(IMAGES / "loops.png")


if __name__ == "__main__":
    main()
