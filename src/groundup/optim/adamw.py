"""torch's AdamW with a choice of bias correction of the first moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.optimizer import _use_grad_for_differentiable

from groundup._check import positive
from groundup.optim.bias import BiasCorrection, check_bias_correction, scale_of_usual
from groundup.optim.scaled import scaled

_Columns = list[list[Any]]


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` whose first moment may go without bias correction, or with its inverse.

    For update number n = 1, 2, … of a tensor, with torch's m, v, β₁, β₂, λ = weight_decay::

        w ← w − lr·λ·w − lr·cₙ·m/(√(v/(1 − β₂ⁿ)) + eps)

    ================  ============  ============================================================
    bias_correction   cₙ            the first updates
    ================  ============  ============================================================
    ``usual``         1/(1 − β₁ⁿ)   torch's AdamW, to the bit and at its cost
    ``none``          1             smaller: (1 − β₁)·sign(g) at n = 1
    ``inverse``       1 − β₁ⁿ       smaller still: (1 − β₁)²·sign(g); a warmup over some 1/(1 − β₁)
    ``inverse-sqrt``  √(1 − β₁²ⁿ)   between the two
    ================  ============  ============================================================

    The second moment keeps its correction, and the decay its size. From arXiv:2410.23922, section
    4; the formulas are derived here (docs/derivations.md).

    The kernels are torch's, foreach, fused or compiled, with lr·cₙ·(1 − β₁ⁿ) for the rate and
    λ/(cₙ·(1 − β₁ⁿ)); neither is written to the parameter groups. Tensors that got their first
    gradient later than others of their group count by themselves.

    ``state[p]["update_scale"]``, a 0-dim tensor that others may put there, multiplies the update of
    a tensor but not its decay. Tensors of different scales are updated by calls of their own; with
    scales on a GPU and other kernels than the fused one, each update waits for them once a group.

    Args:
        params, lr, betas, eps, weight_decay, amsgrad, maximize, foreach, capturable,
            differentiable, fused: as in `torch.optim.AdamW`.
        bias_correction: a row of the table; a group may have its own.

    Raises:
        ValueError: for an unknown bias_correction, or betas in tensors with another than "usual",
            at construction; for an ``update_scale`` that is not above 0.

    Example::

        optimizer = gu.optim.AdamW(model.parameters(), lr=2e-3, bias_correction="inverse")
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        bias_correction: BiasCorrection = "usual",
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_bias_correction(bias_correction)
        self._counts = _Counts()
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
        )
        self.defaults["bias_correction"] = bias_correction
        for group in self.param_groups:
            group.setdefault("bias_correction", bias_correction)
            _check(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch. ValueError for a setting that is not valid; the group is not taken then."""
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._counts = _Counts()
        for group in self.param_groups:  # of a state that torch's AdamW saved
            group.setdefault("bias_correction", self.defaults.get("bias_correction", "usual"))

    # torch's own `step` but for the parts. Not a call of it with other groups: torch adds the hooks
    # of an optimizer to the class that `step` is found in, so that they could run twice.
    @_use_grad_for_differentiable
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update. `closure`, if given, reevaluates the model and returns the loss."""
        _check_capture(self)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for index, group in enumerate(self.param_groups):
            params: list[Tensor] = []
            grads: list[Tensor] = []
            firsts: list[Tensor] = []
            seconds: list[Tensor] = []
            largest: list[Tensor] = []
            steps: list[Tensor] = []
            scales: list[Tensor | None] = []
            has_complex = self._init_group(
                group, params, grads, firsts, seconds, largest, steps, scales
            )
            columns: _Columns = [params, grads, firsts, seconds, largest, steps]
            if not params:
                continue
            if group["bias_correction"] == "usual" and all(s is None for s in scales):
                self._update(group, columns, 1.0, has_complex)
            elif _stays_on_device(group, scales):
                for i, scale in enumerate(_tensor_scales(group, steps, scales)):
                    self._update(group, _rows(columns, [i]), scale, has_complex)
            else:
                counts = self._counts.before(index, steps)
                for alike, number in _by_scale(group, counts, scales):
                    self._update(group, _rows(columns, alike), number, has_complex)
                self._counts.after(index, steps, counts, skips=self._found_inf is not None)
        return loss

    def _init_group(self, group: dict[str, Any], *columns: list[Any]) -> bool:
        *torchs, scales = columns
        # torch makes the state of a parameter where it finds none at all.
        early = [(p, self.state.pop(p)) for p in group["params"] if self._scaled_before_first(p)]
        has_complex = super()._init_group(group, *torchs)
        for p, state in early:
            self.state[p].update(state)
        scales.extend(self.state[p].get("update_scale") for p in torchs[0])
        return has_complex

    def _scaled_before_first(self, p: Tensor) -> bool:
        return p in self.state and "step" not in self.state[p]

    def _update(
        self, group: dict[str, Any], columns: _Columns, scale: float | Tensor, has_complex: bool
    ) -> None:
        params, grads, firsts, seconds, largest, steps = columns
        rate, decay = group["lr"], group["weight_decay"]
        if isinstance(scale, Tensor):
            # The kernels take a rate in a tensor, but not a weight decay.
            if decay != 0.0:
                skipped = 0.0 if self._found_inf is None else self._found_inf
                torch._foreach_mul_(params, 1.0 - rate * decay * (1.0 - skipped))
            rate, decay = rate * scale, 0.0
        else:
            rate, decay = scaled(rate, decay, scale)
        beta1, beta2 = group["betas"]
        adamw(
            params,
            grads,
            firsts,
            seconds,
            largest,
            steps,
            foreach=group["foreach"],
            capturable=group["capturable"],
            differentiable=group["differentiable"],
            fused=group["fused"],
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=self._found_inf,
            has_complex=has_complex,
            amsgrad=group["amsgrad"],
            beta1=beta1,
            beta2=beta2,
            lr=rate,
            weight_decay=decay,
            eps=group["eps"],
            maximize=group["maximize"],
        )

    @property
    def _found_inf(self) -> Tensor | None:
        """Set by a gradient scaler around `step` of a fused optimizer, which skips by itself."""
        return getattr(self, "found_inf", None)


class _Counts:
    """How many updates each tensor of a group has had, in floats.

    Fused and capturable optimizers count on the device, and reading that would wait for it. It is
    read when something else than `step` has written there, and counted along otherwise.
    """

    def __init__(self) -> None:
        self._known: dict[int, list[tuple[Tensor, int, float]]] = {}

    def before(self, index: int, steps: list[Tensor]) -> list[float]:
        known = self._known.get(index, [])
        if len(known) == len(steps) and all(
            step is seen and step._version == version
            for step, (seen, version, _) in zip(steps, known, strict=True)
        ):
            return [count for _, _, count in known]
        return torch.stack(steps).tolist()

    def after(self, index: int, steps: list[Tensor], counts: list[float], skips: bool) -> None:
        # Whether a gradient scaler has had the update skipped is known on the device alone.
        self._known[index] = (
            []
            if skips
            else [(s, s._version, count + 1.0) for s, count in zip(steps, counts, strict=True)]
        )


# ---------------------------------------------------------------------- the scales


def _stays_on_device(group: dict[str, Any], scales: Sequence[Tensor | None]) -> bool:
    """Whether the scales are to be computed in tensors, and never be read."""
    if torch.compiler.is_compiling() or group["capturable"]:
        return True
    # Other kernels than the fused one would read a rate on the device, once for each tensor.
    return bool(group["fused"]) and any(s is not None and not s.is_cpu for s in scales)


def _tensor_scales(
    group: dict[str, Any], steps: list[Tensor], scales: list[Tensor | None]
) -> list[Tensor]:
    name, beta = group["bias_correction"], group["betas"][0]
    found = []
    for step, own in zip(steps, scales, strict=True):
        scale = scale_of_usual(name, beta, step + 1.0) * (1.0 if own is None else own)
        found.append(torch.as_tensor(scale, device=step.device))
    return found


def _by_scale(
    group: dict[str, Any], counts: list[float], scales: list[Tensor | None]
) -> Iterable[tuple[list[int], float]]:
    """The positions of tensors that have the same scale, and it."""
    name, beta = group["bias_correction"], group["betas"][0]
    given = {i: scale for i, scale in enumerate(scales) if scale is not None}
    values = torch.stack(list(given.values())).tolist() if given else []
    own = dict(zip(given, values, strict=True))
    for value in values:
        positive("update_scale", value)
    corrections = {count: scale_of_usual(name, beta, count + 1.0) for count in set(counts)}
    alike: dict[float, list[int]] = {}
    for i, count in enumerate(counts):
        alike.setdefault(corrections[count] * own.get(i, 1.0), []).append(i)
    return ((rows, scale) for scale, rows in alike.items())


def _rows(columns: _Columns, rows: list[int]) -> _Columns:
    """Those rows of each column; an empty column stays empty."""
    if len(rows) == len(columns[0]):
        return columns
    return [[column[i] for i in rows] if column else [] for column in columns]


def _check(group: dict[str, Any]) -> None:
    name = check_bias_correction(group.get("bias_correction", "usual"))
    if name != "usual" and any(isinstance(beta, Tensor) for beta in group["betas"]):
        raise ValueError(
            f"bias_correction={name!r} is not valid with betas in tensors: give them as numbers"
        )


def _check_capture(optimizer: torch.optim.Optimizer) -> None:
    """As torch's: refuse to be captured in a CUDA graph without ``capturable``."""
    names = "_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"
    next(getattr(optimizer, name) for name in names if hasattr(optimizer, name))()
