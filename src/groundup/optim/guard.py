"""Updates that are made only if loss and gradients are finite, where possible without waiting.

On a GPU, a program that asks whether a number is finite waits until it is computed, and the device
idles until the next kernels are launched. torch's fused kernels take the answer as a tensor
(``optimizer.found_inf``, as `torch.amp.GradScaler` hands it to them) and leave all as it is by
themselves. With others the host has to wait and decide.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from groundup.optim.adamw import AdamW
from groundup.optim.rrc import MARK

# Not their subclasses, whose step may do more than the kernel.
_FUSED = (AdamW, torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad)


def all_finite(*values: Tensor) -> Tensor:
    """Whether no element of any is infinite or NaN: 0-dim bool, on their device, not waited for.

    Of a distributed tensor (the norm that `torch.nn.utils.clip_grad_norm_` returns under FSDP2) all
    parts on all ranks are looked at, which all ranks have to call this for.
    """
    whole = (v.full_tensor() if hasattr(v, "full_tensor") else v for v in values)
    return reduce(torch.logical_and, (torch.isfinite(v).all() for v in whole))


def guarded_step(optimizer: Optimizer, finite: Tensor | bool) -> None:
    """``optimizer.step()`` if `finite`; else weights and state stay what they are, to the bit.

    The step counts of the optimizer's state stay, too. The gradients are left to ``zero_grad()``.
    Where `waits` says so, `finite` is read on the host, and ``step()`` is not called without it.
    Otherwise it is called in any case, and runs its hooks, which find 1.0 in
    ``optimizer.found_inf`` (0-dim) if nothing is updated. `groundup.Warmup.follow` reads that, and
    so waits.

    Args:
        finite: True or 1, for an update, or anything else: 0-dim, the same on all ranks, on the
            parameters' device. `all_finite` of the gradient norm and of the loss of all ranks. Of
            a Python bool the host knows already: ``step()`` is called or not.

    Raises:
        ValueError: for a `finite` with dimensions, or that is neither tensor nor bool.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
        >>> (weight * float("nan")).sum().backward()
        >>> norm = torch.nn.utils.clip_grad_norm_([weight], 1.0)
        >>> guarded_step(optimizer, all_finite(norm))
        >>> weight.tolist()
        [1.0, 1.0]
    """
    if not isinstance(finite, Tensor | bool):
        raise ValueError(
            f"finite={finite!r} is not valid: it must be a tensor without dimensions, or a bool"
        )
    if isinstance(finite, Tensor) and finite.ndim != 0:
        raise ValueError(
            f"finite of shape {tuple(finite.shape)} is not valid: it must be a tensor without "
            "dimensions"
        )
    if isinstance(finite, bool) or waits(optimizer):
        if finite == 1:
            optimizer.step()
        return
    # One that is NaN counts as found.
    optimizer.found_inf = (finite != 1).to(torch.float32)  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


def waits(optimizer: Optimizer) -> bool:
    """Whether the next `guarded_step` reads on the host whether to make the update.

    It does not for torch's fused Adam, AdamW, SGD and Adagrad and our AdamW with the usual bias
    correction, once they have state of all parameters (SGD without momentum never has). It does
    for all others, and for all with `groundup.optim.RRC`.
    """
    return (
        type(optimizer) not in _FUSED
        or hasattr(optimizer, MARK)
        or not all(_skips(optimizer, group) for group in optimizer.param_groups)
    )


def _skips(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    """Whether the update of a group leaves all as it is by itself."""
    # `fused` may be another since a state was loaded. Another bias correction needs the count of
    # updates on the host, where it would not be known after one that may have been made or not.
    if not group["fused"] or group.get("bias_correction", "usual") != "usual":
        return False
    # State that is not there is made even if nothing is updated: SGD's of whatever is in memory.
    return all(p.grad is None or optimizer.state.get(p) for p in group["params"])
