"""Which network a text encoder's specification describes. What most models do without is loaded when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from overpaint.models.specs import TextKind, TextSpec
from overpaint.networks.text import ClipText, OpenClipText

if TYPE_CHECKING:
    from overpaint.networks.decoder_text import QwenText
    from overpaint.networks.t5_text import T5Text

TextNetwork: TypeAlias = "ClipText | OpenClipText | QwenText | T5Text"


def text_network(spec: TextSpec) -> TextNetwork:
    """The tower a specification describes."""
    return _NETWORKS[spec.kind](spec)


def _qwen(spec: TextSpec) -> TextNetwork:
    from overpaint.networks.decoder_text import QwenText

    return QwenText(spec)


def _t5(spec: TextSpec) -> TextNetwork:
    from overpaint.networks.t5_text import T5Text

    return T5Text(spec)


_NETWORKS: Mapping[TextKind, Callable[[TextSpec], TextNetwork]] = {
    "clip": ClipText,
    "openclip": OpenClipText,
    "qwen3": _qwen,
    "qwen3_stacked": _qwen,
    "qwen25": _qwen,
    "qwen25_edit": _qwen,
    "t5": _t5,
}
