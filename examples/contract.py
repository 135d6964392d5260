"""The reference's own import names: scripts written for them run unchanged, and paint what the reference paints."""

from pathlib import Path

from PIL import Image

import modules.shared as shared
from modules.processing import StableDiffusionProcessingImg2Img, process_images

PICTURES = Path(__file__).parent / "pictures"

p = StableDiffusionProcessingImg2Img(
    sd_model=shared.sd_model,
    outpath_samples="outputs",
    prompt="a red sports car on a road",
    init_images=[Image.open(PICTURES / "car.png")],
    mask=Image.open(PICTURES / "car-mask.png"),
    inpainting_fill=1,
    inpaint_full_res=False,
    width=128,
    height=128,
    steps=12,
    seed=7,
    sampler_name="Euler a",
    denoising_strength=0.9,
    override_settings={"randn_source": "CPU"},
)
processed = process_images(p)
processed.images[0].save("red-car.png")
print(processed.info)
