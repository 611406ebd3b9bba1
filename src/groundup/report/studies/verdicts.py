"""What the findings say of each claim that a study holds against them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
        gap: `better` less `worse`, or one difference less the other, paired by seed; None if no
            seed came to an end in all of them.
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


def by_chance(gaps: Iterable[Paired | None]) -> str:
    """What several intervals mean for each of them; "" if there is none."""
    tested = sum(gap is not None and gap.half is not None for gap in gaps)
    if not tested:
        return ""
    missed = number((1 - LEVEL) * tested, 2)
    intervals = "1 interval" if tested == 1 else f"{tested} intervals"
    return f"Of {intervals} at {LEVEL:.0%}, {missed} are expected to miss the truth by chance."


def _verdict(claim: Claim, found: Findings) -> Verdict:
    known = {name: found.arm(name) for name in claim.arms}
    if missing := [f"`{name}`" for name, arm in known.items() if not _has(arm)]:
        return Verdict(claim, "not run", why=f"no reported run of {' or '.join(missing)} has ended")
    arms = {name: arm for name, arm in known.items() if arm is not None}
    if hopeless := [f"`{name}`" for name, arm in arms.items() if arm.hopeless]:
        why = f"every run of {listing(hopeless)} diverged" + ", which counts as worst" * (
            not claim.bases
        )
        kind: Kind = "disagrees" if arms[claim.better].hopeless else "agrees"
        return Verdict(claim, "undecided" if claim.bases or len(hopeless) == 2 else kind, why=why)
    gap = _gap(claim, arms)
    if gap is None:
        return Verdict(claim, "undecided", why=_diverged(*arms.values()) or "no seed in common")
    return Verdict(claim, _kind(gap, claim, arms), gap, _why(gap, *arms.values()))


def _gap(claim: Claim, arms: Mapping[str, ArmFindings]) -> Paired | None:
    sides = []
    for name, base in zip((claim.better, claim.worse), claim.bases or (None, None), strict=True):
        values: Mapping[int, float] = arms[name].values
        if base is not None:
            over = paired(values, arms[base].values)
            values = over.values if over else {}
        sides.append(values)
    return paired(*sides)


def _has(arm: ArmFindings | None) -> bool:
    return arm is not None and (arm.hopeless or bool(arm.values) or bool(arm.diverged))


def _kind(gap: Paired, claim: Claim, arms: Mapping[str, ArmFindings]) -> Kind:
    """A seed at which one arm alone diverged speaks against that arm: an interval of the others
    that says the opposite decides nothing. Of differences one cannot say what it speaks against."""
    if gap.interval is None or gap.interval[0] <= 0 <= gap.interval[1]:
        return "undecided"
    agrees = gap.mean < 0
    lost, lost_worse = (set(arms[name].diverged) for name in (claim.better, claim.worse))
    against = lost - lost_worse if agrees else lost_worse - lost
    if claim.bases:
        against = {seed for arm in arms.values() for seed in arm.diverged}
    if against:
        return "undecided"
    return "agrees" if agrees else "disagrees"


def _why(gap: Paired, *arms: ArmFindings) -> str:
    alone = "" if gap.n > 1 else "one seed has no interval"
    return "; ".join(filter(None, [alone, _diverged(*arms)]))


def _diverged(*arms: ArmFindings) -> str:
    said = [
        f"`{arm.name}` diverged with {len(arm.diverged)} of {len(arm.runs)} seeds"
        for arm in arms
        if arm.diverged
    ]
    return "; ".join(said)
