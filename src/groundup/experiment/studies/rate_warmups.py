"""What studies share whose arms are points of a sweep over the warmup of the rate."""

from __future__ import annotations

from collections.abc import Mapping

WARMUPS = {"none": "0", "5%": "0.05", "20%": "0.2"}
"""In words → as [sweep] says it."""


def arm(variant: str, warmup: str) -> str:
    """What the sweep calls a variant with this warmup."""
    return f"{variant}.warmup-{warmup}"


def cells(variants: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Of a `Grid`: a row for each label of a variant, a column for each warmup."""
    return {
        said: {share: arm(name, w) for share, w in WARMUPS.items()}
        for said, name in variants.items()
    }


def lines(variants: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Of `Lines`: a line for each label of a variant, against % of the run."""
    return {
        said: {arm(name, w): 100 * float(w) for w in WARMUPS.values()}
        for said, name in variants.items()
    }
