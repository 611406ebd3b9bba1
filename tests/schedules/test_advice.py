"""Advice on the length of a warmup; what becomes of a factor and a residual warmup over a run."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import groundup as gu
from groundup.schedules import depth as D
from groundup.schedules import factor as F
from groundup.schedules.advice import advise
from groundup.schedules.effective import decay_begin, effective_length, residual_warnings
from groundup.schedules.length import Tokens
from groundup.schedules.published import PUBLISHED


def test_what_is_usual_in_pretraining_is_1_to_5_percent() -> None:
    advice = advise(2000, 100_000, beta2=0.95)
    assert (advice.length, advice.low, advice.high) == (2000, 1000, 5000)
    assert advice.warnings == ()
    assert "A warmup of 2000 of 100000 steps, 2%" in advice.reason
    assert str(advice) == advice.reason
    assert gu.advise is advise


@pytest.mark.parametrize("placement", ["post", "deepnorm"])
def test_post_norm_goes_up_to_10_percent(placement: str) -> None:
    advice = advise(None, 100_000, placement=placement)
    assert (advice.length, advice.low, advice.high) == (10_000, 1000, 10_000)
    assert advise(None, 100_000, placement="pre").length == 2000


@pytest.mark.parametrize(
    ("length", "tokens", "updates"),
    [
        (0.01, None, 100),
        (70, None, 70),
        (Tokens(1e6), 10_000, 100),
        (0, None, 0),
        (1.0, None, 10_000),
    ],
)
def test_lengths_of_every_kind(length: gu.schedules.Length, tokens: int, updates: int) -> None:
    assert advise(length, 10_000, batch_tokens=tokens).length == updates


@pytest.mark.parametrize(("length", "warned"), [(499, True), (500, False), (0.00499, True)])
def test_below_half_a_percent_is_warned_about(length: gu.schedules.Length, warned: bool) -> None:
    warnings = advise(length, 100_000).warnings
    assert [w for w in warnings if "few published ones are below 0.5%" in w] == list(warnings)
    assert bool(warnings) is warned
    if warned:
        assert "GPT-3 125M 375M of 300B tokens (0.125%" in warnings[0]
        assert "Llama 2 7B 2000 of 500k steps (0.4%" in warnings[0]
        assert f"{round(499 / 1000, 3)}% of the run" in warnings[0]


@pytest.mark.parametrize(
    ("length", "beta2", "warned"),
    [(1999, 0.999, True), (2000, 0.999, False), (600, 0.95, False), (600, None, False)],
)
def test_shorter_than_adams_default_is_warned_about(
    length: int, beta2: float | None, warned: bool
) -> None:
    (*warnings,) = advise(length, 100_000, beta2=beta2).warnings
    assert bool(warnings) is warned
    if warned:
        assert "1999 steps is shorter than 2/(1 − β₂) = 2000" in warnings[0]
        assert "1910.04209" in warnings[0]


def test_adams_default_does_not_count_in_a_run_too_short_for_it() -> None:
    advice = advise(15, 750, beta2=0.95)  # 2/(1 − β₂) = 40 would be more than 5%
    assert advice.warnings == ()
    assert "2/(1 − β₂) = 40 by default, here longer than the usual" in advice.reason


@given(st.integers(1, 10**6), st.one_of(st.none(), st.floats(0.5, 0.9999)), st.booleans())
def test_what_is_suggested_is_usual_and_nothing_to_warn_about(
    steps: int, beta2: float | None, post: bool
) -> None:
    for kind in ("pretraining", "fine-tuning"):
        placement = "post" if post else "pre"
        advice = advise(None, steps, kind=kind, beta2=beta2, placement=placement)  # type: ignore[arg-type]
        assert 1 <= advice.low <= advice.length <= advice.high <= steps
        assert advice.warnings == ()


def test_no_warmup() -> None:
    for kind in ("pretraining", "fine-tuning"):
        (warning,) = advise(0, 5000, kind=kind).warnings  # type: ignore[arg-type]
        assert "no warmup of the rate" in warning
        assert "2410.23922" in warning
        assert advise(0, 5000, kind=kind, bounded=True).warnings == ()  # type: ignore[arg-type]
        assert advise(1, 5000, kind=kind, bounded=True).warnings == ()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("length", "steps", "said"),
    [
        (100, 3000, None),
        (49, 3000, "the warmup of 49 steps, 1.63% of the run, is shorter than the usual 50 to 500"),
        (501, 3000, "501 steps, 16.7% of the run, is longer than the usual 50 to 500"),
        (20, 30, "shorter than the usual 30 to 30"),
    ],
)
def test_fine_tuning_takes_50_to_500_updates(length: int, steps: int, said: str | None) -> None:
    advice = advise(length, steps, kind="fine-tuning", beta2=0.999)
    assert len(advice.warnings) == (said is not None)
    if said:
        assert said in str(advice)
    assert "by custom: we know of no study" in advice.reason


def test_the_nearest_published_setting_is_named() -> None:
    said = advise(2000, 100_000, parameters=6e9, peak=6e-4).reason
    assert "Nearest in size: 7B Pre-LN 2000 of 100k steps (2%, arXiv:2603.05369)." in said
    assert "The peak rate 0.0006 is 2 times the 0.0003 there" in said
    assert "higher rates need more warmup" in said
    assert "peak rate" not in advise(2000, 100_000, parameters=6e9, peak=3e-4).reason
    assert "1.3B Post-LN" in advise(2000, 100_000, parameters=6e9, placement="post").reason
    assert "Nearest" not in advise(2000, 100_000, parameters=1e6).reason


def test_a_batch_larger_than_the_published_ones_has_a_direction_and_no_number() -> None:
    usual = advise(2000, 100_000, batch_tokens=512 * 1024).reason
    assert "In tokens: 1.05B of 524k an update." in usual
    larger = advise(2000, 100_000, batch_tokens=16_000_000).reason
    assert "larger batches need more warmup" in larger
    assert "we know of no number" in larger


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": -1}, "length=-1"),
        ({"length": 1.5}, "length=1.5"),
        ({"length": 101}, "length=101 is not valid: the run has 100 steps"),
        ({"length": Tokens(1e6)}, "needs tokens_per_step"),
        ({"length": 5, "steps": 0}, "steps=0"),
        ({"length": 5, "kind": "finetuning"}, "did you mean 'fine-tuning'"),
        ({"length": 5, "beta2": 1.0}, "beta2=1.0"),
        ({"length": 5, "peak": 0.0}, "peak=0.0"),
        ({"length": 5, "parameters": -1}, "parameters=-1"),
        ({"length": 5, "batch_tokens": math.inf}, "batch_tokens=inf"),
    ],
)
def test_bad_questions_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        advise(**{"steps": 100, **arguments})  # type: ignore[arg-type]


def test_the_published_settings_are_what_their_papers_say() -> None:
    shares = {s.name: round(100 * s.share, 3) for s in PUBLISHED}
    assert shares == {
        "71M Pre-LN": 2.0, "130M Pre-LN": 2.0, "350M Pre-LN": 2.0, "1.3B Pre-LN": 2.0,
        "7B Pre-LN": 2.0, "130M Post-LN": 10.0, "350M Post-LN": 10.0, "1.3B Post-LN": 10.0,
        "Transformer": 4.0, "BERT-base": 1.0, "RoBERTa-base": 4.8, "GPT-3 125M": 0.125,
        "GPT-3 175B": 0.125, "Llama 2 7B": 0.4, "Llama 2 70B": 0.4, "Llama 3 405B": 0.667,
    }  # fmt: skip


@given(st.integers(1, 300), st.floats(0, 0.9), st.sampled_from([F.linear, F.cosine]))
def test_the_effective_length_of_a_warmup(W: int, initial: float, warmup: type) -> None:
    """Of a line over W updates, W; if it rises from c only, (1 − c)·(W − 1) + 1."""
    f = warmup(W, initial=initial) >> F.hold() >> F.decay("linear", 100)
    expected = 1 + round((1 - initial) * (W - 1)) if W > 1 else 0
    assert abs(effective_length(f, 1000) - expected) <= 1


def test_the_effective_length_of_warmups_without_end() -> None:
    """Ma & Yarats 2021: that of the untuned exponential is the untuned linear's, nearly."""
    for beta2 in (0.9, 0.95, 0.99, 0.999):
        found = effective_length(F.untuned_exponential(beta2) >> F.decay("linear", 0.1), 100_000)
        assert found == pytest.approx(2 / (1 - beta2), abs=2)
    r = [F.radam(0.95)(k) for k in range(10_000)]
    assert effective_length(F.radam(0.95), 10_000) == 1 + round(2 * sum(1 - x for x in r))
    assert effective_length(F.constant(50, 0.5), 1000) == 51
    assert effective_length(F.hold() >> F.decay("cosine", 0.5), 1000) == 0
    assert effective_length(0.1 * (F.linear(40) >> F.hold()), 1000) == 40


