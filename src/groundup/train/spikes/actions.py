"""What a run does about a spike: one class for each action that [spikes] can ask for.

Each judges the points of loss and gradient norm in the order of the updates, from what stands in
metrics.jsonl when the run goes on; it keeps nothing that is not in the run's folder. Of several
processes all judge the same points, and so do the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from groundup.measure import Monitor, Verdict
from groundup.train.checkpoint import Checkpoints
from groundup.train.recipe import Recipe
from groundup.train.recorder import Past, Recorder
from groundup.train.spikes import words as spike_words
from groundup.train.spikes.rewinds import Event, GoBack, Rewinds
from groundup.train.spikes.words import Found, Notes, Scene

_SERIES = ("loss", "grad_norm")


class TooManySpikes(RuntimeError):
    """As many spikes were acted upon as the recipe allows, and here is another."""


class Warn:
    """Say so and go on. Points are judged when they are written: nothing waits for the GPU."""

    action = "warn"

    def __init__(
        self,
        recipe: Recipe,
        checkpoints: Checkpoints,
        scene: Scene,
        rewinds: Rewinds,
        recorder: Recorder,
        notes: Notes,
        past: Past,
    ) -> None:
        self._recipe, self._checkpoints = recipe, checkpoints
        self._scene, self._rewinds, self._recorder, self._notes = scene, rewinds, recorder, notes
        config = recipe.spikes
        window = config.window_of(recipe.train.steps)
        self._skipped = past.skipped
        self._monitors = {
            name: Monitor(window, config.threshold, before=[line[name] for line in past.lines])
            for name in config.of
        }

    def begin(self, step: int) -> None:
        """`step` updates are completed."""
        for event in self._rewinds.events(step):
            self._recorder.event(event)

    def allows(self, step: int, loss: Tensor, grad_norm: Tensor) -> bool:
        """Whether the update is to be made whose 0-dimensional loss and gradient norm these are."""
        return True

    def written(self, metrics: Mapping[str, Any]) -> None:
        """The line of an update was recorded.

        Raises:
            GoBack: if the run is to go on from its last checkpoint.
            TooManySpikes: see there.
        """
        if found := self._judge(metrics):
            self._act(metrics["step"], found)
            self._recorder.resume()  # what looking at the batch took is not the next update's

    def finish(self) -> None:
        """The last update was recorded."""
        self._notes.finish()

    def needed(self, step: int) -> int | None:
        """The checkpoint that must stay on the disk at `step`, if one must."""
        return None

    def _judge(self, values: Mapping[str, float | None]) -> Found:
        """The spikes among the next points. What is not finite is one whatever the window."""
        found = {}
        for name in _SERIES:
            value = values[name]
            verdict = self._monitors[name].add(value) if name in self._monitors else None
            if verdict is None and not (value is not None and math.isfinite(value)):
                verdict = Verdict(math.nan, math.nan, math.nan)
            if verdict is not None:
                found[name] = verdict
        return found

    def _act(self, step: int, found: Found) -> None:
        # What is not finite is skipped whatever the action is.
        made = all(math.isfinite(verdict.value) for verdict in found.values())
        events = self._scene.events(step, found, "warn" if made else "skip")
        what = "spike at update" if made else "skipped update"
        self._tell(step, found, events, f"{what} {step}")

    def _tell(self, step: int, found: Found, events: Sequence[Event], what: str) -> None:
        for event in events:
            self._recorder.event(event)
        said = f"{what}: {spike_words.jump(found)}; {spike_words.data(events[0])}"
        self._notes.say(step, said)

    def _stop(self, step: int, found: Found, before: str) -> NoReturn:
        """End the run here. Its line in events.jsonl is of an update that no checkpoint holds: if
        the run is started again, it is cut off and found anew."""
        events = self._scene.events(step, found, "stop")
        for event in events:
            self._recorder.event(event)
        raise TooManySpikes(
            f"update {step}: {spike_words.jump(found)}; {spike_words.data(events[0])}; with "
            f"{before}, which is spikes.limit; it may be raised"
        )


class Skip(Warn):
    """Do not make the update. Loss and gradient norm are read before each one, so the host waits
    for the GPU every time."""

    action = "skip"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._seen: dict[int, tuple[Found, Sequence[Event], str]] = {}

    def allows(self, step: int, loss: Tensor, grad_norm: Tensor) -> bool:
        # As they are written: a run that goes on judges what it finds in metrics.jsonl.
        values = torch.stack([loss.float(), grad_norm.float()]).tolist()
        found = self._judge(dict(zip(_SERIES, values, strict=True)))
        if not found:
            return True
        harmful = _harmful(found)
        if harmful and self._skipped >= self._recipe.spikes.most:
            self._recorder.flush()  # the updates before it, which may wait to be written
            self._stop(step, found, f"skipped updates before it: {self._skipped}")
        # The batch is looked at now, with the model that found it so.
        events = self._scene.events(step, found, "skip" if harmful else "warn")
        what = f"skipped update {step}, a spike" if harmful else f"spike at update {step}"
        self._seen[step] = found, events, what
        self._skipped += harmful
        return not harmful

    def written(self, metrics: Mapping[str, Any]) -> None:
        if seen := self._seen.pop(metrics["step"], None):
            self._tell(metrics["step"], *seen)


class Rewind(Warn):
    """Go back to the last checkpoint of the recipe's own before the spike, and pass over the
    batches from there through the spike's (Chowdhery et al. 2022, arXiv:2204.02311, section 5.1).

    Points are judged when they are written, which they all are before a checkpoint is saved. A
    checkpoint that a signal caused is never gone back to: the run would depend on the signal.
    """

    action = "rewind"

    def needed(self, step: int) -> int:
        return step - step % self._recipe.train.checkpoint_every

    def _act(self, step: int, found: Found) -> None:
        if not _harmful(found):
            super()._act(step, found)
            return
        config, made = self._recipe.spikes, len(self._rewinds)
        if made >= config.most:
            self._stop(step, found, f"rewinds before it: {made}")
        self._checkpoints.wait()
        to = max((n for n in self._checkpoints.steps() if n <= self.needed(step)), default=0)
        events = self._scene.events(step, found, self.action)
        passed = self._rewinds.add(step, to, config.beyond, events)
        self._notes.now(
            f"spike at update {step}: {spike_words.jump(found)}; {spike_words.data(events[0])}; "
            f"going back to {to} completed updates, past {passed} of the data's batches (rewind "
            f"{made + 1} of at most {config.most})"
        )
        raise GoBack


ACTIONS: dict[str, type[Warn]] = {kind.action: kind for kind in (Warn, Skip, Rewind)}


def _harmful(found: Found) -> bool:
    """A point far below the mean is a spike to the score too, but nothing to act upon."""
    return any(verdict.above for verdict in found.values())
