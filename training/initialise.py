"""Where training starts. The networks are built blank, and the usual random start wastes most of a small budget."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.networks.autoencoder import (
    AttnBlock,
    AutoencoderKL,
    CodecDownsample,
    CodecUpsample,
    ResnetBlock,
)
from overpaint.networks.layers import Packable
from overpaint.networks.text import ClipText, EmbeddingLayer
from overpaint.networks.unet import ResBlock, SpatialTransformer, Stage, UNet

_GROUPS = 32
_ANCHOR = 1.5  # about the size of what is carried, so that a group's norm changes little with the picture
_BRANCH = 0.15
_RIDGE = 1e-3
_WORD = 0.05  # the spread `fill` gives to rows of words; here they start with 1
_PLACE = 1e-3
_LOOK_BACK = 3.0


@torch.no_grad()
def fill(network: nn.Module, seed: int) -> None:
    """Random weights that keep the size of what goes through a layer; norms that change nothing."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, Packable):
            bound = module.weight[0].numel() ** -0.5
            for values in (module.weight, module.bias):
                if values is not None:
                    values.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, EmbeddingLayer):
            module.weight.normal_(0, _WORD, generator=generator)


@torch.no_grad()
def start_text(text: ClipText, quiet: Sequence[int], seed: int) -> None:
    """Every position of the padding starts as the sum of the words before it.

    A U-Net attends to all 77 positions evenly at first, and some 70 of them are padding: were they all alike, the words
    would be drowned and the caption learnt late. So the rows of tokens that say little are empty (`quiet`), the first
    layer looks back evenly and copies what it sees, all other branches are nearly silent, and the last norm makes the
    faint sum as large as a word.
    """
    fill(text, seed)
    table = text.embeddings.token_embedding.weight
    table.mul_(1 / _WORD)
    table[list(quiet)] = 0
    text.embeddings.position_embedding.weight.mul_(_PLACE / _WORD)
    for i, layer in enumerate(text.encoder.layers):
        attention, mlp = layer.get_submodule("self_attn"), layer.get_submodule("mlp")
        for name, gain in (("q_proj", 0.3), ("k_proj", 0.3), ("v_proj", 1.0), ("out_proj", 0.1)):
            _silence(attention.get_submodule(name), gain)
        _silence(mlp.get_submodule("fc1"), 1.0)
        _silence(mlp.get_submodule("fc2"), 0.1)
        if i == 0:
            for name, gain in (("v_proj", 1.0), ("out_proj", _LOOK_BACK)):
                projection = _packable(attention.get_submodule(name))
                projection.weight.copy_(torch.eye(len(projection.weight)) * gain)


