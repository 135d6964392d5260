"""What clients of the reference call the fields of our requests: complaints name what they sent."""

from __future__ import annotations

from overpaint.errors import RequestError
from overpaint.other_names import REFERENCE, REFERENCE_EXTRAS, Names, theirs_of

_PAINTING: Names = {**REFERENCE, "hires.width x height": "hr_scale"}


def as_they_call_it(error: RequestError, path: str) -> RequestError:
    """The same complaint of the field that the client sent; each of the two kinds of job has names of its own."""
    name = theirs_of(error.field, _images_of(path) if "/extra-" in path else _PAINTING)
    return error if name == error.field else type(error)(name, error.value, error.remedy)


def _images_of(path: str) -> Names:
    return {**REFERENCE_EXTRAS, "images": "imageList" if "batch" in path else "image"}
