"""Rate factors against closed forms in exact rational arithmetic."""

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from groundup.schedules import factor as F


@given(st.integers(1, 5000), st.integers(0, 10000))
def test_linear_warmup(W: int, step: int) -> None:
    assert F.linear(W)(step) == pytest.approx(float(min(1, Fraction(step + 1, W))), rel=1e-15)
    assert F.linear(W, start="zero")(step) == pytest.approx(
        float(min(1, Fraction(step, W))), rel=1e-15
    )


@given(st.integers(1, 5000), st.integers(0, 10000), st.floats(0, 1))
def test_linear_warmup_from_a_start_factor(W: int, step: int, c: float) -> None:
    u = min(1, Fraction(step + 1, W))
    expected = float(Fraction(c) + (1 - Fraction(c)) * u)
    assert F.linear(W, initial=c)(step) == pytest.approx(expected, rel=1e-15)


def test_warmup_reaches_one_at_its_last_update() -> None:
    for W in (1, 3, 7, 49, 2000):
        assert F.linear(W, initial=0.1)(W - 1) == 1.0


def test_constant_warmup() -> None:
    f = F.constant(5, 0.1)
    assert [f(step) for step in (0, 4, 5, 99)] == [0.1, 0.1, 1.0, 1.0]


@given(st.integers(1, 3000), st.floats(0, 1), st.data())
def test_decays(D: int, floor: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, D - 1))
    u = k / D
    shapes = {"linear": 1 - u, "cosine": (1 + math.cos(math.pi * u)) / 2, "sqrt": 1 - math.sqrt(u)}
    for name, fall in shapes.items():
        f = F.decay(name, D, floor)
        assert f(k) == pytest.approx(floor + (1 - floor) * fall, rel=1e-9, abs=1e-12)
        assert f(D) == f(D + 1000) == floor


def test_linear_decay_ends_at_one_over_its_length() -> None:
    f = F.wsd(20, 0.2)
    values = [f(step, steps=1000) for step in range(1000)]
    assert values[0] == pytest.approx(1 / 20)
    assert values[19:801] == [1.0] * 782
    assert values[-1] == pytest.approx(1 / 200, rel=1e-12)
    assert sum(values) == pytest.approx(20 * 21 / 2 / 20 + 780 + 200 * 201 / 2 / 200)


@given(
    st.integers(1, 400), st.floats(0.01, 0.5), st.sampled_from(["linear", "cosine", "sqrt"]),
    st.integers(1000, 10**6), st.data(),
)  # fmt: skip
def test_wsd_is_its_three_parts(W: int, d: float, shape: str, N: int, data: st.DataObject) -> None:
    D = round(d * N)
    step = data.draw(st.integers(0, N - 1))
    got = F.wsd(W, d, shape)(step, steps=N)
    if step < W:
        assert got == pytest.approx((step + 1) / W, rel=1e-14)
    elif step < N - D:
        assert got == 1.0
    else:
        assert got == F.decay(shape, D)(step - (N - D))
    assert 0.0 < got <= 1.0


def test_cosine_after_warmup_takes_the_rest() -> None:
    f = F.linear(100) >> F.decay("cosine", floor=0.1)
    assert f.lengths(1100) == [100, 1000]
    for step in (100, 350, 600, 1099):
        u = (step - 100) / 1000
        expected = 0.1 + 0.9 * (1 + math.cos(math.pi * u)) / 2
        assert f(step, steps=1100) == pytest.approx(expected, rel=1e-12)


def test_a_hold_after_a_decay_keeps_its_floor_and_a_second_decay_starts_there() -> None:
    f = F.decay("linear", 10, floor=0.5) >> F.hold(10) >> F.decay("linear", 10)
    assert [f(s) for s in (0, 10, 19, 20, 25, 30)] == [1.0, 0.5, 0.5, 0.5, 0.25, 0.0]


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 50))
def test_join_is_associative(a: int, b: int, c: int) -> None:
    x, y, z = F.linear(a), F.hold(b), F.decay("cosine", c)
    assert (x >> y) >> z == x >> (y >> z)


def test_json_round_trip() -> None:
    f = F.linear(0.01, initial=0.2, start="zero") >> F.hold() >> F.decay("sqrt", 0.1, 0.05)
    assert F.from_json(f.to_json()) == f
    assert F.by_name("wsd", 20, 0.2) == F.wsd(20, 0.2)


def test_segments_longer_than_the_run_are_refused() -> None:
    with pytest.raises(ValueError, match=r"linear 50, hold open, linear-decay 80.*run of 100"):
        F.wsd(50, 80)(0, steps=100)


@given(st.integers(1, 60), st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_fractions_that_fit_are_never_refused_for_their_rounding(
    N: int, w: float, d: float
) -> None:
    f = F.wsd(w, d)
    lengths = f.lengths(N)
    assert sum(lengths) == N
    assert abs(lengths[0] - w * N) <= 1
    assert abs(lengths[2] - d * N) <= 1
    assert all(0 < f(step, steps=N) <= 1 for step in range(N))


def test_a_run_of_one_update() -> None:
    assert F.wsd(0.02, 0.1)(0, steps=1) == 1.0


def test_only_one_open_length() -> None:
    with pytest.raises(ValueError, match="only one segment.*hold, cosine-decay"):
        F.hold() >> F.decay("cosine")


@pytest.mark.parametrize("bad", [0, -5, 0.0, -0.1, math.nan, math.inf, 1.5, True, "10"])
def test_bad_lengths(bad: object) -> None:
    with pytest.raises(ValueError, match="length of linear="):
        F.linear(bad)  # type: ignore[arg-type]


def test_steps_written_as_a_float_get_a_hint() -> None:
    with pytest.raises(ValueError, match="write 2000 for steps"):
        F.linear(2000.0)


def test_fractions_need_the_length_of_the_run() -> None:
    with pytest.raises(ValueError, match="fraction of the run: say how long"):
        F.linear(0.1)(0)
    with pytest.raises(ValueError, match="open length needs steps"):
        (F.linear(5) >> F.hold())(0)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        F.decay("cosin", 10)
    with pytest.raises(ValueError, match="did you mean 'linear'"):
        F.by_name("linaer", 10)


@given(st.integers(1, 100), st.floats(0.001, 1.0), st.integers(1, 10**6))
def test_a_fraction_lasts_at_least_one_update(step: int, fraction: float, steps: int) -> None:
    assume(step < steps)
    (length,) = F.linear(fraction).lengths(steps)
    assert length == max(1, round(fraction * steps))
