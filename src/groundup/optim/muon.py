"""Muon for a whole model in one optimizer: hidden matrices by Muon, all else by AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Muon as _TorchMuon  # in torch 2.9 and later

from groundup._check import unknown

_ADJUSTMENTS = ("match_rms_adamw", "original")


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon` for the groups with ``use_muon`` True, `torch.optim.AdamW` for the others.

    Muon (Jordan et al. 2024) replaces the momentum M of a matrix by the nearest orthogonal one
    (five Newton-Schulz iterations, in bfloat16) and is meant for the hidden matrices only:
    embeddings, head, norms and biases go by AdamW, here in the same optimizer, so that schedules,
    checkpoints and gradient scaling see one. `groundup.optim.groups(model, muon=True)` makes the
    groups.

    With ``adjust_lr_fn="match_rms_adamw"`` the update of an [A, B] matrix is 0.2·√max(A, B) times
    the orthogonal one, about the size of AdamW's (Liu et al. 2025, arXiv:2502.16982, section 2.2):
    one rate and one weight decay, those of AdamW, do for both parts. ``"original"`` is √max(1, A/B)
    times it, for which rates about 0.02 are usual, so that AdamW's part needs its own: `adamw_lr`.

    A weight that packs several matrices (query, key and value in one) is orthogonalized as one. All
    state is in tensors. The update of a matrix whose momentum is zero is zero.

    Args:
        params: groups, each with ``use_muon``; those with True hold tensors of shape [A, B] only.
            Any other key below may stand in a group too.
        lr: the rate η, a float or a 0-dimensional tensor.
        weight_decay: λ, decoupled (w ← w·(1 − η·λ)) in both parts.
        momentum, nesterov, ns_steps, adjust_lr_fn: of Muon's part, as in `torch.optim.Muon`.
        betas, eps, foreach, fused: of AdamW's part, as in `torch.optim.AdamW`.
        adamw_lr: the rate of AdamW's part where it differs from `lr`.

    Raises:
        ValueError: for groups without ``use_muon``, one that is True and holds anything but
            matrices, and for settings out of range.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: str = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        adamw_lr: float | Tensor | None = None,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        if adjust_lr_fn not in _ADJUSTMENTS:
            raise unknown("adjust_lr_fn", adjust_lr_fn, _ADJUSTMENTS)
        muon = _TorchMuon(
            [torch.empty(1, 1)],
            lr=lr,  # type: ignore[arg-type]
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=nesterov,
            ns_steps=ns_steps,
            adjust_lr_fn=adjust_lr_fn,
        )
        adamw = torch.optim.AdamW(
            [torch.empty(1, 1)],
            lr=lr if adamw_lr is None else adamw_lr,
            weight_decay=weight_decay,
            betas=betas,
            eps=eps,
            foreach=foreach,
            fused=fused,
        )
        self._parts = {True: muon, False: adamw}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; what it does not say is filled in with the settings of its part."""
        is_muon = param_group.get("use_muon") if isinstance(param_group, dict) else None
        if not isinstance(is_muon, bool):
            raise ValueError(
                "Muon cannot tell hidden matrices from embeddings and the head: give groups with "
                "use_muon True or False, such as those of groundup.optim.groups(model, muon=True)"
            )
        super().add_param_group({**self._parts[is_muon].defaults, **param_group})
        for p in self.param_groups[-1]["params"]:
            if is_muon and p.ndim != 2:
                self.param_groups.pop()
                raise ValueError(
                    f"a parameter of shape {tuple(p.shape)} is in a group with use_muon=True: Muon "
                    "takes matrices of exactly two dimensions"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all groups; the loss of `closure`, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for is_muon, part in self._parts.items():
            # Anew each time: loading a state dict makes other groups and another state.
            part.param_groups = [g for g in self.param_groups if g["use_muon"] is is_muon]
            part.state = self.state
            part.step()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_parts": self._parts}
