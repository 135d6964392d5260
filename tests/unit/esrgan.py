"""Random weights of upscalers under the names their files use, and the papers' formulas written out plainly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]


def conv_state(name: str, inputs: int, outputs: int, generator: torch.Generator) -> State:
    """A convolution that neither fades nor explodes in a chain."""
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (3 * inputs**0.5)
    return {f"{name}.weight": weight, f"{name}.bias": 0.1 * torch.randn(outputs, generator=generator)}


def old_state(features: int = 8, growth: int = 4, blocks: int = 2, doublings: int = 2, folded: int = 1) -> State:
    """ESRGAN's first naming: a numbered sequence."""
    generator = torch.Generator().manual_seed(features + 10 * blocks + doublings)
    state = conv_state("model.0", 3 * folded**2, features, generator)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for i in range(1, 6):
                outputs = growth if i < 5 else features
                name = f"model.1.sub.{block}.RDB{dense}.conv{i}.0"
                state |= conv_state(name, features + (i - 1) * growth, outputs, generator)
    state |= conv_state(f"model.1.sub.{blocks}", features, features, generator)
    for doubling in range(doublings):
        state |= conv_state(f"model.{3 * doubling + 3}", features, features, generator)
    state |= conv_state(f"model.{3 * doublings + 2}", features, features, generator)
    return state | conv_state(f"model.{3 * doublings + 4}", features, 3, generator)


def renamed(state: Mapping[str, Tensor], naming: str) -> State:
    """The same weights as the authors' second code ("trunk") or Real-ESRGAN ("body") names them."""
    last = _last(state)
    ends = {0: ("conv_first", "conv_first"), last - 2: ("HRconv", "conv_hr"), last: ("conv_last", "conv_last")}
    result = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        parts = layer.split(".")
        if len(parts) == 2:
            number = int(parts[1])
            pair = ends.get(number, (f"upconv{number // 3}", f"conv_up{number // 3}"))
        elif len(parts) == 4:
            pair = ("trunk_conv", "conv_body")
        else:
            block, dense, convolution = parts[3:6]
            pair = (f"RRDB_trunk.{block}.{dense}.{convolution}", f"body.{block}.{dense.lower()}.{convolution}")
        result[f"{pair[naming == 'body']}.{kind}"] = tensor
    return result


def _last(state: Mapping[str, Tensor]) -> int:
    """The number of the last convolution."""
    return max(int(key.split(".")[1]) for key in state)


def esrgan(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """arXiv:1809.00219, figure 4, over the first naming."""

    def conv(name: str, value: Tensor) -> Tensor:
        return F.conv2d(value, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def leaky(value: Tensor) -> Tensor:
        return torch.where(value > 0, value, 0.2 * value)

    def dense(name: str, value: Tensor) -> Tensor:
        seen = [value]
        for i in range(1, 5):
            seen.append(leaky(conv(f"{name}.conv{i}.0", torch.cat(seen, 1))))
        return value + 0.2 * conv(f"{name}.conv5.0", torch.cat(seen, 1))

    blocks = len({key.split(".")[3] for key in state if "RDB" in key})
    last = _last(state)
    shallow = conv("model.0", x)
    deep = shallow
    for block in range(blocks):
        inner = deep
        for i in (1, 2, 3):
            inner = dense(f"model.1.sub.{block}.RDB{i}", inner)
        deep = deep + 0.2 * inner
    deep = shallow + conv(f"model.1.sub.{blocks}", deep)
    for number in range(3, last - 2, 3):
        deep = leaky(conv(f"model.{number}", deep.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    return conv(f"model.{last}", leaky(conv(f"model.{last - 2}", deep)))


def folded(x: Tensor, factor: int) -> Tensor:
    """Blocks of pixels as channels: channel, then row, then column of the block."""
    phases = [
        x[:, channel, row::factor, column::factor]
        for channel in range(3)
        for row in range(factor)
        for column in range(factor)
    ]
    return torch.stack(phases, 1)


def compact_state(features: int = 8, convolutions: int = 3, scale: int = 4) -> State:
    """SRVGGNetCompact."""
    generator = torch.Generator().manual_seed(features + scale)
    state: State = {}
    for i in range(convolutions + 1):
        state |= conv_state(f"body.{2 * i}", 3 if i == 0 else features, features, generator)
        state[f"body.{2 * i + 1}.weight"] = torch.rand(features, generator=generator)
    return state | conv_state(f"body.{2 * convolutions + 2}", features, 3 * scale**2, generator)


def compact(state: Mapping[str, Tensor], x: Tensor, scale: int) -> Tensor:
    """The chain, its result laid out as pixels, and the enlarged picture."""
    layers = _last(state)
    value = x
    for i in range(0, layers + 1, 2):
        value = F.conv2d(value, state[f"body.{i}.weight"], state[f"body.{i}.bias"], padding=1)
        if i < layers:
            value = torch.where(value > 0, value, state[f"body.{i + 1}.weight"][None, :, None, None] * value)
    result = torch.empty(x.shape[0], 3, x.shape[2] * scale, x.shape[3] * scale)
    for channel in range(3):
        for row in range(scale):
            for column in range(scale):
                result[:, channel, row::scale, column::scale] = value[:, channel * scale**2 + row * scale + column]
    return result + x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
