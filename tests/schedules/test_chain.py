"""Joining, multiplying and blending factors; resolving their lengths; JSON."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.schedules import factor as F
from groundup.schedules.chain import Blend, Chain, Factor, Product
from groundup.schedules.length import Tokens
from tests.schedules.strategies import (
    RUNS,
    TOKENS_PER_STEP,
    chains,
    factors,
    falls,
    lengths,
    warmups,
)

N = 400


def curve(f: Factor, steps: int = N) -> list[float]:
    return [f(step, steps, TOKENS_PER_STEP) for step in range(steps)]


@given(factors, RUNS, st.data())
def test_a_factor_is_a_pure_function_of_the_step(
    f: Factor, steps: int, data: st.DataObject
) -> None:
    order = data.draw(st.lists(st.integers(0, 2 * steps), min_size=1, max_size=12))
    again = F.from_json(f.to_json())
    # In any order, on a fresh object, and with another run asked for in between.
    assert [f(s, steps, TOKENS_PER_STEP) for s in order] == [
        (again(s, 2 * steps, TOKENS_PER_STEP), again(s, steps, TOKENS_PER_STEP))[1]
        for s in reversed(order)
    ][::-1]


@given(factors, RUNS)
@settings(max_examples=60)
def test_values_lie_between_0_and_the_peak(f: Factor, steps: int) -> None:
    assert all(0.0 <= value <= 1.0 + 1e-12 for value in curve(f, steps))


@given(warmups(lengths()))
def test_warmups_rise(f: Chain) -> None:
    values = curve(f)
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))


@given(falls(st.one_of(st.none(), lengths())))
def test_decays_fall_and_holds_stay(f: Chain) -> None:
    values = curve(f)
    assert values[0] <= 1.0
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(values))


@given(chains(), chains(), chains())
def test_join_is_associative(a: Chain, b: Chain, c: Chain) -> None:
    opens = sum(s.length is None for f in (a, b, c) for s in f.segments)
    if opens > 1:
        with pytest.raises(ValueError, match="only one segment may leave its length open"):
            a >> b >> c
        return
    assert ((a >> b) >> c).to_json() == (a >> (b >> c)).to_json()
    assert (Chain() >> a).to_json() == a.to_json() == (a >> Chain()).to_json()


@given(chains(), RUNS)
@settings(max_examples=60)
def test_a_chain_is_its_segments_each_from_the_level_that_the_one_before_left(
    f: Chain, steps: int
) -> None:
    expected: list[float] = []
    level = 1.0
    for part, length in zip(
        f.resolve(steps, TOKENS_PER_STEP).segments,
        [n for n in f.lengths(steps, TOKENS_PER_STEP) if n],
        strict=True,
    ):
        alone = Chain((part,))
        expected += [level * alone(k, steps) for k in range(length)]
        level *= alone(length, steps)  # what is kept after its end
    expected += [level] * (steps - len(expected))
    assert curve(f, steps) == pytest.approx(expected, rel=1e-12, abs=1e-300)


@given(factors, factors, st.integers(0, N - 1))
def test_a_product_commutes_and_is_the_product(f: Factor, g: Factor, step: int) -> None:
    def at(h: Factor) -> float:
        return h(step, N, TOKENS_PER_STEP)

    assert at(f * g) == pytest.approx(at(g * f), rel=1e-12, abs=1e-300)
    assert at(f * g) == pytest.approx(at(f) * at(g), rel=1e-12, abs=1e-300)
    assert at(f * 0.25) == at(0.25 * f) == pytest.approx(0.25 * at(f), rel=1e-12, abs=1e-300)


@given(chains(), chains(), chains())
def test_a_product_is_associative_and_flat(f: Chain, g: Chain, h: Chain) -> None:
    assert (f * g) * h == f * (g * h) == Product((f, g, h))


@given(factors, factors, st.integers(0, 200), st.integers(1, 80))
def test_a_blend_is_the_old_before_the_new_after_and_a_line_between(
    old: Factor, new: Factor, at: int, length: int
) -> None:
    got, a, b = curve(F.blend(old, new, at=at, length=length)), curve(old), curve(new)
    assert got[: at + 1] == a[: at + 1]
    assert got[at + length :] == b[at + length :]
    for step in range(at, at + length):
        w = Fraction(step - at, length)
        expected = (1 - w) * Fraction(a[step]) + w * Fraction(b[step])
        assert got[step] == pytest.approx(float(expected), rel=1e-12, abs=1e-15)


def test_a_blend_has_no_jump() -> None:
    """A run planned for 1000 updates goes on to 3000: the rate climbs back, 1/100 at a time."""
    plan = F.wsd(20, 0.2)
    got = F.blend(plan.resolve(1000), plan, at=990, length=100)
    values = [got(step, steps=3000) for step in range(3000)]
    jumps = [abs(b - a) for a, b in itertools.pairwise(values)]
    assert max(jumps[20:]) <= 1 / 100 + 1 / 200
    assert values[989] == pytest.approx(11 / 200)
    assert values[1090:2400] == [1.0] * 1310
    assert values[-1] == pytest.approx(1 / 600)


def test_the_old_factor_of_a_blend_may_be_of_a_longer_run() -> None:
    plan = F.wsd(20, 0.2)
    got = F.blend(plan.resolve(1000), plan, at=300, length=50)
    assert got(300, steps=600) == 1.0
    assert got(599, steps=600) == plan(599, steps=600)
    assert got.joints(600) == [20, 300, 350, 480]


@pytest.mark.parametrize(("at", "length"), [(-1, 5), (5, 0), (True, 5), (0.1, 5), (5, 0.1)])
def test_a_blend_refuses_what_is_no_number_of_updates(at: int, length: int) -> None:
    with pytest.raises(ValueError, match="whole number of at least"):
        F.blend(F.hold(), F.hold(), at=at, length=length)


@given(factors, RUNS)
@settings(max_examples=60)
def test_a_resolved_factor_needs_nothing_and_is_the_same(f: Factor, steps: int) -> None:
    resolved = f.resolve(steps, TOKENS_PER_STEP)
    again = resolved.resolve(steps)
    for step in (*range(steps + 20), 10 * steps):
        value = f(step, steps, TOKENS_PER_STEP)
        assert resolved(step) == resolved.at(step) == again(step) == value
    assert resolved.joints() == f.joints(steps, TOKENS_PER_STEP)


@given(chains(), RUNS)
def test_joints_are_where_the_segments_begin(f: Chain, steps: int) -> None:
    lengths = f.lengths(steps, TOKENS_PER_STEP)
    assert all(n is not None for n in lengths)
    begins = {sum(n or 0 for n in lengths[:i]) for i, n in enumerate(lengths) if n}
    assert f.joints(steps, TOKENS_PER_STEP) == sorted(begins - {0})


def test_joints_of_products_and_blends() -> None:
    f, g = F.wsd(10, 20), F.linear(30) >> F.hold()
    assert (f * g).joints(100) == [10, 30, 80]
    assert F.blend(f, g, at=50, length=5).joints(100) == [10, 50, 55]
    assert F.blend(f, g, at=20, length=5).joints(100) == [10, 20, 25, 30]


@given(factors)
def test_json_round_trip(f: Factor) -> None:
    again = F.from_json(f.to_json())
    assert again == f
    assert again.to_json() == f.to_json()
    assert curve(again, 120) == curve(f, 120)


def test_json_keeps_one_update_and_the_whole_run_apart() -> None:
    for one, whole in (
        (F.inverse_sqrt(1), F.inverse_sqrt(1.0)),
        (F.linear(1), F.linear(1.0)),
        (F.exponential(1), F.exponential(1.0)),
        (F.step_decay(0.5, every=1), F.step_decay(0.5, every=1.0)),
    ):
        for f in (one, whole):
            assert curve(F.from_json(f.to_json()), 50) == curve(f, 50)
        assert curve(one, 50) != curve(whole, 50)


def test_json_of_numpys_whole_numbers() -> None:
    f = F.linear(np.int64(5)) >> F.hold()  # type: ignore[arg-type]
    assert F.from_json(f.to_json()) == F.linear(5) >> F.hold()


@pytest.mark.parametrize(
    "text",
    [
        "", "3", "[]", "null", '"chain"', "{}", '{"chain": 3}', '{"chain": [3]}',
        '{"chain": [{"name": "linaer", "length": 3}]}', '{"chain": [{"length": 3}]}',
        '{"chain": [{"name": "linear", "long": 3}]}',
        '{"chain": [{"name": "linear", "length": 0}]}',
        '{"chain": [{"name": "linear", "length": {"token": 3}}]}', '{"product": [3]}',
        '{"blend": [], "at": 3, "length": 4}', '{"blend": [{"chain": []}, {"chain": []}], "at": 3}',
    ],
)  # fmt: skip
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        F.from_json(text)


@given(factors, st.integers(0, 119))
def test_factors_can_be_copied_and_pickled(f: Factor, step: int) -> None:
    value = f(step, 120, TOKENS_PER_STEP)
    for other in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert other == f
        assert other(step, 120, TOKENS_PER_STEP) == value


@pytest.mark.parametrize("steps", range(1, 6))
def test_runs_of_a_few_updates(steps: int) -> None:
    tiny: list[Factor] = [
        F.wsd(0.02, 0.1),
        F.wsd(0.1, 0.1, "cosine", 0.1),
        F.wsd(Tokens(30), Tokens(45)),
        F.linear(0.3) >> F.hold(0.3) >> F.decay("sqrt", 0.3),
        F.linear(0.01) >> F.decay("exponential", floor=0.1),
        F.exponential(0.1, 0.2) >> F.hold() >> F.decay("linear", 0.2),
        F.radam(0.95, 0.5) >> F.decay("cosine", 0.5),
        F.noam(0.1),
        F.step_decay(0.5, at=(0.5, 0.75)),
        F.linear(0.2) * (F.hold() >> F.decay("linear", 0.2)),
        F.blend(F.wsd(0.1, 0.1), F.hold(), at=1, length=2),
    ]
    for f in tiny:
        values = curve(f, steps)
        assert all(0.0 <= value <= 1.0 for value in values), f
        assert values[0] > 0.0, f  # no update is wasted
        assert all(0 < joint < steps for joint in f.joints(steps, TOKENS_PER_STEP)) or (
            isinstance(f, Blend)
        )
        if isinstance(f, Chain):
            found = f.lengths(steps, TOKENS_PER_STEP)
            assert all(n is not None and n >= 0 for n in found)
            assert sum(n or 0 for n in found) <= steps


def test_lengths_in_tokens() -> None:
    # 375M tokens at 512 sequences of 1024: 715.26 updates.
    f = F.wsd(Tokens(375e6), Tokens(1e9))
    assert f.lengths(10_000, 512 * 1024) == [715, 10_000 - 715 - 1907, 1907]
    assert f(0, 10_000, 512 * 1024) == pytest.approx(1 / 715)
    with pytest.raises(ValueError, match=r"linear=3.75e\+08 tokens needs tokens_per_step"):
        f(0, 10_000)


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_tokens_are_rounded_to_updates_and_never_to_none(tokens: int, per_step: int) -> None:
    (found,) = F.linear(Tokens(tokens)).lengths(None, per_step)
    assert found is not None
    assert found >= 1
    assert found == 1 or abs(found - Fraction(tokens, per_step)) <= 0.5 + 1e-6


@pytest.mark.parametrize("bad", [-1, 0.5, True, "3", None, math.nan])
def test_a_step_is_a_number_of_completed_updates(bad: object) -> None:
    with pytest.raises(ValueError, match="step="):
        F.linear(5)(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0, -5, 2.5, True])
def test_a_run_has_a_whole_number_of_updates(bad: object) -> None:
    with pytest.raises(ValueError, match="steps="):
        F.wsd(0.1, 0.1)(0, steps=bad)  # type: ignore[arg-type]


def test_only_chains_are_joined() -> None:
    with pytest.raises(TypeError, match="only chains of segments are joined"):
        F.linear(5) >> (F.hold() * 0.5)  # type: ignore[operator]
    with pytest.raises(TypeError, match="Product >> Chain: only chains"):
        (F.hold() * 0.5) >> F.linear(5)
    with pytest.raises(ValueError, match="level=-1"):
        F.hold() * -1.0


def test_a_segment_after_one_without_end_is_never_reached_and_refused() -> None:
    with pytest.raises(ValueError, match="open length needs steps"):
        (F.exponential(5) >> F.hold(5))(0)
