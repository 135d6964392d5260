"""ESRGAN's generator (Wang et al. 2018, arXiv:1809.00219), with Real-ESRGAN's pixel-unshuffle in front for small scales
(Wang et al. 2021, arXiv:2107.10833). Parameters are named as in Real-ESRGAN's files; older names are mapped to them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.networks.layers import Conv2d

_SLOPE = 0.2
_RESIDUAL = 0.2  # the factor beta on residuals, "residual scaling" in the paper
_MOST_DOUBLINGS = 4
_COLOURS = 3

# ESRGAN's first files number the layers of a flat sequence: entry, trunk, then doublings, two convolutions at the end.
_NUMBERED = re.compile(r"model\.(\d{1,3})\.(weight|bias)")
_NUMBERED_DENSE = re.compile(r"model\.1\.sub\.(\d{1,3})\.RDB([123])\.conv([1-5])\.0\.(weight|bias)")
_NUMBERED_TRUNK_END = re.compile(r"model\.1\.sub\.(\d{1,3})\.(weight|bias)")
_NAMED_DENSE = re.compile(r"RRDB_trunk\.(\d{1,3})\.RDB([123])\.conv([1-5])\.(weight|bias)")
_NAMED = {"trunk_conv": "conv_body", "HRconv": "conv_hr"} | {f"upconv{i}": f"conv_up{i}" for i in range(1, 5)}


@dataclass(frozen=True)
class RRDBSpec:
    """Widths and depths, all of which the shapes of a file tell."""

    features: int
    growth: int
    blocks: int
    doublings: int  # nearest-neighbour doublings behind the trunk
    unshuffle: int = 1  # pixels along each side that are folded into channels before the first convolution

    @property
    def scale(self) -> int:
        return (1 << self.doublings) // self.unshuffle


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees all that came before it."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(features, growth, 3, padding=1)
        self.conv2 = Conv2d(features + growth, growth, 3, padding=1)
        self.conv3 = Conv2d(features + 2 * growth, growth, 3, padding=1)
        self.conv4 = Conv2d(features + 3 * growth, growth, 3, padding=1)
        self.conv5 = Conv2d(features + 4 * growth, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        known = x
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            known = torch.cat([known, _leaky(convolution(known))], dim=1)
        last: Tensor = self.conv5(known)
        return x + _RESIDUAL * last


class ResidualInResidual(nn.Module):
    """Three dense blocks with a residual round them all."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(features, growth)
        self.rdb2 = DenseBlock(features, growth)
        self.rdb3 = DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + _RESIDUAL * inner


class RRDBNet(nn.Module):
    """Colours in 0..1 (b, 3, h, w) to (b, 3, scale * h, scale * w)."""

    def __init__(self, spec: RRDBSpec) -> None:
        super().__init__()
        self.spec = spec
        features = spec.features
        self.conv_first = Conv2d(_COLOURS * spec.unshuffle**2, features, 3, padding=1)
        self.body = nn.Sequential(*(ResidualInResidual(features, spec.growth) for _ in range(spec.blocks)))
        self.conv_body = Conv2d(features, features, 3, padding=1)
        for i in range(spec.doublings):
            setattr(self, f"conv_up{i + 1}", Conv2d(features, features, 3, padding=1))
        self.conv_hr = Conv2d(features, features, 3, padding=1)
        self.conv_last = Conv2d(features, _COLOURS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        shallow: Tensor = self.conv_first(_folded(x, self.spec.unshuffle))
        deep = shallow + self.conv_body(self.body(shallow))
        for i in range(self.spec.doublings):
            deep = _leaky(getattr(self, f"conv_up{i + 1}")(F.interpolate(deep, scale_factor=2.0, mode="nearest")))
        result: Tensor = self.conv_last(_leaky(self.conv_hr(deep)))
        return result[..., : height * self.spec.scale, : width * self.spec.scale]


def rrdb_keys(keys: Iterable[str]) -> dict[str, str]:
    """Parameter name -> key in the file, for each of the three namings; keys of no such network stay as they are."""
    present = list(keys)
    last = max((int(found[1]) for key in present if (found := _NUMBERED.fullmatch(key))), default=0)
    return {_parameter(key, last): key for key in present}


def rrdb_spec(shapes: Mapping[str, tuple[int, ...]]) -> RRDBSpec | None:
    """The network whose parameters have these names and shapes; None: it is none, or not one for colour pictures."""
    first, last = shapes.get("conv_first.weight", ()), shapes.get("conv_last.weight", ())
    growing = shapes.get("body.0.rdb1.conv1.weight", ())
    if not (len(first) == len(last) == len(growing) == 4 and last[0] == _COLOURS and first[0] > 0 and growing[0] > 0):
        return None
    folded, rest = divmod(first[1], _COLOURS)
    unshuffle = math.isqrt(folded)
    blocks = len({key.split(".")[1] for key in shapes if key.startswith("body.")})
    doublings = len([key for key in shapes if re.fullmatch(r"conv_up\d\.weight", key)])
    possible = rest == 0 and unshuffle > 0 and unshuffle**2 == folded and doublings <= _MOST_DOUBLINGS
    if not possible or 2**doublings % unshuffle:
        return None
    return RRDBSpec(first[0], growing[0], blocks, doublings, unshuffle)


def _parameter(key: str, last: int) -> str:
    if dense := _NUMBERED_DENSE.fullmatch(key) or _NAMED_DENSE.fullmatch(key):
        return f"body.{dense[1]}.rdb{dense[2]}.conv{dense[3]}.{dense[4]}"
    if end := _NUMBERED_TRUNK_END.fullmatch(key):
        return f"conv_body.{end[2]}"
    if numbered := _NUMBERED.fullmatch(key):
        return f"{_numbered_layer(int(numbered[1]), last)}.{numbered[2]}"
    layer, _, kind = key.rpartition(".")
    return f"{_NAMED.get(layer, layer)}.{kind}"


def _numbered_layer(number: int, last: int) -> str:
    """A doubling takes three numbers (enlarge, convolve, activate), the end three (convolve, activate, convolve)."""
    ends = {0: "conv_first", last: "conv_last", last - 2: "conv_hr"}
    return ends.get(number, f"conv_up{number // 3}" if number % 3 == 0 else f"model.{number}")


def _folded(x: Tensor, factor: int) -> Tensor:
    """Blocks of factor x factor pixels as channels; a picture that does not divide is mirrored at its far edges."""
    if factor == 1:
        return x
    down, right = -x.shape[-2] % factor, -x.shape[-1] % factor
    mirrors = down < x.shape[-2] and right < x.shape[-1]
    padded = F.pad(x, (0, right, 0, down), mode="reflect" if mirrors else "replicate")
    return F.pixel_unshuffle(padded, factor)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE)
