"""What is said of a claim, for every way in which runs can come out."""

from __future__ import annotations

import pytest

from groundup.experiment.studies import Claim
from groundup.report.studies.verdicts import by_chance, tally, verdicts

from .made import made_arm, made_findings, with_arms

OLD = (4.0, 4.1, 3.9)
LOWER, HIGHER, BOTH = (3.9, 4.01, 3.79), (4.1, 4.19, 4.01), (3.9, 4.2, 3.9)
HOPELESS = made_arm("new", (None, None, None))
NO_RATE = made_arm("new", (), {1e-3: None, 2e-3: None}, peak=None)


def of(new, old):
    (verdict,) = verdicts(made_findings(new, old))
    return verdict


@pytest.mark.parametrize(
    ("new", "kind"),
    [
        (LOWER, "agrees"),
        (HIGHER, "disagrees"),
        (BOTH, "undecided"),
        (LOWER[:1], "undecided"),
        (None, "not run"),
        (made_arm("new", (), planned=3), "not run"),
        (HOPELESS, "disagrees"),
        (NO_RATE, "disagrees"),
        ((3.9, 4.01, None), "undecided"),
        ((4.1, 4.19, None), "disagrees"),
    ],
)
def test_the_kinds(new, kind) -> None:
    assert of(new, OLD).kind == kind


@pytest.mark.parametrize(
    ("new", "old", "kind", "why"),
    [
        (LOWER, made_arm("old", (None, None, None)), "agrees", "every run of `old` diverged"),
        (HOPELESS, OLD, "disagrees", "every run of `new` diverged, which counts as worst"),
        (HOPELESS, made_arm("old", (None, None)), "undecided", "`new` and `old` diverged"),
        (LOWER[:1], OLD, "undecided", "one seed has no interval"),
        ((3.9, 4.01, None), OLD, "undecided", "`new` diverged with 1 of 3 seeds"),
        (LOWER, (4.0, 4.1, None), "agrees", "`old` diverged with 1 of 3 seeds"),
        # The seed that diverged speaks for `new`, the others against it.
        (HIGHER, (4.0, 4.1, None), "undecided", "`old` diverged with 1 of 3 seeds"),
        ((None, 4.01, None), (4.0, None, 4.0), "undecided", "2 of 3 seeds; `old` diverged"),
        (None, OLD, "not run", "no reported run of `new` has ended"),
        (None, None, "not run", "no reported run of `new` or `old` has ended"),
        (LOWER, made_arm("old", (), planned=3), "not run", "no reported run of `old` has ended"),
    ],
)
def test_why(new, old, kind, why) -> None:
    found = of(new, old)
    assert (found.kind, why in found.why) == (kind, True), found.why


def test_the_difference_stands_beside() -> None:
    gap = of(LOWER, OLD).gap
    assert gap is not None
    assert gap.mean == pytest.approx(-0.1)
    assert gap.n == 3
    assert of(HOPELESS, OLD).gap is None


LEADS = Claim("new", "old", "a", bases=("new-base", "old-base"))


def of_leads(*bases):
    """`new` leads its base by 0.2, 0.22 and 0.19, unless told others."""
    names = ("new-base", "old-base")
    more = [made_arm(name, values) for name, values in zip(names, bases, strict=True)]
    (verdict,) = verdicts(with_arms(made_findings(LOWER, OLD, claims=(LEADS,)), *more))
    return verdict


@pytest.mark.parametrize(
    ("new_base", "old_base", "kind", "mean"),
    [
        # Leads of 0.2, 0.22, 0.19 against leads of 0.1: 0.1, 0.12 and 0.09 more.
        ((4.1, 4.23, 3.98), (4.1, 4.2, 4.0), "agrees", -0.31 / 3),
        ((3.9, 4.01, 3.79), (4.1, 4.21, 4.01), "disagrees", 0.32 / 3),
        ((4.0, 4.11, 3.89), (4.1, 4.3, 3.9), "undecided", 0.0),
        # Whatever the others say: one cannot tell what the seed that diverged speaks against.
        ((4.1, 4.21, 3.98), (4.1, 4.2, None), "undecided", -0.1),
        ((None, None, None), (4.1, 4.2, 4.0), "undecided", None),
        ((None, 4.1, None), (4.1, None, 4.0), "undecided", None),
    ],
)
def test_one_difference_against_another(new_base, old_base, kind, mean) -> None:
    found = of_leads(new_base, old_base)
    assert found.kind == kind
    assert (found.gap and found.gap.mean) == (mean if mean is None else pytest.approx(mean))
    assert bool(found.why) == (None in (*new_base, *old_base))
    assert "counts as worst" not in found.why  # as what it counts of a difference cannot be said


def test_a_difference_lacks_an_arm() -> None:
    (found,) = verdicts(made_findings(LOWER, OLD, claims=(LEADS,)))
    assert found.kind == "not run"
    assert found.why == "no reported run of `new-base` or `old-base` has ended"
    assert found.claim.said == "`new` − `new-base` < `old` − `old-base`"


def test_verdicts_are_counted_and_so_are_the_intervals() -> None:
    claims = [Claim("new", "old", "a"), Claim("old", "new", "b"), Claim("new", "third", "c")]
    judged = verdicts(made_findings(LOWER, OLD, claims=(*claims, claims[0])))
    assert tally(judged) == "2 agree, 1 disagrees, 1 not run"
    assert by_chance(verdict.gap for verdict in judged) == (
        "Of 3 intervals at 95%, 0.15 are expected to miss the truth by chance."
    )
    assert tally(()) == by_chance(()) == by_chance([None]) == ""
