"""`Warmup`: writes α(l, step) into a model, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from groundup._check import count
from groundup.residual import fold, scale
from groundup.residual.branches import Branch
from groundup.residual.proof import Proof
from groundup.schedules import DepthSchedule

GROUP_KEY = "residual_warmup_step"
"""Where `follow` keeps the step: in every one of the optimizer's parameter groups."""


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
        self._alphas = {
            branch.layer: torch.tensor(self._values[branch.layer], device=_device(branch.module))
            for branch in self._branches
        }
        self._hooks: list[Any] = []
        self._optimizer: torch.optim.Optimizer | None = None
        self._optimizer_hooks: list[Any] = []
        self._install()
        self._proof = Proof(model, self._branches)

    # ------------------------------------------------------------------ the step

    def step(self) -> None:
        """Count one optimizer update. Not to be called when an optimizer is followed."""
        if self._optimizer is not None:
            raise RuntimeError("the followed optimizer counts the updates: do not call step()")
        self.at(self._step + 1)

    def at(self, step: int) -> None:
        """Set α to its values at `step` completed updates.

        Raises:
            ValueError: if step is not a whole number ≥ 0.
        """
        self._step = count("step", step, least=0)
        for group in self._optimizer.param_groups if self._optimizer else ():
            group[GROUP_KEY] = self._step
        self._write(self.schedule(self._step, self.depth))
        if not self.finished:
            self._install()
        elif self._hooks and self._proof.done and not self._is_compiled():
            self._uninstall()

    def follow(self, optimizer: torch.optim.Optimizer) -> Warmup:
        """Advance after each ``optimizer.step()``, and keep the step in its parameter groups.

        Whoever saves and loads the optimizer's state dict saves and loads the step with it. An
        optimizer that already carries a step (its state was loaded before) sets this one's. An
        update that is skipped (by a gradient scaler, say) is not counted.
        """
        if self._optimizer is not None:
            raise RuntimeError("an optimizer is followed already; detach() first")
        self._optimizer = optimizer
        self._optimizer_hooks = [
            optimizer.register_step_post_hook(lambda *_: self.at(self._step + 1)),
            optimizer.register_load_state_dict_post_hook(lambda _: self._from_groups()),
        ]
        if any(GROUP_KEY in group for group in optimizer.param_groups):
            self._from_groups()
        self.at(self._step)
        return self

    def _from_groups(self) -> None:
        """Take the step from the parameter groups of the optimizer, after its state was loaded."""
        assert self._optimizer is not None
        steps = {g[GROUP_KEY] for g in self._optimizer.param_groups if GROUP_KEY in g}
        if len(steps) > 1:
            raise ValueError(f"the optimizer's groups carry different {GROUP_KEY}: {sorted(steps)}")
        if not steps:
            warnings.warn(
                f"the loaded optimizer state carries no {GROUP_KEY} (it was saved without warmup): "
                f"residual warmup stays at step {self._step}; at(step) sets another",
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
        return self._step >= self.schedule.end(self.depth)

    def alphas(self) -> torch.Tensor:
        """α of the layers 1…L now: a float32 tensor [L] on the CPU (a copy)."""
        return torch.tensor(self._values)

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
        self._install()
        self._proof.cancel()
        self._proof = Proof(self._model, self._branches)
        with torch.no_grad():
            self._model(*args, **kwargs)

    # ------------------------------------------------------------------ the end

    def detach(self) -> None:
        """Take every hook off; the model is the stock one again, α counts as 1."""
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
        fold.fold_into(self._branches, self._branch_alphas())
        self._release()

    def folded_state_dict(self) -> dict[str, Any]:
        """The model's state dict, stock names, with α (and fixed scales such as LayerNorm
        Scaling's 1/√l) multiplied into the weights: what a stock model loads. Nothing is changed.
        """
        return fold.folded(self._model, self._branches, self._branch_alphas())

    # ------------------------------------------------------------------ inside

    def _branch_alphas(self) -> list[float]:
        return [self._values[branch.layer] for branch in self._branches]

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
            alpha, device = self._alphas[branch.layer], _device(branch.module)
            if alpha.device != device:
                self._alphas[branch.layer] = alpha = alpha.to(device)
            if self._hooks and branch.module.residual_alpha is not alpha:
                scale.bind(branch.module, alpha)

    def _install(self) -> None:
        if not self._hooks:
            self._hooks = [scale.install(b.module, self._alphas[b.layer]) for b in self._branches]

    def _uninstall(self) -> None:
        """Stop multiplying. Only where nothing is compiled: a removed hook recompiles."""
        for handle in self._hooks:
            handle.remove()
        self._hooks = []
        for branch in self._branches:
            branch.module.__dict__.pop(scale.ATTRIBUTE, None)

    def _release(self) -> None:
        self._proof.cancel()
        self._uninstall()
        for handle in self._optimizer_hooks:
            handle.remove()
        for group in self._optimizer.param_groups if self._optimizer else ():
            group.pop(GROUP_KEY, None)
        self._optimizer, self._optimizer_hooks = None, []

    def _is_compiled(self) -> bool:
        return any(
            module._compiled_call_impl is not None
            or isinstance(module, torch._dynamo.eval_frame.OptimizedModule)
            for module in self._model.modules()
        )


def _device(module: nn.Module) -> torch.device:
    """Where α of this module belongs; a module on the meta device has none yet."""
    tensor = next(module.parameters(), None)
    if tensor is None or tensor.device.type == "meta":
        return torch.device("cpu")
    return tensor.device
