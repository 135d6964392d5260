"""Model files without torch: header, sidecar, the facts these tell, and the bytes of a new file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from overpaint.errors import CheckpointError, brief
from overpaint.models.families import Prediction, Source
from overpaint.named_files import check_regular

# Those of real models have some 300 kB and 2,000 tensors; a trainer's notes may be larger.
_MAX_HEADER_BYTES = 16 * 2**20
_MAX_TABLES = 2**18
_MAX_SIDECAR_BYTES = 2**16
_DEEPEST_SIDECAR = 32
_LONGEST_REASON = 300  # characters of what a reader says of a file
_NAMES = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.int64): "I64", np.dtype(np.uint8): "U8"}


def safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON header and the place where the tensors' bytes start."""
    text = _header_text(path)
    if text.count(b"{") > _MAX_TABLES or text.count(b"[") > 2 * _MAX_TABLES:
        raise broken(path, "its header lists more tensors than any model has")
    try:
        header = json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise broken(path, f"its header is not valid ({str(error)[:_LONGEST_REASON]})") from error
    if not isinstance(header, dict):
        raise broken(path, "its header is not a table")
    return header, 8 + len(text)


def _header_text(path: Path) -> bytes:
    check_regular(path, CheckpointError)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(_MAX_HEADER_BYTES, size - 8):
            raise broken(path, f"its header is cut off or longer than {_MAX_HEADER_BYTES // 2**20} MiB")
        return file.read(length)


def metadata_of(path: Path) -> dict[str, str]:
    """What a trainer wrote into a file: texts by their names, and nothing else; nothing of a file that is damaged."""
    try:
        metadata = safetensors_header(path)[0].get("__metadata__") if path.suffix == ".safetensors" else None
    except (CheckpointError, OSError):
        return {}
    table = metadata if isinstance(metadata, Mapping) else {}
    return {name: value for name, value in table.items() if is_text(name) and is_text(value)}


def is_text(value: object) -> bool:
    """A string that can be sent or printed: JSON and names of files may hold halves of characters."""
    return isinstance(value, str) and value.encode("utf-8", "ignore").decode() == value


def safetensors_shapes(path: Path) -> tuple[Mapping[str, tuple[int, ...]], Mapping[str, str]]:
    """Shapes and metadata as the files' own library reads them, which needs no torch."""
    try:
        _header_text(path)
        with safe_open(path, framework="numpy") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no mapping)
            return shapes, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        said = str(error)[:_LONGEST_REASON]
        raise CheckpointError(f"{path.name}: its header cannot be read ({said}); download the file again") from error


def safetensors_bytes(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """A file whose bytes depend on nothing but the arguments; the format's own library shuffles the metadata."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name, values in tensors.items():
        kind, end = _NAMES[values.dtype], position + values.nbytes
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    little = (values.astype(values.dtype.newbyteorder("<"), copy=False) for values in tensors.values())
    return b"".join((struct.pack("<Q", len(text)), text, *(values.tobytes() for values in little)))


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def broken(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path.name}: {what}; download the file again")


def read_sidecar(path: Path) -> Mapping[str, Any] | None:
    """The configuration beside a checkpoint, if there is one: the same name, ending in .yaml."""
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        return None
    try:
        config = yaml.load(_small_text(beside, _MAX_SIDECAR_BYTES), Loader=_SidecarLoader)
    except (OSError, ValueError, OverflowError, yaml.YAMLError) as error:
        raise CheckpointError(f"{beside.name} cannot be read ({_reason(error)}); correct it or take it away") from error
    return config if isinstance(config, Mapping) else None


def _reason(error: Exception) -> str:
    """What a reader of YAML complains of, without the picture of the place that it draws."""
    said = str(error)
    if isinstance(error, yaml.MarkedYAMLError):
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
        said = f"{place}{error.problem}"
    return said[:_LONGEST_REASON].replace("\n", " ")


def _small_text(path: Path, most: int) -> str:
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"larger than {most // 1024} KiB")
    return data.decode("utf-8")


class _SidecarLoader(yaml.SafeLoader):
    """YAML without references, which let a short text stand for an endless one, and not nested deeply."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it repeats a part by reference")
        if self._depth >= _DEEPEST_SIDECAR:
            raise ValueError("it is nested too deeply")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class Said:
    """What metadata and sidecar say, by our names; metadata speaks first."""

    def __init__(self, metadata: Mapping[str, str], sidecar: Mapping[str, Any]) -> None:
        self._sources: tuple[tuple[Source, Mapping[str, Any]], ...] = (
            ("metadata", _facts_of_metadata(metadata)),
            ("sidecar", _facts_of_sidecar(sidecar)),
        )

    def find(self, name: str) -> tuple[Any, Source] | None:
        return next(((values[name], source) for source, values in self._sources if name in values), None)

    def fact(self, name: str, default: Any, facts: dict[str, Source]) -> Any:
        value, facts[name] = self.find(name) or (default, "family default")
        return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 4096


