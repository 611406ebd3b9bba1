"""Going on with a schedule that is not the one that was saved: without a jump."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from groundup.optim.rate.course import AnyCourse, Changed, Course
from groundup.schedules import Factor
from groundup.schedules.chain import Chain, Product
from groundup.schedules.segments import Hold, Level

OnChange = Literal["blend", "jump", "refuse"]
ON_CHANGE = ("blend", "jump", "refuse")

_WITHOUT_A_LENGTH = 100  # updates, where that of the run is not known


def differences(saved: Course, own: Course) -> list[str]:
    """What differs between two courses, in words. Rounding of a peak to float32 does not count."""
    found = []
    if not math.isclose(saved.peak, own.peak, rel_tol=1e-6):
        found.append(f"peak {saved.peak:g} → {own.peak:g}")
    if _effect(saved.factor) != _effect(own.factor):
        found.append(f"factor {_words(saved.factor)} → {_words(own.factor)}")
    if saved.layered != own.layered:
        found.append("the schedule over layers")
    rules, own_rules = ({s.name: s for s in one.settings} for one in (saved, own))
    for name in dict.fromkeys((*rules, *own_rules)):
        if name == "peak_lr":  # follows the peak
            continue
        before, after = rules.get(name), own_rules.get(name)
        if before is None or after is None or before.rule != after.rule:
            found.append(f"the schedule of {name}")
        elif not math.isclose(before.base, after.base, rel_tol=1e-6):
            found.append(f"{name} {before.base:g} → {after.base:g}")
    return found


def default_length(own: Course, step: int, steps: int | None) -> int:
    """Over how many updates a changed schedule is gone over to: as long as the new warmup lasts,
    but no shorter than 1% of the run; at most a tenth of what remains, and at least 1."""
    warmup = _warmup_length(own.factor) or 0
    if steps is None:
        return warmup or _WITHOUT_A_LENGTH
    length = min(max(warmup, round(0.01 * steps)), (steps - step) // 10)
    return max(1, length)


def _effect(factor: Factor) -> Factor:
    """The factor with the constant at its end, if there is one, of no length: however long it is,
    what follows is the same."""
    if isinstance(factor, Product):
        return Product(tuple(_effect(one) for one in factor.factors))
    if not isinstance(factor, Chain):
        return factor
    segments = list(factor.segments)
    while segments and isinstance(segments[-1], Hold):
        segments.pop()
    if segments and isinstance(segments[-1], Level):
        segments[-1] = Level(None, segments[-1].level)
    return Chain(tuple(segments))


def _words(factor: Factor) -> str:
    if not isinstance(factor, Chain):
        return type(factor).__name__.lower()
    parts = (f"{s.label} {'' if s.length is None else s.length}".strip() for s in factor.segments)
    return " + ".join(parts) or "1"


def _warmup_length(factor: Factor) -> int | None:
    """The first moment at which the factor is as high as it is at any joint, if it rises to it."""
    moments = factor.joints()
    if isinstance(factor, Chain):
        moments = [*moments, sum(length or 0 for length in factor.lengths())]
    if not moments:
        return None
    top = max(factor(moment) for moment in moments)
    first = next(moment for moment in moments if factor(moment) == top)
    return first if factor(0) < top else None


def continued(
    saved: Sequence[tuple[Course, AnyCourse]],
    own: Sequence[Course],
    constants: Sequence[dict[str, float]],
    at: int,
    steps: int | None,
    on_change: OnChange,
    length: int | None,
) -> tuple[list[AnyCourse], str | None]:
    """The courses to go on with after the step `at`, and what has changed, in words.

    Args:
        saved: of each group that was saved, its course as it was asked for and as it had become.
        own: the courses of this run. Groups beyond the saved ones begin with their own.
        constants: what the other settings of each group are in this run.
        length: updates that a change takes; None for `default_length`.

    Raises:
        ValueError: if groups are missing, or something has changed and `on_change` is "refuse".
    """
    if len(saved) > len(own):
        raise ValueError(
            f"the saved schedule has {len(saved)} groups, this optimizer {len(own)}: add those "
            "that were added in the course of training before loading"
        )
    found: list[AnyCourse] = list(own)
    told: dict[str, list[int]] = {}  # what is said, and of which groups
    changed: dict[str, list[int]] = {}
    for i, (given, course) in enumerate(saved):
        if not (differs := differences(given, own[i])):
            found[i] = course
            continue
        # What only one of the two schedules is, for the other, constant at this run's value.
        names = {*course.names(), *own[i].names()} & constants[i].keys()
        constant = {name: constants[i][name] for name in sorted(names)}
        found[i], over = own[i].holding(constant), 0
        if on_change == "blend":
            over = default_length(own[i], at, steps) if length is None else length
            found[i] = Changed(course.holding(constant), found[i], at, over)
        what = "; ".join(differs)
        changed.setdefault(f"({what})", []).append(i)
        old, new = course(at)["lr"], own[i](at)["lr"]
        text = (
            f"({what}): the rate goes from {old:g} to the new schedule's, {new:g} at this step, "
            f"{f'over {over} updates' if over else 'at once'}"
        )
        told.setdefault(text, []).append(i)
    if not told:
        return found, None
    said = f"the rate schedule is not the one that was saved after {at} updates"
    if on_change == "refuse":
        raise ValueError(f"{said}, and on_change='refuse': {_of_groups(changed)}")
    return found, f"{said}. {_of_groups(told)}"


def _of_groups(texts: dict[str, list[int]]) -> str:
    parts = [
        f"group{'s' if len(which) > 1 else ''} {', '.join(map(str, which))} {text}"
        for text, which in list(texts.items())[:3]
    ]
    if rest := sum(len(which) for which in list(texts.values())[3:]):
        parts.append(f"and likewise {rest} more groups")
    return "; ".join(parts)
