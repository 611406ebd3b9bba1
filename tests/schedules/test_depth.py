"""The table of the design, held against the schedules: each formula written out again here."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.schedules import depth

# An independent computation in exact rational arithmetic (roots in float at the very end).
clip = lambda x: min(max(x, Fraction(0)), Fraction(1))  # noqa: E731
stage = lambda t, l, T: clip((t - T * (l - 1)) / T)  # noqa: E731
TABLE = {
    "linear": lambda t, l, L, T: clip(t / (T * l)),
    "linear-sqrt": lambda t, l, L, T: math.sqrt(clip(t / (T * l))),
    "linear-square": lambda t, l, L, T: clip(t / (T * l)) ** 2,
    "equal": lambda t, l, L, T: clip(t / T),
    "reverse": lambda t, l, L, T: clip(t / (T * (L - l + 1))),
    "stagewise-0": lambda t, l, L, T: stage(t, l, T),
    "stagewise-L": lambda t, l, L, T: stage(t, l, T) * (1 - Fraction(1, L)) + Fraction(1, L),
    "stagewise-sqrt-L": lambda t, l, L, T: (
        float(stage(t, l, T)) * (1 - L**-0.5) + L**-0.5 if stage(t, l, T) < 1 else 1
    ),
    "stagewise-sqrt-l": lambda t, l, L, T: (
        float(stage(t, l, T)) * (1 - l**-0.5) + l**-0.5 if stage(t, l, T) < 1 else 1
    ),
    "cascade": lambda t, l, L, T: stage(t, l, T),
}
FIXED = {
    "fix-L": lambda l, L: 1 / L,
    "fix-sqrt-L": lambda l, L: 1 / math.sqrt(L),
    "fix-sqrt-l": lambda l, L: 1 / math.sqrt(l),
    "none": lambda l, L: 1.0,
}
FROM_ZERO = [n for n in TABLE if not n.startswith("stagewise-") or n == "stagewise-0"]
lengths = st.integers(1, 10**6) | st.floats(1e-3, 1e6)
depths = st.integers(1, 200)
steps = st.integers(0, 3000) | st.integers(0, 10**8)


def test_every_name_is_tested() -> None:
    assert set(TABLE) | set(FIXED) == set(depth.NAMES)


@given(st.sampled_from(sorted(TABLE)), steps, depths, lengths)
def test_values_are_those_of_the_table(name: str, t: int, L: int, T: float) -> None:
    alphas = depth.by_name(name, T=T)(t, depth=L)
    for l, alpha in enumerate(alphas, start=1):
        expected = float(TABLE[name](t, l, L, Fraction(T)))
        # t − T(l−1) loses what a float64 of the size of t/T ≤ L cannot hold.
        assert alpha == pytest.approx(expected, rel=4e-15, abs=4e-16 * L)


@given(st.sampled_from(sorted(FIXED)), steps, depths)
def test_fixed_values(name: str, t: int, L: int) -> None:
    assert depth.by_name(name)(t, L) == [FIXED[name](l, L) for l in range(1, L + 1)]


@given(st.sampled_from(FROM_ZERO), depths, lengths)
def test_warming_schedules_start_at_zero(name: str, L: int, T: float) -> None:
    assert depth.by_name(name, T=T)(0, L) == [0.0] * L


@given(st.sampled_from(sorted(TABLE)), depths, lengths)
def test_exactly_one_at_the_end_and_not_before(name: str, L: int, total: float) -> None:
    schedule = depth.by_name(name, total=total)
    assert schedule.end(L) == total
    assert schedule(total, L) == [1.0] * L
    assert schedule(math.ceil(total) + 5, L) == [1.0] * L
    if L > 1:  # a single layer of stagewise-L is at 1/L = 1 from the start
        assert min(schedule(total * 0.999, L)) < 1.0


@given(st.sampled_from(sorted(TABLE)), depths, lengths, steps, steps)
def test_never_falls_and_stays_within_bounds(name: str, L: int, T: float, a: int, b: int) -> None:
    schedule = depth.by_name(name, T=T)
    early, late = schedule(min(a, b), L), schedule(max(a, b), L)
    assert all(0.0 <= x <= y <= 1.0 for x, y in zip(early, late, strict=True))


@given(st.sampled_from(sorted(set(TABLE) - {"reverse"})), depths, lengths, steps)
def test_deeper_layers_come_later(name: str, L: int, T: float, t: int) -> None:
    alphas = depth.by_name(name, T=T)(t, L)
    assert alphas == sorted(alphas, reverse=True)


def test_reverse_is_linear_upside_down() -> None:
    assert depth.reverse(T=7)(20, 5) == depth.linear(T=7)(20, 5)[::-1]


@given(st.sampled_from(sorted(TABLE)), depths, st.integers(1, 10**6))
def test_the_length_said_in_three_ways(name: str, L: int, T: int) -> None:
    lasting = 1 if name == "equal" else L
    by_T = depth.by_name(name, T=T)
    by_total = depth.by_name(name, total=T * lasting)
    by_fraction = depth.by_name(name, fraction=0.5, steps=2 * T * lasting)
    for t in (0, 1, T // 2, T, T * lasting - 1, T * lasting):
        assert by_T(t, L) == pytest.approx(by_total(t, L), rel=1e-14)
        assert by_total(t, L) == by_fraction(t, L)


@given(
    step=st.one_of(st.integers(0, 400), st.floats(0, 400)),
    layers=st.integers(1, 9),
    T=st.integers(1, 40),
    S=st.integers(1, 40),
)
def test_layers_wait_for_their_turn(step: float, layers: int, T: int, S: int) -> None:
    for schedule, apart in (
        (depth.cascade(T=T, S=S), S),
        (depth.cascade(total=S * (layers - 1) + T, S=S), S),
        (depth.cascade(T=T), T),
        (depth.stagewise_0(T=T), T),
    ):
        dormant = schedule.dormant(step, layers)
        assert dormant == [step < apart * l for l in range(layers)]
        assert schedule.waits(layers) == [apart * l for l in range(layers)]
        alphas = schedule(step, layers)
        assert all(alpha == 0 for alpha, waits in zip(alphas, dormant, strict=True) if waits)


@pytest.mark.parametrize("name", sorted(set(depth.NAMES) - {"cascade", "stagewise-0"}))
def test_other_schedules_declare_no_layer_dormant(name: str) -> None:
    schedule = depth.by_name(name, **({"T": 10} if depth.takes_length(name) else {}))
    for step in (0, 1, 15):
        assert schedule.dormant(step, 3) == [False] * 3


def test_cascade_with_a_stride_of_its_own() -> None:
    schedule = depth.cascade(T=100, S=30)
    assert schedule(60, 4) == [0.6, 0.3, 0.0, 0.0]
    assert schedule.end(4) == 30 * 3 + 100
    assert schedule(189, 4)[-1] == pytest.approx(0.99)
    assert depth.cascade(total=190, S=30)(60, 4) == [0.6, 0.3, 0.0, 0.0]
    with pytest.raises(ValueError, match=r"total − S·\(depth − 1\)"):
        depth.cascade(total=50, S=30)(0, 4)


def test_fixed_schedules_never_end_and_none_has_ended() -> None:
    assert depth.fix_L().end(12) == math.inf
    assert depth.none().end(12) == 0.0


@given(st.sampled_from(sorted(TABLE)), st.sampled_from(["T", "total"]), lengths)
def test_json_round_trip(name: str, how: str, length: float) -> None:
    schedule = depth.by_name(name, **{how: length})
    assert depth.from_json(schedule.to_json()) == schedule


@pytest.mark.parametrize("bad", [0, -1, -0.5, math.nan, math.inf, -math.inf, True, "100", None, []])
@pytest.mark.parametrize("field", ["T", "total", "fraction", "S"])
def test_bad_lengths_are_refused_by_name(field: str, bad: object) -> None:
    arguments = {field: bad}
    if field == "fraction":
        arguments["steps"] = 100
    if field == "S":
        if bad is None:
            return
        arguments["T"] = 10
    with pytest.raises(ValueError, match="exactly one" if bad is None else rf"{field}="):
        depth.by_name("cascade", **arguments)


@pytest.mark.parametrize(
    "lengths",
    [
        {},
        {"T": 1, "total": 2},
        {"T": 1, "fraction": 0.1, "steps": 10},
        {"total": 1, "fraction": 0.1},
    ],
)
def test_exactly_one_length(lengths: dict) -> None:
    with pytest.raises(ValueError, match="exactly one of T, total, fraction"):
        depth.linear(**lengths)


def test_settings_that_would_be_ignored_are_refused() -> None:
    with pytest.raises(ValueError, match="takes no length"):
        depth.by_name("fix-L", T=100)
    with pytest.raises(ValueError, match="takes no length"):
        depth.by_name("none", fraction=0.1, steps=100)
    with pytest.raises(ValueError, match="only together with fraction"):
        depth.linear(T=10, steps=100)
    with pytest.raises(ValueError, match="S=5 belongs to cascade"):
        depth.by_name("linear", T=10, S=5)
    with pytest.raises(ValueError, match="needs steps"):
        depth.linear(fraction=0.1)
    with pytest.raises(ValueError, match=r"fraction=1.5 .* \[0.0, 1.0\]"):
        depth.linear(fraction=1.5, steps=100)


@pytest.mark.parametrize("name", depth.NAMES)
def test_every_schedule_has_a_function_of_its_name(name: str) -> None:
    function = getattr(depth, name.replace("-", "_"))
    assert function.__name__ == name.replace("-", "_")
    assert function.__doc__
    arguments = () if name in depth.FIXED else (20,)
    assert function(*arguments) == depth.by_name(name, **dict(zip(["T"], arguments, strict=False)))


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ValueError, match="'linaer' is unknown: did you mean 'linear'"):
        depth.by_name("linaer", T=1)
    with pytest.raises(ValueError, match="valid are linear, .*stagewise-0.*none"):
        depth.by_name("☃", T=1)


@pytest.mark.parametrize("L", [0, -3, 2.0, True, None])
def test_bad_depth(L: object) -> None:
    with pytest.raises(ValueError, match="depth="):
        depth.linear(T=1)(0, depth=L)  # type: ignore[arg-type]


@pytest.mark.parametrize("t", [-1, math.nan, math.inf, "3", None])
def test_bad_step(t: object) -> None:
    with pytest.raises(ValueError, match="step="):
        depth.linear(T=1)(t, depth=2)  # type: ignore[arg-type]
