"""What marks a folder of prepared files, which is no source."""

from __future__ import annotations

__all__ = ["LOCK_NAME"]

LOCK_NAME = ".groundup-lock"  # an empty file, once a lock
