"""Rate factors against closed forms in exact rational or 60-digit arithmetic."""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
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


@given(st.integers(1, 5000), st.floats(1, 1000), st.integers(0, 10000))
def test_gradual_warmup_rises_from_the_rate_of_the_small_batch(
    W: int, scale: float, step: int
) -> None:
    first = 1 / Fraction(scale)
    expected = first + (1 - first) * min(1, Fraction(step + 1, W))
    assert F.gradual(W, scale)(step) == pytest.approx(float(expected), rel=1e-14)


@given(st.integers(1, 5000), st.floats(0, 1), st.integers(0, 10000), st.sampled_from([0, 1]))
def test_cosine_warmup(W: int, c: float, step: int, first: int) -> None:
    f = F.cosine(W, initial=c, start="one" if first else "zero")
    u = min(1.0, (step + first) / W)
    expected = c + (1 - c) * (1 - math.cos(math.pi * u)) / 2
    assert f(step) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@given(st.integers(1, 5000), st.integers(0, 50_000), st.sampled_from([0, 1]))
def test_exponential_warmup(tau: int, step: int, first: int) -> None:
    with localcontext() as context:
        context.prec = 60
        expected = 1 - (-Decimal(step + first) / tau).exp()
    got = F.exponential(tau, start="one" if first else "zero")(step)
    assert got == pytest.approx(float(expected), rel=1e-14)


@given(st.floats(0.01, 0.99999), st.integers(0, 50_000))
def test_untuned_exponential_warmup(beta2: float, step: int) -> None:
    with localcontext() as context:
        context.prec = 60
        expected = 1 - (-(1 - Decimal(beta2)) * (step + 1)).exp()
    assert F.untuned_exponential(beta2)(step) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(
    "warmup", [F.exponential(20, 30), F.untuned_exponential(0.95, 30), F.radam(0.95, 30)]
)
def test_a_warmup_without_end_that_is_cut_leaves_the_level_that_it_has_reached(
    warmup: F.Chain,
) -> None:
    f = warmup >> F.hold() >> F.decay("linear", 20)
    level = f(29, 100)
    assert 0.5 < level < 0.9
    assert {f(step, 100) for step in range(29, 81)} == {level}
    assert f(90, 100) == pytest.approx(level / 2, rel=1e-14)


@pytest.mark.parametrize(
    ("beta2", "updates"),
    [(0.5, 4), (0.9, 20), (0.95, 40), (0.98, 100), (0.99, 200), (0.999, 2000), (0.9999, 20_000)],
)
def test_untuned_linear_warmup_is_rounded_not_cut(beta2: float, updates: int) -> None:
    assert F.untuned_length(beta2) == updates
    f = F.untuned_linear(beta2)
    assert [f(0), f(updates - 2), f(updates - 1)] == [1 / updates, 1 - 1 / updates, 1.0]


def rectification(n: int, beta2: float) -> tuple[Decimal, Decimal]:
    """ρₙ and rₙ of Liu et al. 2020, Algorithm 2, in 60 digits; rₙ is 0 where ρₙ ≤ 4."""
    with localcontext() as context:
        context.prec = 60
        b = Decimal(beta2)
        limit = 2 / (1 - b) - 1
        rho = limit - 2 * n * b**n / (1 - b**n)
        if rho <= 4:
            return rho, Decimal(0)
        r = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
        return rho, r.sqrt()


@given(st.one_of(st.floats(0.601, 0.9999), st.just(0.999)), st.integers(0, 30_000))
def test_radam_warmup_is_the_rectification_from_its_first_positive_value_on(
    beta2: float, step: int
) -> None:
    first = next(n for n in range(1, 1000) if rectification(n, beta2)[0] > 4)
    # The very first may lie at a ρₙ so near to 4 that a float has lost the difference.
    if rectification(first, beta2)[0] - 4 > Decimal("1e-2"):
        assert F.radam(beta2)(step) == pytest.approx(
            float(rectification(first + step, beta2)[1]), rel=1e-8
        )
        assert F.radam(beta2, start="zero")(step + 1) == F.radam(beta2)(step)
    assert F.radam(beta2, start="zero")(0) == 0.0


