"""Intervals and losses that the guides tell are those of the committed findings, or of trials."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest

from groundup.report.studies.findings import Findings
from groundup.report.studies.intervals import paired
from groundup.report.studies.page import read

DOCS = Path(__file__).parents[3] / "docs"
PAGES = [
    DOCS / "what-we-learned.md",
    DOCS / "choosing-a-warmup.md",
    DOCS / "performance.md",
    DOCS.parent / "README.md",
]
_NUMBER = r"[−+]?\d+\.\d{3,4}"
_INTERVAL = re.compile(
    rf"(?:({_NUMBER})\**\s+\(|\(({_NUMBER}),\s+|\()({_NUMBER})\s+to\s+({_NUMBER})\)"
)
_LOSS = re.compile(r"(?<![\d.−+×])[3-6]\.\d{3,4}(?![\d.])")


def said(text: str) -> Iterator[tuple[str, ...]]:
    """The numbers of each interval: (mean, low, high), or (low, high) if no mean stands before."""
    for found in _INTERVAL.finditer(text):
        before, within, low, high = found.groups()
        yield tuple(number for number in (before or within, low, high) if number)


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def differences(found: Findings) -> Iterator[tuple[float, ...]]:
    """(mean, low, high) of any two arms, and of any two arms' leads over their baselines."""
    values = {arm.name: arm.values for arm in found.arms}
    leads = {
        arm: gap.values
        for arm, base in found.study.baselines.items()
        if (gap := paired(values.get(arm, {}), values.get(base, {})))
    }
    for known in (values, leads):
        for one, other in itertools.permutations(known.values(), 2):
            gap = paired(one, other)
            if gap and gap.interval:
                yield (gap.mean, *gap.interval)


def is_said(numbers: tuple[str, ...], triple: tuple[float, ...]) -> bool:
    """To the digits that stand there; where no sign stands, the amount is meant."""
    mean, low, high = triple
    if not any(sign in "".join(numbers) for sign in "−+") and high < 0:
        mean, low, high = -mean, -high, -low
    meant = (mean, low, high)[-len(numbers) :]
    return all(
        abs(number(text) - value) <= 0.500001 * 10.0 ** -len(text.partition(".")[2])
        for text, value in zip(numbers, meant, strict=True)
    )


FOUND = read(DOCS / "results")
MEASURED = [triple for found in FOUND for triple in differences(found)]
BY_HAND = (DOCS / "trials.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_intervals(page: Path) -> None:
    tried = set(said(BY_HAND))
    wrong = [
        numbers
        for numbers in said(page.read_text(encoding="utf-8"))
        if numbers not in tried and not any(is_said(numbers, triple) for triple in MEASURED)
    ]
    assert wrong == []


def test_losses() -> None:
    """Means of arms, and single runs that choose the rates."""
    arms = [arm for found in FOUND for arm in found.arms]
    known = [number(loss) for loss in _LOSS.findall(BY_HAND)]
    known += [fmean(arm.values.values()) for arm in arms if arm.values]
    known += [tried.value for arm in arms for tried in arm.tuned if tried.value is not None]
    wrong = [
        loss
        for loss in _LOSS.findall(PAGES[0].read_text(encoding="utf-8"))
        if not any(is_said((loss,), (value,) * 3) for value in known)
    ]
    assert wrong == []
