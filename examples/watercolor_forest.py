"""A watercolour from a picture, by the reference's own import names: watercolor-forest.png."""

from pathlib import Path

from PIL import Image

import modules.shared as shared
from modules.processing import StableDiffusionProcessingImg2Img, process_images

SOURCE = Path(__file__).parent / "pictures" / "forest.png"

p = StableDiffusionProcessingImg2Img(
    sd_model=shared.sd_model,
    prompt="a watercolor painting of a forest",
    init_images=[Image.open(SOURCE)],
    denoising_strength=0.75,
    width=128,
    height=128,
    steps=20,
    seed=1,
    do_not_save_samples=True,
)
process_images(p).images[0].save("watercolor-forest.png")
