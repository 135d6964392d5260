"""The language of pickles, as far as files of tensors need it: an interpreter that builds plain values, nothing else.

A pickle is a program: it may name any function and call it. Here no name is ever looked up. The few that torch's own
files need are played by functions of this module, and every other name becomes an object that accepts whatever is done
to it and does nothing.

It ends on every input, in time and memory in proportion to the input: the opcodes are counted, nothing recurses, only
scalars are ever hashed, and nothing is copied that the program did not write out.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from overpaint.models.pickled_values import Inert, Parameters, Played, UnreadablePickle, named, stored

MOST_BYTES = 100 * 2**20
_MOST_OPCODES = 2**20  # a checkpoint with all that training needs has some 150,000
_LONGEST_LINE = 4096  # of the text forms, of which numbers take time in proportion to the square of their length
_LARGEST_INTEGER = 127  # bits
_LARGEST_KEY = 62  # bits; larger integers may be made to share one hash, which makes a table slow
_LONGEST_KEY = 2**16  # long ones that are equal may be compared again and again
_DEEPEST = 100


class _Machine:
    """The stack, the marks in it, and the memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}
        self.left = _MOST_OPCODES

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise UnreadablePickle("it is longer than the description of any model")

    def pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def pop(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise IndexError
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    def remember(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def call(self, function: object, args: object) -> None:
        if isinstance(function, Played) and isinstance(args, tuple):
            self.stack.append(function.play(*args))
        else:
            self.stack.append(Inert())

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif not isinstance(target, Inert):
            raise UnreadablePickle("something is appended to what is no list")

    def set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if len(items) % 2:
            raise UnreadablePickle("a key without a value")
        if isinstance(target, dict):
            for key in items[::2]:
                _check_key(key)
            target.update(zip(items[::2], items[1::2], strict=True))
        elif not isinstance(target, Inert):
            raise UnreadablePickle("something is put into what is no table")

    def build(self) -> None:
        """Give an object its state. Only a ParameterDict has one that is of use."""
        target, state = self.pop(2)
        self.stack.append(target)
        tensors = state.get("_parameters") if isinstance(target, Parameters) and isinstance(state, dict) else None
        if isinstance(tensors, dict):
            self.spend(len(tensors))
            target.update(tensors)


def _check_key(key: object) -> None:
    """NOTE: a tuple is hashed through all its levels, which may be endless, or too deep for the C stack."""
    if type(key) is int and key.bit_length() > _LARGEST_KEY:
        raise UnreadablePickle("a table with an impossible number as a key")
    if isinstance(key, (str, bytes)) and len(key) > _LONGEST_KEY:
        raise UnreadablePickle("a table with a key of impossible length")
    if key is not None and type(key) not in (str, int, bool, float, bytes, Inert):
        raise UnreadablePickle("a table with a key that is no text and no number")


def _push(machine: _Machine, value: object) -> None:
    machine.stack.append(value)


def _push_integer(machine: _Machine, value: int) -> None:
    machine.stack.append(value if value.bit_length() <= _LARGEST_INTEGER else Inert())


def _mark(machine: _Machine, _: object) -> None:
    machine.marked.append(machine.stack)
    machine.stack = []


def _pop(machine: _Machine, _: object) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_to_mark()


def _drop_to_mark(machine: _Machine, _: object) -> None:
    machine.pop_to_mark()


def _frozen_set(machine: _Machine, _: object) -> None:
    """NOTE: no set is made: its members would be hashed, and no model file needs one."""
    machine.pop_to_mark()
    machine.stack.append(Inert())


def _table_of(items: list[Any], machine: _Machine) -> None:
    machine.stack.append({})
    machine.set(items)


def _inert(count: int) -> Callable[[_Machine, Any], None]:
    """An operation that takes so many values and gives something that is not needed."""

    def run(machine: _Machine, _: object) -> None:
        if count:
            machine.pop(count)
        machine.stack.append(Inert())

    return run


def _instance(machine: _Machine, name: str) -> None:
    machine.call(named(name), tuple(machine.pop_to_mark()))


def _object(machine: _Machine, _: object) -> None:
    function, *args = machine.pop_to_mark()
    machine.call(function, tuple(args))


def _global_of_stack(machine: _Machine, _: object) -> None:
    module, name = machine.pop(2)
    machine.stack.append(named(f"{module} {name}") if type(module) is type(name) is str else Inert())


def _nothing(machine: _Machine, _: object) -> None:
    pass


_Operation = Callable[[_Machine, Any], None]
_INTEGERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
_VALUES = (
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE"),
    *("BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_OPERATIONS: Mapping[str, _Operation] = {
    **dict.fromkeys(_INTEGERS, _push_integer),
    **dict.fromkeys(_VALUES, _push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, number: _push(machine, machine.memo[number])),
    **dict.fromkeys(("PROTO", "FRAME"), _nothing),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "NONE": lambda machine, _: _push(machine, None),
    "NEWTRUE": lambda machine, _: _push(machine, True),
    "NEWFALSE": lambda machine, _: _push(machine, False),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _drop_to_mark,
    "DUP": lambda machine, _: _push(machine, machine.stack[-1]),
    "EMPTY_LIST": lambda machine, _: _push(machine, []),
    "EMPTY_TUPLE": lambda machine, _: _push(machine, ()),
    "EMPTY_DICT": lambda machine, _: _push(machine, {}),
    "LIST": lambda machine, _: _push(machine, machine.pop_to_mark()),
    "TUPLE": lambda machine, _: _push(machine, tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: _push(machine, machine.pop(1)),
    "TUPLE2": lambda machine, _: _push(machine, machine.pop(2)),
    "TUPLE3": lambda machine, _: _push(machine, machine.pop(3)),
    "DICT": lambda machine, _: _table_of(machine.pop_to_mark(), machine),
    "APPEND": lambda machine, _: machine.append(list(machine.pop(1))),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set(list(machine.pop(2))),
    "SETITEMS": lambda machine, _: machine.set(machine.pop_to_mark()),
    "EMPTY_SET": _inert(0),
    "ADDITEMS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "FROZENSET": _frozen_set,
    "GLOBAL": lambda machine, name: _push(machine, named(name)),
    "STACK_GLOBAL": _global_of_stack,
    "REDUCE": lambda machine, _: machine.call(*machine.pop(2)),
    "NEWOBJ": lambda machine, _: machine.call(*machine.pop(2)),
    "NEWOBJ_EX": lambda machine, _: machine.call(*machine.pop(3)[:2]),
    "INST": _instance,
    "OBJ": _object,
    "BUILD": lambda machine, _: machine.build(),
    "PERSID": lambda machine, pid: _push(machine, stored(pid)),
    "BINPERSID": lambda machine, _: _push(machine, stored(machine.stack.pop())),
}


class _Lines(io.BytesIO):
    """Bytes, whose lines are not endless."""

    def readline(self, size: int | None = -1, /) -> bytes:
        return super().readline(_LONGEST_LINE)


class Pickles:
    """One pickle after another from the same bytes; `position` is just behind the last one."""

    def __init__(self, data: bytes) -> None:
        self._bytes = _Lines(data)

    @property
    def position(self) -> int:
        return self._bytes.tell()

    def next(self) -> Any:
        """The value of the next pickle; `UnreadablePickle` is raised for whatever is none."""
        machine = _Machine()
        try:
            for opcode, argument, _ in pickletools.genops(self._bytes):
                machine.spend(1)
                if opcode.name == "STOP":
                    break
                _OPERATIONS[opcode.name](machine, argument)
            tree = machine.stack[-1]
        except (IndexError, KeyError, TypeError, ValueError, Warning) as error:
            if isinstance(error, UnreadablePickle):
                raise
            raise UnreadablePickle(f"its description is damaged, before byte {self.position}") from error
        _check_nesting(tree)
        return tree


def unpickled(data: bytes) -> Any:
    """The value of one pickle."""
    return Pickles(data).next()


def parts_of(tree: object) -> Iterator[Any]:
    """What a table, a list or a tuple holds; nothing of all else."""
    if isinstance(tree, dict):
        return iter(tree.values())
    return iter(tree) if type(tree) in (list, tuple) and isinstance(tree, (list, tuple)) else iter(())


def _check_nesting(tree: object) -> None:
    """Refuse what is nested too deeply, or in itself; after this it is safe to walk through it recursively."""
    heights: dict[int, int] = {}  # of what was looked through
    path = [(tree, parts_of(tree), [0])]
    while path:
        inner, parts, tallest = path[-1]
        for part in parts:
            if not isinstance(part, (dict, list, tuple)):
                continue
            height = heights.get(id(part))
            if len(path) + (height or 0) > _DEEPEST:
                raise UnreadablePickle("its contents are nested too deeply")
            if height is None:
                path.append((part, parts_of(part), [0]))
                break
            tallest[0] = max(tallest[0], height)
        else:
            path.pop()
            heights[id(inner)] = tallest[0] + 1
            if path:
                path[-1][2][0] = max(path[-1][2][0], tallest[0] + 1)
