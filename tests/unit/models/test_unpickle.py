"""Pickled files: what torch writes is read, and nothing that a file asks for is ever executed."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overpaint.errors import CheckpointError
from overpaint.models.files import read_all, read_checkpoint
from overpaint.models.pickled_values import Inert
from overpaint.models.unpickle import load_pickle, open_pickle


class Callback:
    """A class of somebody's training program."""

    def __init__(self) -> None:
        self.history = [1, 2]


def tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).reshape(4, 6)
    return {
        "plain": base,
        "half": base.half(),
        "brain": base.bfloat16(),
        "view": base[1:3, ::2],
        "transposed": base.t(),
        "integers": torch.arange(5),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base + 1),
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrap", [lambda table: table, lambda table: {"state_dict": OrderedDict(table)}])
def test_what_torch_saves_is_read(zipped: bool, wrap: Callable[[Any], Any], tmp_path: Path) -> None:  # FILE-12
    path = tmp_path / "x.ckpt"
    torch.save(wrap(tensors()), path, _use_new_zipfile_serialization=zipped)
    read = read_all(path)
    for name, tensor in tensors().items():
        assert read[name].dtype is tensor.dtype
        assert torch.equal(read[name], tensor), name
        assert read[name].is_contiguous()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_training_state_is_passed_over(zipped: bool, tmp_path: Path) -> None:
    state = OrderedDict(a=torch.ones(2, 2))
    state._metadata = OrderedDict(version=1)  # type: ignore[attr-defined]
    saved = {
        "state_dict": state,
        "callbacks": {Callback: Callback(), "best": np.float64(0.5)},
        "epoch": np.int64(3),
        "array": np.arange(3),
        "set": {1, 2},
        "path": Path("x"),
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1)}}, "param_groups": [{"lr": 1e-4}]}],
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
    }
    torch.save(saved, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
    weights = read_checkpoint(tmp_path / "x.ckpt")
    assert weights.shapes == {"a": (2, 2)}
    tree = load_pickle(tmp_path / "x.ckpt")
    assert tree["size"] == (2, 3)
    assert isinstance(tree["epoch"], Inert)


def test_small_files_come_as_trees(tmp_path: Path) -> None:  # TIF-2
    torch.save({"string_to_param": {"*": torch.nn.Parameter(torch.ones(2, 3))}, "name": "x"}, tmp_path / "x.pt")
    tree = load_pickle(tmp_path / "x.pt")
    assert tree["name"] == "x"
    assert torch.equal(tree["string_to_param"]["*"], torch.ones(2, 3))


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.parts = (function, args, state)

    def __reduce__(self) -> Any:
        return self.parts if self.parts[2] is not None else self.parts[:2]


def hostile_pickles(mark: Path) -> dict[str, bytes]:
    """Programs that would write a file, in the ways pickles can be made to."""
    command = f"touch {mark}"
    objects: dict[str, Any] = {
        "system": Call(os.system, command),
        "eval": Call(eval, f"open({str(mark)!r}, 'w')"),
        "exec": Call(exec, f"open({str(mark)!r}, 'w')"),
        "open": Call(open, str(mark), "w"),
        "subprocess": Call(subprocess.check_call, ["touch", str(mark)]),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "nested call": Call(Call(getattr, Call(__import__, "os"), "system"), command),
        "inside a list": [1, {"a": (Call(os.system, command),)}],
        "as a key": {Call(os.system, command): 1},
        "in a state": Call(Callback, state={"history": Call(os.system, command)}),
    }
    pickles = {name: pickle.dumps(value, protocol=2) for name, value in objects.items() if "nested" not in name}
    quoted = command.encode()
    pickles |= {
        "nested by hand": b"cbuiltins\ngetattr\n(c__builtin__\n__import__\n(S'os'\ntRS'system'\ntR(S'"
        + quoted
        + b"'\ntR.",
        "instance": b"(S'" + quoted + b"'\nios\nsystem\n.",
        "object": b"(cos\nsystem\nS'" + quoted + b"'\no.",
        "new object": b"\x80\x02cos\nsystem\n(S'" + quoted + b"'\nt\x81.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93(S'" + quoted + b"'\ntR.",
        "dotted name": b"\x80\x04\x8c\x02os\x8c\x0bpath.os.system\x93(S'" + quoted + b"'\ntR.",
        "build on a class": b"\x80\x02cos\nsystem\nN}S'__call__'\ncos\nsystem\ns\x86b.",
        "build on a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}S'__code__'\ncos\nsystem\ns\x86b.",
        "set state": b"\x80\x02ccodecs\nencode\n}S'__setstate__'\ncos\nsystem\nsbS'" + quoted + b"'\nb.",
        "torch load": b"ctorch\nload\n(S'" + str(mark).encode() + b"'\ntR.",
    }
    return pickles


NAMES = sorted(hostile_pickles(Path("x")))


def as_zip(path: Path, program: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
    return path


@pytest.mark.parametrize("name", NAMES)
def test_hostile_files_execute_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "executed"
    program = hostile_pickles(mark)[name]
    monkeypatch.setattr(os, "system", lambda command: mark.touch())
    for path in (as_zip(tmp_path / "zip.ckpt", program), tmp_path / "bare.ckpt"):
        if not path.exists():
            path.write_bytes(program)
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", NAMES)
def test_hostile_objects_beside_good_tensors_execute_nothing(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    program = hostile_pickles(mark)[name]
    body = program[2:] if program[:1] == b"\x80" else program
    good = io.BytesIO()
    torch.save({"a": torch.ones(2)}, good)
    with zipfile.ZipFile(good) as archive:
        entries = {each: archive.read(each) for each in archive.namelist()}
    described = next(each for each in entries if each.endswith("data.pkl"))
    entries[described] = entries[described][:2] + body[:-1] + b"0" + entries[described][2:]
    with zipfile.ZipFile(tmp_path / "x.ckpt", "w") as target:
        for each, data in entries.items():
            target.writestr(each, data)
    try:
        assert torch.equal(read_all(tmp_path / "x.ckpt")["a"], torch.ones(2))
    except CheckpointError as error:
        assert "x.ckpt" in str(error)
    assert not mark.exists()


def test_the_hostile_programs_do_work_in_an_ordinary_unpickler(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    program = hostile_pickles(mark)["system"]
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.loads({program!r})"], check=True)
    assert mark.exists()


def test_one_file_cannot_change_what_the_next_one_meets(tmp_path: Path) -> None:
    program = b"\x80\x02ccollections\nOrderedDict\nN}S'update'\ncos\nsystem\ns\x86b."
    with pytest.raises(CheckpointError):
        read_checkpoint(as_zip(tmp_path / "bad.ckpt", program))
    torch.save(OrderedDict(a=torch.ones(1)), tmp_path / "good.ckpt")
    assert read_all(tmp_path / "good.ckpt")["a"].tolist() == [1]


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b".",
        b"N",
        b"r\xff\xff\xff\x7f.",
        b"\x80\x02" + b"(" * 50 + b".",
        b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
        pickle.dumps("text"),
        pickle.dumps([1, 2]),
    ],
)
def test_nonsense_is_refused(program: bytes, tmp_path: Path) -> None:
    (tmp_path / "bare.pt").write_bytes(program)
    for path in (as_zip(tmp_path / "zip.pt", program), tmp_path / "bare.pt"):
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


def test_tensor_larger_than_its_storage_is_refused(tmp_path: Path) -> None:
    good = io.BytesIO()
    torch.save({"a": torch.ones(7)}, good)
    data = good.getvalue().replace(b"K\x00K\x07\x85", b"K\x03K\x07\x85")
    assert data != good.getvalue()
    (tmp_path / "x.ckpt").write_bytes(data)
    with zipfile.ZipFile(io.BytesIO(good.getvalue())) as archive, zipfile.ZipFile(tmp_path / "y.ckpt", "w") as target:
        for each in archive.namelist():
            target.writestr(each, archive.read(each).replace(b"K\x00K\x07\x85", b"K\x03K\x07\x85"))
    with pytest.raises(CheckpointError, match="larger than its storage"):
        read_checkpoint(tmp_path / "y.ckpt")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_cut_off_files_are_refused(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in (0, 1, 50, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_all(path)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    with pytest.raises(CheckpointError, match="compressed"):
        open_pickle(tmp_path / "x.ckpt")


def test_trees_that_repeat_themselves_do_not_explode(tmp_path: Path) -> None:
    tree: list[Any] = [torch.ones(1)]
    for _ in range(28):
        tree = [tree, tree]
    torch.save({"a": tree}, tmp_path / "x.pt")
    assert len(load_pickle(tmp_path / "x.pt")["a"]) == 2
    endless: list[Any] = []
    endless.append(endless)
    torch.save({"a": endless}, tmp_path / "y.pt")
    with pytest.raises(CheckpointError, match="too deeply"):
        load_pickle(tmp_path / "y.pt")
