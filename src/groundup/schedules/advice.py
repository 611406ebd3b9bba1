"""How long a warmup of the rate should be: usual lengths, published ones, warnings, in words.

What is a number here has a source. Where the literature has none (how much longer for a larger
batch or a higher rate), only the direction is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from groundup._check import count, positive, unknown
from groundup.schedules.factor import untuned_length
from groundup.schedules.length import Length, check_length, in_steps
from groundup.schedules.published import PUBLISHED, Setting, percent, short

Kind = Literal["pretraining", "fine-tuning"]

POST_NORM = ("post", "deepnorm")
"""Placements for which arXiv:2603.05369 takes 10% of the steps, not 2%."""


@dataclass(frozen=True)
class Advice:
    """Whether a warmup has one of the usual lengths; `print` shows it.

    Attributes:
        length: the warmup in updates: the one asked about, or the one suggested.
        low: where the usual lengths begin, in updates.
        high: where they end.
        reason: what this is judged by, in sentences with sources.
        warnings: what to think about before the run; empty if nothing.
    """

    length: int
    low: int
    high: int
    reason: str
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([self.reason, *(f"Warning: {warning}" for warning in self.warnings)])


@dataclass(frozen=True)
class _Question:
    length: int
    steps: int
    beta2: float | None
    batch_tokens: float | None
    parameters: float | None
    peak: float | None
    post_norm: bool
    bounded: bool

    @property
    def share(self) -> float:
        return self.length / self.steps

    @property
    def untuned(self) -> int:
        return 0 if self.beta2 is None else untuned_length(self.beta2)

    def updates(self, share: float) -> int:
        return max(1, round(share * self.steps))


def advise(
    length: Length | None,
    steps: int,
    *,
    kind: Kind = "pretraining",
    beta2: float | None = None,
    batch_tokens: int | None = None,
    parameters: float | None = None,
    peak: float | None = None,
    placement: str | None = None,
    bounded: bool = False,
) -> Advice:
    """Is `length` a usual warmup of the rate for a run of `steps` updates?

    Pretraining: 1 to 5% of the steps, to 10% for Post-LN and DeepNorm (arXiv:2603.05369), with a
    warning below 0.5%, and below the 2/(1 − β₂) updates that Ma & Yarats 2021 (arXiv:1910.04209)
    recommend for Adam, unless that is beyond the usual. Fine-tuning: 50 to 500 updates, which is
    custom, not the result of a study. What is given besides is compared with the settings of
    `groundup.schedules.published`.

    Args:
        length: updates, a fraction of the run or `Tokens` (these need `batch_tokens`); 0: no
            warmup; None: suggest one, 2% of a pretraining (10% for Post-LN and DeepNorm) or 6% of
            a fine-tuning (as RoBERTa's, arXiv:1907.11692) within the usual, and 2/(1 − β₂) where
            that is longer and usual too.
        steps: length of the run in updates.
        kind: what is trained.
        beta2: Adam's β₂; None for an optimizer without a second moment.
        batch_tokens: tokens of an update.
        parameters: of the model.
        peak: the peak rate.
        placement: of the norms, as in `groundup.model`.
        bounded: whether the optimizer bounds the angle of the early updates by itself (LionAR,
            rotational ones, the RRC correction), so that a short warmup is nothing to warn about.

    >>> advise(None, 100_000, beta2=0.95).length
    2000
    >>> print(advise(100, 100_000, beta2=0.98).warnings[0])
    the warmup of 100 steps is 0.1% of the run; few published ones are below 0.5%: GPT-3 125M 375M \
of 300B tokens (0.125%, arXiv:2005.14165), Llama 2 7B 2000 of 500k steps (0.4%, arXiv:2307.09288)

    Raises:
        ValueError: naming what is not valid.
    """
    count("steps", steps)
    if kind not in _KINDS:
        raise unknown("kind", kind, _KINDS)
    given = {"batch_tokens": batch_tokens, "parameters": parameters, "peak": peak}
    for name, value in given.items():
        if value is not None:
            positive(name, value)
    found = 0
    if length is not None and length != 0:
        found = in_steps("length", check_length("length", length), steps, batch_tokens)
    if found > steps:
        raise ValueError(f"length={length!r} is not valid: the run has {steps} steps")
    post_norm = placement in POST_NORM
    question = _Question(found, steps, beta2, batch_tokens, parameters, peak, post_norm, bounded)
    return _KINDS[kind](question, length is None)


def _pretraining(q: _Question, suggest: bool) -> Advice:
    most = 0.1 if q.post_norm else 0.05
    low, high = q.updates(0.01), q.updates(most)
    if suggest:
        usual = q.updates(0.1 if q.post_norm else 0.02)
        q = replace(q, length=max(usual, q.untuned) if q.untuned <= high else usual)
    said = [
        f"{_warmup(q)}; usual in pretraining are {low} to {high} (1 to {percent(most)}).",
        *(["arXiv:2603.05369 takes 10% for Post-LN and DeepNorm."] if q.post_norm else []),
    ]
    said += [*_untuned(q, high), *_nearest(q), *_batch(q)]
    return Advice(q.length, low, high, " ".join(said), tuple(_too_short(q, high)))


def _fine_tuning(q: _Question, suggest: bool) -> Advice:
    low, high = min(50, q.steps), min(500, q.steps)
    if suggest:
        q = replace(q, length=min(max(low, q.updates(0.06)), high))
    said = [
        f"{_warmup(q)}; usual in fine-tuning are {low} to {high}, by custom: we know of no study. "
        "RoBERTa took 6% of the steps (arXiv:1907.11692)."
    ]
    warnings = []
    if q.length == 0 and not q.bounded:
        warnings.append(_NONE)
    elif q.length > high or (q.length < low and not q.bounded):
        which = "longer" if q.length > high else "shorter"
        warnings.append(
            f"the warmup of {q.length} steps, {percent(q.share)} of the run, is {which} than the "
            f"usual {low} to {high}"
        )
    return Advice(q.length, low, high, " ".join([*said, *_untuned(q, high)]), tuple(warnings))


_KINDS: dict[str, Callable[[_Question, bool], Advice]] = {
    "pretraining": _pretraining,
    "fine-tuning": _fine_tuning,
}
_NONE = (
    "there is no warmup of the rate: AdamW was then found to be fast at first and to end behind, "
    "the more so the higher the rate (arXiv:2410.23922)"
)


def _too_short(q: _Question, high: int) -> Iterator[str]:
    if q.bounded:
        return
    if q.length == 0:
        yield _NONE
        return
    if q.share < 0.005:
        # One of each family, the shortest.
        known = {s.source: s for s in reversed(PUBLISHED) if s.share < 0.005}
        few = ", ".join(str(s) for s in sorted(known.values(), key=lambda s: s.share))
        yield (
            f"the warmup of {q.length} steps is {percent(q.share)} of the run; few published ones "
            f"are below 0.5%: {few}"
        )
    if q.length < q.untuned <= high:
        yield (
            f"the warmup of {q.length} steps is shorter than 2/(1 − β₂) = {q.untuned}, the default "
            f"that Ma & Yarats (arXiv:1910.04209) recommend for Adam with β₂ = {q.beta2:g}"
        )


def _untuned(q: _Question, high: int) -> Iterator[str]:
    if q.untuned:
        beyond = "" if q.untuned <= high else ", here longer than the usual"
        yield (
            f"For Adam with β₂ = {q.beta2:g} Ma & Yarats (arXiv:1910.04209) recommend "
            f"2/(1 − β₂) = {q.untuned} by default{beyond}."
        )


def _nearest(q: _Question) -> Iterator[str]:
    """The published setting nearest in size, if one is within ten times of it."""
    if q.parameters is None:
        return

    def apart(setting: Setting) -> float:
        assert q.parameters is not None
        return abs(math.log10(setting.parameters / q.parameters))

    near = min((s for s in PUBLISHED if s.post_norm == q.post_norm), key=apart)
    if apart(near) > 1.0:
        return
    yield f"Nearest in size: {near}."
    if q.peak is not None and near.peak is not None and q.peak > near.peak:
        yield (
            f"The peak rate {q.peak:g} is {q.peak / near.peak:.2g} times the {near.peak:g} there: "
            "higher rates need more warmup (arXiv:2410.23922); we know of no number."
        )


def _batch(q: _Question) -> Iterator[str]:
    if q.batch_tokens is None:
        return
    warmup = f"In tokens: {short(q.length * q.batch_tokens)} of {short(q.batch_tokens)} an update"
    largest = max(s.batch_tokens or 0.0 for s in PUBLISHED)
    if q.batch_tokens <= largest:
        yield f"{warmup}."
        return
    yield (
        f"{warmup}, more than the {short(largest)} at most of the settings compared with: larger "
        "batches need more warmup (arXiv:2410.23922); we know of no number."
    )


def _warmup(q: _Question) -> str:
    if q.length == 0:
        return f"No warmup in {q.steps} steps"
    return f"A warmup of {q.length} of {q.steps} steps, {percent(q.share)}"
