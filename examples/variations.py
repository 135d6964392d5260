"""Four relatives of one picture: the same seed, with a little of another mixed in. The model is loaded once."""

from pathlib import Path

from overpaint import Engine, Img2ImgRequest, open_picture

LAKE = Path(__file__).parent / "pictures" / "lake.png"

request = Img2ImgRequest(
    images=(open_picture(LAKE),),
    prompt="an oil painting of a lake",
    strength=0.5,
    steps=12,
    seed=7,
    variation_seed=100,  # 100, 101, 102, 103
    variation_strength=0.2,
    batch_size=2,
    iterations=2,
)

with Engine() as engine:
    result = engine.paint(request)

for picture, subseed in zip(result.images, result.all_subseeds, strict=True):
    picture.save(f"variation-{subseed}.png")
    print(f"variation-{subseed}.png")
