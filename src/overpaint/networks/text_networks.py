"""Which network a text encoder's specification describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from overpaint.models.specs import TextKind, TextSpec
from overpaint.networks.decoder_text import Qwen3Text
from overpaint.networks.t5_text import T5Text
from overpaint.networks.text import ClipText, OpenClipText

TextNetwork = ClipText | OpenClipText | Qwen3Text | T5Text

_NETWORKS: Mapping[TextKind, Callable[[TextSpec], TextNetwork]] = {
    "clip": ClipText,
    "openclip": OpenClipText,
    "qwen3": Qwen3Text,
    "t5": T5Text,
}


def text_network(spec: TextSpec) -> TextNetwork:
    """The tower a specification describes."""
    return _NETWORKS[spec.kind](spec)
