"""`import modules.shared as shared`: the one place with process-wide state, because that is its job.

`opts` are the options in force, `cmd_opts` names the folders of models, `state` is where the running job stands,
`device` the torch device, and `sd_model` the engine of the configured checkpoint (or the default one), loaded when it
is first asked for.
"""

from __future__ import annotations

from typing import Any

from overpaint.contract.configured import ConfiguredEngine
from overpaint.contract.options import CommandOptions, Options, State

opts = Options()
state = State()
cmd_opts = CommandOptions()

engines = ConfiguredEngine()

__all__ = ["cmd_opts", "engines", "opts", "state"]  # `device` and `sd_model` are made on demand, below


def __getattr__(name: str) -> Any:
    if name == "sd_model":
        return engines.current(opts.snapshot())
    if name == "device":
        import torch

        from overpaint.models.find import choose_device

        return torch.device(choose_device("auto"))
    raise AttributeError(f"module 'modules.shared' has no attribute {name!r}")
