"""Whole samples of each part, against exact due dates of every sample."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from groundup.data.mixture.counts import Counts
from groundup.data.mixture.weights import WHOLE

UPDATES = 25


@st.composite
def tables(draw: st.DrawFn) -> NDArray[np.int64]:
    """Shares of one to six parts that change at every update, some of them 0."""
    parts = draw(st.integers(1, 6))
    rows = draw(st.integers(1, UPDATES))
    row = st.lists(st.integers(0, 1000), min_size=parts, max_size=parts).filter(any)
    weights = np.array(draw(st.lists(row, min_size=rows, max_size=rows)))
    table = weights * WHOLE // weights.sum(axis=1, keepdims=True)
    table[np.arange(rows), table.argmax(axis=1)] += WHOLE - table.sum(axis=1)
    return table


def due(table: NDArray[np.int64], batch: int, until: int) -> list[list[Fraction]]:
    """T_k at the updates 0…until: what each part is due, exactly."""
    found = [[Fraction(0)] for _ in range(table.shape[1])]
    for step in range(until):
        for part, share in enumerate(table[min(step, len(table) - 1)].tolist()):
            found[part].append(found[part][-1] + Fraction(batch * share, WHOLE))
    return found


def by_due_date(table: NDArray[np.int64], batch: int, until: int) -> list[list[int]]:
    """n_k(s) from the list of all samples in the order in which they are due.

    Sample j of a part is due when T_k passes j + ½, in steps of 2^-32 of an update; of those that
    are due at once the part that comes first is first.
    """
    end = until + 8
    dates = []
    for part, course in enumerate(due(table, batch, end)):
        for j in range(math.floor(course[-1] + Fraction(1, 2))):
            half = j + Fraction(1, 2)
            step = next(s for s in range(end) if course[s + 1] >= half)
            inside = (half - course[step]) / (course[step + 1] - course[step])
            dates.append((math.ceil((step + inside) * 2**32), part))
    order = [part for _, part in sorted(dates)]
    return [
        [order[: step * batch].count(part) for part in range(table.shape[1])]
        for step in range(until + 1)
    ]


@given(tables(), st.integers(1, 12), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_equal_the_order_of_due_dates(table: NDArray[np.int64], batch: int, random) -> None:
    expected = by_due_date(table, batch, UPDATES)
    counts = Counts(table, batch)
    steps = list(range(UPDATES + 1))
    random.shuffle(steps)  # what was asked before does not matter
    for step in steps:
        assert list(counts.before(step)) == expected[step]


@given(tables(), st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_add_up_never_fall_and_stay_near(table: NDArray[np.int64], batch: int) -> None:
    parts = table.shape[1]
    counts, course = Counts(table, batch), due(table, batch, UPDATES)
    before = [0] * parts
    for step in range(UPDATES + 1):
        now = counts.before(step)
        assert sum(now) == step * batch
        assert all(a <= b for a, b in zip(before, now, strict=True))
        for part in range(parts):
            # 2^-32 of an update is where moments are cut.
            bound = max(Fraction(1, 2), Fraction(parts - 1, 2)) + Fraction(parts * batch, 2**32)
            assert abs(now[part] - course[part][step]) <= bound
        before = list(now)


@given(tables(), st.integers(1, 5000), st.integers(10**6, 10**12))
@settings(max_examples=40, deadline=None)
def test_far_updates_are_found_without_those_before(
    table: NDArray[np.int64], batch: int, step: int
) -> None:
    now = Counts(table, batch).before(step)
    assert sum(now) == step * batch
    inside = due(table, batch, len(table))
    for part, last in enumerate(table[-1].tolist()):
        expected = inside[part][-1] + Fraction(batch * last * (step - len(table)), WHOLE)
        assert abs(now[part] - expected) < max(1, table.shape[1] / 2)


def test_two_parts_take_turns() -> None:
    counts = Counts(np.array([[WHOLE // 2, WHOLE // 2]]), batch=1)
    taken = [counts.before(step) for step in range(7)]
    assert taken == [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]


def test_no_negative_step() -> None:
    with pytest.raises(ValueError, match="step=-1"):
        Counts(np.array([[WHOLE]]), batch=1).before(-1)
