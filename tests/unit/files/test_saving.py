"""saving: whole files or none, whatever the disk does and however many save at once."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from overpaint.errors import SaveError
from overpaint.files.metadata import read_infotext, read_recipe
from overpaint.files.naming import NameFacts
from overpaint.files.saving import save_bytes, save_first_free, save_picture
from overpaint.settings import Settings

INFOTEXT = "a 猫\nSteps: 8, Sampler: Euler, Seed: 5"
FACTS = NameFacts(seed=5, prompt="a cat")
FLAT = Settings(save_to_dirs=False, samples_filename_pattern="[seed]")
PICTURE = Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
    return picture


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:  # STORE-8
    path = tmp_path / "new" / "a.b.png"
    assert save_bytes(path, b"one") == path
    assert save_bytes(path, b"two").name == "a.b-1.png"
    assert save_bytes(path, b"three").name == "a.b-2.png"
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == ["new/a.b-1.png", "new/a.b-2.png", "new/a.b.png"]


def test_replacing_is_asked_for(tmp_path: Path) -> None:  # STORE-8
    path = tmp_path / "a.png"
    save_bytes(path, b"one")
    assert save_bytes(path, b"two", replace=True) == path
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a.png"]


def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        assert save_bytes(tmp_path / "a", b"").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(mask)


def failing(code: int) -> object:
    def fail(*args: object, **kwargs: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


# NOTE: the methods of `Path` keep their own references to `os.link` and `os.replace` up to Python 3.10.
@pytest.mark.parametrize("call", ["write", "fsync", "hardlink_to", "replace"])
@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.ENOSPC, "free space"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"), (errno.EIO, "")],
)
def test_a_failing_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, remedy: str
) -> None:
    monkeypatch.setattr(os if call in ("write", "fsync") else Path, call, failing(code))
    path = tmp_path / "a.png"
    with pytest.raises(SaveError, match=rf"a\.png: 4 bytes were not saved \(.*\): .*{remedy}"):
        save_bytes(path, b"data", replace=call == "replace")
    monkeypatch.undo()
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = os.write

    def short_write(handle: int, data: bytes | memoryview) -> int:
        if len(data) <= 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written(handle, data[:2])

    monkeypatch.setattr(os, "write", short_write)
    with pytest.raises(SaveError, match="free space"):
        save_bytes(tmp_path / "a.png", b"0123456789")
    assert names(tmp_path) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: written(handle, data[:3]))
    assert save_bytes(tmp_path / "a", b"0123456789").read_bytes() == b"0123456789"


def test_interrupted_saves_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_bytes(tmp_path / "a.png", b"data")
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_file_systems_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(Path, "hardlink_to", failing(code))
    assert [save_bytes(tmp_path / "a.png", data).name for data in (b"1", b"2")] == ["a.png", "a-1.png"]
    assert (tmp_path / "a.png").read_bytes() == b"1"
    monkeypatch.setattr(Path, "replace", failing(errno.ENOSPC))
    with pytest.raises(SaveError):
        save_bytes(tmp_path / "a.png", b"3")
    assert names(tmp_path) == ["a-1.png", "a.png"]


def test_a_real_limit_on_file_sizes(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    assert resource.RLIMIT_FSIZE is not None
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom overpaint.errors import SaveError\n"
        "from overpaint.files.saving import save_bytes\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "save_bytes(Path(sys.argv[1]) / 'small', b'x' * 1000)\n"
        "try:\n    save_bytes(Path(sys.argv[1]) / 'large', b'x' * 5000)\n"
        "except SaveError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "5000 bytes were not saved" in done.stdout
    assert "limit on file sizes" in done.stdout
    assert names(tmp_path) == ["small"]


def test_places_that_cannot_hold_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(SaveError, match="save elsewhere"):
        save_bytes(tmp_path / "file" / "a.png", b"data")
    with pytest.raises(SaveError, match="shorten the name"):
        save_bytes(tmp_path / ("x" * 300), b"data")
    with pytest.raises(SaveError):
        save_bytes(tmp_path / "folder.png", b"data", replace=True)
    assert save_bytes(tmp_path / "folder.png", b"data").name == "folder-1.png"
    with pytest.raises(SaveError, match="name is taken"):
        save_first_free([tmp_path / "file"], b"data")
    with pytest.raises(SaveError, match="no name is left"):
        save_first_free([], b"data")
    assert names(tmp_path) == ["file", "folder-1.png"]


def _save_many(folder: Path, writer: int) -> list[str]:
    return [str(save_picture(PICTURE, f"{writer} {n}", folder, FACTS, FLAT).path) for n in range(6)]


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_saving_at_once_loses_nothing(tmp_path: Path, kind: str) -> None:
    if kind == "threads":
        with ThreadPoolExecutor(4) as pool:
            saved = list(pool.map(_save_many, [tmp_path] * 4, range(4)))
    else:
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as pool:
            saved = list(pool.map(_save_many, [tmp_path] * 4, range(4)))
    paths = [path for each in saved for path in each]
    assert len(set(paths)) == 24
    assert {read_infotext(path)[0] for path in paths} == {f"{writer} {n}" for writer in range(4) for n in range(6)}
    assert names(tmp_path) == sorted(Path(path).name for path in paths)


def test_a_picture_is_saved_under_its_pattern(tmp_path: Path) -> None:  # NAMEPAT-1, NAMEPAT-2
    chosen = Settings(directories_filename_pattern="[seed]")
    recipe = {"seed": 5}
    saved = save_picture(PICTURE, INFOTEXT, tmp_path, FACTS, chosen, items={"Title": "x"}, recipe=recipe)
    assert saved.path == tmp_path / "5" / "00000-5.png"
    assert read_infotext(saved.path) == (INFOTEXT, {"Title": "x"})
    assert read_recipe(saved.path) == recipe
    assert np.array_equal(np.asarray(opened(saved.path)), np.asarray(PICTURE))
    assert (saved.text_path, saved.copy_path, saved.recipe_path) == (None, None, None)
    assert save_picture(PICTURE, INFOTEXT, tmp_path, FACTS, chosen, suffix="-mask").path.name == "00001-5-mask.png"
    grid = save_picture(PICTURE, INFOTEXT, tmp_path, FACTS, chosen, basename="grid", is_grid=True)
    assert grid.path.name == "grid-0000.png"


def test_text_and_recipe_beside_the_picture(tmp_path: Path) -> None:  # STORE-6
    chosen = Settings(save_to_dirs=False, save_txt=True, samples_format="webp", samples_filename_pattern="[seed]")
    saved = save_picture(PICTURE, INFOTEXT, tmp_path, FACTS, chosen, recipe={"seed": 5})
    assert names(tmp_path) == ["00000-5.txt", "00000-5.webp", "00000-5.webp.overpaint.json"]
    assert saved.text_path is not None
    assert saved.text_path.read_text(encoding="utf-8") == INFOTEXT + "\n"
    assert read_recipe(saved.path) == {"seed": 5}


def test_text_of_another_picture_is_kept(tmp_path: Path) -> None:
    (tmp_path / "cat.txt").write_text("mine", encoding="utf-8")
    saved = save_picture(PICTURE, INFOTEXT, tmp_path, FACTS, Settings(save_to_dirs=False, save_txt=True), name="cat")
    assert names(tmp_path) == ["cat-1.png", "cat-1.txt", "cat.txt"]
    assert saved.path.name == "cat-1.png"


def test_no_metadata_on_request(tmp_path: Path) -> None:  # STORE-1
    chosen = Settings(save_to_dirs=False, enable_pnginfo=False)
    saved = save_picture(PICTURE, INFOTEXT, tmp_path, FACTS, chosen, items={"Title": "x"})
    assert read_infotext(saved.path) == (None, {})


def test_replace_action(tmp_path: Path) -> None:  # STORE-8
    chosen = Settings(
        save_to_dirs=False, save_images_add_number=False, samples_filename_pattern="[seed]", save_txt=True
    )
    for text in ("one", "two"):
        save_picture(PICTURE, text, tmp_path, FACTS, chosen)
    assert names(tmp_path) == ["5.png", "5.txt"]
    assert read_infotext(tmp_path / "5.png")[0] == "two"
    numbering = chosen.with_changes({"save_images_replace_action": "Add number suffix"})
    save_picture(PICTURE, "three", tmp_path, FACTS, numbering)
    save_picture(PICTURE, "four", tmp_path, FACTS, chosen, name="5")  # a caller's name never replaces
    assert names(tmp_path) == ["5-1.png", "5-1.txt", "5-2.png", "5-2.txt", "5.png", "5.txt"]
    assert read_infotext(tmp_path / "5.png")[0] == "two"


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (Settings(target_side_length=30), (30, 20)),
        (Settings(img_downscale_threshold=0.001), (60, 40)),
        (Settings(export_for_4chan=False, target_side_length=30), None),
        (Settings(), None),
    ],
)
def test_small_copies(tmp_path: Path, settings: Settings, size: tuple[int, int] | None) -> None:  # STORE-7
    saved = save_picture(PICTURE.convert("RGBA"), INFOTEXT, tmp_path, FACTS, settings)
    if size is None:
        assert saved.copy_path is None
        return
    assert saved.copy_path == saved.path.with_suffix(".jpg")
    copy = opened(saved.copy_path)
    assert (copy.format, copy.size) == ("JPEG", size)
    assert read_infotext(saved.copy_path)[0] == INFOTEXT


def test_a_copy_never_replaces_its_picture(tmp_path: Path) -> None:  # STORE-7
    chosen = Settings(samples_format="jpg", target_side_length=30, save_images_add_number=False)
    saved = save_picture(PICTURE, INFOTEXT, tmp_path, FACTS, chosen)
    assert opened(saved.path).size == (60, 40)
    assert saved.copy_path is not None
    assert saved.copy_path.name == "5-1.jpg"


def test_formats_too_small_for_the_picture_fall_back(tmp_path: Path) -> None:  # STORE-4
    wide = Image.new("L", (17_000, 1))
    saved = save_picture(wide, INFOTEXT, tmp_path, FACTS, Settings(samples_format="webp", export_for_4chan=False))
    assert saved.path.suffix == ".png"
    assert opened(saved.path).format == "PNG"


def test_names_by_content(tmp_path: Path) -> None:  # NAMEPAT-3
    chosen = Settings(save_to_dirs=False, samples_filename_pattern="[image_hash<10>]")
    digest = hashlib.sha256(PICTURE.tobytes()).hexdigest()
    assert save_picture(PICTURE, None, tmp_path, FACTS, chosen).path.name == f"00000-{digest[:10]}.png"
