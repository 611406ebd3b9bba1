"""`Warmup`: writes α(l, step) into a model, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from groundup._check import count
from groundup.residual import fold, scale
from groundup.residual.branches import Branch
from groundup.residual.proof import Proof, has_compiled_parts
from groundup.schedules import DepthSchedule

GROUP_KEY = "residual_warmup_step"
"""Where `follow` keeps the step: in every one of the optimizer's parameter groups."""


_SILENCE = 3  # updates without a forward that was seen, before a word is said


class Warmup:
    """The residual warmup of one model; made by `groundup.attach`.

    It holds a step (completed optimizer updates) and writes schedule(step) into one 0-dim float32
    tensor per layer, in place. Resuming is recomputing from the step.
    """

    def __init__(
        self, model: nn.Module, schedule: DepthSchedule, depth: int, branches: Sequence[Branch]
    ) -> None:
        self.schedule = schedule
        self.depth = depth
        self._model = model
        self._branches = list(branches)
        self._step = 0
        self._values = schedule(0, depth)
        with torch.inference_mode(False):  # α is filled in place for the whole run
            self._alphas = {
                branch.layer: torch.tensor(self._values[branch.layer], device=branch.device)
                for branch in self._branches
            }
        self._attached = True
        self._advanced = 0
        self._first_update = False
        self._traced = scale.Traced()
        self._installed = False
        self._optimizer: torch.optim.Optimizer | None = None
        self._optimizer_hooks: list[RemovableHandle] = []
        self._install()
        self._proof = Proof(model, self._branches, self._traced)

    def __repr__(self) -> str:
        state = f"step {self._step}" if self._attached else "taken off"
        return (
            f"<Warmup {self.schedule.name} on {type(self._model).__name__}: "
            f"{len(self._branches)} branches, {self.depth} layers, {state}, "
            f"α {min(self._values):.3g} to {max(self._values):.3g}>"
        )

    def __getstate__(self) -> dict[str, Any]:
        """A copy follows no optimizer: copies of optimizers have lost their hooks."""
        return self.__dict__ | {"_optimizer": None, "_optimizer_hooks": []}

    # ------------------------------------------------------------------ the step

    def step(self) -> None:
        """Count one optimizer update. Not to be called when an optimizer is followed."""
        if self._optimizer is not None:
            raise RuntimeError("the followed optimizer counts the updates: do not call step()")
        self._advance()

    def at(self, step: int) -> None:
        """Set α to its values at `step` completed updates.

        Raises:
            ValueError: if step is not a whole number ≥ 0.
            RuntimeError: after detach() or fold_().
        """
        self._require_attached()
        self._step = count("step", step, least=0)
        for group in self._optimizer.param_groups if self._optimizer else ():
            group[GROUP_KEY] = self._step
        self._write(self.schedule(self._step, self.depth))
        if not self.finished:
            self._install()
        elif self._installed and self._proof.done and not self._is_compiled():
            self._uninstall()

    def follow(self, optimizer: torch.optim.Optimizer) -> Warmup:
        """Advance after each ``optimizer.step()``, and keep the step in its parameter groups.

        Whoever saves and loads the optimizer's state dict saves and loads the step with it. An
        optimizer that already carries a step (its state was loaded before) sets this one's. An
        update that a gradient scaler skips is not counted.

        Raises:
            RuntimeError: if an optimizer is followed already, or after detach() or fold_().
        """
        self._require_attached()
        if self._optimizer is not None:
            raise RuntimeError("an optimizer is followed already; detach() first")
        self._optimizer = optimizer
        self._optimizer_hooks = [
            optimizer.register_step_pre_hook(self._before_update),
            optimizer.register_step_post_hook(self._after_update),
            optimizer.register_load_state_dict_post_hook(lambda _: self._from_groups()),
        ]
        if optimizer.state or any(GROUP_KEY in group for group in optimizer.param_groups):
            self._from_groups()
        else:
            self.at(self._step)
        return self

    def _before_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._first_update = not optimizer.state

    def _after_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # A fused optimizer is called with an overflow too, and skips the update itself.
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and found_inf.item():
            return
        # torch.distributed.checkpoint makes the state of a fresh optimizer by an update with rate
        # and gradients 0.
        if self._first_update and _moves_nothing(optimizer):
            return
        self._advance()

    def _advance(self) -> None:
        self.at(self._step + 1)
        self._advanced += 1
        if not self._proof.done and self._advanced == _SILENCE:
            warnings.warn(
                f"no forward of {type(self._model).__name__} was seen in {_SILENCE} updates, so "
                "it is not proven that its branches are scaled (it is compiled as a whole, or "
                "called through a part of it): call check(batch) once",
                stacklevel=4,
            )

    def _from_groups(self) -> None:
        """Take the step from the parameter groups of the optimizer, after its state was loaded."""
        assert self._optimizer is not None
        steps = {g[GROUP_KEY] for g in self._optimizer.param_groups if GROUP_KEY in g}
        if len(steps) > 1:
            raise ValueError(f"the optimizer's groups carry different {GROUP_KEY}: {sorted(steps)}")
        if not steps:
            warnings.warn(
                f"the optimizer's state carries no {GROUP_KEY} (it was saved without warmup, or "
                "loaded into an optimizer that was not followed yet): residual warmup stays at "
                f"step {self._step}; at(step) sets another",
                stacklevel=3,
            )
        self.at(steps.pop() if steps else self._step)

    # ------------------------------------------------------------------ what it says

    @property
    def updates(self) -> int:
        """Completed optimizer updates, the argument of the schedule."""
        return self._step

    @property
    def finished(self) -> bool:
        """Whether every α is 1 and stays there."""
        return not self._attached or self._step >= self.schedule.end(self.depth)

    def alphas(self) -> torch.Tensor:
        """α of the layers 1…L now: a float32 tensor [L] on the CPU (a copy)."""
        return torch.tensor(self._values, device="cpu")

    def state_dict(self) -> dict[str, Any]:
        """The step, and the schedule and depth it belongs to. Plain data, JSON-serializable."""
        return {"step": self._step, "schedule": self.schedule.to_json(), "depth": self.depth}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at the step of `state`; a schedule that differs is warned about and not taken.

        Raises:
            ValueError: if `state` is for another number of layers or lacks a field.
        """
        if missing := {"step", "schedule", "depth"} - state.keys():
            raise ValueError(f"this is no state of a Warmup: it lacks {', '.join(sorted(missing))}")
        if state["depth"] != self.depth:
            raise ValueError(
                f"depth={state['depth']!r} of the saved warmup does not match this model's "
                f"{self.depth} layers"
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

        Raises:
            BranchError: naming the branches that did not run exactly once.
        """
        self._require_attached()
        self._install()
        self._proof.run(self._model, args, kwargs)
        self.at(self._step)

    # ------------------------------------------------------------------ the end

    def detach(self) -> None:
        """Take the scaling off for good; the model is the stock one again, α counts as 1."""
        if not all(alpha == 1.0 for alpha in self._values):
            warnings.warn(
                f"residual warmup is taken off at step {self._step}, before every α is 1: the "
                "model computes something else from here on. fold_() keeps what it computes",
                stacklevel=2,
            )
        self._release()

    def fold_(self) -> None:
        """Multiply α into the weights in place and detach: the same function, stock modules.

        Raises:
            RuntimeError: while an optimizer is followed (its moments belong to unfolded weights).
            ValueError: if a branch ends in a module that is not linear in its parameters.
        """
        if self._optimizer is not None:
            raise RuntimeError(
                "fold_() would change weights under a followed optimizer; use "
                "folded_state_dict() for an export in mid-training"
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

    def _branch_alphas(self) -> list[float]:
        return [self._values[branch.layer] for branch in self._branches]

    def _require_attached(self) -> None:
        if not self._attached:
            raise RuntimeError("this Warmup has been taken off its model: attach again")

    def _write(self, values: list[float]) -> None:
        self._rebind()
        if values == self._values:
            return
        self._values = values
        tensors = list(self._alphas.values())
        with torch.no_grad():
            torch._foreach_zero_(tensors)
            torch._foreach_add_(tensors, [values[layer] for layer in self._alphas])

    def _rebind(self) -> None:
        """Follow the model to another device: `Module.to` does not move plain attributes."""
        for branch in self._branches:
            alpha = self._alphas[branch.layer]
            if alpha.device != branch.device:
                self._alphas[branch.layer] = alpha = alpha.to(branch.device)
            bound = scale.alpha_of(branch.module)
            if self._installed and bound is None:
                raise RuntimeError(f"{branch.name} is no longer scaled: something took it off")
            if self._installed and bound is not alpha:
                scale.bind(branch.module, alpha)

    def _install(self) -> None:
        if not self._installed:
            for branch in self._branches:
                scale.install(branch.module, self._alphas[branch.layer], self._traced)
            self._installed = True

    def _uninstall(self) -> None:
        """Stop multiplying. Only where nothing is compiled: another class recompiles."""
        for branch in self._branches:
            scale.remove(branch.module)
        self._installed = False

    def _release(self) -> None:
        self._proof.cancel()
        self._uninstall()
        for handle in self._optimizer_hooks:
            handle.remove()
        for group in self._optimizer.param_groups if self._optimizer else ():
            group.pop(GROUP_KEY, None)
        self._optimizer, self._optimizer_hooks = None, []
        self._values, self._attached = [1.0] * self.depth, False

    def _is_compiled(self) -> bool:
        return self._traced.seen or has_compiled_parts(self._model)


def _moves_nothing(optimizer: torch.optim.Optimizer) -> bool:
    """Whether every rate and every gradient of an update is 0."""
    if any(group["lr"] != 0 for group in optimizer.param_groups):
        return False
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return not any(p.grad is not None and bool(p.grad.any()) for p in parameters)
