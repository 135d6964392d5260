"""What the house promises of itself: what imports what, what stays light, what is in the wheel."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import textwrap
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import overpaint

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
MOST_WHEEL_BYTES = 45_000_000

# Everything else imports without torch.
NEEDS_TORCH = {
    "adapters.control",
    "adapters.embedding_files",
    "adapters.embeddings",
    "adapters.hypernet",
    "adapters.kinds",
    "adapters.lora",
    "adapters.names",
    "adapters.wear",
    "adapters.worn",
    "backends",
    "contract.facade",
    "contract.run_script",
    "engine",
    "models.checkpoint",
    "models.gguf_numbers",
    "models.placing",
    "models.components",
    "models.control_files",
    "models.derived",
    "models.files",
    "models.filling",
    "models.folders",
    "models.gguf_files",
    "models.memory",
    "models.opened",
    "models.residents",
    "models.taesd_files",
    "models.transformer_files",
    "models.unpickle",
    "models.upscaler_files",
    "models.vaes",
    "networks",
    "painting.blend",
    "painting.brownian",
    "painting.conditioning",
    "painting.deep_maps",
    "painting.denoise",
    "painting.drive",
    "painting.encodings",
    "painting.guidance",
    "painting.hires",
    "painting.inversion",
    "painting.latents",
    "painting.model_cache",
    "painting.noise",
    "painting.pass_networks",
    "painting.philox",
    "painting.preview",
    "painting.refining",
    "painting.regions",
    "painting.sampling",
    "painting.sharing",
    "painting.stages",
    "painting.texts",
    "painting.tiled",
    "painting.windowed",
    "painting.together",
    "painting.upscaling",
    "painting.worn_adapters",
    "processing",
    "samplers",
}
PROCESS_WIDE = {"modules.shared"}
LAZY_NAMES = {"overpaint"}  # keeps what it has imported for its users in its own namespace


@dataclass(frozen=True)
class Module:
    """One file of the source, by its dotted name."""

    name: str
    path: Path

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.path)

    @property
    def short(self) -> str:
        """The name within the package."""
        return self.name.removeprefix("overpaint.")


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _modules() -> Iterator[Module]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield Module(".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"), path)


MODULES = tuple(_modules())
NAMES = frozenset(each.name for each in MODULES)


def imports_of(module: Module, *, at_once: bool = False) -> set[str]:
    """The modules of the house it needs; `at_once`: when it is itself imported. What only types need does not count."""
    return set(_imported(module, at_once)) - {module.name}


@cache
def _imported(module: Module, at_once: bool) -> frozenset[str]:
    return frozenset(_imports(module.tree, at_once))


def _imports(node: ast.AST, at_once: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if at_once and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.ImportFrom) and child.module:
            assert child.level == 0, "imports are absolute"
            wholes = (f"{child.module}.{each.name}" for each in child.names)
            yield from (whole if whole in NAMES else child.module for whole in wholes)
        elif isinstance(child, ast.Import):
            yield from (each.name for each in child.names)
        yield from _imports(child, at_once)


def needs_torch(name: str) -> bool:
    short = name.removeprefix("overpaint.")
    return any(short == each or short.startswith(f"{each}.") for each in NEEDS_TORCH)


def ladder() -> dict[str, int]:
    """Module or package -> its rung, 0 on top, as DESIGN.md draws it."""
    text = (ROOT / "DESIGN.md").read_text(encoding="utf-8")
    found = re.search(r"```ladder\n(.*?)```", text, re.DOTALL)
    assert found, "DESIGN.md draws the ladder in a block that begins with ```ladder"
    rungs = found[1].strip().splitlines()
    places = [(name.strip(), number) for number, rung in enumerate(rungs) for name in rung.split(",")]
    assert len(places) == len(dict(places)), "a name stands on one rung"
    return dict(places)


def rung_of(name: str, rungs: dict[str, int]) -> int:
    parts = name.removeprefix("overpaint.").split(".")
    for length in range(len(parts), 0, -1):
        if (key := ".".join(parts[:length])) in rungs:
            return rungs[key]
    raise AssertionError(f"{name} stands on no rung of the ladder in DESIGN.md")


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_torch_free_modules_import_where_there_is_no_torch() -> None:
    names = [each.name for each in MODULES if not needs_torch(each.name) and not each.name.endswith("__main__")]
    for alias in ("modules.processing", "modules.scripts"):  # of what needs it
        names.remove(alias)
    result = run_python(f"""
        import importlib, sys

        class NoTorch:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "torch":
                    raise ImportError("torch is not here")

        sys.meta_path.insert(0, NoTorch())
        for name in {names!r}:
            importlib.import_module(name)
    """)
    assert result.returncode == 0, result.stderr


def test_list_of_modules_that_need_torch_is_exact() -> None:
    importing = {
        each.name for each in MODULES if any(name.split(".")[0] == "torch" for name in imports_of(each, at_once=True))
    }
    for each in NEEDS_TORCH:
        below = [one for one in MODULES if one.short == each or one.short.startswith(f"{each}.")]
        reached = {name for one in below for name in imports_of(one, at_once=True)}
        assert below, f"{each} is gone"
        assert any(one.name in importing for one in below) or any(map(needs_torch, reached)), f"{each} needs no torch"


def test_imports_point_down_the_ladder() -> None:
    rungs = ladder()
    for module in MODULES:
        if module.name in LAZY_NAMES:
            continue
        for needed in imports_of(module):
            if needed in NAMES and needed not in LAZY_NAMES:
                below = rung_of(needed, rungs) >= rung_of(module.name, rungs)
                assert below, f"{module.name} imports {needed}, which stands above it"


APART = (
    ("service.doors.native", "service.doors.webui", "service.doors.openai"),
    ("service.painter", "service.queue", "service.guard"),
    ("service.painter", "service.workers", "service.guard"),
)


@pytest.mark.parametrize("rooms", APART, ids=lambda rooms: rooms[0])
def test_rooms_that_know_nothing_of_each_other(rooms: tuple[str, ...]) -> None:
    """The doors translate, each for itself; the worker's process and its parent's share only what is below both."""
    kept_apart = rooms if rooms == APART[0] else rooms[:1]  # the queue may ask the guards
    for module in MODULES:
        own = next((each for each in rooms if module.short.startswith(f"{each}.")), None)
        for needed in imports_of(module) if own else ():
            other = next((each for each in rooms if needed.removeprefix("overpaint.").startswith(f"{each}.")), None)
            is_apart = other in (None, own) or not {own, other} & set(kept_apart)
            assert is_apart, f"{module.name} imports {needed}"


def test_no_imports_go_in_circles() -> None:
    """Nor do those within functions: a circle is none the less for being entered late."""
    graph = {each.name: imports_of(each) & NAMES for each in MODULES if each.name not in LAZY_NAMES}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_importing_the_package_is_light() -> None:
    result = run_python("""
        import sys, time
        started = time.process_time()
        import overpaint
        seconds = time.process_time() - started
        heavy = {"torch", "numpy", "PIL", "yaml", "typer"} & set(sys.modules)
        assert not heavy, heavy
        assert dir(overpaint) == overpaint.__all__
        assert seconds < 1, seconds
    """)
    assert result.returncode == 0, result.stderr


def test_public_names_are_sorted_and_there() -> None:
    assert list(overpaint.__all__) == sorted(overpaint.__all__)
    for name in overpaint.__all__:
        assert getattr(overpaint, name) is not None
        # Importing a module of this name would put it in the place of what is meant.
        assert f"overpaint.{name}" not in NAMES
    with pytest.raises(AttributeError, match="no attribute 'img2txt'"):
        overpaint.img2txt  # type: ignore[attr-defined]  # noqa: B018


def requirements_of(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """What a distribution asks for on any machine, with some of its extras."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        requirement = Requirement(line)
        asked = re.findall(r"extra == [\"']([^\"']+)[\"']", str(requirement.marker or ""))
        if not asked or extras.intersection(asked):
            yield requirement


