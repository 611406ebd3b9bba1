"""How a run stands: finished, diverged, still going, stopped."""

from __future__ import annotations

from groundup.report.runs import Run

__all__ = ["status"]


def status(run: Run) -> str:
    """One word or two: what its summary says, or what the folder shows where there is none.

    Without a summary a run is “still going” if a process on this machine holds its folder.
    """
    if run.diverged:
        return "diverged"
    if run.summary:
        return str(run.summary.get("status", "unknown"))
    return "still going" if _held(run) else "stopped"


def _held(run: Run) -> bool:
    """Whether the trainer's lock (`train.folder.locked`) is taken."""
    try:
        import fcntl

        with open(run.folder / ".lock", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):  # not a Unix, no lock, a file system without locks
        return False
    return False
