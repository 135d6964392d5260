"""Repaint the house and nothing else: repainted.png. Every pixel outside the softened mask is the source's own."""

from pathlib import Path

from PIL import ImageChops

from overpaint import Engine, Img2ImgRequest, open_picture

PICTURES = Path(__file__).parent / "pictures"

lake = open_picture(PICTURES / "lake.png")
request = Img2ImgRequest(
    images=(lake,),
    prompt="a cottage with a thatched roof",
    negative_prompt="blurry",
    mask=open_picture(PICTURES / "house-mask.png"),  # white: repaint
    only_masked=True,  # paint the house's surroundings at full size, and paste them back
    padding=24,
    width=256,  # the size the crop is painted at; the result keeps the source's size
    height=256,
    strength=0.8,
    seed=42,
)

with Engine() as engine:
    picture = engine.paint(request).images[0]

picture.save("repainted.png")
changed = ImageChops.difference(picture, lake).getbbox()
print(f"size {picture.size}, changed only inside {changed}")
assert picture.size == lake.size
assert picture.crop((160, 0, 256, 192)).tobytes() == lake.crop((160, 0, 256, 192)).tobytes()
