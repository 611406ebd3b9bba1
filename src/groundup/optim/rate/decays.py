"""Whether an optimizer decays by w ← w·(1 − lr·λ), so that λ can be set against the rate."""

from __future__ import annotations

from typing import Any

import torch

# Optimizers that say it in their groups: torch's, and pytorch_optimizer's.
_KEYS = ("decoupled_weight_decay", "weight_decouple")
# Those that do not: torch's, groundup's, and the usual ones of others, which all mean the same.
_NAMES = ("AdamW", "PagedAdamW", "RotationalAdamW", "Adafactor", "Muon", "Lion")


def refuse_unless_decoupled(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], mode: str
) -> None:
    """ValueError where λ/ω and λ·ω would not be what `weight_decay`=`mode` says."""
    if (reason := _reason_against(optimizer, group)) is not None:
        raise ValueError(
            f"weight_decay={mode!r} is not valid for {type(optimizer).__name__}: {reason}. Valid "
            "are 'coupled' and a factor of its own"
        )


def _reason_against(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> str | None:
    if group.get("rotational", False) is not False:
        return (
            "its weight decay λ is none, but sets the angle √(2·lr·λ) by which it turns weights, "
            "which would no longer follow the rate as it should"
        )
    if group.get("fixed_decay"):
        return "with fixed_decay=True its decay is independent of the rate already"
    said = [group[key] for key in _KEYS if key in group]
    if any(said) or (not said and _known(optimizer)):
        return None
    if said:
        return "it adds λ·w to the gradient (L2), where λ is not the share of w that is taken away"
    return (
        "it is not known to take lr·λ·w from each weight w, as AdamW does; many add λ·w to the "
        "gradient (L2). If it does, say decoupled_weight_decay=True in its groups"
    )


def _known(optimizer: torch.optim.Optimizer) -> bool:
    return any(kind.__name__.startswith(_NAMES) for kind in type(optimizer).__mro__)
