"""A server with a folder of checkpoints: `python -m tests.service.grid_server DATA MODELS`."""

from __future__ import annotations

import sys
from pathlib import Path

from overpaint.service import serve
from overpaint.service.config import ServeConfig
from overpaint.settings import Settings

if __name__ == "__main__":
    data, models = map(Path, sys.argv[1:])
    settings = Settings(models_dir=str(models), return_grid=True)
    first = sorted(models.glob("*.safetensors"))[0]
    config = ServeConfig(data=data, port=0, checkpoint=str(first), device="cpu", dtype="float32", settings=settings)
    sys.exit(serve.serve(config, lambda url: print(url, flush=True)))  # noqa: T201
