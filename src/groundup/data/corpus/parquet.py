"""Parquet: a column of strings, read a row group at a time and of that a batch of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from groundup.data.corpus.compression import Openable, open_stream
from groundup.data.errors import DataError

__all__ = ["measure_parquet", "read_parquet"]

_ROWS = 1024  # at once, or as many as make `_BUFFER` bytes
_BUFFER = 1 << 20  # bytes of a column that are read at once


def measure_parquet(path: Openable) -> tuple[int, int]:
    """Bytes of all columns before compression, and the number of row groups: from the footer.

    Errors: `DataError` naming the file.
    """
    with _opened(path) as file:
        metadata = file.metadata
        groups = range(metadata.num_row_groups)
        return sum(metadata.row_group(i).total_byte_size for i in groups), len(groups)


def read_parquet(
    path: Openable, start: int, stop: int, field: str, skipped: Counter[str]
) -> Iterator[str]:
    """Column `field` of row groups start..stop-1 (stop -1: the last); nulls go to `skipped`.

    Errors: `DataError` naming the file and the row group, or the columns there are.
    """
    with _opened(path) as file:
        _check_column(path, file.schema_arrow, field)
        for group in range(start, file.metadata.num_row_groups if stop < 0 else stop):
            for values in _values(path, file, group, field):
                for value in values:
                    if value is None:
                        skipped["null documents"] += 1
                    else:
                        yield value


def _check_column(path: Openable, schema: Any, field: str) -> None:
    import pyarrow

    places = schema.get_all_field_indices(field)
    if len(places) != 1:
        there = ", ".join(map(repr, schema.names[:12])) or "none"
        what = "no" if not places else "more than one"
        raise DataError(f"{path}: there is {what} text_field {field!r}; the columns: {there}")
    kind = schema.field(places[0]).type
    content = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    types = pyarrow.types
    if not any(
        is_text(content)
        for is_text in (types.is_string, types.is_large_string, types.is_string_view)
    ):
        raise DataError(f"{path}: text_field {field!r} is a column of {kind}; it must hold strings")


def _values(path: Openable, file: Any, group: int, field: str) -> Iterator[list[str | None]]:
    """The rows of one row group, in batches."""
    row = 0
    try:
        metadata = file.metadata.row_group(group)
        mean = max(1, metadata.total_byte_size // max(1, metadata.num_rows))
        # Unbuffered pages and no threads, so that memory does not grow with the row group.
        batches = file.iter_batches(
            batch_size=min(_ROWS, max(1, _BUFFER // mean)),
            row_groups=[group],
            columns=[field],
            use_threads=False,
        )
        for batch in batches:
            for place in _broken(batch.column(0)):
                row += place
                raise ValueError("it is not UTF-8, or has no valid length")
            values = batch.column(0).to_pylist()
            row += len(values)
            yield values
        if row != metadata.num_rows:
            raise EOFError(f"there are {row} rows of {metadata.num_rows}")
    except GeneratorExit:
        raise
    except Exception as error:  # what a damaged file makes of the library
        raise DataError(
            f"{path}, row group {group}, row {row + 1} of it: the file is damaged: {error!r}"
        ) from error


def _broken(column: Any) -> Iterator[int]:
    """The first row whose text is none; reading alone does not check that."""
    try:
        column.validate(full=True)
    except ValueError:
        for row in range(len(column)):
            try:
                column.slice(row, 1).validate(full=True)
            except ValueError:
                break
        yield row


@contextmanager
def _opened(path: Openable) -> Iterator[Any]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(
            f"{path}: reading .parquet needs the package pyarrow: pip install 'groundup[data]'"
        ) from error
    with open_stream(path) as stream:
        try:
            file = ParquetFile(
                stream, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True
            )
        except Exception as error:
            raise DataError(f"{path}: the file is damaged or no Parquet: {error!r}") from error
        yield file
