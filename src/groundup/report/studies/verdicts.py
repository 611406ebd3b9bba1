"""What the findings say of each claim that a study holds against them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from groundup.experiment.studies import Claim
from groundup.report.studies.findings import ArmFindings, Findings
from groundup.report.studies.intervals import LEVEL, Paired, paired
from groundup.report.words import listing, number

__all__ = ["KINDS", "Kind", "Verdict", "by_chance", "tally", "verdicts"]

Kind = Literal["agrees", "disagrees", "undecided", "not run"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Verdict:
    """A claim, judged.

    Attributes:
        claim: the ordering.
        kind: "agrees" if the interval of the paired difference lies wholly below 0, "disagrees" if
            wholly above, "undecided" if it contains 0 or there is none, "not run" while an arm has
            no run. An arm all of whose runs diverged is worse than any that came to an end.
        gap: `better` less `worse`, paired by seed; None if no seed came to an end in both.
        why: what else there is to say, in words.
    """

    claim: Claim
    kind: Kind
    gap: Paired | None = None
    why: str = ""


def verdicts(found: Findings) -> tuple[Verdict, ...]:
    """Each claim of the study, in its order."""
    return tuple(_verdict(claim, found) for claim in found.study.claims)


def tally(judged: Sequence[Verdict]) -> str:
    """“7 agree, 1 disagrees, 2 undecided”; kinds that do not occur are left out."""
    counts = Counter(verdict.kind for verdict in judged)
    words = {
        kind: {"agrees": "agree", "disagrees": "disagree"}.get(kind, kind)
        if counts[kind] > 1
        else kind
        for kind in KINDS
    }
    return ", ".join(f"{counts[kind]} {words[kind]}" for kind in KINDS if counts[kind])


def by_chance(judged: Sequence[Verdict]) -> str:
    """What testing several claims means for their intervals; "" if none has one."""
    tested = sum(verdict.gap is not None and verdict.gap.half is not None for verdict in judged)
    if not tested:
        return ""
    missed = number((1 - LEVEL) * tested, 2)
    intervals = "1 interval" if tested == 1 else f"{tested} intervals"
    return f"Of {intervals} at {LEVEL:.0%}, {missed} are expected to miss the truth by chance."


def _verdict(claim: Claim, found: Findings) -> Verdict:
    names = (claim.better, claim.worse)
    arms = {name: found.arm(name) for name in names}
    if missing := [f"`{name}`" for name in names if not _has(arms[name])]:
        return Verdict(claim, "not run", why=f"no reported run of {' or '.join(missing)} has ended")
    better, worse = (arm for arm in arms.values() if arm is not None)
    hopeless = [arm for arm in (better, worse) if arm.hopeless]
    if hopeless:
        diverged = listing([f"`{arm.name}`" for arm in hopeless])
        why = f"every run of {diverged} diverged, which counts as worst"
        kind: Kind = "disagrees" if better.hopeless else "agrees"
        return Verdict(claim, "undecided" if len(hopeless) == 2 else kind, why=why)
    gap = paired(better.values, worse.values)
    if gap is None:
        return Verdict(claim, "undecided", why=_diverged(better, worse) or "no seed in common")
    lost = (set(better.diverged), set(worse.diverged))
    return Verdict(claim, _kind(gap, *lost), gap, _why(better, worse, gap))


def _has(arm: ArmFindings | None) -> bool:
    return arm is not None and (arm.hopeless or bool(arm.values) or bool(arm.diverged))


def _kind(gap: Paired, lost: set[int], lost_worse: set[int]) -> Kind:
    """A seed at which one arm alone diverged speaks against that arm: an interval of the others
    that says the opposite decides nothing."""
    if gap.interval is None:
        return "undecided"
    low, high = gap.interval
    if high < 0:
        return "undecided" if lost - lost_worse else "agrees"
    if low > 0:
        return "undecided" if lost_worse - lost else "disagrees"
    return "undecided"


def _why(better: ArmFindings, worse: ArmFindings, gap: Paired) -> str:
    alone = "" if gap.n > 1 else "one seed has no interval"
    return "; ".join(filter(None, [alone, _diverged(better, worse)]))


def _diverged(*arms: ArmFindings) -> str:
    said = [
        f"`{arm.name}` diverged with {len(arm.diverged)} of {len(arm.runs)} seeds"
        for arm in arms
        if arm.diverged
    ]
    return "; ".join(said)
