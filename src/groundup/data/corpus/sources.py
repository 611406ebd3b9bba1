"""Finding a source: a name, a file or a folder, as a list of files."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path, PurePosixPath

from groundup.data.corpus.builtin import builtin
from groundup.data.corpus.compression import SUFFIXES
from groundup.data.corpus.files import JSONL, TEXT, File, Listing, kind_of, stamp
from groundup.data.errors import DataError
from groundup.data.lock import LOCK_NAME

__all__ = ["find"]

_VALID = (
    f"valid are {' '.join((*TEXT, *JSONL))}, each also compressed ({' '.join(SUFFIXES)}), "
    "or a folder of them"
)


def find(source: str, field: str = "source") -> Listing:
    """The files of `source`: "python" (the built-in corpus), or the path of a file or folder.

    In a folder, files of an unknown kind, hidden ones, linked folders and folders of prepared
    tokens are left out and counted. Errors: `DataError` if there is nothing to read.
    """
    if source == "python":
        return builtin()
    path = Path(source).expanduser()
    if path.is_file():
        kind = kind_of(path)
        if kind is None:
            raise _invalid(field, source, f"{path.name} is of an unknown kind")
        return Listing(_stem(path.name), path.parent, (stamp(path.parent, path.name, kind),), {})
    if not path.is_dir():
        raise _invalid(field, source, "there is no such file or folder")
    files, skipped = _walk(path)
    if not files:
        counts = ", ".join(f"{count} {what}" for what, count in skipped.items())
        raise _invalid(field, source, f"the folder holds no text ({counts or 'it is empty'})")
    return Listing(_stem(path.resolve().name), path, files, skipped)


def _invalid(field: str, source: str, reason: str) -> DataError:
    name = "; or 'python'" if field == "source" else ""
    return DataError(f"{field}={source!r} is not valid: {reason}; {_VALID}{name}")


def _walk(root: Path) -> tuple[tuple[File, ...], dict[str, int]]:
    found: list[File] = []
    skipped: Counter[str] = Counter()

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error

    for folder, names, files in os.walk(root, onerror=fail):
        here = Path(folder)
        if LOCK_NAME in files:
            skipped["folders of prepared tokens"] += 1
            names.clear()
            continue
        for name in list(names):
            if name.startswith("."):
                skipped["hidden folders"] += 1
                names.remove(name)
            elif (here / name).is_symlink():
                skipped["linked folders"] += 1
                names.remove(name)
        for name in files:
            path = PurePosixPath((here / name).relative_to(root).as_posix())
            kind = kind_of(path)
            if name.startswith("."):
                skipped["hidden files"] += 1
            elif kind is None:
                skipped[f"files of unknown kind ({path.suffix or 'no suffix'})"] += 1
            else:
                found.append(stamp(root, str(path), kind))
    return tuple(sorted(found, key=lambda file: file.path)), dict(sorted(skipped.items()))


def _stem(name: str) -> str:
    """A file's or folder's name without its suffixes, fit for the name of a folder."""
    path = PurePosixPath(name)
    while path.suffix.lower() in (*SUFFIXES, *TEXT, *JSONL):
        path = path.with_suffix("")
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in path.name).strip(".-")
    return kept[:60] or "text"
