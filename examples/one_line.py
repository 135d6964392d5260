"""A picture and a text in, a picture out: sunset.png in the current folder."""

from pathlib import Path

import overpaint

LAKE = Path(__file__).parent / "pictures" / "lake.png"

overpaint.img2img(LAKE, "a lake at sunset", strength=0.6, seed=1).save("sunset.png")
