"""JSONL: one JSON object per line, one document per object."""

from __future__ import annotations

import json
from collections.abc import Iterator

from groundup.data.corpus.compression import Openable
from groundup.data.corpus.lines import line_number, lines
from groundup.data.errors import DataError

__all__ = ["read_jsonl"]


def read_jsonl(path: Openable, start: int, stop: int, field: str) -> Iterator[str]:
    """`field` of the lines that start at bytes start..stop-1; blank lines are none.

    Errors: `DataError` naming the line and what is wrong with it.
    """
    for offset, line in lines(path, start, stop):
        if line.isspace():
            continue
        try:
            yield _parse(line.removeprefix(b"\xef\xbb\xbf") if offset == 0 else line, field)
        except ValueError as error:
            raise DataError(f"{path}, line {line_number(path, offset)}: {error}") from error


def _parse(line: bytes, field: str) -> str:
    try:
        values = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start} of the line") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON value: {error}; each line must be a JSON object") from error
    if not isinstance(values, dict):
        raise ValueError(f"a JSON {type(values).__name__}; each line must be a JSON object")
    if field not in values:
        there = ", ".join(repr(name) for name in list(values)[:12]) or "none"
        raise ValueError(f"there is no text_field {field!r}; the line's fields: {there}")
    text = values[field]
    if not isinstance(text, str):
        raise ValueError(f"text_field {field!r} is {type(text).__name__}; it must be a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text_field {field!r} holds half a surrogate pair at character {error.start}, "
            "which is no Unicode text"
        ) from error
    return text
