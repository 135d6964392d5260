"""A manifest as data pipelines write it: Parquet, a column for each field. One line, one request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from overpaint.errors import PictureError
from overpaint.stores import AnyFile

PARQUET_SUFFIX = ".parquet"
_ROWS_AT_ONCE = 1000


def parquet_rows(path: AnyFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line from 1, its fields); what is null says nothing, and lines of nothing else are left out."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise PictureError(f"{path}: Parquet is read by pyarrow; pip install 'overpaint[parquet]'") from None
    number = 0
    try:
        with path.open("rb") as data, ParquetFile(data) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                for line in batch.to_pylist():
                    number += 1
                    fields = {name: value for name, value in line.items() if value is not None}
                    if fields:
                        yield number, fields
    except (ArrowException, OSError) as error:
        raise PictureError(f"{path}: it cannot be read as Parquet ({' '.join(str(error).split())[:200]})") from error
