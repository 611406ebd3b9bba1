"""What runs look like in a terminal while they go on, and line by line where there is none."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from groundup.experiment.compare import Planned
from groundup.train.progress import Status

_LEVELS = " ▁▂▃▄▅▆▇█"
_LINES = 10  # per run, where the output is not a terminal


def awake(alphas: Sequence[float]) -> str:
    """How far each layer is awake, shallowest first: one character a layer, full at α = 1."""
    return "".join(_LEVELS[min(int(alpha * 8), 8)] if alpha < 1.0 else "█" for alpha in alphas)


class Display:
    """A live table of runs: progress, loss, tokens/s, time left, and how far each layer is awake.

    Use as a context manager; `watch(run)` gives what `train` reports to.
    """

    def __init__(self, runs: Sequence[Planned], console: Console | None = None) -> None:
        self.console = console or Console()
        self._rows = [_Row(run, self) for run in runs]
        self._live = Live(
            console=self.console, get_renderable=self._render, refresh_per_second=4,
            vertical_overflow="visible",
        )  # fmt: skip

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def watch(self, run: Planned) -> _Row:
        """The watcher of one of the runs."""
        row = next(row for row in self._rows if row.run is run)
        row.start()
        return row

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("run", "", "update", "loss", "held out", "tokens/s", "left"):
            right = heading not in ("run", "")
            table.add_column(heading, justify="right" if right else "left", style="none")
        for row in self._rows:
            table.add_row(*row.cells())
        now = next((row for row in reversed(self._rows) if row.status is not None), None)
        return Group(table, now.layers()) if now else Group(table)


class _Row:
    """One run's line, and the watcher that fills it."""

    def __init__(self, run: Planned, display: Display) -> None:
        self.run = run
        self.status: Status | None = None
        self._display = display
        self._held_out: float | None = None
        self._loss = math.nan
        self._said = ""
        self._first: tuple[float, int] | None = None

    @property
    def name(self) -> str:
        return f"{self.run.variant}, seed {self.run.seed}"

    def start(self) -> None:
        if not self._display.console.is_terminal:
            self._say(f"{self.name}: {self.run.folder}")

    def note(self, message: str) -> None:
        self._said = message
        # A running table has no place for it: it stays above.
        if self.status is not None or not self._display.console.is_terminal:
            self._say(f"{self.name}: {message}")

    def update(self, status: Status) -> None:
        if self._first is None:
            self._first = (time.monotonic(), status.step)
        # A running mean, so that the number can be read.
        keep = 0.0 if math.isnan(self._loss) else min(0.9, status.step / (status.step + 10))
        self._loss = keep * self._loss + (1 - keep) * status.loss if keep else status.loss
        self._held_out = self._held_out if status.eval_loss is None else status.eval_loss
        self.status = status
        every = max(1, status.steps // _LINES)
        if not self._display.console.is_terminal and status.step % every == 0:
            self._say(self._line(status))

    def _say(self, line: str) -> None:
        """A line, above the table where there is one; it is not folded by us."""
        self._display.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def cells(self) -> list[Text | ProgressBar]:
        status = self.status
        if status is None:
            return [Text(self.name), Text(self._said or "waiting")]
        bar = ProgressBar(total=status.steps, completed=status.step, width=24)
        numbers = [
            f"{status.step}/{status.steps}",
            f"{self._loss:.3f}",
            "" if self._held_out is None else f"{self._held_out:.4f}",
            f"{status.tokens_per_second:,.0f}",
            self._left(status),
        ]
        return [Text(self.name), bar, *map(Text, numbers)]

    def layers(self) -> Text:
        """The layers of this run, with how many are at α = 1."""
        assert self.status is not None
        alphas = self.status.alphas
        full = sum(alpha == 1.0 for alpha in alphas)
        text = Text("\nlayers awake  ")
        text.append(awake(alphas), style="cyan")
        text.append(f"  {full} of {len(alphas)} at full strength")
        return text

    def _line(self, status: Status) -> str:
        held_out = "" if self._held_out is None else f"  held out {self._held_out:.4f}"
        return (
            f"{self.name}: {status.step}/{status.steps}  loss {self._loss:.3f}{held_out}  "
            f"{status.tokens_per_second:,.0f} tokens/s  {self._left(status):>5} left  "
            f"layers |{awake(status.alphas)}|"
        )

    def _left(self, status: Status) -> str:
        if status.step >= status.steps:
            return "0:00"
        if self._first is None or status.step == self._first[1]:
            return "?"
        seconds = time.monotonic() - self._first[0]
        left = seconds / (status.step - self._first[1]) * (status.steps - status.step)
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
