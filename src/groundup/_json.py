"""JSON from files that may be damaged, and JSON that carries a checksum of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["parse", "seal", "unseal"]

_SEAL = "sha256"


def parse(content: str | bytes) -> Any:
    """The value of a JSON text; bytes are UTF-8.

    Errors: `ValueError`, also for what is nested deeper than Python can read.
    """
    try:
        return json.loads(content if isinstance(content, str) else content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def seal(values: Mapping[str, Any], indent: int | None = None) -> bytes:
    """A JSON object of `values` and their checksum, for files that only this program writes: a
    number that has changed in one would be taken for what was written."""
    sealed = {**values, _SEAL: _digest(values)}
    return (json.dumps(sealed, indent=indent) + "\n").encode()


def unseal(content: bytes) -> dict[str, Any]:
    """The values that `seal` was given. Errors: `ValueError` if they have changed since."""
    values = parse(content)
    if not isinstance(values, dict) or _SEAL not in values:
        raise ValueError("it has no checksum")
    if values.pop(_SEAL) != _digest(values):
        raise ValueError("its checksum does not match")
    return values


def _digest(values: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(values, sort_keys=True)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return hashlib.sha256(text.encode()).hexdigest()
