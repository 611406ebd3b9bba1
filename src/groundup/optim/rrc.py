"""RRC correction: updates scaled so that the relative representation change stays constant.

The relative representation change ‖ΔW·x‖/‖W·x‖ that an update of fixed size brings about grows with
the signal-to-noise ratio φ of the gradients (`groundup.measure.alignment`), which is high early in
training and falls. Scaled by a(0)/a(φ), updates are small at first and reach their full size as φ
falls: an automatic warmup (arXiv:2410.23922; the formulas are derived here, docs/derivations.md).
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from groundup._check import count, is_number, positive, within
from groundup.measure.momentum import Group, Momentum, momentum_of
from groundup.measure.noise import checked_beta
from groundup.measure.representation import alignment_of_share
from groundup.optim import _noise_state as noise_state
from groundup.optim.rate.decays import refuse_unless_decoupled
from groundup.optim.scaled import scaled_update

GROUP_KEY = "rrc_phi"
"""Where a φ that was given stands in each parameter group."""

MARK = "_has_rrc"

# Those of groundup's that multiply an update by state[p]["update_scale"].
_SCALING = ("OwnOptimizer", "AdamW")
_NOT_PROPORTIONAL = ("LBFGS", "Rprop", "Adafactor")
_KEYS = (noise_state.KEY, noise_state.MOMENTUM)


class RRC:
    """Scales each update of an optimizer by a(0)/a(φ), from 1 down to a(0), until `detach()`.

    With one of groundup's own optimizers every tensor has its own φ and scale (of rotational ones
    it scales the angle). With any other, a parameter group has: its rate is multiplied within
    ``optimizer.step()`` and put back after it, and so the step has to wait for one number per
    group. Decoupled weight decay (lr·λ) is not scaled: λ is divided meanwhile. L2 decay (torch's
    SGD and Adam) is a part of the gradient, and is scaled with it.

    φ comes from the momentum before an update and its gradient
    (`groundup.measure.split_by_momentum`), averaged over updates, or is given by `observe`. At the
    first update, where the momentum tells nothing, and until φ is given, it is taken as infinite:
    the scale is a(0). A tensor whose gradients have all been zero (behind a residual branch at
    α = 0) is at its first update still.

    The averages stand in the optimizer's state, ``state[p]["noise"]``, in float32 whatever the
    parameter's dtype, and a given φ in its parameter groups: saving and loading the optimizer saves
    and loads them. Attach it before loading. An update reads gradients and momentum once more.

    Args:
        optimizer: any of torch's kind whose update is proportional to its rate.
        batch_size: B, examples (sequences) in an update, over all ranks and micro-batches; may be
            changed later by assignment.
        beta: β of the momentum; only where the optimizer's is not known, or L2 decay is mixed into
            it. An average of the gradients is then kept here (float32, the size of the parameters).
        phi: "momentum" or "given".
        averaging: share of the old value in the averages that φ is estimated from, in [0, 1).
        width: d, the inputs of a typical layer. Where B is not well below it, representations
            change by 1/√d at any φ, and less correction is needed; inf leaves that out.

    Raises:
        ValueError: for a bad setting; a momentum that is not known without `beta`, or known with
            it; β = 0 with ``phi="momentum"``; an optimizer whose updates are not proportional to
            the rate; in ``optimizer.step()``, a sparse or complex gradient.

    Example:
        >>> model = torch.nn.Linear(64, 64)
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        >>> rrc = RRC(optimizer, batch_size=32)
        >>> model(torch.ones(1, 64)).sum().backward()
        >>> optimizer.step()
        >>> rrc.latest()            # √((1 − 0.9²)/32)
        {'rrc_scale': 0.077...}
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        batch_size: float,
        beta: float | None = None,
        phi: str = "momentum",
        averaging: float = 0.9,
        width: float = math.inf,
    ) -> None:
        if phi not in ("momentum", "given"):
            raise ValueError(f"phi={phi!r} is not valid: it must be 'momentum' or 'given'")
        if width != math.inf:
            count("width", width)
        if within("averaging", averaging, 0.0, 1.0) == 1:
            raise ValueError("averaging=1 is not valid: it must be below 1")
        if beta is not None:
            checked_beta(beta)
        if getattr(optimizer, MARK, False):
            raise ValueError(
                f"this {type(optimizer).__name__} has an RRC correction already: detach() it first"
            )
        self.batch_size = positive("batch_size", batch_size)
        self._optimizer = optimizer
        self._beta = beta
        self._given = phi == "given"
        self._averaging = averaging
        self._width = width
        self._by_tensor = _is(optimizer, "groundup", _SCALING)
        self._scales: dict[Tensor, Tensor] = {}
        self._latest: list[Tensor] = []
        self._pending: list[tuple[Tensor, dict[str, Tensor]]] = []
        self._inside = ExitStack()
        self._loading: dict[str, Any] = {}
        if not self._by_tensor and _is(optimizer, "torch", _NOT_PROPORTIONAL):
            raise ValueError(
                f"{type(optimizer).__name__} is not valid: its updates are not proportional to its "
                "rate, by which they are scaled"
            )
        for group in optimizer.param_groups:
            self._momentum(group)
        setattr(optimizer, MARK, True)
        # Of a compiled optimizer.step() nothing of this is to be compiled.
        before, after = (torch.compiler.disable(hook) for hook in (self._before, self._after))
        self._hooks = [
            optimizer.register_step_pre_hook(before),
            optimizer.register_step_post_hook(after),
            optimizer.register_load_state_dict_pre_hook(self._remember),
            optimizer.register_load_state_dict_post_hook(self._restore),
        ]

    def observe(self, phi: float | Tensor) -> None:
        """Take this φ from the next update on, e.g. from `groundup.measure.two_batches`.

        Raises:
            RuntimeError: φ is to come from the momentum.
            ValueError: below 0, or nan.
        """
        if not self._given:
            raise RuntimeError('φ comes from the momentum here: RRC(…, phi="given") takes another')
        phi = float(phi)
        if not is_number(phi) or not phi >= 0:
            raise ValueError(f"phi={phi!r} is not valid: it must be at least 0")
        for group in self._optimizer.param_groups:
            group[GROUP_KEY] = phi

    def latest(self) -> dict[str, float]:
        """``rrc_scale``: the mean over tensors (or groups) in the last update; waits for it."""
        return {"rrc_scale": float(_joined(self._latest).mean())} if self._latest else {}

    def detach(self) -> None:
        """Take it off: updates are of full size from the next one on."""
        self._inside.close()
        for hook in self._hooks:
            hook.remove()
        if hasattr(self._optimizer, MARK):
            delattr(self._optimizer, MARK)
        for group in self._optimizer.param_groups:
            group.pop(GROUP_KEY, None)
            for p in group["params"]:
                for key in _KEYS:
                    self._optimizer.state.get(p, {}).pop(key, None)

    # ------------------------------------------------------------------ around an update

    def _before(self, optimizer: Optimizer, *_: Any) -> None:
        self._inside.close()  # of an update that raised
        if getattr(optimizer, "grad_scale", None) is not None:
            raise RuntimeError(
                "the gradients are still multiplied by the gradient scaler: call "
                "scaler.unscale_(optimizer) before scaler.step(optimizer)"
            )
        self._pending = []
        scales = [self._group_scales(group) for group in optimizer.param_groups]
        self._latest = [s for s in scales if s is not None]
        if self._latest and not self._by_tensor:
            numbers = iter(_joined(self._latest).tolist())
            self._inside.enter_context(
                scaled_update(
                    optimizer,
                    [1.0 if s is None else next(numbers) for s in scales],
                    [_decoupled(optimizer, group) for group in optimizer.param_groups],
                )
            )

    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        self._inside.close()
        for p, values in self._pending:
            state = optimizer.state[p]
            noise_state.write(state, p, values)
            # Not left there, where a run without this would find it in a checkpoint.
            state.pop("update_scale", None)

    @torch.no_grad()
    def _group_scales(self, group: Group) -> Tensor | None:
        """Scales of the tensors with a gradient [tensors], or of their group [1], if any has."""
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return None
        for p in params:
            noise_state.refuse(p)
        momentum, states = self._momentum(group), self._optimizer.state
        values = noise_state.advance(self._optimizer, params, group, momentum, self._averaging)
        own = momentum.key == noise_state.MOMENTUM and not self._given
        for p, row in zip(params, values, strict=True):
            kept = {noise_state.KEY: row}
            if own:
                kept[noise_state.MOMENTUM] = noise_state.average(
                    states.get(p, {}), p, momentum.beta
                )
            self._pending.append((p, kept))
        noise = noise_state.Noise(values, self.batch_size)
        share, n = noise.by_tensor() if self._by_tensor else noise.together()
        if self._given:
            share = torch.full_like(share, _share(group.get(GROUP_KEY, math.inf)))
        kind: dict[str, Any] = {"nesterov": momentum.nesterov, "width": self._width}
        stationary = alignment_of_share(0.0, self.batch_size, momentum.beta, **kind)
        scales = stationary / alignment_of_share(share, self.batch_size, momentum.beta, n=n, **kind)
        if self._by_tensor:
            for p, scale in zip(params, scales, strict=True):
                # One tensor for good, for the sake of a compiled step.
                kept_scale = self._scales.setdefault(p, torch.ones((), device=p.device))
                states[p]["update_scale"] = kept_scale.copy_(scale)
        return scales

    def _momentum(self, group: Group) -> Momentum:
        """Raises ValueError where the settings do not fit the group's."""
        name, known = type(self._optimizer).__name__, momentum_of(self._optimizer, group)
        if known is not None and self._beta is not None:
            raise ValueError(
                f"beta={self._beta!r} would be ignored: {name} has a momentum with β = {known.beta}"
            )
        if known is not None:
            return known
        if self._beta is None:
            raise ValueError(
                f"beta=None is not valid for {name}, which has, with its settings, no momentum "
                "that is known as an average of gradients alone: give the β of its momentum, or 0 "
                "if it has none"
            )
        if self._beta == 0 and not self._given:
            raise ValueError(
                'beta=0 is not valid with phi="momentum": without one, φ must be given '
                '(phi="given")'
            )
        return Momentum(noise_state.MOMENTUM, self._beta, 1.0, bool(group.get("nesterov")))

    # ------------------------------------------------------------------ checkpoints

    def _remember(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
        self._loading = state_dict

    def _restore(self, optimizer: Optimizer) -> None:
        """torch casts what it loads to the parameter's dtype."""
        saved, self._loading = self._loading, {}
        ours = [p for group in optimizer.param_groups for p in group["params"]]
        theirs = [i for group in saved["param_groups"] for i in group["params"]]
        for p, index in zip(ours, theirs, strict=True):
            state = saved["state"].get(index, {})
            for key in _KEYS:
                if key in state:
                    optimizer.state[p][key] = state[key].detach().to(p.device, copy=True)


def _joined(scales: list[Tensor]) -> Tensor:
    return torch.cat([s.to(scales[0].device) for s in scales])


def _share(phi: float) -> float:
    return 1.0 if phi == math.inf else phi / (1.0 + phi)


def _is(optimizer: Optimizer, root: str, names: tuple[str, ...]) -> bool:
    return any(
        kind.__module__.partition(".")[0] == root and kind.__name__ in names
        for kind in type(optimizer).__mro__
    )


def _decoupled(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    try:
        refuse_unless_decoupled(optimizer, group, "independent")
    except ValueError:
        return False
    return True
