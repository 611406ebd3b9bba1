"""Finding a source: a name, a file, a folder, an address or a data set, as a list of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath

from groundup.data.corpus import dataset as datasets
from groundup.data.corpus import remote
from groundup.data.corpus.builtin import builtin
from groundup.data.corpus.compression import SUFFIXES
from groundup.data.corpus.files import File, Listing, stamp
from groundup.data.corpus.folders import matched, sorted_out, walk
from groundup.data.corpus.kinds import JSONL, PARQUET, TEXT, VALID, kind_of
from groundup.data.corpus.places import Place
from groundup.data.errors import DataError

__all__ = ["find"]

_REQUESTS = 16  # at the same time, for the states of files in a store
_VALID = (
    f"valid are {VALID}, a folder of them or a pattern (*, **), an address such as "
    "s3://bucket/folder, or dataset:NAME?config=…&split=…"
)


def find(source: str, field: str = "source") -> Listing:
    """The files of `source`, which is spelled as docs/data.md says.

    In a folder, files of an unknown kind, hidden ones, linked folders and folders of prepared
    tokens are left out and counted. Errors: `DataError` if there is nothing to read.
    """
    if source == "python":
        return builtin()
    for fits, listing in _KINDS:
        if fits(source):
            return listing(source, field)
    return _local(Path(source).expanduser(), source, field)


def _local(path: Path, source: str, field: str) -> Listing:
    skipped: Counter[str] = Counter()
    if path.is_file():
        if kind_of(path) is None:
            raise _invalid(field, source, f"{path.name} is of an unknown kind")
        root, paths, name = path.parent, [path.name], path.name
    elif path.is_dir() and datasets.is_saved(path):
        raise _invalid(
            field,
            source,
            "the folder is a data set that save_to_disk has written, which is read as "
            f"{field}={datasets.PREFIX + str(path)!r}",
        )
    elif path.is_dir():
        root, paths, name = path, walk(path, skipped), path.resolve().name
    elif any(character in source for character in "*["):
        root, paths = matched(str(path))
        name = root.resolve().name
    else:
        raise _invalid(field, source, "there is no such file or folder")
    kinds = _kinds(field, source, paths, skipped)
    files = tuple(stamp(root, path, kind) for path, kind in kinds.items())
    return Listing(_stem(name), root, files, _counted(skipped))


def _remote(source: str, field: str) -> Listing:
    root, paths = remote.found(source, field)
    skipped: Counter[str] = Counter()
    kinds = _kinds(field, source, paths, skipped)
    with ThreadPoolExecutor(max_workers=_REQUESTS) as pool:
        files = tuple(pool.map(partial(_stamped, root), kinds.items()))
    name = next(iter(kinds)) if len(kinds) == 1 else str(root)
    return Listing(_stem(name), root, files, _counted(skipped), source)


def _dataset(source: str, field: str) -> Listing:
    root, shards = datasets.dataset(source, field)
    files = tuple(stamp(root, shard, "dataset") for shard in shards)
    name = source.removeprefix(datasets.PREFIX).partition("?")[0]
    return Listing(_stem(name), root, files, {}, root.address)


# What a source is called, and how it is found; anything else is a path.
_KINDS: tuple[tuple[Callable[[str], bool], Callable[[str, str], Listing]], ...] = (
    (lambda source: source.startswith(datasets.PREFIX), _dataset),
    (
        lambda source: source.startswith("file://"),
        lambda source, field: find(source.removeprefix("file://"), field),
    ),
    (remote.is_address, _remote),
)


def _stamped(root: Place, entry: tuple[str, str]) -> File:
    return stamp(root, *entry)


def _kinds(field: str, source: str, paths: Iterable[str], skipped: Counter[str]) -> dict[str, str]:
    kinds = sorted_out(paths, skipped)
    if not kinds:
        counts = ", ".join(f"{count} {what}" for what, count in _counted(skipped).items())
        raise _invalid(field, source, f"the folder holds no text ({counts or 'it is empty'})")
    return kinds


def _counted(skipped: Counter[str]) -> dict[str, int]:
    return dict(sorted(skipped.items()))


def _invalid(field: str, source: str, reason: str) -> DataError:
    name = "; or 'python'" if field == "source" else ""
    return DataError(f"{field}={source!r} is not valid: {reason}; {_VALID}{name}")


def _stem(name: str) -> str:
    """A file's or folder's name without its suffixes, fit for the name of a folder."""
    path = PurePosixPath(PurePosixPath(name.partition("?")[0]).name)
    while path.suffix.lower() in (*SUFFIXES, *TEXT, *JSONL, *PARQUET):
        path = path.with_suffix("")
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in path.name).strip(".-")
    return kept[:60] or "text"
