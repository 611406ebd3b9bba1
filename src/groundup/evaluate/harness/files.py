"""Files with the rows of tasks: which of a folder belongs to a task, and what is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup._json import parse
from groundup.data.corpus.compression import SUFFIXES, open_stream
from groundup.data.errors import DataError

Files = Path | Mapping[str, Path]
"""A folder with files named after tasks, or the file of each task."""

_ENDINGS = tuple(
    f"{kind}{packed}" for kind in (".jsonl", ".json", ".ndjson") for packed in ("", *SUFFIXES)
)
# What the files of a split are called.
_SPLITS = {"test": ("test",), "validation": ("validation", "valid", "val", "dev")}


def find(files: Files, task: str, split: str, others: Sequence[str] = ()) -> Path:
    """The file that holds the rows of a task.

    In a folder it is called TASK.jsonl, or TASK and "_", "-" or "." and anything; .json as well,
    and both compressed. Of several it is the one that is named after `split`, "test" or
    "validation", on which lm-eval evaluates the task.

    Args:
        others: tasks with longer names, whose files are not this one's.

    Raises:
        DataError: if there is none, or more than one.
    """
    if isinstance(files, Mapping):
        if task not in files:
            raise DataError(f"no file is given for task {task!r}: there are {', '.join(files)}")
        return files[task]
    if not files.is_dir():
        raise DataError(f"task_files={str(files)!r} is not valid: it is no folder")
    there = sorted(path for path in files.iterdir() if path.name.lower().endswith(_ENDINGS))
    longer = [name for name in others if name != task and name.startswith(task)]
    own = [
        path
        for path in there
        if _belongs(path, task) and not any(_belongs(path, name) for name in longer)
    ]
    chosen = own
    if len(own) > 1:
        exact = [path for path in own if _stem(path) == task]
        chosen = exact or [path for path in own if _is_of(path, task, split)]
    if len(chosen) == 1:
        return chosen[0]
    if own:
        names = ", ".join(path.name for path in own)
        raise DataError(
            f"{files} holds more than one file for task {task!r}: {names}; lm-eval evaluates it on "
            f"its {split} split: name one file {task}.jsonl, or leave only one there"
        )
    shown = ", ".join(path.name for path in there[:12]) or "none"
    raise DataError(
        f"{files} holds no file for task {task!r}: it must be called {task}.jsonl or {task}_…, "
        f"compressed or not; JSON files there: {shown}"
    )


def _stem(path: Path) -> str:
    return path.name[: -len(next(end for end in _ENDINGS if path.name.lower().endswith(end)))]


def _belongs(path: Path, task: str) -> bool:
    return re.match(rf"{re.escape(task)}(?![^_.-])", _stem(path)) is not None


def _is_of(path: Path, task: str, split: str) -> bool:
    words = re.split(r"[_.-]", _stem(path).removeprefix(task).lower())
    return any(name in words for name in _SPLITS[split])


def read(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects in a file, JSONL or one JSON array, each with where it stands, in words.

    Raises:
        DataError: naming the file, and the line of what is no JSON object.
    """
    with open_stream(path) as stream:
        content = stream.read().removeprefix(b"\xef\xbb\xbf")
    if content.lstrip().startswith(b"["):
        try:
            values = parse(content)
        except ValueError as error:
            raise DataError(f"{path}: not a JSON value: {error}") from error
        rows = [(f"{path}, row {place}", value) for place, value in enumerate(values, 1)]
    else:
        rows = [
            (f"{path}, line {place}", _line(f"{path}, line {place}", line))
            for place, line in enumerate(content.split(b"\n"), 1)
            if line.strip()
        ]
    for where, value in rows:
        if not isinstance(value, dict):
            raise DataError(f"{where}: a JSON {type(value).__name__}; it must be an object")
    if not rows:
        raise DataError(f"{path} is empty")
    return rows


def _line(where: str, line: bytes) -> Any:
    try:
        return parse(line)
    except ValueError as error:
        raise DataError(f"{where}: not a JSON value: {error}") from error
