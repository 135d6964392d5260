"""Networks that most models do without cost the others nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import overpaint.networks

_FLOW = ("flux", "flux2", "chroma", "mmdit", "qwen_image", "zimage", "t5_text", "decoder_text", "vision")
_OF_FEW = {f"overpaint.networks.{each}" for each in _FLOW}
_TABLES = {"overpaint.models.layout_tables"}


def test_they_are_loaded_when_a_model_is_of_their_family() -> None:
    """No module loads them as it is loaded; but for the alias of their types, which is never run, and one another."""
    root = Path(overpaint.networks.__path__[0]).parent
    own = {root / "networks" / f"{each.rpartition('.')[2]}.py" for each in _OF_FEW}
    for path in set(root.rglob("*.py")) - own:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                assert node.module not in _OF_FEW | _TABLES, path.name
