"""Files that were made to crash, to stop or to fill whoever reads them: name -> (suffix, bytes)."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
GIB = 2**30


def memo(number: int) -> bytes:
    return b"j" + struct.pack("<I", number)


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def whole(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(whole, values)) + b"t"


def table(**entries: bytes) -> bytes:
    return b"}" + b"".join(text(key) + value + b"s" for key, value in entries.items())


def storage(count: int, kind: bytes = b"FloatStorage") -> bytes:
    """The persistent id of one."""
    return b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text("0") + text("cpu") + whole(count) + b"tQ"


def tensor(shape: tuple[int, ...], stride: tuple[int, ...], count: int, offset: int = 0) -> bytes:
    parts = storage(count) + whole(offset) + numbers(shape) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + parts + b"tR"


def program(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def zipped(described: bytes, blocks: Mapping[str, bytes] | None = None, packed: bool = False) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.writestr("a/data.pkl", described)
        for name, block in (blocks or {}).items():
            archive.writestr(f"a/{name}", block)
    return data.getvalue()


def legacy(described: bytes, keys: object = (), rest: bytes = b"") -> bytes:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = MAGIC + pickle.dumps(1001, protocol=2) + pickle.dumps(system, protocol=2)
    return head + described + pickle.dumps(keys, protocol=2) + rest


def levels(count: int, wide: int, close: bytes) -> bytes:
    """A value of so many levels, each of which holds the one before several times."""
    body = b"N" + memo(0).replace(b"j", b"r", 1)
    for level in range(count):
        body += b"(" + memo(level) * wide + close + b"r" + struct.pack("<I", level + 1)
    return body


def lists_from_outside(count: int) -> bytes:
    """Lists in lists, each put into its outer one while it is empty."""
    return b"]q\x00" + b"h\x00]q\x01a0h\x01q\x000" * count


DEEP = 200_000
DEEP_ENOUGH = 40_000  # for whoever recurses; what C does in such a case needs more
PICKLES: dict[str, bytes] = {
    "a key of nested tuples": program(b"}" + b"N" + b"\x85" * DEEP + b"Ns"),
    "a key of repeated tuples": program(b"}" + levels(40, 10, b"t") + b"Ns"),
    "a key of repeated tuples among many": program(b"}(" + levels(40, 10, b"t") + b"Nu"),
    "a set with repeated tuples": b"\x80\x04\x8f(" + levels(40, 10, b"t") + b"\x90.",
    "a frozen set of nested tuples": b"\x80\x04(N" + b"\x85" * DEEP_ENOUGH + b"\x91.",
    "a table made of a deep key": program(b"(N" + b"\x85" * DEEP_ENOUGH + b"Nd"),
    "nested tuples": program(table(a=b"N" + b"\x85" * DEEP_ENOUGH)),
    "nested lists": program(table(a=b"(" * DEEP_ENOUGH + b"l" * DEEP_ENOUGH)),
    "nested tables": program(table(a=b"}" + b"N}" * DEEP_ENOUGH + b"s" * DEEP_ENOUGH)),
    "repeated lists": program(table(a=levels(40, 10, b"l"))),
    "lists from outside": program(lists_from_outside(DEEP_ENOUGH)),
    "a list in itself": program(table(a=b"]q\x01h\x01a")),
    "a table in itself": program(b"}q\x01" + text("a") + b"h\x01s"),
    "marks": program(b"(" * DEEP_ENOUGH),
    "integers that share a hash": program(
        b"}(" + b"".join(whole(k * (2**61 - 1)) + b"N" for k in range(1, 40_000)) + b"u"
    ),
    "long keys that are equal": program(
        b"}("
        + (text("a" * 2**20) + b"r\0\0\0\0N")
        + (text("a" * 2**20) + b"r\1\0\0\0N")
        + b"j\0\0\0\0Nj\1\0\0\0N" * 20_000
    )[:-1]
    + b"u.",
    "a parameter table that copies itself": program(
        b"}("
        + b"".join(whole(i) + b"N" for i in range(50_000))
        + b"uq\x00}"
        + text("_parameters")
        + b"h\x00sq\x01"
        + b"ctorch.nn.modules.container\nParameterDict\nq\x02)\x81q\x03h\x01b"
        + b"h\x02)\x81h\x01b0" * 50_000
    ),
    "a memo of 2**31 places": program(b"Nr\xff\xff\xff\x7f"),
    "a text of 2**40 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"abc.",
    "bytes of 2**62": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.",
    "a number of 200,000 digits": b"I" + b"9" * 200_000 + b"\n.",
    "a long number of 200,000 digits": b"L" + b"9" * 200_000 + b"L\n.",
    "a number of a megabyte": program(table(a=b"\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20)),
    "2**21 values": program(b"(" + b"N" * 2**21 + b"t"),
    "a tensor of stride 0": program(table(a=tensor((2**31,), (0,), 1))),
    "an embedding of stride 0": program(table(string_to_param=table(x=tensor((75, 2**25), (0, 0), 1)))),
    "a tensor of overlapping rows": program(table(a=tensor((2**20, 4), (0, 1), 4))),
    "a shape of 2**62": program(table(a=tensor((2**62, 4), (0, 0), 1))),
    "a shape of 2**61 twice": program(table(a=tensor((2**61, 2**61), (0, 0), 1))),
    "an empty shape of 2**61 twice": program(table(a=tensor((0, 2**61, 2**61), (0, 0, 0), 1))),
    "a shape of 1,000 dimensions": program(table(a=tensor((1,) * 1000, (1,) * 1000, 1))),
    "an offset of 2**62": program(table(a=tensor((1,), (1,), 1, offset=2**62))),
    "a negative size": program(table(a=tensor((-1,), (1,), 1))),
    "a storage of 2**61": program(table(a=tensor((2**61,), (1,), 2**61))),
    "a storage that is not there": program(table(a=tensor((2**28,), (1,), 2**28))),
    "many views of one storage": program(
        b"}" + b"".join(text(str(i)) + tensor((4096,), (1,), 4096) + b"s" for i in range(3000))
    ),
}


def pickled() -> dict[str, tuple[str, bytes]]:
    found = {}
    for name, each in PICKLES.items():
        found[f"zip: {name}"] = (".pt", zipped(each, {"data/0": bytes(16384 if "views" in name else 4)}))
        rest = struct.pack("<Q", 4096 if "views" in name else 1) + bytes(16384 if "views" in name else 4)
        found[f"legacy: {name}"] = (".pt", legacy(each, ["0"], rest))
    return found


def archives() -> dict[str, tuple[str, bytes]]:
    good = program(table(a=tensor((1,), (1,), 1)))
    promising = bytearray(zipped(good, {"data/0": bytes(4)}))
    place = promising.rindex(b"a/data/0") - 46  # of the entry in the directory
    promising[place + 20 : place + 28] = struct.pack("<II", GIB, GIB)
    return {
        "zip: a packed description": (".pt", zipped(program(text("a" * 50_000_000)), packed=True)),
        "zip: a packed block": (".pt", zipped(good, {"data/0": bytes(50_000_000)}, packed=True)),
        "zip: 20,000 entries": (".pt", zipped(good, {f"data/{i}": b"" for i in range(20_000)})),
        "zip: a block larger than the file": (".pt", bytes(promising)),
        "legacy: a block of 2**60 numbers": (
            ".pt",
            legacy(program(table(a=tensor((2**60,), (1,), 2**60))), ["0"], struct.pack("<Q", 2**60)),
        ),
        "legacy: a block of another size than its storage": (
            ".pt",
            legacy(good, ["0"], struct.pack("<Q", 2**20) + bytes(2**20)),
        ),
        "legacy: keys that are no list": (".pt", legacy(good, {"0": (1, 2)})),
        "legacy: keys that are lists": (".pt", legacy(good, [["0"], [[]]], bytes(64))),
    }


def headed(header: bytes, length: int | None = None, behind: bytes = b"") -> tuple[str, bytes]:
    return ".safetensors", struct.pack("<Q", len(header) if length is None else length) + header + behind


def entry(shape: list[int], end: int, start: int = 0, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def headers() -> dict[str, tuple[str, bytes]]:
    return {
        "safetensors: a header of 2**63 bytes": headed(b"{}", 2**63),
        "safetensors: a header of 90 MB": headed(b"{" + b" " * 90_000_000 + b"}"),
        "safetensors: five million lists": headed(b'{"a":[' + b"[]," * 5_000_000 + b"[]]}"),
        "safetensors: deep brackets": headed(b"[" * 500_000),
        "safetensors: deep metadata": headed(b'{"__metadata__":{"a":' + b"[" * 900 + b"]" * 900 + b"}}"),
        "safetensors: a shape of 2**62": headed(json.dumps({"a": entry([2**62], 4)}).encode(), behind=bytes(4)),
        "safetensors: an empty shape of 2**61 twice": headed(
            json.dumps({"a": entry([0, 2**61, 2**61], 0)}).encode(), behind=bytes(4)
        ),
        "safetensors: a size of 10,000 digits": headed(b'{"a":{"dtype":"F32","shape":[1' + b"0" * 10_000 + b"]}}"),
        "safetensors: a type of a megabyte": headed(json.dumps({"a": entry([1], 4, dtype="x" * 2**20)}).encode()),
        "safetensors: a name of a megabyte": headed(json.dumps({"x" * 2**20: entry([1], 8)}).encode()),
        "safetensors: facts of a megabyte": headed(
            json.dumps({"__metadata__": {"overpaint.num_heads": "[" * 2**20}, "a": entry([1], 4)}).encode(),
            behind=bytes(4),
        ),
    }


def gguf(facts: bytes = b"", fact_count: int = 0, tensors: bytes = b"", tensor_count: int = 0) -> tuple[str, bytes]:
    return ".gguf", b"GGUF" + struct.pack("<IQQ", 3, tensor_count, fact_count) + facts + tensors + bytes(64)


def gguf_name(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def packed_files() -> dict[str, tuple[str, bytes]]:
    shape = (2**39,) * 8
    large = gguf_name(b"a") + struct.pack("<I", 8) + struct.pack("<8Q", *shape) + struct.pack("<IQ", 0, 0)
    empty = gguf_name(b"a") + struct.pack("<I", 3) + struct.pack("<3Q", 0, 2**39, 2**39) + struct.pack("<IQ", 0, 0)
    ones = b"".join(gguf_name(str(i).encode()) + struct.pack("<IB", 0, 1) for i in range(500_000))
    return {
        "gguf: a shape of 2**312": gguf(tensors=large, tensor_count=1),
        "gguf: an empty shape of 2**78": gguf(tensors=empty, tensor_count=1),
        "gguf: 2**60 tensors": gguf(tensor_count=2**60),
        "gguf: 500,000 facts": gguf(ones, 500_000),
        "gguf: a vocabulary of 2**50 words": gguf(gguf_name(b"a") + struct.pack("<IIQ", 9, 8, 2**50), 1),
        "gguf: three million empty words": gguf(
            gguf_name(b"a") + struct.pack("<IIQ", 9, 8, 3_000_000) + bytes(8 * 3_000_000), 1
        ),
        "gguf: a name of 2**60 bytes": gguf(struct.pack("<Q", 2**60), 1),
    }


def sidecars() -> dict[str, tuple[str, bytes]]:
    laughs = b"a0: &a0 [x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 12)
    )
    heads = b"model: {params: {unet_config: {params: {num_heads: *a11}}, scale_factor: *a11}}\n"
    return {
        "yaml: aliases": (".yaml", laughs),
        "yaml: aliases where a number belongs": (".yaml", laughs + heads),
        "yaml: merged aliases": (
            ".yaml",
            b"a0: &a0 {x: 1}\n"
            + b"".join(b"a%d: &a%d {<<: [%s]}\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 9)),
        ),
        "yaml: 500,000 brackets": (".yaml", b"[" * 500_000),
        "yaml: 60,000 brackets": (".yaml", b"[" * 60_000),
        "yaml: 20,000 nested tables": (".yaml", b"{a: " * 16_000),
        "yaml: 30,000 dashes": (".yaml", b"- " * 30_000),
        "yaml: a number of 60,000 digits": (".yaml", b"model: {params: {scale_factor: " + b"9" * 60_000 + b"}}"),
        "yaml: a number in base 60": (".yaml", b"model: {params: {scale_factor: 1" + b":59" * 20_000 + b"}}"),
        "yaml: a call": (".yaml", b"a: !!python/object/apply:os.system [ls]"),
        "yaml: a long text where a number belongs": (
            ".yaml",
            b"model: {params: {scale_factor: " + b"x" * 50_000 + b"}}",
        ),
        "yaml: a megabyte": (".yaml", b"# " + b"x" * 2**20),
    }


def hostile_files() -> dict[str, tuple[str, bytes]]:
    return {**pickled(), **archives(), **headers(), **packed_files(), **sidecars()}
