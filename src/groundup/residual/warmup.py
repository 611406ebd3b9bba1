"""`Warmup`: the step, and α as a function of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from groundup._check import count
from groundup._following import Following, innermost
from groundup.residual import fold, scale
from groundup.residual.branches import Branch
from groundup.residual.numbering import Numbering
from groundup.residual.proof import BranchError, Proof, called_around, has_compiled_parts
from groundup.residual.reminder import Reminder
from groundup.residual.resting import Resting
from groundup.residual.scaling import Scaling
from groundup.schedules import DepthSchedule

GROUP_KEY = "residual_warmup_step"
"""Where the number of completed updates stands in each group of a followed optimizer."""

_SILENCE = 3  # updates without a forward that was seen, before a word is said


class Warmup:
    """The residual warmup of one model; made by `groundup.attach`.

    It holds a step (completed optimizer updates) and writes schedule(step) into one 0-dim float32
    tensor per layer, in place. Resuming is recomputing from the step.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: DepthSchedule,
        branches: Sequence[Branch],
        numbering: Numbering,
        rest: bool = False,
    ) -> None:
        self.schedule = schedule
        self._model = model
        self._branches = list(branches)
        self._numbering = numbering
        self._step = 0
        self._values = self._schedule_at(0)
        self._attached = True
        self._advanced = 0
        self._compiled = False
        self._following: Following | None = None
        self._scaling = Scaling(model, self._branches, numbering.places, self._values)
        self._resting = (
            Resting(model, self._branches, numbering.places, self._scaling) if rest else None
        )
        called = called_around(model, self._branches)
        # Not a method of its own: a copy of the model would be at work on this before it is whole.
        proving = None if self._resting is None else self._resting.proving
        self._proof = Proof(called, self._branches, self._scaling.traced, proving)
        self._reminder = Reminder(called)
        if self._resting is not None:
            self._resting.write(self.dormant())

    def __repr__(self) -> str:
        end = ", finished" if self.finished else f" of {self._end:g}".replace(" of inf", "")
        state = f"step {self._step}{end}" if self._attached else "taken off"
        return (
            f"<Warmup {self.schedule.name} on {type(self._model).__name__}: "
            f"{len(self._branches)} branches, {self.depth} layers, {state}, "
            f"α {min(self._values):.3g} to {max(self._values):.3g}>"
        )

    def __getstate__(self) -> dict[str, Any]:
        """A copy follows no optimizer: copies of optimizers have lost their hooks."""
        return self.__dict__ | {"_following": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._attached:  # copies of branches share the original's α until they get their own
            self._bind()
            if self._resting is not None:
                self._resting.part()

    # ------------------------------------------------------------------ the step

    def step(self) -> None:
        """Count one optimizer update. Not to be called when an optimizer is followed."""
        if self._following is not None:
            raise RuntimeError("the followed optimizer counts the updates: do not call step()")
        self._advance()

    def at(self, step: int) -> None:
        """Set α to its values at `step` completed updates.

        Raises:
            ValueError: if step is not a whole number ≥ 0.
            RuntimeError: after detach() or fold_(); if a branch is no longer what was attached to.
        """
        self._require_attached()
        step = count("step", step, least=0)
        if scale.capturing():
            raise RuntimeError(
                "α cannot be written while a CUDA graph is captured: every replay would write it "
                "again. Capture forward and backward, and leave optimizer.step() or "
                "warmup.at(step) outside, between the replays"
            )
        self._reminder.cancel()
        self._step = step
        if self._following is not None:
            self._following.write(self._step)
        self._values = self._schedule_at(self._step)
        self._scaling.write(self._values)
        self._bind()
        if self._resting is not None:
            self._resting.write(self.dormant())

    def follow(self, optimizer: torch.optim.Optimizer) -> Warmup:
        """Advance after each ``optimizer.step()``, and keep the step in its parameter groups.

        Whoever saves and loads the optimizer's state dict saves and loads the step with it. An
        optimizer that already carries a step (its state was loaded before) sets this one's. An
        update that a gradient scaler skips is not counted.

        Args:
            optimizer: a torch optimizer, or one that Accelerate or Lightning has wrapped.

        Raises:
            ValueError: if there is no torch optimizer in it.
            RuntimeError: if an optimizer is followed already, or after detach() or fold_().
        """
        self._require_attached()
        if self._following is not None:
            raise RuntimeError("an optimizer is followed already: unfollow() first")
        found = innermost(
            optimizer,
            "With any other, say warmup.step() after each update, or warmup.at(updates)",
        )
        self._following = Following(found, GROUP_KEY, self._advance, self._loaded)
        self.at(self._step)
        return self

    def unfollow(self) -> None:
        """Follow no optimizer any more, and take the step out of its parameter groups: to follow
        another one, or to fold. The step stays."""
        if self._following is not None:
            self._following.stop()
            self._following = None

    def _loaded(self, step: int | None) -> None:
        if step is None:
            warnings.warn(
                f"the optimizer carries no {GROUP_KEY} (its state was saved without warmup, or it "
                "was at work when it was not followed yet): residual warmup stays at step "
                f"{self._step}; at(step) sets another",
                stacklevel=4,
            )
        self.at(self._step if step is None else step)

    def _advance(self) -> None:
        self.at(self._step + 1)
        self._advanced += 1
        if not self._proof.done and self._advanced == _SILENCE:
            warnings.warn(
                f"no forward of {type(self._model).__name__} was seen in {_SILENCE} updates, so "
                "it is not proven that its branches are scaled (it is compiled as a whole, or "
                "called through a part of it), nor are dormant layers skipped: call check(batch) "
                "once",
                stacklevel=4,
            )

    # ------------------------------------------------------------------ what it says

    @property
    def updates(self) -> int:
        """Completed optimizer updates, the argument of the schedule."""
        return self._step

    @property
    def depth(self) -> int:
        """Layers that take part, of all stacks together."""
        return sum(self._numbering.depths)

    @property
    def finished(self) -> bool:
        """Whether every α is 1 and stays there."""
        return not self._attached or self._step >= self._end

    def alphas(self) -> torch.Tensor:
        """α of the layers 1…L now: a float32 tensor [L] on the CPU (a copy).

        Of several stacks (encoder and decoder) one after the other.
        """
        return torch.tensor(self._values, device="cpu")

    def dormant(self) -> list[bool]:
        """Whether each layer 1…L still waits for its turn, as the schedule declares it; as
        `alphas`, of several stacks one after the other."""
        if not self._attached:
            return [False] * self.depth
        return [
            one
            for depth in self._numbering.depths
            for one in self.schedule.dormant(self._step, depth)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The step, the schedule, the depth of each stack. Plain data, JSON-serializable."""
        return {
            "step": self._step,
            "schedule": self.schedule.to_json(),
            "depths": list(self._numbering.depths),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at the step of `state`; a schedule that differs is warned about and not taken.

        Raises:
            ValueError: if `state` is for another number of layers or lacks a field.
        """
        if missing := {"step", "schedule", "depths"} - state.keys():
            raise ValueError(f"this is no state of a Warmup: it lacks {', '.join(sorted(missing))}")
        if list(state["depths"]) != list(self._numbering.depths):
            raise ValueError(
                f"depths={state['depths']!r} of the saved warmup do not match this model's stacks "
                f"of {list(self._numbering.depths)} layers"
            )
        if state["schedule"] != self.schedule.to_json():
            warnings.warn(
                f"the saved warmup followed {state['schedule']}; this one goes on with "
                f"{self.schedule.to_json()} at step {state['step']}",
                stacklevel=2,
            )
        self.at(state["step"])

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Run the model once on this input, without gradients, and prove that each branch is
        scaled exactly once. The first forward does the same; a model that is compiled as a whole,
        or a loop in which every step must be equal to the bit, calls this instead.

        Args:
            args, kwargs: what the model is called with. A single mapping, such as a batch of a
                tokenizer, stands for keyword arguments.

        Raises:
            BranchError: naming the branches that did not run exactly once.
        """
        self._require_attached()
        if len(args) == 1 and isinstance(args[0], Mapping) and not kwargs:
            self._proof.run(self._model, (), dict(args[0]))
        else:
            self._proof.run(self._model, args, kwargs)
        if unseen := self._proof.unseen:
            raise BranchError(f"these branches did not run: {', '.join(unseen)}")
        self._bind()

    # ------------------------------------------------------------------ the end

    def detach(self) -> None:
        """Take the scaling off for good; the model is the stock one again, α counts as 1."""
        if not all(alpha == 1.0 for alpha in self._values):
            warnings.warn(
                f"residual warmup is taken off at step {self._step}, before every α is 1: the "
                "model computes something else from here on. fold_() keeps what it computes",
                stacklevel=2,
            )
        self._scaling.write([1.0] * self.depth)  # for copies, which share it
        self._release()

    def fold_(self) -> None:
        """Multiply α into the weights in place and detach: the same function, stock modules.

        Raises:
            RuntimeError: while an optimizer is followed (its moments belong to unfolded weights).
            ValueError: if a branch ends in a module that is not linear in its parameters.
        """
        if self._following is not None:
            raise RuntimeError(
                "fold_() would change weights under a followed optimizer: use "
                "folded_state_dict() for an export in mid-training, or unfollow() when it is over"
            )
        self._require_attached()
        fold.fold_into(self._model, self._branches, self._branch_alphas())
        self._release()

    def folded_state_dict(self) -> dict[str, Any]:
        """The model's state dict, stock names, with α (and fixed scales such as LayerNorm
        Scaling's 1/√l) multiplied into the weights: what a stock model loads. Nothing is changed.
        """
        self._require_attached()
        return fold.folded(self._model, self._branches, self._branch_alphas())

    # ------------------------------------------------------------------ inside

    @property
    def _end(self) -> float:
        return max(self.schedule.end(depth) for depth in self._numbering.depths)

    def _schedule_at(self, step: int) -> list[float]:
        return [a for depth in self._numbering.depths for a in self.schedule(step, depth)]

    def _branch_alphas(self) -> list[float]:
        return [self._values[place] for place in self._numbering.places]

    def _bind(self) -> None:
        # Whether anything is compiled is looked for when it matters: it takes a walk of the model.
        spare = self._proof.done and not (
            self._scaling.multiplies_by_one and self._has_compiled_parts()
        )
        self._scaling.bind(spare=spare)

    def _require_attached(self) -> None:
        if not self._attached:
            raise RuntimeError("this Warmup has been taken off its model: attach again")

    def _release(self) -> None:
        self._proof.cancel()
        self._reminder.cancel()
        self._scaling.remove()
        if self._resting is not None:
            self._resting.remove()
        self.unfollow()
        self._values, self._attached = [1.0] * self.depth, False

    def _has_compiled_parts(self) -> bool:
        self._compiled = (
            self._compiled or self._scaling.traced.seen or has_compiled_parts(self._model)
        )
        return self._compiled
