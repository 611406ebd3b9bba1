"""What is wrong with a checkpoint, and how the processes of a run come to agree on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch.distributed.checkpoint.api import CheckpointException

from groundup.train.world import World

T = TypeVar("T")


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, cannot be read or does not fit."""


class Damaged(CheckpointError):
    """What is on the disk is not what was written."""

    word = "damaged"


class Unreadable(CheckpointError):
    """It could not be read; whether it is whole is not known."""

    word = "unreadable"


def together(world: World, work: Callable[[], T]) -> T:
    """Do `work`, in which there is no collective, on every process; what one raises, all raise.

    Returns:
        what it returned on this process.

    Raises:
        CheckpointError: of the lowest rank that failed; another error only where it was raised,
            and as a CheckpointError elsewhere.
    """
    found, error, told = None, None, None
    try:
        found = work()
    except Exception as raised:
        error = raised
        told = error if isinstance(error, CheckpointError) else CheckpointError(reason(error))
    first = next((one for one in world.gather(told) if one is not None), None)
    if error is not None and not isinstance(error, CheckpointError):
        raise error
    if first is not None:
        raise first from error
    return found  # type: ignore[return-value]  # it was returned, for nothing was raised


def cause(error: BaseException) -> BaseException:
    """What is behind it: DCP wraps the errors of its ranks, and PyTorch what a file says."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, OSError):
        inner = inner.__cause__ or inner.__context__
    return inner or error


def reason(error: BaseException) -> str:
    """In one line."""
    error = cause(error)
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