def test_radam_begins_at_most_five_updates_on() -> None:
    for beta2 in (0.801, 0.9, 0.95, 0.99, 0.999, 0.9999, 0.99999):
        first = next(n for n in range(1, 100) if rectification(n, beta2)[0] > 4)
        assert first <= 1 + 5


def test_radam_of_a_long_run() -> None:
    """0.95 to the power of a million is 0 in floats, and its inverse is not finite."""
    for beta2 in (0.61, 0.95, 0.999):
        assert F.radam(beta2)(10**6) == pytest.approx(1.0, abs=1e-12)


@given(st.integers(1, 5000), st.integers(0, 10**5), st.integers(1, 8192))
def test_noam_is_the_papers_formula(W: int, step: int, width: int) -> None:
    n = step + 1
    paper = width**-0.5 * min(n**-0.5, n * W**-1.5)
    assert F.noam(W, width)(step) == pytest.approx(paper, rel=1e-12)
    assert F.noam(W)(step) == pytest.approx(min(n / W, math.sqrt(W / n)), rel=1e-12)
    assert F.noam(W)(W - 1) == 1.0


@given(st.integers(1, 5000), st.integers(0, 10**5), st.sampled_from([0, 1]))
def test_inverse_square_root(s: int, step: int, first: int) -> None:
    f = F.inverse_sqrt(s, start="one" if first else "zero")
    assert f(step) ** 2 == pytest.approx(float(Fraction(s, s + step + first)), rel=1e-14)


def test_inverse_square_root_then_a_cooldown_has_no_jump() -> None:
    f = F.linear(100) >> F.inverse_sqrt(50, 400) >> F.decay("linear", 100)
    level = math.sqrt(50 / 450)
    assert f(499, 600) == pytest.approx(level, rel=1e-14)
    assert [f(500 + k, 600) for k in (0, 50, 99)] == pytest.approx(
        [level, level / 2, level / 100], rel=1e-12
    )


@given(st.integers(1, 3000), st.floats(1e-3, 1), st.integers(0, 6000))
def test_exponential_decay_falls_by_the_same_share_with_every_update(
    D: int, floor: float, k: int
) -> None:
    f = F.decay("exponential", D, floor)
    assert f(k) == pytest.approx(floor ** min(1.0, k / D), rel=1e-12)
    if 0 < k < D:
        assert f(k) / f(k - 1) == pytest.approx(f(1) / f(0) if D > 1 else floor, rel=1e-9)


@given(st.integers(1, 100), st.floats(0.1, 1), st.integers(0, 500))
def test_step_decay_every_so_often(every: int, gamma: float, step: int) -> None:
    expected = Fraction(1)
    for k in range(1, step + 1):
        expected *= Fraction(gamma) if k % every == 0 else 1
    got = F.step_decay(gamma, every=every)(step)
    assert got == pytest.approx(float(expected), rel=1e-9, abs=1e-300)


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=5), st.floats(0.1, 1), st.integers(0, 400)
)
def test_step_decay_at_moments(at: list[int], gamma: float, step: int) -> None:
    expected = 1.0
    for moment in at:
        expected *= gamma if step >= moment else 1.0
    assert F.step_decay(gamma, at=at)(step) == pytest.approx(expected, rel=1e-12)


def test_moments_of_a_step_decay_count_from_its_own_beginning() -> None:
    f = F.linear(10) >> F.step_decay(0.1, at=(5, 0.2))
    assert [f(step, 100) for step in (14, 15, 29, 30)] == [1.0, 0.1, 0.1, pytest.approx(0.01)]


