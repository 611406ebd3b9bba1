"""The checkpoints of one run: written in the background, and the newest whole one found again."""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from groundup._atomic import sync_folder
from groundup.train.checkpoint import manifest, metadata, names, places, plain_state, reading
from groundup.train.checkpoint.errors import (
    CheckpointError,
    Damaged,
    Unreadable,
    reason,
    together,
)
from groundup.train.checkpoint.staging import Staged
from groundup.train.world import World

FORMAT = 2
# One process may have much more to write than another; one that is gone is noticed at once.
_PATIENCE = timedelta(days=1)


class Checkpoints:
    """The checkpoints of one run, which every process of it has.

    What is done by all processes together is `save`, `wait`, `resume` and `close`: each calls them
    in the same order. What fails on one of them is raised by all.

    Args:
        folder: where they stand; the same for all processes, on a file system that they share.
        keep: how many of the newest stay.
        keep_every: those of steps that are multiples of it stay too.
    """

    def __init__(
        self, folder: Path, world: World, keep: int, keep_every: int | None = None
    ) -> None:
        self.folder = folder
        self._world, self._keep, self._keep_every = world, keep, keep_every
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[list[int]] | None = None
        self._steps: list[int] | None = None

    # ------------------------------------------------------------------ writing

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: dict[str, Any],
        needed: int | None = None,
    ) -> None:
        """Take the checkpoint of `step` completed updates and begin to write it.

        When it returns, what is to be written has been copied to the CPU: training may go on. A
        save that is still running is waited for first. A checkpoint that is there already stays as
        it is.

        Args:
            model: not wrapped by DDP; or sharded by FSDP2.
            state: what JSON can hold, to stand beside the tensors. The keys "step", "format" and
                "optimizer" are taken.
            needed: the step of another checkpoint that must stay.

        Raises:
            CheckpointError: if the one before could not be written: naming folder and reason.
        """
        self.wait()
        tensors = names.of_model(model)
        tensors |= names.of_optimizer(model, optimizer)
        plain = plain_state.gather(model, optimizer)
        whole = {**state, "format": FORMAT, "step": step, "optimizer": plain}
        text = json.dumps(whole, indent=1, sort_keys=True)
        world = replace(self._world, plain=_group(self._world))
        job = _Job(self.folder, step, Staged(tensors, world), text, world)
        self._writing = self._writer.submit(self._write, job, needed)

    def wait(self) -> None:
        """Until what was begun is on the disk and in place, in all processes.

        Raises:
            CheckpointError: if it could not be written: naming folder and reason.
            RuntimeError: PyTorch's, if another process is gone.
        """
        if self._writing is None:
            return
        try:
            self._steps = self._writing.result()
        finally:
            if self._writing.done():
                self._writing = None

    def close(self) -> None:
        """Wait, and end the thread that writes."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """As `close`; but of two errors the first is the one to tell."""
        also = (Exception,) if kind is not None else ()
        with contextlib.suppress(*also):
            self.close()

    def _write(self, job: _Job, needed: int | None) -> list[int]:
        """In the background. Returns the steps of the checkpoints that there are afterwards."""
        try:
            if job.world.share(together(job.world, lambda: self._begin(job))):
                job.write()
                together(job.world, lambda: self._prune(job.step, needed))
            return job.world.share(places.steps_in(self.folder))
        except (Exception, CheckpointException) as error:  # the latter is no Exception
            if self._world.main:
                shutil.rmtree(job.partial, ignore_errors=True)
            if isinstance(error, RuntimeError) and self._world.lost(error):
                raise
            why = error if isinstance(error, CheckpointError) else reason(error)
            raise CheckpointError(
                f"saving the checkpoint of {job.step} updates to {self.folder} failed: {why}"
            ) from error

    def _begin(self, job: _Job) -> bool:
        """On rank 0, make room; whether it is to be written."""
        if not self._world.main or job.place.exists():
            return False
        shutil.rmtree(job.partial, ignore_errors=True)
        job.partial.mkdir(parents=True)
        return True

    def _prune(self, newest: int, needed: int | None) -> None:
        if not self._world.main:
            return
        for step in places.steps_in(self.folder)[: -self._keep]:
            kept = self._keep_every is not None and step % self._keep_every == 0
            if step not in (newest, needed) and not kept:
                places.remove(self.folder, step)

    # ------------------------------------------------------------------ reading

    def resume(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, note: Callable[[str], None]
    ) -> tuple[int, dict[str, Any]] | None:
        """Read the newest whole checkpoint into model and optimizer, in place.

        Where it is damaged or cannot be read, the one before is. What was passed over is named by
        `note` (on rank 0) and renamed, to step-XXXXXXXX.damaged or .unreadable: what the run
        records from here on does not belong to it.

        Returns:
            its step and its plain data; None if there is no checkpoint.

        Raises:
            CheckpointError: if one is of another model or optimizer; if there are checkpoints and
                none can be used, naming each. Then all stay where they are.
        """
        self.wait()
        say = note if self._world.main else lambda _: None
        if self._world.main:
            places.remove_leftovers(self.folder)
        steps = self._world.share(places.steps_in(self.folder))
        failed: dict[int, Damaged | Unreadable] = {}
        for step in reversed(steps):
            try:
                state = reading.load(self.folder, step, model, optimizer, self._world, say)
            except (Damaged, Unreadable) as error:
                failed[step] = error
                continue
            moved = together(self._world, partial(self._put_aside, failed))
            for line in moved:
                say(line)
            self._steps = self._world.share(places.steps_in(self.folder))
            return step, state
        if failed:
            raise CheckpointError(
                f"{self.folder}: none of the checkpoints can be used. "
                + "; ".join(str(error) for error in failed.values())
            )
        return None

    def _put_aside(self, failed: dict[int, Damaged | Unreadable]) -> list[str]:
        """What there is to say of it."""
        if not self._world.main:
            return []
        return [
            f"{error}. It is {places.set_aside(self.folder, step, error.word).name} now, and the "
            "one before is used"
            for step, error in failed.items()
        ]

    # ------------------------------------------------------------------ what there is

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, rising; the same in all processes after `resume`
        or `wait`. What is still being written is not among them."""
        return places.steps_in(self.folder) if self._steps is None else list(self._steps)

    def states(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Steps and plain data of the complete checkpoints, rising; damaged ones are left out."""
        return places.states(self.folder)

    def remove(self, step: int) -> None:
        """Remove a checkpoint; one process does, before `resume`."""
        places.remove(self.folder, step)


class _Job:
    """One checkpoint to be written."""

    def __init__(self, folder: Path, step: int, staged: Staged, text: str, world: World) -> None:
        self.folder, self.step, self.world = folder, step, world
        self.place = places.place_of(folder, step)
        self.partial = places.partial_of(folder, step)
        self._staged, self._text = staged, text

    def write(self) -> None:
        """All of it; it is in place when the last file is on the disk."""
        self._tensors()
        mine = together(self.world, self._own)
        entries = {name: one for part in self.world.gather(mine) for name, one in part.items()}
        together(self.world, lambda: self._finish(entries) if self.world.main else None)

    def _tensors(self) -> None:
        # Copied ahead from a GPU, as DCP would otherwise do, is nothing.
        writer = FileSystemWriter(self.partial, sync_files=True, per_thread_copy_ahead=0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            about = dcp.save(
                {},
                storage_writer=writer,
                planner=self._staged,
                process_group=self.world.plain,
                no_dist=self.world.size == 1,
            )
        if missing := self._staged.names - about.state_dict_metadata.keys():
            raise CheckpointError(f"no process wrote {min(missing)}: do all have the same tensors?")

    def _own(self) -> dict[str, manifest.Entry]:
        """What this process has written."""
        found = [path.name for path in self.partial.glob(f"__{self.world.rank}_*")]
        if self.world.main:
            places.write(self.partial / places.STATE, self._text.encode())
            found += [metadata.NAME, places.STATE]
        return {name: manifest.entry(self.partial / name) for name in found}

    def _finish(self, entries: dict[str, manifest.Entry]) -> None:
        for name, expected in entries.items():
            path = self.partial / name
            if not path.exists() or path.stat().st_size != expected.size:
                raise CheckpointError(
                    f"rank 0 does not see {name} of another process: the folder must be on a file "
                    "system that all machines share"
                )
        manifest.save(self.partial, entries)
        sync_folder(self.partial)
        self.partial.rename(self.place)
        sync_folder(self.folder)


def _group(world: World) -> Any:
    """A process group for the thread that writes, apart from that of the main thread."""
    return None if world.size == 1 else _group_beside(world.plain)


@cache
def _group_beside(_: Any) -> Any:
    return dist.new_group(backend="gloo", timeout=_PATIENCE)
