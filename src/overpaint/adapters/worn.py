"""All adapters of a model's torch networks: LoRAs in the weights, hypernetworks in the attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from torch import nn

from overpaint.adapters.hypernet import Hypernet, check_widths, wear_hypernets
from overpaint.adapters.wear import AdaptedNetworks, WornLora
from overpaint.settings import Quirks


class WornAdapters:
    """What the networks wear just now. To put on what is worn already costs nothing."""

    def __init__(self, unet: nn.Module, texts: Sequence[nn.Module]) -> None:
        self.unet, self.texts = unet, texts
        self._hypernets: list[tuple[Hypernet, float]] = []

    @cached_property
    def _adapted(self) -> AdaptedNetworks:
        return AdaptedNetworks(self)  # NOTE: it ties networks to themselves, so not before it is needed

    def wear(
        self,
        loras: Sequence[WornLora],
        hypernets: Sequence[tuple[Hypernet, float]],
        quirks: Quirks,
        *,
        functional: bool = False,
    ) -> tuple[int, ...]:
        """Exactly these, in this order; returns of each LoRA the number of layers that do not fit.

        HYP-1: a hypernetwork for other widths changes nothing in the reference, which does not say so.
        """
        counts = self._adapted.wear(loras, quirks, functional=functional)
        if not quirks.ill_fitting_networks_pass:
            for hypernet, _ in hypernets:
                check_widths(hypernet, self.unet)
        if list(hypernets) != self._hypernets:
            wear_hypernets(self.unet, hypernets)
            self._hypernets = list(hypernets)
        return counts
