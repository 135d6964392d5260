"""All adapters of a model's torch networks: LoRAs in the weights, hypernetworks in the attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from torch import nn

from overpaint.adapters.hypernet import Hypernet, check_widths, wear_hypernets
from overpaint.adapters.wear import AdaptedNetworks, WornLora
from overpaint.settings import Quirks


class WornAdapters:
    """The adapters that a model's networks have now. To ask for the same ones again costs nothing."""

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
        """Have exactly these, in this order. Returns for each LoRA how many layers it does not fit.

        HYP-1: in the reference a hypernetwork for other widths changes nothing, and no error says so.
        """
        counts = self._adapted.wear(loras, quirks, functional=functional)
        if not quirks.ill_fitting_networks_pass:
            for hypernet, _ in hypernets:
                check_widths(hypernet, self.unet)
        if list(hypernets) != self._hypernets:
            wear_hypernets(self.unet, hypernets)
            self._hypernets = list(hypernets)
        return counts
