"""Colour profiles that tests make: of primaries and curves, of gray, and of tables for CMYK."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

# Columns: the primaries' XYZ under D50.
_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
_PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71187, 0.0), (0.03134, 0.00009, 0.82491))


@cache
def display_p3() -> bytes:
    """sRGB's curve over wider primaries, as phones have them."""
    curve = _curve(np.where((x := np.linspace(0, 1, 1024)) <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4))
    return _matrix(_P3, curve)


@cache
def prophoto() -> bytes:
    """Primaries beyond what eyes see, and gamma 1.8."""
    return _matrix(_PROPHOTO, b"curv" + bytes(4) + struct.pack(">IH", 1, round(1.8 * 256)))


@cache
def parametric() -> bytes:
    """P3 with a parametric curve, as version 4 has it."""
    numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return _matrix(_P3, b"para" + bytes(4) + struct.pack(">HH5i", 3, 0, *(round(each * 65536) for each in numbers)))


@cache
def gray(gamma: float = 2.2) -> bytes:
    return _profile(b"GRAY", b"XYZ ", {b"kTRC": b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))})


@cache
def cmyk() -> bytes:
    """Tables of two points a side: ink takes light away."""
    grid = np.array(np.meshgrid(*[[0, 1]] * 4, indexing="ij")).reshape(4, -1).T.astype(float)
    light = (1 - grid[:, :3]) * (1 - grid[:, 3:])
    to_lab = np.clip(
        np.stack([light.mean(1) * 100, (light[:, 0] - light[:, 1]) * 60, (light[:, 1] - light[:, 2]) * 60], 1),
        -128,
        100,
    )
    lab = np.array(np.meshgrid(*[np.linspace(0, 1, 9)] * 3, indexing="ij")).reshape(3, -1).T
    lightness, a, b = lab[:, 0], lab[:, 1] * 255 - 128, lab[:, 2] * 255 - 128
    red_green, green_blue = a / 60, b / 60
    green = lightness - (red_green - green_blue) / 3
    inks = np.clip(1 - np.stack([green + red_green, green, green - green_blue], 1), 0, 1)
    there = _lut8(4, 3, 2, np.stack([to_lab[:, 0] * 2.55, to_lab[:, 1] + 128, to_lab[:, 2] + 128], 1))
    back = _lut8(3, 4, 9, np.concatenate([inks * 255, np.zeros((len(inks), 1))], 1))
    return _profile(b"CMYK", b"Lab ", {b"A2B0": there, b"B2A0": back}, kind=b"prtr")


def _matrix(primaries: Sequence[Sequence[float]], curve: bytes) -> bytes:
    colours = {f"{name}XYZ".encode(): _xyz(each) for name, each in zip("rgb", primaries, strict=True)}
    return _profile(b"RGB ", b"XYZ ", {**colours, **{f"{name}TRC".encode(): curve for name in "rgb"}})


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(each * 65536) for each in values))


def _curve(values: Values) -> bytes:
    levels: bytes = np.rint(values * 65535).astype(">u2").tobytes()
    return b"curv" + bytes(4) + struct.pack(">I", len(values)) + levels


def _lut8(inputs: int, outputs: int, points: int, table: Values) -> bytes:
    identity = bytes(range(256))
    start = (
        b"mft1"
        + bytes(4)
        + bytes([inputs, outputs, points, 0])
        + struct.pack(">9i", *np.eye(3, dtype=int).ravel() * 65536)
    )
    levels: bytes = np.rint(np.clip(table, 0, 255)).astype(np.uint8).tobytes()
    return start + identity * inputs + levels + identity * outputs


def _profile(space: bytes, pcs: bytes, tags: Mapping[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    text = "made for a test".encode("utf-16-be")
    said = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    every = {b"desc": said, b"cprt": said, b"wtpt": _xyz((0.9642, 1.0, 0.8249)), **tags}
    start, table, body = 132 + 12 * len(every), b"", b""
    for name, part in every.items():
        table += struct.pack(">4sII", name, start + len(body), len(part))
        body += part + bytes(-len(part) % 4)
    header = struct.pack(
        ">I4s4s4s4s4s12x4s28x3i48x",
        start + len(body),
        b"\0" * 4,
        b"\x04\x20\0\0",
        kind,
        space,
        pcs,
        b"acsp",
        63190,
        65536,
        54061,
    )
    return header + struct.pack(">I", len(every)) + table + body
