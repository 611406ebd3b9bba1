"""The weights of a mixture along a run.

A weight is a number, points with straight lines between them, or a factor. At each update the
weights of all parts are divided by their sum; what a part then has is its share of the batch, kept
as a whole number of parts in `WHOLE`, so that everything after it is exact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from groundup._check import count, is_number, within
from groundup.schedules.chain import from_json
from groundup.schedules.length import Length, check_length, exact_steps, parse_length

__all__ = [
    "WHOLE",
    "Point",
    "Weight",
    "check_weight",
    "follows_warmup",
    "peak",
    "shares",
    "with_warmup_at",
]

WHOLE = 1 << 32
"""The share of a part that has the whole batch."""

Point: TypeAlias = tuple[int | float | str, float]
"""When (as lengths are written everywhere, 0 the beginning; "warmup": the end of the residual
warmup), and the weight then."""

Weight: TypeAlias = float | tuple[Point, ...] | dict[str, Any]

_WARMUP = "warmup"
_BEGINNING = re.compile(r"0(\.0*)?\s*(%|steps|tokens)?")


def check_weight(field: str, weight: Any) -> Weight:
    """`weight` if it is one, as tuples where it was lists.

    Errors: `ValueError` naming `field`.
    """
    if is_number(weight):
        return float(within(field, weight, 0.0, float("inf")))
    if isinstance(weight, Mapping):
        try:
            from_json(json.dumps(weight))
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from None
        return dict(weight)
    if isinstance(weight, list | tuple) and weight:
        return tuple(_point(field, point) for point in weight)
    raise ValueError(
        f"{field}={weight!r} is not valid: give a number, points such as "
        '[["0%", 0.9], ["24%", 0.5]], or a factor'
    )


def with_warmup_at(weight: Weight, end: int) -> Weight:
    """The same with the update `end` in the place of "warmup"."""
    if not isinstance(weight, tuple):
        return weight
    return tuple((end if when == _WARMUP else when, value) for when, value in weight)


def shares(
    weights: Mapping[str, Weight],
    steps: int,
    tokens_per_step: int | None = None,
    warmup_end: float | None = None,
) -> NDArray[np.int64]:
    """The share of each part in the batch of each update: int64 [updates, parts].

    Each row adds up to `WHOLE`. There are as many rows as the shares go on changing, one at least;
    the last holds from there on.

    Args:
        weights: by the name of the part.
        steps: length of the run in updates.
        tokens_per_step: tokens of an update; needed for lengths in tokens.
        warmup_end: updates until the residual warmup is complete; needed for "warmup".

    Errors: `ValueError` naming the part where its points do not follow each other or it has no
    weight in the whole run, or the update at which no part has one.
    """
    updates = count("steps", steps)
    if all(is_number(weight) for weight in weights.values()):
        updates = 1
    columns = [
        _course(f"weight of {name!r}", weight, updates, steps, tokens_per_step, warmup_end)
        for name, weight in weights.items()
    ]
    table = np.stack(columns, axis=1)
    for name, column in zip(weights, columns, strict=True):
        if not column.any():
            raise ValueError(
                f"weight of {name!r} is 0 in the whole run: leave the part out, or give it a weight"
            )
    highest = table.max(axis=1, keepdims=True)
    if not highest.all():
        empty = int(np.flatnonzero(highest == 0.0)[0])
        raise ValueError(f"mixture: all weights are 0 at update {empty}: one must be above 0")
    table /= highest  # so that no sum overflows
    whole = np.rint(table / table.sum(axis=1, keepdims=True) * WHOLE).astype(np.int64)
    # What rounding has left over goes to the largest, which it changes least.
    whole[np.arange(len(whole)), whole.argmax(axis=1)] += WHOLE - whole.sum(axis=1)
    changing = np.flatnonzero((whole != whole[-1]).any(axis=1))
    return whole[: changing[-1] + 2 if changing.size else 1]


def _course(
    field: str,
    weight: Weight,
    updates: int,
    steps: int,
    tokens_per_step: int | None,
    warmup_end: float | None,
) -> NDArray[np.float64]:
    """A weight at the first `updates` updates of a run of `steps`."""
    if isinstance(weight, Mapping):
        factor = from_json(json.dumps(weight)).resolve(steps, tokens_per_step)
        return np.fromiter((factor.at(step) for step in range(updates)), np.float64, updates)
    if not isinstance(weight, tuple):
        return np.full(updates, float(weight))
    moments = [_moment(field, when, steps, tokens_per_step, warmup_end) for when, _ in weight]
    for i, (earlier, later) in enumerate(pairwise(moments), start=1):
        if later < earlier:
            raise ValueError(
                f"{field}: the point {list(weight[i])!r} (update {later:g}) comes before "
                f"{list(weight[i - 1])!r} (update {earlier:g}): give the points in order"
            )
    return _joined(np.array(moments), np.array([value for _, value in weight]), updates)


def _joined(
    moments: NDArray[np.float64], values: NDArray[np.float64], updates: int
) -> NDArray[np.float64]:
    """Straight lines between points; before the first and after the last their values. Of two
    points at one moment the second holds from it on."""
    step = np.arange(updates, dtype=np.float64)
    passed = np.searchsorted(moments, step, side="right")
    before, after = np.maximum(passed - 1, 0), np.minimum(passed, len(moments) - 1)
    span = moments[after] - moments[before]
    inside = span > 0
    u = np.where(inside, (step - moments[before]) / np.where(inside, span, 1.0), 0.0)
    return values[before] * (1.0 - u) + values[after] * u


def _point(field: str, point: Any) -> Point:
    if not isinstance(point, list | tuple) or len(point) != 2:
        raise ValueError(
            f'{field}: {point!r} is not valid: a point is [when, weight], such as ["24%", 0.5]'
        )
    when, value = point
    _length(field, when)
    return when, float(within(field, value, 0.0, float("inf")))


def _moment(
    field: str,
    when: int | float | str,
    steps: int,
    tokens_per_step: int | None,
    warmup_end: float | None,
) -> float:
    """The update, not rounded, at which a point lies."""
    if when == _WARMUP:
        if warmup_end is None or not np.isfinite(warmup_end):
            raise ValueError(
                f"{field}: the point 'warmup' needs a residual warmup that ends: give "
                "residual.schedule one, or the point in updates or as a fraction"
            )
        return float(warmup_end)
    length = _length(field, when)
    return 0.0 if length is None else float(exact_steps(field, length, steps, tokens_per_step))


def _length(field: str, when: Any) -> Length | None:
    """Where a point lies, as a length; None for the beginning, and for "warmup"."""
    if when == _WARMUP:
        return None
    if (is_number(when) and when == 0) or (isinstance(when, str) and _BEGINNING.fullmatch(when)):
        return None
    try:
        return parse_length(field, when) if isinstance(when, str) else check_length(field, when)
    except ValueError as error:
        raise ValueError(f'{error} (the moment of a point; it may be "warmup", too)') from None


def peak(weight: Weight) -> float:
    """The highest of a weight's values, whatever the run's length; that of a factor counts as 1."""
    if isinstance(weight, Mapping):
        return 1.0
    return max(value for _, value in weight) if isinstance(weight, tuple) else weight


def follows_warmup(weight: Weight) -> bool:
    """Whether it has a point at the end of the residual warmup."""
    return isinstance(weight, tuple) and any(when == _WARMUP for when, _ in weight)
