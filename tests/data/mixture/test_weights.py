"""Shares of the parts along a run, against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import groundup as gu
from groundup.data.mixture.weights import WHOLE, check_weight, peak, shares

STEPS = 60
values = st.integers(0, 1000).map(lambda n: n / 100)


@st.composite
def courses(draw: st.DrawFn) -> Any:
    """A number, or points in updates and whole percent of `STEPS` updates, in order."""
    if draw(st.booleans()):
        return draw(values) + 0.01
    moments = sorted(draw(st.lists(st.integers(0, 100), min_size=1, max_size=4)))
    points = []
    for percent in moments:
        at = percent * STEPS / 100
        whole = at == int(at) and draw(st.booleans())
        points.append((int(at) if whole else f"{percent}%", draw(values) + 0.01))
    return tuple(points)


def exact(course: Any, step: int) -> Fraction:
    """The weight at an update, from the definition."""
    if not isinstance(course, tuple):
        return Fraction(course)
    points = [
        (Fraction(when) if isinstance(when, int) else Fraction(int(when[:-1]) * STEPS, 100), w)
        for when, w in course
    ]
    if step < points[0][0]:
        return Fraction(points[0][1])
    for (a, v), (b, w) in pairwise(points):
        if a <= step < b:
            return Fraction(v) + (Fraction(w) - Fraction(v)) * (step - a) / (b - a)
    return Fraction(points[-1][1])


@given(st.lists(courses(), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_shares_are_the_weights_over_their_sum(found: list[Any]) -> None:
    weights = {f"part{i}": check_weight("weight", course) for i, course in enumerate(found)}
    table = shares(weights, STEPS)
    assert table.dtype == np.int64
    assert (table.sum(axis=1) == WHOLE).all()
    assert (table >= 0).all()
    assert 1 <= len(table) <= STEPS
    # The last row is said once.
    assert len(table) == 1 or (table[-1] != table[-2]).any()
    for step in range(STEPS):
        weight = [exact(course, step) for course in weights.values()]
        row = table[min(step, len(table) - 1)].tolist()
        for share, one in zip(row, weight, strict=True):
            assert abs(Fraction(share, WHOLE) - one / sum(weight)) < Fraction(1, 10**9)


def test_moments_are_lengths_as_everywhere() -> None:
    course = [["0%", 1.0], [0.25, 2.0], ["50%", 3], ["6k tokens", 4.0], [75, 5.0], [1.0, 6.0]]
    table = shares({"a": check_weight("a", course), "b": 1.0}, 100, tokens_per_step=100)
    at = {0: 1, 25: 2, 50: 3, 60: 4, 75: 5, 99: 5 + 24 / 25}
    for step, weight in at.items():
        assert table[step, 0] / WHOLE == pytest.approx(weight / (weight + 1), abs=1e-9)


def test_the_end_of_the_residual_warmup_is_a_point() -> None:
    schedule = gu.depth.linear(T=10)
    weights = {"web": check_weight("web", [[0, 0.9], ["warmup", 0.5]]), "code": 0.5}
    table = shares(weights, 1000, warmup_end=schedule.end(depth=12))
    assert len(table) == 121
    assert table[120].tolist() == [WHOLE // 2, WHOLE // 2]
    assert table[119, 0] > WHOLE // 2
    assert table[60, 0] / WHOLE == pytest.approx(0.7 / 1.2, abs=1e-9)


def test_two_points_at_one_moment_are_a_step() -> None:
    weights = {"a": check_weight("a", [[0, 1.0], [10, 1.0], [10, 3.0]]), "b": 1.0}
    table = shares(weights, 100)
    assert table[:10, 0].tolist() == [WHOLE // 2] * 10
    assert table[10:, 0].tolist() == [WHOLE // 4 * 3]


def test_a_factor_is_a_weight() -> None:
    factor = 0.5 * (gu.factor.linear(0.24) >> gu.factor.hold())
    weights = {"a": check_weight("a", factor.plain()), "b": 0.5}
    table = shares(weights, 200)
    for step in range(200):
        weight = 0.5 * min(1.0, (step + 1) / 48)
        share = table[min(step, len(table) - 1), 0] / WHOLE
        assert share == pytest.approx(weight / (weight + 0.5), abs=1e-9)


def test_a_long_run_with_one_share_is_one_row() -> None:
    assert shares({"a": 3.0, "b": 1.0}, 10**9).tolist() == [[WHOLE // 4 * 3, WHOLE // 4]]
    assert shares({"a": 1e308, "b": 1e308}, 5).tolist() == [[WHOLE // 2, WHOLE // 2]]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-1, r"weight of 'a'=-1 is not valid"),
        (float("nan"), "weight of 'a'=nan"),
        (True, "True"),
        ("0.5", r"'0.5' is not valid: give a number, points"),
        ([], "points"),
        ([1, 2], r"1 is not valid: a point is \[when, weight\]"),
        ([["20%", -0.5]], "-0.5"),
        ([["later", 1]], "'later' .*warmup"),
        ([[1.5, 1]], "1.5"),
        ([[-3, 1]], "-3"),
        ([[True, 1]], "True"),
        ({"chan": []}, "did you mean 'chain'"),
        ({}, "kind of factor"),
        (None, "None"),
    ],
)
def test_what_is_no_weight(weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_weight("weight of 'a'", weight)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": (("50%", 1.0), (10, 2.0)), "b": 1.0}, r"'a': the point \[10, 2.0\] \(update 10\)"),
        ({"a": (("warmup", 1.0),), "b": 1.0}, "'a': .*residual.schedule"),
        ({"a": ((0, 1.0), ("1k tokens", 2.0)), "b": 1.0}, "tokens_per_step"),
        ({"a": 0.0, "b": 1.0}, "weight of 'a' is 0 in the whole run"),
        (
            {"a": ((0, 1.0), (10, 0.0)), "b": ((20, 0.0), (30, 1.0))},
            "all weights are 0 at update 10",
        ),
    ],
)
def test_courses_that_do_not_fit(weights: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shares(weights, 100)


def test_the_highest_weight() -> None:
    assert peak(0.3) == 0.3
    assert peak(((0, 0.1), ("50%", 0.7), (1.0, 0.2))) == 0.7
    assert peak(gu.factor.linear(10).plain()) == 1.0
