"""Random factors for hypothesis: every kind of segment, joined, multiplied and blended."""

from __future__ import annotations

import functools
import operator
from typing import Any

from hypothesis import strategies as st

from groundup.schedules import factor as F
from groundup.schedules.length import Length, Tokens

TOKENS_PER_STEP = 100
RUNS = st.integers(120, 400)

shares = st.floats(0.001, 1.0)
beta2s = st.floats(0.61, 0.9995)
starts = st.sampled_from(["one", "zero"])


def lengths(longest: int = 30) -> st.SearchStrategy[Length]:
    """Updates, a fraction of the run or tokens: at most `longest` updates in a run of `RUNS`."""
    return st.one_of(
        st.integers(1, longest),
        st.floats(0.0005, longest / 120 / 4),
        st.builds(Tokens, st.integers(1, longest * TOKENS_PER_STEP)),
    )


def warmups(length: st.SearchStrategy[Any]) -> st.SearchStrategy[F.Chain]:
    return st.one_of(
        st.builds(F.linear, length, initial=st.floats(0, 1), start=starts),
        st.builds(F.cosine, length, initial=st.floats(0, 1), start=starts),
        st.builds(F.constant, length, st.floats(0, 1)),
        st.builds(F.exponential, lengths(), length, start=starts),
        st.builds(F.untuned_exponential, beta2s, length, start=starts),
        st.builds(F.radam, beta2s, length, start=starts),
    )


def falls(length: st.SearchStrategy[Any]) -> st.SearchStrategy[F.Chain]:
    shapes = st.sampled_from(["linear", "cosine", "sqrt", "exponential"])
    return st.one_of(
        st.builds(F.hold, length),
        st.builds(F.decay, shapes, length, st.floats(0.001, 1)),
        st.builds(F.inverse_sqrt, lengths(), length, start=starts),
        st.builds(F.step_decay, st.floats(0.01, 1), every=lengths(), length=length),
        st.builds(
            F.step_decay,
            st.floats(0.01, 1),
            at=st.lists(lengths(), min_size=1, max_size=4),
            length=length,
        ),
    )


segments = st.one_of(warmups(lengths()), falls(lengths()))
ends = st.one_of(falls(st.none()), falls(lengths()))


@st.composite
def chains(draw: st.DrawFn) -> F.Chain:
    """One to four segments, of which the last may be of open length."""
    parts = draw(st.lists(segments, min_size=0, max_size=3))
    return functools.reduce(operator.rshift, [*parts, draw(ends)])


factors: st.SearchStrategy[F.Factor] = st.recursive(
    chains(),
    lambda inner: st.one_of(
        st.builds(operator.mul, inner, inner),
        st.builds(operator.mul, inner, shares),
        st.builds(F.blend, inner, inner, at=st.integers(0, 150), length=st.integers(1, 60)),
    ),
    max_leaves=3,
)