@torch.no_grad()
def start_unet(unet: UNet, seed: int) -> None:
    """Residual branches silent, and eps(x, t) = x: the right answer where all is noise.

    The input runs to the last skip connection in pairs of opposite sign, and silu(v) - silu(-v) = v undoes the last
    activation. Without it the first hundreds of steps only teach the network to copy noise.
    """
    fill(unet, seed)
    for module in unet.modules():
        if isinstance(module, ResBlock):
            _silence(module.out_layers[3], 0)
        elif isinstance(module, SpatialTransformer):
            _silence(module.proj_out, 0)
    width, latents = unet.spec.model_channels, unet.spec.out_channels
    lanes = torch.arange(width)
    latent, sign = lanes % latents, 1 - 2 * (lanes // latents % 2).float()
    entrance, exit_block = unet.input_blocks[0], unet.output_blocks[-1]
    assert isinstance(entrance, Stage) and isinstance(exit_block, Stage)
    first, last = _packable(entrance[0]), _packable(exit_block[0].skip_connection)
    _silence(first, 0.3)
    first.weight[lanes, latent, 1, 1] += sign
    last.weight.mul_(0.3)
    last.weight[lanes, last.weight.shape[1] - width + lanes, 0, 0] = 1
    _silence(unet.out[2], 0)
    _packable(unet.out[2]).weight[latent, lanes, 1, 1] = sign * 2 * latents / width


@torch.no_grad()
def start_autoencoder(network: AutoencoderKL, pictures: Tensor, seed: int) -> None:
    """Carry the colours straight through, then let least squares choose what is read from the carried features.

    A norm over groups forgets the level of flat areas. Here every group of three or more channels holds a colour, an
    anchor of +K and one of -K, so that its deviation hardly depends on the colour and the level survives. Latents begin
    as a block's mean colour and its slope from top to bottom. `pictures` (b, 3, h, w) in -1..1 are what is fitted.
    """
    fill(network, seed)
    for module in network.modules():
        if isinstance(module, ResnetBlock):
            _silence(module.conv2, _BRANCH)
        elif isinstance(module, AttnBlock):
            _silence(module.proj_out, _BRANCH)
        elif isinstance(module, (CodecDownsample, CodecUpsample)):
            _pass_through(module)
    for entrance in (network.encoder.conv_in, network.decoder.conv_in):
        _carry_colours(entrance)
    for exact in (network.quant_conv, network.post_quant_conv):
        _silence(exact, 0)
        lanes = torch.arange(len(exact.weight))
        exact.weight[lanes, lanes, 0, 0] = 1
    latents = _block_means(pictures)
    seen = features(network.encoder, network.encoder.conv_out, pictures)
    spread = network.encoder.conv_out
    _silence(spread, 0.1)
    assert spread.bias is not None
    spread.bias[latents.shape[1] :] = -5.0  # a posterior far narrower than the latents
    fit(spread, seen, latents)
    mean, _ = network.encode(pictures)
    last = network.decoder.conv_out
    fit(last, features(network.decoder, last, network.post_quant_conv(mean)), pictures)


def _silence(layer: nn.Module, gain: float) -> None:
    packable = _packable(layer)
    packable.weight.mul_(gain)
    if packable.bias is not None:
        packable.bias.zero_()


def _packable(layer: nn.Module | Tensor) -> Packable:
    assert isinstance(layer, Packable)
    return layer


def _pass_through(step: CodecDownsample | CodecUpsample) -> None:
    """The mean of 2x2 pixels on the way down, the pixel itself on the way up."""
    _silence(step.conv, 0.1)
    lanes = torch.arange(len(step.conv.weight))
    if isinstance(step, CodecUpsample):
        step.conv.weight[lanes, lanes, 1, 1] += 1
    else:
        step.conv.weight[lanes, lanes, :2, :2] += 0.25


def _carry_colours(entrance: nn.Module) -> None:
    layer = _packable(entrance)
    assert layer.bias is not None
    weight, bias = layer.weight, layer.bias
    per_group = len(weight) // _GROUPS
    if per_group < 3:
        raise ValueError(f"channels={len(weight)}: the codec needs 3 to a group; use {3 * _GROUPS} or more")
    groups = torch.arange(_GROUPS)
    carriers, source = groups * per_group, groups % weight.shape[1]
    sign = 1 - 2 * (groups // weight.shape[1] % 2).float()
    _silence(entrance, 0.5)
    for lane, anchor in ((0, 0.0), (per_group - 2, _ANCHOR), (per_group - 1, -_ANCHOR)):
        weight[carriers + lane] *= 0.2
        bias[carriers + lane] = anchor
    weight[carriers, source, 1, 1] += sign


def _block_means(pictures: Tensor) -> Tensor:
    """(b, 3, 8h, 8w) -> (b, 4, h, w): mean red, green, blue, and upper minus lower half, each of unit size."""
    light = pictures.mean(dim=1, keepdim=True)
    halves = F.avg_pool2d(light, (4, 8))
    slope = halves[:, :, 0::2] - halves[:, :, 1::2]
    found = torch.cat([F.avg_pool2d(pictures, 8), slope], dim=1)
    return (found - found.mean((0, 2, 3), keepdim=True)) / found.std((0, 2, 3), keepdim=True)


def features(network: nn.Module, layer: nn.Module, *inputs: Tensor) -> Tensor:
    """What a layer of a network sees."""
    kept: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, seen: kept.append(seen[0]))
    network(*inputs)
    hook.remove()
    return kept[0]


def fit(layer: nn.Module, seen: Tensor, targets: Tensor) -> None:
    """Ridge regression of the first rows of a 3x3 convolution."""
    assert isinstance(layer, Packable) and layer.bias is not None
    rows = targets.shape[1]
    size = layer.weight[0].numel() + 1
    gram = torch.zeros(size, size, dtype=torch.float64)
    moment = torch.zeros(size, rows, dtype=torch.float64)
    for feature, target in zip(seen, targets, strict=True):
        columns = F.unfold(feature[None], 3, padding=1)[0].T
        columns = torch.cat([columns, torch.ones(len(columns), 1)], dim=1).double()
        gram += columns.T @ columns
        moment += columns.T @ target.flatten(1).T.double()
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    solution = torch.linalg.solve(gram, moment).float()
    layer.weight[:rows] = solution[:-1].T.reshape(rows, *layer.weight.shape[1:])
    layer.bias[:rows] = solution[-1]
