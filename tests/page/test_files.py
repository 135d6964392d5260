"""The page's files: small, never stale, strict, and built like the rest of the house."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.page_files import FOLDER
from overpaint.service.schema import plan_schema
from tests.service.fake_desk import FakeDesk

ADDRESS = "http://127.0.0.1:7860"
ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(FOLDER.rglob("*.js"))
FIRST_BYTES = 150_000  # of the first load, packed
FIRST_REQUESTS = 25

_IMPORT = re.compile(r"^(?:import|export) [^;]*?from \"(\.[^\"]+)\"|^import \"(\.[^\"]+)\"", re.MULTILINE)
_LATER = re.compile(r"import\(\"(\.[^\"]+)\"\)(?!\.)")
DANGEROUS = re.compile(r"\beval\(|new Function|innerHTML|outerHTML|insertAdjacentHTML|https?://(?!www\.w3\.org)")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


@pytest.fixture
def desk(tmp_path: Path) -> FakeDesk:
    return FakeDesk(tmp_path)


@pytest.fixture
def config(tmp_path: Path) -> ServeConfig:
    return ServeConfig(data=tmp_path)


@pytest.fixture
def client(desk: FakeDesk, config: ServeConfig) -> Iterator[TestClient]:
    with TestClient(create_app(desk, config), base_url=ADDRESS) as made:
        yield made


def name_of(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def imports_of(path: Path, pattern: re.Pattern[str]) -> set[str]:
    text = _COMMENT.sub("", path.read_text(encoding="utf-8"))
    found = ("".join(each) if isinstance(each, tuple) else each for each in pattern.findall(text))
    return {(path.parent / each).resolve().relative_to(FOLDER).as_posix() for each in found}


def loaded_first() -> set[str]:
    """All modules that `main.js` needs before it runs."""
    found, new = set[str](), {"main.js"}
    while new:
        found |= new
        new = {each for name in new for each in imports_of(FOLDER / name, _IMPORT)} - found
    return found


def test_the_page_is_served_packed_and_asked_for_anew(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache" and page.headers["content-encoding"] == "gzip"
    assert page.text == (FOLDER / "index.html").read_text(encoding="utf-8")
    again = client.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    plain = client.get("/page/main.js", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.content == (FOLDER / "main.js").read_bytes()
    assert plain.headers["content-type"] == "text/javascript; charset=utf-8"
    assert client.head("/").content == client.head("/page/style.css").content == b""


def test_an_edited_file_is_another_one(client: TestClient, tmp_path: Path, monkeypatch: Any) -> None:
    from overpaint.service import page_files

    (tmp_path / "a.js").write_text("one")
    monkeypatch.setattr(page_files, "FOLDER", tmp_path)
    first = client.get("/page/a.js")
    (tmp_path / "a.js").write_text("another")
    second = client.get("/page/a.js", headers={"If-None-Match": first.headers["etag"]})
    assert (first.text, second.text) == ("one", "another")


@pytest.mark.parametrize(
    "name",
    [
        "../version.py",
        "..%2Fversion.py",
        "views/../../version.py",
        "views",
        "none.js",
        "views/none.js",
        "%00",
        "a/b/c.js",
    ],
)
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/page/{name}").status_code == 404


def test_the_page_loads_without_the_token_and_nothing_else_does(desk: FakeDesk, config: ServeConfig) -> None:
    with TestClient(create_app(desk, replace(config, token="secret")), base_url=ADDRESS) as client:
        assert client.get("/").status_code == client.get("/page/main.js").status_code == 200
        for method, path in (("GET", "/v1/schema"), ("GET", "/docs"), ("POST", "/"), ("GET", "/page")):
            assert client.request(method, path).status_code == 401


def test_scripts_are_not_asked_for_the_token_by_the_browser(desk: FakeDesk, config: ServeConfig) -> None:
    """A box of the browser's over the page's own one would ask twice; people who open a route still get it."""
    with TestClient(create_app(desk, replace(config, token="secret")), base_url=ADDRESS) as client:
        for mode, wanted in (("cors", False), ("navigate", True), (None, True)):
            headers = {} if mode is None else {"Sec-Fetch-Mode": mode, "Sec-Fetch-Site": "same-origin"}
            told = client.get("/v1/jobs", headers=headers)
            assert told.status_code == 401
            assert ("Basic" in told.headers["www-authenticate"]) is wanted


def test_the_policy_is_strict_and_the_page_keeps_to_it(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|https?://(?!www\.w3\.org)", page)
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        assert not DANGEROUS.search(text), path
    assert "@import" not in (FOLDER / "style.css").read_text(encoding="utf-8")


def test_the_first_load_is_small() -> None:
    names = {"index.html", "style.css", "early.js", *loaded_first()}
    packed = {each: len(gzip.compress((FOLDER / each).read_bytes(), 9)) for each in names}
    assert sum(packed.values()) < FIRST_BYTES and len(packed) < FIRST_REQUESTS, packed


def test_a_script_that_is_no_module_holds_what_comes_before_the_page_listens() -> None:
    """A module would run when all of the others are there, and people see the page before that."""
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert page.index('<script src="page/early.js"></script>') < page.index('<link rel="modulepreload"')
    text = _COMMENT.sub("", (FOLDER / "early.js").read_text(encoding="utf-8"))
    assert "import" not in text and "export" not in text


def test_what_is_needed_first_is_asked_for_at_once() -> None:
    """Without this, each module is asked for when the one before it has come."""
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    told = set(re.findall(r'<link rel="modulepreload" href="page/([^"]+)">', page))
    assert told == loaded_first() - {"main.js"}


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_files_are_short_and_their_imports_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    assert text.startswith("/**"), "each file says first what it is for"
    for name in imports_of(path, _IMPORT) | imports_of(path, _LATER):
        assert (FOLDER / name).is_file(), name


def ladder() -> dict[str, int]:
    found = re.search(r"```page-ladder\n(.*?)```", (ROOT / "DESIGN.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return {name.strip(): i for i, rung in enumerate(found[1].strip().splitlines()) for name in rung.split(",")}


def test_imports_point_down_the_ladder() -> None:
    rungs = ladder()

    def rung(name: str) -> int:
        return rungs[name.partition("/")[0].removesuffix(".js")]

    for path in SCRIPTS:
        for needed in imports_of(path, _IMPORT) | imports_of(path, _LATER):
            assert rung(needed) >= rung(name_of(path)), f"{name_of(path)} imports {needed}"


def words(language: str) -> dict[str, str]:
    text = (FOLDER / "text" / f"{language}.js").read_text(encoding="utf-8")
    return dict(re.findall(r'^  (\w+): "(.*)",$', text, re.MULTILINE))


def test_all_text_is_in_one_table() -> None:
    english, german = words("en"), words("de")
    assert len(english) > 100 and english.keys() == german.keys()
    for key, text in english.items():
        assert re.findall(r"\{\w+\}", text) == re.findall(r"\{\w+\}", german[key]), key
    for path in SCRIPTS:
        for key in re.findall(r"\bt\(\"(\w+)\"", path.read_text(encoding="utf-8")):
            assert key in english, f"{name_of(path)}: {key}"


def test_every_setting_has_a_name_and_a_sentence_in_each_language() -> None:
    schema = plan_schema(ServeConfig(data=Path()).limits)["oneOf"][0]["properties"]
    shown = schema.keys() - {"kind", "images", "mask", "latent_mask", "strength_map", "references"}
    table = (FOLDER / "text" / "de.js").read_text(encoding="utf-8")
    fields = dict(re.findall(r'^  (\w+): \["(?:[^"]+)", "([^"]+)"\],$', table, re.MULTILINE))
    assert fields.keys() == shown
    chosen = {name: _values_of(each) for name, each in schema.items() if name in shown and _values_of(each)}
    (lines,) = re.findall(r"export const choices = \{\n(.*?)\n\};", table, re.DOTALL)
    spoken = dict(re.findall(r"^  (\w+): \{ (.*) \},$", lines, re.MULTILINE))
    assert {name: set(re.findall(r'(\w+): "', each)) for name, each in spoken.items()} == chosen


def _values_of(schema: dict[str, Any]) -> set[str]:
    return {value for each in (schema, *schema.get("anyOf", ())) for value in each.get("enum", ())}


def test_colours_can_be_read() -> None:
    """WCAG AA, 4.5 : 1, for every pair that text is written in, in both themes."""
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    colours = {name: pair for name, *pair in re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", style)}
    pairs = [("text", each) for each in ("ground", "surface", "raised")]
    pairs += [(each, ground) for each in ("dim", "accent", "danger") for ground in ("surface", "raised", "ground")]
    for front, back in [*pairs, ("on-accent", "accent")]:
        for theme in (0, 1):
            found = contrast(colours[front][theme], colours[back][theme])
            assert found >= 4.5, (front, back, theme, found)


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * each for each in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
