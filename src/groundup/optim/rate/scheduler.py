"""The values of a step, written into an optimizer's parameter groups: a torch `LRScheduler`.

They are a pure function of the step; nothing is accumulated. Resuming is recomputing.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from groundup._check import count, unknown
from groundup._following import Following, has_updated
from groundup.optim.rate import course
from groundup.optim.rate.change import ON_CHANGE, OnChange, continued
from groundup.optim.rate.counting import Counting, updates
from groundup.optim.rate.plan import Plan
from groundup.optim.rate.writing import Groups
from groundup.schedules import factor
from groundup.schedules.length import Length, check_length, in_steps

GROUP_KEY = "rate_schedule_step"
"""Where the number of completed updates stands in each group of a followed optimizer."""

_FOLLOWED = "_rate_schedule_follows"  # the mark that an optimizer bears while it is followed


class RateSchedule(LRScheduler):
    """A schedule of the rate, and of what else is to go with it; made by `schedule`.

    Attributes:
        last_epoch: completed updates, under the name that torch gives them.
        steps: length of the run in updates, where it was given.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        planned: Plan,
        *,
        tokens_per_step: int | None,
        follow: bool,
        on_change: OnChange,
        blend: Length | None,
        last_epoch: int,
    ) -> None:
        if on_change not in ON_CHANGE:
            raise unknown("on_change", on_change, ON_CHANGE)
        if blend is not None and on_change != "blend":
            raise ValueError(f"blend={blend!r} has no meaning with on_change={on_change!r}")
        if follow and hasattr(optimizer, _FOLLOWED):
            raise RuntimeError("a rate schedule follows this optimizer already: stop() it first")
        self.steps = planned.steps
        self._tokens_per_step = tokens_per_step
        self._on_change = on_change
        self._blend = None if blend is None else self._updates("blend", blend)
        _look_at_peaks(optimizer, last_epoch)
        self._groups = Groups(optimizer, planned)
        self._courses: list[course.AnyCourse] = list(self._groups.given)
        self._following: Following | None = None
        self._stopped = False
        self._change: str | None = None
        self._counting: Counting | None = None
        self._told: set[str] = set()
        self._behind = 0  # updates of an optimizer whose state was loaded without the schedule's
        super().__init__(optimizer, last_epoch)
        if not follow:
            self._counting = Counting(optimizer, self.last_epoch)
        self._handles = self._attach(follow)

    def __repr__(self) -> str:
        rates = ", ".join(f"{values['lr']:.3g}" for values in self.values(self.last_epoch)[:4])
        more = ", …" if len(self._courses) > 4 else ""
        end = "" if self.steps is None else f" of {self.steps}"
        how = ", following" if self._following is not None else ""
        return (
            f"<RateSchedule of {type(self.optimizer).__name__}: step {self.last_epoch}{end}, "
            f"lr {rates}{more}{how}>"
        )

    def __getstate__(self) -> dict[str, Any]:
        """A copy follows no optimizer: copies of optimizers have lost their hooks."""
        return self.__dict__ | {"_following": None, "_handles": []}

    # ------------------------------------------------------------------ the step

    def step(self, epoch: int | None = None) -> None:
        """Count one update: to be called after ``optimizer.step()``.

        With ``follow=True`` it does nothing: the optimizer counts. `epoch` is for torch's own
        combinations of schedulers.
        """
        if self._following is None:
            self._update_lr(epoch)

    def at(self, step: int) -> None:
        """Set everything to its value after `step` completed updates, for loops that know theirs.

        Raises:
            ValueError: if step is not a whole number ≥ 0.
            RuntimeError: after stop(), or while a CUDA graph is captured.
        """
        self._counting = None
        self._set(count("step", step, least=0))

    def rewarm(self, length: Length) -> None:
        """Warm up once more from now on: every rate is multiplied by n/W for the next W = `length`
        updates. After a resume, or where fine-tuning begins; it is kept in the state.

        Raises:
            ValueError: if length is not valid, or longer than what remains of the run.
        """
        updates = self._updates("length", length)
        if self.steps is not None and self.last_epoch + updates > self.steps:
            raise ValueError(
                f"length={length!r} is not valid: of the run of steps={self.steps} "
                f"{max(0, self.steps - self.last_epoch)} updates remain. For a longer run make a "
                "schedule with more steps and load this one's state"
            )
        warmup = factor.linear(updates)
        again = factor.hold(self.last_epoch) >> warmup if self.last_epoch else warmup
        again = again.resolve(self.steps)
        self._courses = [one.times(again) for one in self._courses]
        self._set(self.last_epoch)

    def stop(self) -> None:
        """Leave the optimizer alone from now on, with the values it has; for another schedule."""
        for handle in self._handles:
            handle.remove()
        if self._following is not None:
            self._following.stop()
            delattr(self.optimizer, _FOLLOWED)
        self._handles, self._following, self._stopped = [], None, True

    # ------------------------------------------------------------------ what it says

    def values(self, step: int) -> list[dict[str, float]]:
        """For each group what it sets after `step` updates: "lr" and whatever else. Sets nothing.

        >>> [values["lr"] for values in schedule.values(step=100)]           # doctest: +SKIP
        """
        count("step", step, least=0)
        return [one(step) for one in self._courses]

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Each group's rate as a Python number."""
        return [values["lr"] for values in self.values(self.last_epoch)]

    def get_last_lr(self) -> list[Any]:
        """Each group's rate, as torch gives it: a copy where the group holds a tensor."""
        self._look_at_the_count()
        return super().get_last_lr()

    # ------------------------------------------------------------------ resuming

    def state_dict(self) -> dict[str, Any]:
        """The step and, as JSON, the courses of all groups. Plain data."""
        self._look_at_the_count()
        return {
            "last_epoch": self.last_epoch,
            "given": course.to_json(self._groups.given),
            "courses": course.to_json(self._courses),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the step of `state`, before or after the optimizer's state is loaded.

        Where this schedule is the one that was saved it goes on exactly; otherwise as `on_change`
        says, with a warning. What a changed schedule was gone over to is part of the next state.

        Raises:
            ValueError: if `state` is that of something else, or of more groups than there are; with
                ``on_change="refuse"``, if the schedule has changed.
        """
        if missing := [name for name in ("last_epoch", "given", "courses") if name not in state]:
            raise ValueError(
                f"this is no state of a rate schedule: it lacks {', '.join(missing)}. To go on "
                "after another scheduler, say schedule.at(updates)"
            )
        step = count("last_epoch", state["last_epoch"], least=0)
        given = [one for one in course.from_json(state["given"]) if isinstance(one, course.Course)]
        courses = course.from_json(state["courses"])
        self._courses, said = continued(
            list(zip(given, courses, strict=True)),
            self._groups.given,
            self._groups.constants,
            step,
            self.steps,
            self._on_change,
            self._blend,
        )
        self._set(step)
        if self._counting is not None:
            self._counting.restart(step)
        self._change = said
        self._tell_of_the_change()

    # ------------------------------------------------------------------ inside

    def _initial_step(self) -> None:
        self._step_count = 1
        self._counting = None  # SequentialLR comes here once more; it steps only one at a time
        self._set(self.last_epoch + 1)

    def _update_lr(self, epoch: int | None = None) -> None:
        if epoch is not None:
            self._counting = None
            self._set(epoch)
            return
        if self._step_count == 1 and self._counting is not None:
            self._look_at_the_order()
        self._step_count += 1
        self._advance()

    def _advance(self) -> None:
        if self._behind and self.last_epoch == 0:
            self._say(
                "loaded",
                f"the optimizer's state was loaded, with {self._behind} updates behind it, but the "
                "schedule begins at its first: load the schedule's state too, or say "
                f"schedule.at({self._behind}) (or at(0))",
            )
        if (foreign := self._groups.foreign()) is not None:
            self._say(
                "foreign",
                f"something else has written the rate of group {foreign} since this schedule did "
                "(another scheduler, or the loop), and it is overwritten. To combine schedules, "
                "multiply their factors: f * g",
            )
        # Transformers' Trainer discards what is said in loading. Where that was seen, Python's own
        # filter does not show the same warning twice.
        self._tell_of_the_change(once_more=True)
        self._set(self.last_epoch + 1)

    def _set(self, step: int) -> None:
        if self._stopped:
            raise RuntimeError("this schedule has been stopped: make another one")
        if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "the rate cannot be written while a CUDA graph is captured: every replay would "
                "write it again. Advance the schedule outside, between the replays"
            )
        self.last_epoch = step
        self._behind = 0
        self._groups.write(self._courses, step)
        self._last_lr = self._groups.rates
        if self._following is not None:
            self._following.write(step)
        if self.steps is not None and step > self.steps:
            rates = sorted({values["lr"] for values in self.values(step)})
            self._say(
                "end",
                f"update {step} of a run of steps={self.steps}: the schedule has ended, the rate "
                f"stays {' or '.join(f'{rate:g}' for rate in rates[:3])}. For more updates make "
                "one with more steps and load this one's state",
            )

    def _attach(self, follow: bool) -> list[Any]:
        """Advance with the optimizer, or at least stay right when it is loaded or grows."""
        me = weakref.ref(self)  # a schedule that nobody holds any more does nothing

        def added() -> None:
            if (alive := me()) is not None:
                alive._added()

        def loaded(_: torch.optim.Optimizer) -> None:
            if (alive := me()) is not None:
                alive._optimizer_loaded(None)

        _call_after_adding(self.optimizer, added)
        if not follow:
            return [self.optimizer.register_load_state_dict_post_hook(loaded)]
        setattr(self.optimizer, _FOLLOWED, True)
        self._following = Following(
            self.optimizer, GROUP_KEY, self._advance, self._optimizer_loaded
        )
        self._set(self.last_epoch)
        return []

    def _optimizer_loaded(self, step: int | None) -> None:
        self._groups.restore()
        self._set(self.last_epoch if step is None else step)
        if self._counting is not None:
            self._counting.restart(self.last_epoch)
        if step is None and self.last_epoch == 0:
            self._behind = updates(self.optimizer)

    def _added(self) -> None:
        if self._stopped:
            return
        try:
            new = self._groups.take_in()
        except ValueError:
            self.optimizer.param_groups.pop()
            raise
        self._courses += new
        self.base_lrs += [one.peak for one in new]
        self._set(self.last_epoch)

    def _updates(self, field: str, length: Length) -> int:
        length = check_length(field, length)
        return in_steps(field, length, self.steps, self._tokens_per_step)

    def _look_at_the_order(self) -> None:
        if not (getattr(self.optimizer, "_opt_called", False) or has_updated(self.optimizer)):
            self._say(
                "order",
                "schedule.step() before optimizer.step(): the first value of the schedule is lost. "
                "Call it after. (A gradient scaler that skips the first update looks the same; "
                "with follow=True skipped updates do not count)",
            )

    def _look_at_the_count(self) -> None:
        if self._counting is not None and (text := self._counting.complaint(self.last_epoch)):
            self._say("count", f"{text}. With follow=True the optimizer's own updates count")

    def _tell_of_the_change(self, once_more: bool = False) -> None:
        said = self._change
        if once_more:
            self._change = None
        if said is not None:
            warnings.warn(said, stacklevel=1)  # from here, so that both come from the same place

    def _say(self, kind: str, text: str) -> None:
        """Warn, once of each kind."""
        if kind not in self._told:
            self._told.add(kind)
            warnings.warn(text, stacklevel=5)


def _look_at_peaks(optimizer: torch.optim.Optimizer, last_epoch: int) -> None:
    """The peak is "initial_lr" where an earlier schedule has left one, as in torch."""
    for i, group in enumerate(optimizer.param_groups):
        if "initial_lr" not in group:
            if last_epoch != -1:
                raise ValueError(
                    f"last_epoch={last_epoch} is not valid: group {i} has no 'initial_lr', which "
                    "an optimizer has whose state was loaded. To begin later, say schedule.at(step)"
                )
        elif last_epoch == -1 and float(group["initial_lr"]) != float(group["lr"]):
            warnings.warn(
                f"group {i} has been scheduled before: its peak is initial_lr="
                f"{float(group['initial_lr']):g} (as in torch), and not lr="
                f"{float(group['lr']):g}. For that one, delete group['initial_lr'] first; to "
                "resume, make the schedule before loading the optimizer's state",
                stacklevel=4,
            )
            return


def _call_after_adding(optimizer: torch.optim.Optimizer, added: Callable[[], None]) -> None:
    """Call `added` after `optimizer.add_param_group`, for which torch has no hook."""
    original = optimizer.add_param_group

    @functools.wraps(original)
    def add_param_group(param_group: dict[str, Any]) -> None:
        original(param_group)
        added()

    optimizer.add_param_group = add_param_group  # type: ignore[method-assign]
