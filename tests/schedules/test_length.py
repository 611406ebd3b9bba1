"""Lengths in updates, tokens and fractions; as a recipe writes them; the suggestion for depth."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import groundup as gu
from groundup.schedules.length import Tokens, check_length, in_steps, parse_length

POWERS = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "B": 9, "T": 12}


def test_suggestion_is_a_fifth_of_the_run() -> None:
    suggestion = gu.suggest(depth=24, steps=100_000)
    assert round(0.2 * 100_000 / 24) == suggestion.T
    assert "Table 6" in suggestion.reason


def test_suggestion_warns_where_the_warmup_runs_into_the_decay() -> None:
    with pytest.warns(UserWarning, match="the rate decays from step 90"):
        gu.suggest(depth=120, steps=100)


def test_schedules_and_the_package_import_without_torch() -> None:
    code = "import groundup, groundup.schedules, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("375M tokens", Tokens(375e6)),
        ("1.5B tokens", Tokens(1.5e9)),
        ("1.5G tokens", Tokens(1.5e9)),
        ("2T tokens", Tokens(2e12)),
        ("500000 tokens", Tokens(5e5)),
        ("5e5tokens", Tokens(5e5)),
        ("2k steps", 2000),
        ("2000 steps", 2000),
        ("2_000 steps", 2000),
        ("2 k steps", 2000),
        ("16.1k steps", 16100),  # 16100.000000000002 in floats
        (" 1 steps ", 1),
        ("2%", 0.02),
        ("0.5 %", 0.005),
        ("100%", 1.0),
    ],
)
def test_lengths_as_a_recipe_writes_them(text: str, length: object) -> None:
    found = parse_length("warmup", text)
    assert found == length
    assert type(found) is type(length)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write it like"),
        ("2000", "write it like"),
        ("0.02", "write it like"),
        ("-5 steps", "write it like"),
        ("2m steps", "write it like"),
        ("2k%", "write it like"),
        ("nan tokens", "write it like"),
        ("five steps", "write it like"),
        ("٣ steps", "write it like"),
        ("1.5 steps", "steps are whole"),
        ("0.0005k steps", "steps are whole"),
        ("0 steps", "at least 1"),
        ("0%", "above 0 and at most 1"),
        ("101%", "above 0 and at most 1"),
        ("0 tokens", "above 0"),
        ("9" * 400 + " tokens", "finite"),
    ],
)
def test_other_texts_are_refused_by_the_name_of_the_field(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^warmup=.*{message}"):
        parse_length("warmup", text)


@given(st.integers(0, 10**7), st.integers(0, 4), st.sampled_from(sorted(POWERS)))
def test_a_number_of_steps_is_exact(digits: int, decimals: int, unit: str) -> None:
    whole, part = divmod(digits, 10**decimals)
    text = f"{whole}.{part:0{decimals}d}{unit} steps" if decimals else f"{whole}{unit} steps"
    exact = Fraction(digits, 10**decimals) * 10 ** POWERS[unit]
    if exact.denominator == 1 and exact > 0:
        found = parse_length("warmup", text)
        assert type(found) is int
        assert found == exact
    else:
        with pytest.raises(ValueError, match="warmup="):
            parse_length("warmup", text)


@given(st.integers(1, 10**7), st.integers(0, 4), st.sampled_from(sorted(POWERS)))
def test_tokens_and_shares_are_the_nearest_floats(digits: int, decimals: int, unit: str) -> None:
    number = f"{digits}e0" if not decimals else f"{digits / 10**decimals:.{decimals}f}"
    exact = Fraction(digits, 10**decimals)
    tokens = parse_length("warmup", f"{number}{unit} tokens")
    assert tokens == Tokens(float(exact * 10 ** POWERS[unit]))
    if exact <= 100:
        assert parse_length("warmup", f"{number}%") == float(exact / 100)


@given(
    st.one_of(
        st.text(max_size=20),
        st.from_regex(r"[0-9_.eE+-]{1,8} ?[kKMGBT]?(tokens|steps|%)", fullmatch=True),
    )
)
def test_any_text_is_a_length_or_a_value_error(text: str) -> None:
    found = None
    with contextlib.suppress(ValueError):
        found = parse_length("warmup", text)
    assert found is None or check_length("warmup", found) == found


@given(st.integers(1, 10**6), st.floats(1e-9, 1.0))
def test_a_fraction_is_rounded_and_lasts_at_least_one_update(steps: int, share: float) -> None:
    exact = Fraction(share) * steps
    found = in_steps("length", share, steps)
    assert found >= 1
    assert found == 1 or abs(found - exact) <= 0.5 + 1e-9


@given(st.integers(1, 10**6), st.one_of(st.none(), st.integers(1, 10**6)))
def test_updates_are_updates(length: int, steps: int | None) -> None:
    assert in_steps("length", length, steps) == length
    assert in_steps("length", np.int64(length), steps) == length  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, True, "5"])
def test_tokens_are_a_number_above_0(bad: object) -> None:
    with pytest.raises(ValueError, match="tokens="):
        Tokens(bad)  # type: ignore[arg-type]


def test_what_a_length_needs_is_asked_for() -> None:
    with pytest.raises(ValueError, match="warmup=0.1 is a fraction of the run: say how long"):
        in_steps("warmup", 0.1, None)
    with pytest.raises(ValueError, match="warmup=500 tokens needs tokens_per_step"):
        in_steps("warmup", Tokens(500), 100)
    with pytest.raises(ValueError, match="tokens_per_step=0"):
        in_steps("warmup", Tokens(500), 100, 0)
