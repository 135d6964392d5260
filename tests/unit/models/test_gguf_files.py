"""GGUF: what is written by the format's own package is read, and nothing that lies about itself."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from overpaint.errors import CheckpointError
from overpaint.models.checkpoint import load_checkpoint
from overpaint.models.detect import detect
from overpaint.models.files import read_all
from overpaint.models.gguf_files import open_gguf
from overpaint.models.header import safetensors_shapes
from overpaint.models.opened import open_model
from tests.unit.models.other_layouts import TEXT, UNET, Tensors, saved, tensors_of

Arrays = Mapping[str, NDArray[Any]]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def fact(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def numbers_fact(name: str, values: list[int]) -> bytes:
    return fact(name, 9, struct.pack("<IQ", 5, len(values)) + struct.pack(f"<{len(values)}i", *values))


def plain_gguf(path: Path, tensors: Arrays, facts: tuple[bytes, ...] = (), version: int = 3) -> Path:
    """A file in 16 or 32 bits, written here; every other packing needs the package."""
    kinds = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.float64): 28, np.dtype(np.uint16): 30}
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(facts)) + b"".join(facts)
    data = b""
    for name, each in tensors.items():
        data += bytes(-len(data) % 32)
        sizes = each.shape[::-1]
        header += text(name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
        header += struct.pack("<IQ", kinds[each.dtype], len(data))
        data += each.tobytes()
    path.write_bytes(header + bytes(-len(header) % 32) + data)
    return path


def test_numbers_shapes_and_facts(tmp_path: Path) -> None:
    brain = torch.arange(6, dtype=torch.float32).to(torch.bfloat16)
    tensors: dict[str, NDArray[Any]] = {
        "a": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "b": np.arange(5, dtype=np.float16),
        "c": np.arange(4, dtype=np.float64).reshape(1, 4),
        "d": brain.view(torch.int16).numpy().view(np.uint16).reshape(2, 3),
        "e": np.arange(36, dtype=np.float32).reshape(1, 36),
    }
    facts = (
        fact("general.architecture", 8, text("sd1")),
        fact("overpaint.num_heads", 4, struct.pack("<I", 4)),
        fact("overpaint.prediction", 8, text("v")),
        fact("a.ratio", 12, struct.pack("<d", 0.5)),
        fact("a.vocabulary", 9, struct.pack("<IQ", 8, 2) + text("ein") + text("ü")),
        fact("long", 9, struct.pack("<IQ", 0, 100) + bytes(100)),
        numbers_fact("comfy.gguf.orig_shape.e", [1, 4, 3, 3]),
    )
    weights = open_gguf(plain_gguf(tmp_path / "zahlen ü.gguf", tensors, facts))
    assert weights.shapes == {"a": (2, 3, 4), "b": (5,), "c": (1, 4), "d": (2, 3), "e": (1, 4, 3, 3)}
    assert weights.metadata == {
        "general.architecture": "sd1",
        "overpaint.num_heads": "4",
        "overpaint.prediction": "v",
        "a.ratio": "0.5",
    }
    read = dict(weights.read(["e", "a", "d", "c", "b"]))
    assert read["d"].dtype is torch.bfloat16
    assert torch.equal(read["d"], brain.reshape(2, 3))
    for name in "abce":
        assert np.array_equal(read[name].numpy(), tensors[name].reshape(weights.shapes[name]))


def test_a_unet_in_half_precision_needs_no_package(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    facts = (fact("overpaint.num_heads", 4, struct.pack("<I", 8)),)
    path = plain_gguf(tmp_path / "unet.gguf", tensors_of(tiny, UNET), facts)
    clip = saved(tmp_path / "clip.safetensors", tensors_of(tiny, TEXT), {"overpaint.text_heads": "[1]"})
    weights = open_model(path, text_encoders=[clip])
    assert detect(weights.shapes, weights.metadata).unet.heads == 8
    wanted = read_all(tiny)
    assert all(torch.equal(each, wanted[key]) for key, each in weights.read(weights.shapes))


def header(*parts: bytes, tensors: int = 0, facts: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, facts) + b"".join(parts)


def entry(name: str, sizes: list[int], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


BROKEN: Mapping[str, bytes] = {
    "cut off": b"GGUF\3",
    "version 1": header(version=1),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "facts that are not there": header(facts=2**60),
    "tensors that are not there": header(tensors=2**60),
    "a list for ever": header(fact("a", 9, struct.pack("<IQ", 4, 2**40)), facts=1),
    "a list of texts for ever": header(fact("a", 9, struct.pack("<IQ", 8, 2**62)), facts=1),
    "a list of lists": header(fact("a", 9, struct.pack("<IQ", 9, 1)), facts=1),
    "an unknown type": header(fact("a", 77, b""), facts=1),
    "a long text": header(fact("a", 8, struct.pack("<Q", 2**63)), facts=1),
    "a long name": header(struct.pack("<Q", 2**40), facts=1),
    "a name that is no text": header(struct.pack("<Q", 2) + b"\xff\xfe", facts=1),
    "alignment 0": header(fact("general.alignment", 4, struct.pack("<I", 0)), facts=1),
    "alignment of words": header(fact("general.alignment", 8, text("x")), facts=1),
    "twice": header(entry("a", [1]), entry("a", [1]), tensors=2) + bytes(64),
    "many dimensions": header(entry("a", [1] * 9), tensors=1) + bytes(64),
    "huge": header(entry("a", [2**60, 2**60]), tensors=1) + bytes(64),
    "behind the end": header(entry("a", [2**20]), tensors=1) + bytes(64),
    "far away": header(entry("a", [1], offset=2**63), tensors=1) + bytes(64),
    "another original shape": header(
        numbers_fact("comfy.gguf.orig_shape.a", [3, 3]), entry("a", [4]), facts=1, tensors=1
    )
    + bytes(64),
    "a negative original shape": header(
        numbers_fact("comfy.gguf.orig_shape.a", [-2, -2]), entry("a", [4]), facts=1, tensors=1
    )
    + bytes(64),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.timeout(20)
def test_broken_files_are_refused_at_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(BROKEN[name])
    with pytest.raises(CheckpointError, match=r"x\.gguf: .*download the file again"):
        open_model(path)


def test_a_language_model_is_refused(tmp_path: Path) -> None:
    facts = (fact("general.architecture", 8, text("llama")),)
    path = plain_gguf(tmp_path / "chat.gguf", {"token_embd.weight": np.zeros((4, 4), dtype=np.float16)}, facts)
    with pytest.raises(CheckpointError, match=r"chat\.gguf: it holds a 'llama' model and no U-Net"):
        open_model(path)


def test_packed_weights_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    path = tmp_path / "x.gguf"
    path.write_bytes(header(entry("a", [32, 1], kind=8), tensors=1) + bytes(128))
    with pytest.raises(CheckpointError, match=r"x\.gguf: .* install overpaint\[gguf\]"):
        open_model(path)


@pytest.fixture
def gguf() -> Any:
    return pytest.importorskip("gguf", reason="packed weights need the package gguf")


def packed_file(gguf: Any, path: Path, tensors: Tensors, kind_of: Callable[[str, NDArray[Any]], str]) -> Path:
    """Written by the package; kernels are stored as matrices where their rows do not fill its blocks."""
    writer = gguf.GGUFWriter(path, "sd1")
    writer.add_uint32("overpaint.num_heads", 8)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
    for name, each in tensors.items():
        kind = gguf.GGMLQuantizationType[kind_of(name, each)]
        block, _ = gguf.GGML_QUANT_SIZES[kind]
        values = each.astype(np.float32)
        if each.shape[-1] % block:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(each.shape))
            values = values.reshape(-1, block)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# The largest error of a block's rounding, in parts of its largest number: the kinds _0 cut a step off at one end.
STEPS = {"F16": 0.001, "BF16": 0.005, "Q8_0": 0.005, "Q5_0": 0.063, "Q5_1": 0.033, "Q4_0": 0.126, "Q4_1": 0.067}


@pytest.mark.parametrize("kind", STEPS)
def test_packed_by_the_package(kind: str, gguf: Any, tiny: Path, tmp_path: Path) -> None:
    unet = tensors_of(tiny, UNET)

    def kind_of(name: str, each: NDArray[Any]) -> str:
        return kind if each.ndim > 1 and each.size % 32 == 0 else "F32"

    path = packed_file(gguf, tmp_path / "unet.gguf", unet, kind_of)
    clip = saved(tmp_path / "clip.safetensors", tensors_of(tiny, TEXT), {"overpaint.text_heads": "[1]"})
    weights = open_model(path, text_encoders=[clip])
    assert {key.removeprefix(UNET) for key in weights.shapes if key.startswith(UNET)} == unet.keys()
    spec = detect(weights.shapes, weights.metadata)
    assert (spec.family, spec.unet.heads) == ("sd1", 8)
    for key, tensor in weights.read(UNET + name for name in unet):
        wanted = unet[key.removeprefix(UNET)].astype(np.float32)
        assert tensor.shape == wanted.shape
        assert float(np.abs(tensor.float().numpy() - wanted).max()) <= STEPS[kind] * float(np.abs(wanted).max()) + 1e-7


def test_same_numbers_as_the_reader_of_the_package(gguf: Any, tiny: Path, tmp_path: Path) -> None:
    unet = dict(list(tensors_of(tiny, UNET).items())[:40])
    path = packed_file(gguf, tmp_path / "x.gguf", unet, lambda _, each: "Q4_0" if each.size % 32 == 0 else "F16")
    ours = open_gguf(path)
    theirs = gguf.GGUFReader(path)
    assert {each.name for each in theirs.tensors} == ours.shapes.keys()
    for each in theirs.tensors:
        numbers = gguf.quants.dequantize(each.data, each.tensor_type)
        ((_, got),) = ours.read([each.name])
        assert np.array_equal(got.float().numpy().ravel(), numbers.ravel())


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_blocks_of_256(kind: str, gguf: Any, tmp_path: Path) -> None:
    """The package unpacks these but does not pack them: any bytes are some numbers."""
    known = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[known]
    raw = np.random.default_rng(0).integers(0, 60, (4, size), dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "sd1")
    writer.add_array("comfy.gguf.orig_shape.a", [4, 8, 8, 4])
    writer.add_tensor("a", raw, raw_dtype=known)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    weights = open_gguf(tmp_path / "x.gguf")
    assert weights.shapes == {"a": (4, 8, 8, 4)}
    assert math.prod(weights.shapes["a"]) == 4 * block
    ((_, got),) = weights.read(["a"])
    wanted = gguf.quants.dequantize(raw, known).reshape(4, 8, 8, 4)
    assert np.array_equal(got.numpy(), wanted, equal_nan=True)


def test_a_packed_unet_paints_as_its_rounded_weights_do(gguf: Any, tiny: Path, tmp_path: Path) -> None:
    """The package rounds them; how far rounded weights paint from the whole ones is no question of reading files."""

    def kind_of(name: str, each: NDArray[Any]) -> str:
        return "Q8_0" if each.ndim > 1 and each.size % 32 == 0 else "F32"

    def rounded(name: str, each: NDArray[Any]) -> NDArray[Any]:
        kind = gguf.GGMLQuantizationType[kind_of(name, each)]
        rows = each.astype(np.float32).reshape(-1, 32) if kind.name == "Q8_0" else each
        return np.asarray(gguf.quants.dequantize(gguf.quants.quantize(rows, kind), kind)).reshape(each.shape)

    whole, unet = tensors_of(tiny), tensors_of(tiny, UNET)
    path = packed_file(gguf, tmp_path / "unet.gguf", unet, kind_of)
    clip = saved(tmp_path / "clip.safetensors", tensors_of(tiny, TEXT), {"overpaint.text_heads": "[1]"})
    changed = {UNET + name: rounded(name, each) for name, each in unet.items()}
    assert any(not np.array_equal(each, whole[name]) for name, each in changed.items())
    plain = saved(tmp_path / "rounded.safetensors", {**whole, **changed}, safetensors_shapes(tiny)[1])
    options: dict[str, Any] = {"dtype": "float32", "hashing": False}
    packed = load_checkpoint(path, text_encoders=(clip,), vae_path=tiny, **options).backend
    wanted = load_checkpoint(plain, **options).backend
    generator = torch.Generator().manual_seed(0)
    x, context = (torch.randn(shape, generator=generator) for shape in ((1, 4, 8, 8), (1, 77, 64)))
    t = torch.tensor([400.0])
    assert torch.equal(packed.denoise(x, t, context), wanted.denoise(x, t, context))
    assert torch.equal(packed.decode(x), wanted.decode(x))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (header(entry("a", [32], kind=99), tensors=1) + bytes(64), "packed in a way that cannot be read"),
        (header(entry("a", [32], kind=24), tensors=1) + bytes(64), "packed in a way that cannot be read"),
        (header(entry("a", [31], kind=8), tensors=1) + bytes(64), "rows that do not fill its blocks"),
        (header(entry("a", [], kind=8), tensors=1) + bytes(64), "packed but empty"),
        (header(entry("a", [32, 9], kind=8), tensors=1) + bytes(64), "behind the end"),
    ],
)
def test_packing_that_cannot_be(content: bytes, match: str, gguf: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=match):
        open_gguf(path)
