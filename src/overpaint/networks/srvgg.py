"""SRVGGNetCompact, Real-ESRGAN's small network: a plain chain at the picture's own size, enlarged in its last step.

Wang et al. 2021, arXiv:2107.10833; the parameters are named as in its files (realesr-general-x4v3, realesr-animevideo).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.networks.layers import Conv2d

_COLOURS = 3


@dataclass(frozen=True)
class SRVGGSpec:
    """Sizes, all of which the shapes of a file tell."""

    features: int
    convolutions: int  # between the first and the last
    scale: int


class SRVGGNet(nn.Module):
    """Colours in 0..1 (b, 3, h, w) to (b, 3, scale * h, scale * w): what is missing to the enlarged pixels is added."""

    def __init__(self, spec: SRVGGSpec) -> None:
        super().__init__()
        self.spec = spec
        features = spec.features
        layers: list[nn.Module] = [Conv2d(_COLOURS, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(spec.convolutions):
            layers += [Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        layers.append(Conv2d(features, _COLOURS * spec.scale**2, 3, padding=1))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        details: Tensor = F.pixel_shuffle(self.body(x), self.spec.scale)
        return details + F.interpolate(x, scale_factor=float(self.spec.scale), mode="nearest")


def srvgg_spec(shapes: Mapping[str, tuple[int, ...]]) -> SRVGGSpec | None:
    """The network whose parameters have these names and shapes; None: it is none.

    NOTE: without PReLU a file does not say which activation it was trained with, so that is no such network here.
    """
    convolutions = sorted(int(key.split(".")[1]) for key, shape in shapes.items() if _is_weight(key, len(shape), 4))
    slopes = sorted(int(key.split(".")[1]) for key, shape in shapes.items() if _is_weight(key, len(shape), 1))
    if len(convolutions) < 2 or convolutions != list(range(0, 2 * len(convolutions), 2)):
        return None
    if slopes != [each + 1 for each in convolutions[:-1]]:
        return None
    first, last = shapes["body.0.weight"], shapes[f"body.{convolutions[-1]}.weight"]
    unfolded, rest = divmod(last[0], _COLOURS)
    scale = math.isqrt(unfolded)
    if rest or scale == 0 or scale**2 != unfolded or first[0] == 0 or first[1] != _COLOURS:
        return None
    return SRVGGSpec(first[0], len(convolutions) - 2, scale)


def _is_weight(key: str, dimensions: int, wanted: int) -> bool:
    return dimensions == wanted and re.fullmatch(r"body\.\d{1,4}\.weight", key) is not None
