"""Findings of a made-up study: every number in them is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from groundup.experiment.studies import Claim, Setting, Study
from groundup.report.studies.findings import About, ArmFindings, Findings, RunFindings, Tried


def made_study(**changes: Any) -> Study:
    """Two arms, `new` against `old`, and a claim that `new` is better."""
    told: dict[str, Any] = {
        "name": "placement",  # of the studies that there are, so that a file of it can be read
        "title": "New against old",
        "question": "Is new better than old?",
        "settings": {
            "cpu": Setting(lambda change: {}, (0.5, 1.0, 2.0)),
            "gpu": Setting(lambda change: {}),
        },
        "claims": (Claim("new", "old", "somewhere, 1 < 2"),),
        "baselines": {"new": "old"},
    }
    return Study(**told | changes)


def made_run(seed: int, value: float | None, **more: Any) -> RunFindings:
    """A run that ended with a value, or diverged."""
    if value is None:
        return RunFindings(seed, None, "diverged", "the loss was not finite", 5, **more)
    told: dict[str, Any] = {
        "updates": 100,
        "evaluations": ((50, 4.0), (100, value)),
        "losses": (5.0, None, 4.5),
        "spikes": {"loss": (0.0, 80, 10), "grad_norm": (1.25, 80, 10)},
        "tokens_per_second": 1000.0,
        "wall_seconds": 60.0,
    }
    return RunFindings(seed, value, "finished", **told | more)


def made_arm(
    name: str,
    values: Sequence[float | None],
    tuned: Mapping[float, float | None] | None = None,
    peak: float | None = 2e-3,
    planned: int | None = None,
) -> ArmFindings:
    """An arm: the values of seeds 1, 2, …, and what each rate came to."""
    tuned = {1e-3: 4.2, 2e-3: 4.1, 4e-3: 4.3} if tuned is None else tuned
    rates = [Tried(p, v, True, "" if v is not None else "it diverged") for p, v in tuned.items()]
    runs = [made_run(seed, value) for seed, value in enumerate(values, start=1)]
    waiting = range(len(runs) + 1, (planned or 0) + 1)
    runs += [RunFindings(seed, None, "not ended") for seed in waiting]
    return ArmFindings(name, tuple(rates), peak, tuple(runs))


def made_findings(
    new: ArmFindings | Sequence[float | None] | None,
    old: ArmFindings | Sequence[float | None] | None,
    scale: str = "cpu",
    about: About | None = None,
    **changes: Any,
) -> Findings:
    """The findings of both arms; None for one that there is not."""
    given = {"old": old, "new": new}
    arms = [
        arm if isinstance(arm, ArmFindings) else made_arm(name, arm)
        for name, arm in given.items()
        if arm is not None
    ]
    runs = sum(len(arm.tuned) + len(arm.runs) for arm in arms)
    known = about or About(
        text={"source": "python", "tokenizer": "0123456789ab"},
        settings={"train.steps": (100,), "train.batch": (8,), "data.length": (128,)}
        | {"train.precision": ("float32",), "model.layers": (6, 12), "model.width": (64,)},
        parameters=(12345, 67890),
        hardware=("a small machine",),
        versions=("groundup 0.1.0",),
        ended=runs,
        planned=runs,
        wall_seconds=90.0 * 60,
    )
    return Findings(made_study(**changes), scale, tuple(arms), known)


def with_arms(found: Findings, *more: ArmFindings) -> Findings:
    """The same findings and these arms."""
    return replace(found, arms=(*found.arms, *more))
