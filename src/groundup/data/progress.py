"""How far `prepare` is: what it calls, and a display for terminals and logs alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Progress", "show_progress", "silent"]

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total); the phases are the keys of `_NAMES`."""

_NAMES = {
    "read": "reading files",
    "wait": "waiting for another preparation of the same data",
    "tokenizer": "training the tokenizer",
    "encode": "encoding",
    "join": "writing token files",
}


def silent(phase: str, done: int, total: int) -> None:
    """No display."""


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Bars on standard error, one per phase:

        with show_progress() as show:
            prepare(config, progress=show)

    Errors: `ImportError` that says what to install if `rich` is missing.
    """
    try:
        from rich import progress
        from rich.console import Console
    except ImportError as error:
        raise ImportError(
            "showing progress needs the package rich: pip install 'groundup[train]'"
        ) from error
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as display:
        tasks: dict[str, progress.TaskID] = {}
        current: str | None = None

        def show(phase: str, done: int, total: int) -> None:
            nonlocal current
            if current not in (None, phase) and current == "wait":
                display.remove_task(tasks.pop("wait"))
            if phase not in tasks:
                tasks[phase] = display.add_task(_NAMES[phase], total=max(total, 1))
            current = phase
            display.update(tasks[phase], completed=done if total else 1, total=max(total, 1))

        yield show
