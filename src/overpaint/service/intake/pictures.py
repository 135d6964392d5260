"""The pictures of jobs on their way out."""

from __future__ import annotations

from overpaint.service.jobs import Record, ResultPicture
from overpaint.service.ports import Store
from overpaint.service.problems import ApiError


def picture_file(record: Record, picture: ResultPicture, store: Store) -> bytes:
    """The bytes of a result; a picture that is deleted by now is an error. Reads the disk: call it in a thread."""
    try:
        return store.result_bytes(record.id, picture.file.rpartition("/")[2])
    except FileNotFoundError:
        message = f"{url_of(record, picture)}: the picture was kept long enough and is deleted; paint it again"
        raise ApiError("gone", message) from None


def url_of(record: Record, picture: ResultPicture) -> str:
    return f"/v1/jobs/{record.id}/images/{picture.number}"