def test_the_linear_scaling_rule() -> None:
    """Goyal et al. 2017: 0.1 at 256 becomes 3.2 at 8192, warmed up from 0.1."""
    assert F.scaled_peak(0.1, 8192, 256) == 3.2
    assert F.scaled_peak(1e-3, 1024, 256, "sqrt") == 2e-3
    assert F.scaled_peak(1e-3, 64, 256) == 2.5e-4
    f = F.gradual(1000, scale=32)
    assert 3.2 * f(0) == pytest.approx(0.1 + 3.1 / 1000)
    assert f(999) == 1.0


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
    with pytest.raises(ValueError, match=r"linear 50, hold open, linear decay 80.*run of 100"):
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
    with pytest.raises(ValueError, match="only one segment.*hold, cosine decay"):
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
        (F.linear(5) >> F.decay("linear"))(0)


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


BUILDERS: dict[str, Callable[[], F.Factor]] = {
    "linear": lambda: F.by_name("linear", 10, initial=0.1),
    "gradual": lambda: F.by_name("gradual", 10, scale=10),
    "constant": lambda: F.by_name("constant", 10, 0.1),
    "cosine": lambda: F.by_name("cosine", 10, start="zero"),
    "exponential": lambda: F.by_name("exponential", 10, 40),
    "noam": lambda: F.by_name("noam", 10, width=64),
    "untuned-linear": lambda: F.by_name("untuned-linear", 0.95),
    "untuned-exponential": lambda: F.by_name("untuned-exponential", 0.95, 40),
    "radam": lambda: F.by_name("radam", beta2=0.95),
    "hold": lambda: F.by_name("hold"),
    "decay": lambda: F.by_name("decay", "cosine", floor=0.1),
    "inverse-sqrt": lambda: F.by_name("inverse-sqrt", 10),
    "step": lambda: F.by_name("step", 0.5, every=10),
    "wsd": lambda: F.by_name("wsd", 10, 0.2),
}


@pytest.mark.parametrize("name", F.NAMES)
def test_every_name_makes_a_factor_whose_first_and_last_update_count(name: str) -> None:
    f = BUILDERS[name]()
    assert f(99, steps=100) > 0
    assert f(0, steps=100) > 0 or name == "cosine"  # start = "zero" there


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: F.linear(5, initial=1.5), r"initial=1.5 .*in \[0.0, 1.0\]"),
        (lambda: F.cosine(5, initial=-0.1), "initial=-0.1"),
        (lambda: F.linear(5, start="two"), "start='two' is unknown: .*one, zero"),
        (lambda: F.gradual(5, scale=0.5), "scale=0.5 .*at least 1"),
        (lambda: F.constant(5, -1.0), "level=-1.0"),
        (lambda: F.exponential(0), "tau of exponential=0"),
        (lambda: F.untuned_exponential(1.0), "beta2=1.0 .*between 0 and 1"),
        (lambda: F.untuned_length(0.0), "beta2=0.0"),
        (lambda: F.radam(0.6), "beta2=0.6 .*above 0.6"),
        (lambda: F.noam(0.1, 512), "warmup=0.1 .*give it in updates"),
        (lambda: F.noam(10, 0), "width=0"),
        (lambda: F.decay("linear", 5, floor=1.1), "floor=1.1"),
        (lambda: F.decay("exponential", 5), "floor=0.0 .*never gets to 0"),
        (lambda: F.step_decay(0.0, every=5), "gamma=0.0"),
        (lambda: F.step_decay(0.5), "give one of every=None and at="),
        (lambda: F.step_decay(0.5, every=5, at=(3,)), "give one of every=5 and at="),
        (lambda: F.step_decay(0.5, at=(3, 0)), "at of steps=0"),
        (lambda: F.inverse_sqrt(0), "timescale of inverse-sqrt=0"),
        (lambda: F.scaled_peak(0.1, 0, 256), "batch=0"),
        (lambda: F.scaled_peak(0.1, 256, 256, "cube"), "rule='cube' is unknown"),
    ],
)
def test_bad_settings_are_refused_at_construction(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
