"""`import modules.shared as shared`: the one place with process-wide state, because that is its job.

`opts` are the options in force, `state` is where the running job stands, `device` the torch device, and `sd_model`
the engine of the configured checkpoint (or the default one), loaded when it is first asked for.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from overpaint.contract.configured import ConfiguredEngine
from overpaint.contract.options import Options, State

opts = Options()
state = State()
cmd_opts = SimpleNamespace(
    models_dir=None,
    vae_dir=None,
    taesd_dir=None,
    lora_dir=None,
    embeddings_dir=None,
    hypernetwork_dir=None,
    controlnet_dir=None,
    esrgan_dir=None,
    realesrgan_dir=None,
    swinir_dir=None,
    scunet_dir=None,
    dat_dir=None,
)

_engines = ConfiguredEngine()

__all__ = ["cmd_opts", "opts", "state"]  # `device` and `sd_model` are made on demand, below


def __getattr__(name: str) -> Any:
    if name == "sd_model":
        return _engines.current(opts.snapshot())
    if name == "device":
        import torch

        from overpaint.models.find import choose_device

        return torch.device(choose_device("auto"))
    raise AttributeError(f"module 'modules.shared' has no attribute {name!r}")