FACTORS = [
    F.wsd(20, 0.1),
    F.linear(30) >> F.decay("cosine", floor=0.1),
    F.noam(50),
    F.linear(10) >> F.hold(),
    F.untuned_exponential(0.95) >> F.decay("sqrt", 0.2),
    F.constant(7, 0.1) >> F.step_decay(0.5, every=100),
    F.linear(40) * F.decay("linear"),
    F.blend(F.wsd(20, 0.1), F.hold(), at=450, length=30),
]


@pytest.mark.parametrize("f", FACTORS)
def test_where_the_decay_begins(f: gu.schedules.Factor) -> None:
    values = [round(f(step, steps=500), 12) for step in range(500)]
    last = max(range(500), key=lambda step: (values[step], step))
    assert decay_begin(f, 500) == (None if last == 499 else last)


@pytest.mark.parametrize(("T", "warned"), [(20, False), (22.5, False), (23, True)])
def test_residual_warmup_ends_before_the_rate_decays(T: float, warned: bool) -> None:
    found = residual_warnings(D.linear(T=T), 4, F.wsd(2, 0.1), 100)
    assert bool(found) is warned
    if warned:
        assert found == (
            "residual warmup would last 92 steps, but the rate decays from step 90: "
            "train longer, or use gu.depth.equal",
        )


def test_residual_warmup_longer_than_the_run() -> None:
    (said,) = residual_warnings(D.linear(T=50), 4, F.wsd(2, 0.1), 100)
    assert "would last 200 steps, but the run has 100: at its end the least α is 0.5" in said
    (said,) = residual_warnings(D.reverse(T=50), 4, F.hold(), 100)
    assert "the least α is 0.5" in said


def test_residual_warmup_under_a_rate_that_falls_all_the_time() -> None:
    f = F.linear(10) >> F.decay("cosine")
    ends = range(10, 100, 5)
    warned = [bool(residual_warnings(D.equal(T=end), 4, f, 100)) for end in ends]
    below = [f(end, steps=100) < 0.5 for end in ends]
    assert warned == below
    assert {*below} == {True, False}
    (said,) = residual_warnings(D.equal(T=80), 4, f, 100)
    assert "would last 80 steps, when the rate is down to 11.7% of its peak" in said


def test_residual_warmup_that_never_ends_or_never_was() -> None:
    for schedule in (D.fix_L(), D.none()):
        assert residual_warnings(schedule, 4, F.wsd(2, 0.1), 100) == ()


def test_advice_needs_no_torch() -> None:
    code = "import groundup, sys; groundup.advise(None, 100); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
