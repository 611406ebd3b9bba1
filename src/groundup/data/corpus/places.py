"""Where the files of a source are: a folder here, a store that fsspec reaches, or a data set.

A place is a `Path`, or acts like one as far as this package needs: `place / "name"`, `str(place)`
(also what `place_of` makes it from again, in another process), `suffix`, `open`, `resolve`.
"""

from __future__ import annotations

import os
from pathlib import Path

from groundup.data.corpus.dataset import PREFIX, Dataset
from groundup.data.corpus.remote import Remote, is_address
from groundup.data.errors import DataError

__all__ = ["Place", "place_of", "root_of", "state"]

Place = Path | Remote | Dataset


def place_of(root: str) -> Place:
    """The place that `root_of` was asked about."""
    if root.startswith(PREFIX):
        return Dataset(root)
    return Remote(root) if is_address(root) else Path(root)


def root_of(place: Place) -> str:
    """The place as a string for another process."""
    return str(place) if isinstance(place, Path) else place.address


def state(place: Place) -> tuple[int, int | str]:
    """A file's bytes as stored (-1: unknown), and a mark that differs once its content does.

    The mark is the time of modification in nanoseconds of a file here, and what a store or a data
    set has that is nearest to a checksum. Errors: `DataError` if the file is not there.
    """
    if not isinstance(place, Path):
        return place.state()
    try:
        found = os.stat(place)
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {error.strerror}") from error
    return found.st_size, found.st_mtime_ns
