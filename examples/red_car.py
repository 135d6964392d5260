"""Another colour for a car and nothing else changed, by the reference's own import names: red-car.png."""

from pathlib import Path

from PIL import Image

import modules.shared as shared
from modules.processing import StableDiffusionProcessingImg2Img, process_images

PICTURES = Path(__file__).parent / "pictures"

p = StableDiffusionProcessingImg2Img(
    sd_model=shared.sd_model,
    prompt="a red sports car on a road",
    init_images=[Image.open(PICTURES / "car.png")],
    mask=Image.open(PICTURES / "car-mask.png"),  # white is repainted
    inpainting_fill=1,
    inpaint_full_res=False,
    denoising_strength=0.9,
    width=128,
    height=128,
    steps=20,
    seed=3,
    do_not_save_samples=True,
)
process_images(p).images[0].save("red-car.png")
