"""Watch a job step by step, and stop it half-way: what was finished before is kept."""

from pathlib import Path

from overpaint import (
    Cancelled,
    Control,
    Engine,
    Finished,
    Img2ImgRequest,
    Preview,
    Progress,
    Started,
    Stop,
    open_picture,
)

LAKE = Path(__file__).parent / "pictures" / "lake.png"

request = Img2ImgRequest(images=(open_picture(LAKE),), prompt="a lake in winter", iterations=3, steps=8, seed=1)
control = Control()  # any thread may put a message in

with Engine() as engine:
    for event in engine.run(request, control=control):
        if isinstance(event, Started):
            print(f"{event.images} pictures, {event.steps} steps")
        elif isinstance(event, Progress):
            print(f"step {event.step} of {event.steps}, sigma {event.sigma:.2f}")
            if event.batch == 1:
                control.ask(Stop.CANCEL)  # FINISH_EARLY would decode what there is
        elif isinstance(event, Preview):
            print(f"a preview of {event.image.size}")
        elif isinstance(event, Finished | Cancelled):
            result = event.result

assert result is not None
for number, picture in enumerate(result.images):
    picture.save(f"winter-{number}.png")
print(f"{type(event).__name__}: {len(result.images)} of {request.iterations} kept")
