"""The exceptions of this package; both are `ValueError`."""

from __future__ import annotations

__all__ = ["DataError", "TokenFileError"]


class DataError(ValueError):
    """A source cannot be read as asked; the message names the file, the place and what is valid."""


class TokenFileError(ValueError):
    """A token file is damaged or is none; the message names the path and what is wrong."""
