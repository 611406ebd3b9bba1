"""metrics.jsonl and timing.jsonl: one object an update, the clock only in the latter; and
measurements.jsonl and sketches.jsonl, one object for each update that is measured;
events.jsonl, one for each spike.

Values on a GPU are copied without blocking and written when they have arrived, an update or two
late, so that no step waits for them.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from groundup.measure import Measurements

_LAG = 2  # updates in flight
_SKETCH = "sketch/"


class NonFiniteError(RuntimeError):
    """The loss or the gradient became infinite or NaN."""


@dataclass
class _Pending:
    line: dict[str, Any]
    timing: dict[str, Any]
    values: torch.Tensor
    names: tuple[str, ...]
    arrived: torch.cuda.Event | None


class Recorder:
    """Writes the two files of one run, from update `start` on.

    Lines of updates from `start` on, left by a run that was killed, are cut off first: they are
    computed again.
    """

    def __init__(
        self,
        folder: Path,
        start: int,
        written: Callable[[dict[str, Any], dict[str, Any]], None],
        peak_tokens_per_second: float | None = None,
    ) -> None:
        self._folder = folder
        self._files: dict[str, IO[str]] = {}
        for name in ("metrics", "timing", "measurements", "sketches", "events"):
            _cut(folder / f"{name}.jsonl", start, complete=name == "metrics")
        self._open("metrics")
        self._open("timing")
        self._pending: deque[_Pending] = deque()
        self._written = written
        self._peak = peak_tokens_per_second
        self._seconds = 0.0
        self._clock = time.perf_counter()

    def _open(self, name: str) -> None:
        path = self._folder / f"{name}.jsonl"
        self._files[name] = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def measured(self, step: int, found: Measurements) -> None:
        """Write what was measured after `step` updates, if anything was; sketches, which are large
        and not for reading, to a file of their own."""
        sketches = {
            name.removeprefix(_SKETCH).removesuffix("/layers"): value
            for name, value in found.items()
            if name.startswith(_SKETCH)
        }
        numbers = {name: v for name, v in found.items() if not name.startswith(_SKETCH)}
        for file, line in (("measurements", numbers), ("sketches", sketches)):
            if line:
                self._append(file, {"step": step} | {k: _short(v) for k, v in line.items()})

    def event(self, line: dict[str, Any]) -> None:
        """Write a line to events.jsonl. It stands at its "step", or where it went back "to"."""
        self._append("events", line)

    def lap(self) -> None:
        """An update ends here; what follows until `resume` (evaluation, saving) is not its time."""
        now = time.perf_counter()
        self._seconds, self._clock = now - self._clock, now

    def resume(self) -> None:
        """The clock goes on from here."""
        self._clock = time.perf_counter()

    def record(self, line: dict[str, Any], tokens: int, **values: torch.Tensor) -> None:
        """Write the line of one update of `tokens` tokens: "step", then the 0-dim tensors
        `values`, then the rest of `line`.

        Raises:
            NonFiniteError: if a number is infinite or NaN; it stands in the line as null. Not for
                the `values` of an update that was "skipped".
        """
        stacked = torch.stack([value.detach().float() for value in values.values()])
        arrived = None
        if stacked.is_cuda:
            host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
            host.copy_(stacked, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            stacked = host
        timing = {
            "step": line["step"],
            "seconds": round(self._seconds, 6),
            "tokens_per_second": round(tokens / self._seconds, 1),
        }
        if self._peak is not None:
            timing["utilization"] = round(tokens / self._seconds / self._peak, 4)
        self._pending.append(_Pending(line, timing, stacked, tuple(values), arrived))
        while self._pending and (self._ready() or len(self._pending) > _LAG):
            self._write()

    def _ready(self) -> bool:
        arrived = self._pending[0].arrived
        return arrived is None or arrived.query()

    def _write(self) -> None:
        pending = self._pending.popleft()
        if pending.arrived is not None:
            pending.arrived.synchronize()
        values = dict(zip(pending.names, pending.values.tolist(), strict=True))
        line = {"step": pending.line["step"]} | values | pending.line
        broken = {k: v for k, v in line.items() if isinstance(v, float) and not math.isfinite(v)}
        metrics = line | dict.fromkeys(broken)
        self._append("metrics", metrics)
        self._append("timing", pending.timing)
        self._written(metrics, pending.timing)
        if metrics.get("skipped"):
            broken = {name: value for name, value in broken.items() if name not in values}
        if broken:
            said = ", ".join(f"{name} is {value}" for name, value in broken.items())
            raise NonFiniteError(f"update {metrics['step']}: {said}")

    def _append(self, name: str, line: dict[str, Any]) -> None:
        if name not in self._files:
            self._open(name)
        self._files[name].write(json.dumps(line) + "\n")
        self._files[name].flush()

    def flush(self) -> None:
        """Write what is pending; on return all files are on the disk."""
        while self._pending:
            self._write()
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _place(line: dict[str, Any]) -> int:
    """The update before which a line stands; one that tells of a return, where that led."""
    return line.get("to", line["step"])


def _short(value: Any) -> Any:
    """Seven digits: no measurement has more."""
    if isinstance(value, list):
        return [_short(entry) for entry in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _cut(path: Path, start: int, complete: bool) -> None:
    """Keep the lines of updates before `start`; `complete`: all of them must be there."""
    keep, found = 0, 0
    if path.exists():
        with open(path, "rb") as file:
            for raw in file:
                if not raw.endswith(b"\n") or _place(json.loads(raw)) >= start:
                    break
                keep += len(raw)
                found += 1
        os.truncate(path, keep)
    if complete and found < start:
        raise ValueError(
            f"{path} holds {found} updates, but the checkpoint stands at {start}: the file was "
            "changed. Start again in another folder"
        )