def test_nothing_asks_for_torchvision() -> None:
    extras = frozenset(metadata.metadata("overpaint").get_all("Provides-Extra") or ())
    waiting, seen = [("overpaint", extras)], set[tuple[str, frozenset[str]]]()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for each in requirements_of(*current):
            name = str(canonicalize_name(each.name))
            assert name != "torchvision", f"{current[0]} asks for it"
            waiting.append((name, frozenset(each.extras)))
    assert len(seen) > 10


def test_torch_has_an_upper_bound() -> None:
    (torch,) = [each for each in requirements_of("overpaint", frozenset()) if each.name == "torch"]
    assert any(each.operator == "<" for each in torch.specifier)


MUTATORS = {"append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse"}  # of lists,
MUTATORS |= {"update", "setdefault", "popitem", "add", "discard"}  # dicts and sets
CONTAINERS = ["list", "dict", "set", "defaultdict", "Counter", "deque", "OrderedDict", "bytearray"]


def state_of(module: Module) -> Iterator[str]:
    """Things at a module's top that change, or are made to."""
    top = dict(_assigned(module.tree))
    for name, value in top.items():
        is_container = isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
        is_container |= isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] in CONTAINERS
        if is_container and not name.strip("_").isupper() and not name.startswith("__"):
            yield f"{name} holds a container; give a constant a constant's name"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: global {', '.join(node.names)}"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)} | set(_bound(node))
            yield from (f"line {line}: {name} is changed" for line, name in _changes(node) if name in top.keys() - own)
            yield from (f"line {line}: globals() is changed" for line, name in _changes(node) if name == "globals()")


