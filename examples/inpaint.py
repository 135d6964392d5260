"""Repaint the car and nothing else: repainted.png. Every pixel outside the softened mask is the source's own."""

from pathlib import Path

from PIL import ImageChops

from overpaint import Engine, Img2ImgRequest, open_picture

PICTURES = Path(__file__).parent / "pictures"

road = open_picture(PICTURES / "car.png")
request = Img2ImgRequest(
    images=(road,),
    prompt="a yellow sports car on a road",
    negative_prompt="blurry",
    mask=open_picture(PICTURES / "car-mask.png"),  # white: repaint
    only_masked=True,  # paint the car's surroundings at full size, and paste them back
    padding=8,
    width=128,  # the size the crop is painted at; the result keeps the source's size
    height=128,
    strength=0.9,
    seed=42,
)

with Engine() as engine:
    picture = engine.paint(request).images[0]

picture.save("repainted.png")
changed = ImageChops.difference(picture, road).getbbox()
print(f"size {picture.size}, changed only inside {changed}")
assert picture.size == road.size
assert picture.crop((0, 0, 128, 50)).tobytes() == road.crop((0, 0, 128, 50)).tobytes()
