"""Where a run stands in its data after it has gone back and passed over batches.

The batch of an update is a pure function of its step and of what was passed over: of the rewinds
in rewinds.json, which belongs to the run like its recipe. It is on the disk before anything that
was recorded is cut, so that a run killed at any moment goes on the same way. A rewind in a running
process is nothing else than stopping here and going on from what is on the disk.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup._atomic import atomic_write
from groundup._check import count
from groundup._json import parse
from groundup.train.checkpoint import Checkpoints
from groundup.train.world import ALONE, World

Event = dict[str, Any]


@dataclass(frozen=True)
class Rewind:
    """Back from the update `step` to `to` completed updates, with `batches` passed over there;
    `events` says why: lines of events.jsonl."""

    step: int
    to: int
    batches: int
    events: tuple[Event, ...]


def _rewind(step: int, to: int, batches: int, events: list[Event]) -> Rewind:
    """As rewinds.json has it. Raises: ValueError naming the field that is wrong."""
    for name, value in (("step", step), ("to", to), ("batches", batches)):
        count(name, value, least=0)
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise ValueError("events is not a list of objects")
    return Rewind(step, to, batches, tuple(events))


class GoBack(Exception):
    """Leave the loop and go on from the last checkpoint that belongs to the run."""


class Rewinds:
    """The rewinds of one run, as rewinds.json in its folder holds them. Rank 0 reads and writes it.

    Raises:
        ValueError: if the file is damaged.
    """

    def __init__(self, folder: Path, world: World = ALONE) -> None:
        self._path, self._world = folder / "rewinds.json", world
        self._rewinds = world.on_main(self._read)

    def _read(self) -> tuple[Rewind, ...]:
        if not self._path.exists():
            return ()
        try:
            found = parse(self._path.read_bytes())
            if not isinstance(found, list):
                raise ValueError("it is no list")
            return tuple(_rewind(**rewind) for rewind in found)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self._path} is damaged ({error}): without it the run cannot go on. Use another "
                "folder with --out"
            ) from None

    def __len__(self) -> int:
        return len(self._rewinds)

    def batch(self, step: int) -> int:
        """Which batch of the data update `step` takes."""
        return step + sum(rewind.batches for rewind in self._rewinds if rewind.to <= step)

    def passed(self, step: int) -> int:
        """Batches passed over before `step` updates were completed: what a checkpoint of that step
        knows (not of the rewinds that went back to it)."""
        return sum(rewind.batches for rewind in self._rewinds if rewind.to < step)

    def events(self, step: int) -> Sequence[Event]:
        """What there is to say of the rewinds to `step`."""
        return [e for rewind in self._rewinds if rewind.to == step for e in rewind.events]

    def add(self, step: int, to: int, beyond: int, events: Sequence[Event]) -> int:
        """Go back from the update `step` to `to`, passing over the batches from there through that
        of `step` and `beyond` more. Returns how many; by then it is on the disk."""
        after = self.batch(step) + 1 + beyond
        # Of a course that begins after `to` nothing remains.
        kept = tuple(rewind for rewind in self._rewinds if rewind.to <= to)
        passed = after - to - sum(rewind.batches for rewind in kept)
        told = tuple(event | {"to": to, "passed": passed} for event in events)
        self._rewinds = (*kept, Rewind(step, to, passed, told))
        text = json.dumps([asdict(rewind) for rewind in self._rewinds], indent=1)
        self._world.on_main(lambda: atomic_write(self._path, (text + "\n").encode()))
        return passed

    def discard_undone(self, checkpoints: Checkpoints) -> None:
        """Remove the checkpoints of updates that the last rewind has undone.

        Raises:
            ValueError: if a checkpoint and rewinds.json do not belong to one run.
        """
        self._world.on_main(lambda: self._discard_undone(checkpoints))

    def _discard_undone(self, checkpoints: Checkpoints) -> None:
        for step, state in checkpoints.states():
            passed, expected = state.get("passed", 0), self.passed(step)
            if passed == expected or type(passed) is not int:  # a damaged one is left to `load`
                continue
            if not self._rewinds or step <= self._rewinds[-1].to or passed > expected:
                raise ValueError(
                    f"{self._path}: {expected} batches passed over before update {step}, but its "
                    f"checkpoint knows of {passed}: the file was changed. Use another folder with "
                    "--out"
                )
            checkpoints.remove(step)
