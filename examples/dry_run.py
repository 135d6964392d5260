"""What a job would do, decided in milliseconds, without torch and without a model."""

import sys
from pathlib import Path

from overpaint import Img2ImgRequest, open_picture, plan

PICTURES = Path(__file__).parent / "pictures"

decided = plan(
    Img2ImgRequest(
        images=(open_picture(PICTURES / "car.png"),),
        prompt="a red sports car",
        mask=open_picture(PICTURES / "car-mask.png"),
        only_masked=True,
        sampler="DPM++ 2M Karras",
        strength=0.6,
        seed=42,
        iterations=2,
    )
)
assert decided.mask is not None
print(f"crop {decided.mask.crop}, painted at {decided.geometry.pass_width}x{decided.geometry.pass_height}")
print(f"{decided.sampler.spec.name} on {decided.sampler.scheduler}: {decided.sampler.evaluations} steps")
print(f"from sigma {decided.sampler.start:.2f}; seeds {[each.seed for each in decided.images]}")
for warning in decided.warnings:
    print(warning)
assert "torch" not in sys.modules
