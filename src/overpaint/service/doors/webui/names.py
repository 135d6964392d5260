"""What clients of the reference call the fields of our requests: complaints name what they sent."""

from __future__ import annotations

import re
from collections.abc import Mapping

from overpaint.errors import RequestError
from overpaint.other_names import REFERENCE, REFERENCE_EXTRAS

# Complaints may be about two fields at once.
_PAINTING: Mapping[str, str] = {
    **REFERENCE,
    "batch_size x iterations": "batch_size x n_iter",
    "hires.width x height": "hr_scale",
}
_PART = re.compile(r"([a-z_]+)(\[\d+\])?(.*)", re.DOTALL)


def as_they_call_it(error: RequestError, path: str) -> RequestError:
    """The same complaint of the field that the client sent; each of the two kinds of job has names of its own."""
    name = _their_name(error.field, _images_of(path) if "/extra-" in path else _PAINTING)
    return error if name == error.field else type(error)(name, error.value, error.remedy)


def _images_of(path: str) -> Mapping[str, str]:
    return {**REFERENCE_EXTRAS, "images": "imageList" if "batch" in path else "image"}


def _their_name(field: str, names: Mapping[str, str]) -> str:
    found = _PART.fullmatch(field)
    if field in names or found is None:
        return names.get(field, field)
    name, place, rest = found.groups()
    if name not in names:
        return field
    return names[name] + ("" if names[name] == "image" else place or "") + rest