def _list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(check(each) for each in value)


# The facts that metadata may tell as `overpaint.<fact>`, in JSON.
_VALID: Mapping[str, Callable[[Any], bool]] = {
    "num_heads": _is_count,
    "head_dim": _is_count,
    "text_heads": _list_of(_is_count),
    "text_layers": _list_of(lambda value: type(value) is int and -4096 <= value < 0),
    "text_activations": _list_of(lambda value: value in ("quick_gelu", "gelu")),
    "prediction": lambda value: value in ("eps", "v", "flow"),
    "scale_factor": lambda value: isinstance(value, (int, float)) and 0 < value < 1e6,
    "native_size": _is_count,
    "shift": lambda value: type(value) in (int, float) and 0 < value <= 100,
    "tokenizers": _list_of(lambda value: isinstance(value, str)),
    "called": lambda value: isinstance(value, str),
}


def _facts_of_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """`modelspec.prediction_type` is the common header of model trainers."""
    said: dict[str, Any] = {}
    kind = metadata.get("modelspec.prediction_type", "").lower()
    if kind:
        said["prediction"] = _prediction_of(kind)
    called = [metadata[name] for name in ("modelspec.title", "modelspec.architecture") if name in metadata]
    if called:
        said["called"] = " ".join(called)
    for name in _VALID:
        if f"overpaint.{name}" in metadata:
            said[name] = _checked(name, _from_json(metadata[f"overpaint.{name}"]), "metadata")
    return said


def _prediction_of(kind: str) -> Prediction:
    """Of the words that trainers use: epsilon, v, v_prediction, flow, rectified_flow, ..."""
    if "flow" in kind:
        return "flow"
    return "v" if kind.startswith("v") else "eps"


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _facts_of_sidecar(config: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of an LDM or sgm configuration: heads, prediction, scale."""
    params = _at(config, "model", "params")
    unet = _at(params, "unet_config", "params") or _at(params, "network_config", "params")
    scaling = str(_at(params, "denoiser_config", "params", "scaling_config").get("target", ""))
    said: dict[str, Any] = {}
    for ours, theirs in (("num_heads", "num_heads"), ("head_dim", "num_head_channels")):
        if isinstance(unet.get(theirs), int) and unet[theirs] > 0:
            said[ours] = _checked(ours, unet[theirs], "sidecar")
    if params:
        told = str(params.get("parameterization", "")).lower()
        said["prediction"] = "v" if scaling.endswith("VScaling") else _prediction_of(told)
    if "scale_factor" in params:
        said["scale_factor"] = _checked("scale_factor", params["scale_factor"], "sidecar")
    return said


def _at(tree: Any, *path: str) -> Mapping[str, Any]:
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, Mapping) else {}


def _checked(name: str, value: Any, source: str) -> Any:
    if not _VALID[name](value):
        raise CheckpointError(
            f"{name}={brief(value)} in the model's {source} cannot be used: correct it or take it out"
        )
    return value