def _assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        yield from ((each.id, value) for each in targets if isinstance(each, ast.Name) and value is not None)


def _bound(function: ast.AST) -> Iterator[str]:
    stores = (each for each in ast.walk(function) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store))
    return (each.id for each in stores)


def _changes(function: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield node.lineno, ast.unparse(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            yield node.lineno, ast.unparse(node.func.value)


@pytest.mark.parametrize("module", MODULES, ids=lambda each: each.name)
def test_no_state_at_the_top_of_a_module(module: Module) -> None:
    if module.name not in PROCESS_WIDE | LAZY_NAMES:
        assert not list(state_of(module))


def test_the_search_for_state_finds_it(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("seen = []\nTABLE = {}\nn = 0\ndef f(x):\n    global n\n    TABLE[x] = 1\n    seen.append(x)\n")
    assert len(list(state_of(Module("bad", path)))) == 4


SAME_NAME_ON_PURPOSE = {
    # The contract and the reference's API both fix these names; the engine's result has the contract's name, too.
    "Processed",
    "StableDiffusionProcessingImg2Img",
    "StableDiffusionProcessingTxt2Img",
}


def test_no_class_has_the_name_of_another() -> None:
    places = defaultdict[str, list[str]](list)
    for module in MODULES:
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module.name)
    double = {name: where for name, where in places.items() if len(where) > 1}
    assert set(double) == SAME_NAME_ON_PURPOSE, double


@pytest.mark.parametrize("module", MODULES, ids=lambda each: each.name)
def test_files_and_functions_fit_a_reader(module: Module) -> None:
    assert len(module.path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{node.name} has {lines} lines"


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {each for each in tops if not each.endswith(".dist-info")} == {"overpaint", "modules"}
    for wanted in ("overpaint/py.typed", "modules/__init__.py", "modules/processing.py", "modules/shared.py"):
        assert wanted in names
    assert wheel.stat().st_size <= MOST_WHEEL_BYTES
    folders = (SOURCE / "overpaint/models/data", SOURCE / "overpaint/data")
    data = {each.relative_to(SOURCE).as_posix() for folder in folders for each in folder.rglob("*") if each.is_file()}
    assert {"overpaint/data/overpaint-mini.safetensors", "overpaint/data/NOTICE.txt"} < data
    assert data <= set(names)
    licences = [name for name in names if ".dist-info/licenses/" in name]
    assert any(name.endswith("/LICENSE") for name in licences)
    assert any(name.endswith("CLIP-LICENSE") for name in licences)
    assert not [name for name in names if "test" in name or name.endswith((".pyc", ".md"))]
