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

from groundup._atomic import naming
from groundup.measure import Measurements
from groundup.train import records

_LAG = 2  # updates
_SKETCH = "sketch/"


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

    Args:
        written: called for every update with its lines in the two files, and with those of its
            numbers that are infinite or NaN, which stand in the first as null.
        writes: false in processes that only take part: all is the same but for the files.
    """

    def __init__(
        self,
        folder: Path,
        start: int,
        written: Callable[[dict[str, Any], dict[str, Any], dict[str, float]], None],
        peak_tokens_per_second: float | None = None,
        writes: bool = True,
    ) -> None:
        self._folder = folder
        self._writes = writes
        self._files: dict[str, IO[str]] = {}
        if writes:
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
        self._files[name] = open(self._path(name), "a", encoding="utf-8")  # noqa: SIM115

    def measured(self, step: int, found: Measurements) -> None:
        """Write what was measured after `step` updates, if anything was; sketches, which are large
        and not for reading, to a file of their own. What is infinite or NaN is left out."""
        found = {name: value for name, value in found.items() if _is_finite(value)}
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

        An update whose `values` are not all finite was not made: its line says "skipped".
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
        # Not as soon as a copy has arrived: what follows from a line, such as looking at a batch
        # again, all processes must do after the same update.
        while len(self._pending) > _in_flight(arrived):
            self._write()

    def _write(self) -> None:
        pending = self._pending.popleft()
        if pending.arrived is not None:
            pending.arrived.synchronize()
        values = dict(zip(pending.names, pending.values.tolist(), strict=True))
        line = {"step": pending.line["step"]} | values | pending.line
        broken = {k: v for k, v in line.items() if isinstance(v, float) and not math.isfinite(v)}
        metrics = line | dict.fromkeys(broken)
        if broken.keys() & values.keys():
            metrics["skipped"] = True
        self._append("metrics", metrics)
        self._append("timing", pending.timing)
        self._written(metrics, pending.timing, broken)

    def _append(self, name: str, line: dict[str, Any]) -> None:
        if not self._writes:
            return
        if name not in self._files:
            self._open(name)
        with naming(self._path(name)):
            self._files[name].write(json.dumps(line) + "\n")
            self._files[name].flush()

    def flush(self) -> None:
        """Write what is pending; on return all files are on the disk."""
        while self._pending:
            self._write()
        for name, file in self._files.items():
            with naming(self._path(name)):
                file.flush()
                os.fsync(file.fileno())

    def close(self) -> None:
        for name, file in self._files.items():
            with naming(self._path(name)):  # what a full disk did not take is tried once more
                file.close()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"


@dataclass(frozen=True)
class Past:
    """What went before: the last lines of metrics.jsonl, and in how many of all an update was
    skipped."""

    lines: list[dict[str, Any]]
    skipped: int

    @classmethod
    def of(cls, folder: Path, window: int) -> Past:
        """Of the run in `folder`, at most `window` lines."""
        last: deque[dict[str, Any]] = deque(maxlen=window)
        skipped = 0
        for line in records.lines(folder / "metrics.jsonl"):
            skipped += line.get("skipped") is True
            last.append(line)
        return cls(list(last), skipped)


def _place(line: dict[str, Any]) -> int:
    """The update before which a line stands; one that tells of a return, where that led."""
    return line.get("to", line["step"])


def _in_flight(arrived: torch.cuda.Event | None) -> int:
    """Updates that may wait to be written."""
    return 0 if arrived is None else _LAG


def _is_finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


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
            for number, raw in enumerate(file, start=1):
                if not raw.endswith(b"\n"):
                    break
                line = records.line(path, number, raw)
                if complete and line["step"] != found:
                    raise ValueError(
                        f"{path}, line {number} is of update {line['step']} instead of {found}: "
                        "the file was changed. Start again in another folder"
                    )
                if _place(line) >= start:
                    break
                keep += len(raw)
                found += 1
        os.truncate(path, keep)
    if complete and found < start:
        raise ValueError(
            f"{path} holds {found} updates, but the checkpoint stands at {start}: the file was "
            "changed. Start again in another folder"
        )
