"""Runs made by hand for the tests of the health summary: quiet, but for what a test says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from groundup.report.health import summary
from groundup.report.measured import Measured
from groundup.report.runs import Run
from groundup.report.table import Study, study

STEPS, DEPTH = 500, 6
BEGIN = 0.02  # of the run: rate warmup
DECAY = 0.8


def noise(steps, seed=0, size=0.01):
    return size * np.random.default_rng(seed).standard_normal(steps)


def make(
    variant="baseline",
    seed=0,
    *,
    steps=STEPS,
    planned=None,
    schedule=None,
    T=10,
    depth=DEPTH,
    loss=None,
    grad_norm=None,
    evals=(),
    measured=None,
    events=(),
    summary=True,
    width=64,
    similar=None,
    rate=None,
):
    """A run as if it had been read, with what a test says and a quiet course otherwise."""
    at = np.arange(steps)
    usual = 3 + 5 / (1 + at / 20) + noise(steps, 7)
    planned = planned or steps
    fade = np.minimum(1.0, (planned - at) / ((1 - DECAY) * planned))
    shape = np.minimum(1.0, (at + 1) / max(1, BEGIN * planned)) * fade
    absent = np.full(steps, np.nan)
    residual = {"schedule": schedule or "none"}
    if schedule and not schedule.startswith("fix"):
        residual["T"] = T
    run = Run(
        folder=Path("runs") / f"{variant}-{seed}",
        variant=variant,
        seed=seed,
        recipe={
            "model": {"layers": depth, "width": width},
            "residual": residual,
            "train": {"steps": planned},
        },
        recipe_text="",
        steps=at,
        series={
            "loss": usual if loss is None else np.asarray(loss, dtype=float),
            "grad_norm": 1 + noise(steps, 9) if grad_norm is None else np.asarray(grad_norm),
            "rate": 1e-3 * shape if rate is None else rate,
            "alpha_mean": absent,
            "layers_awake": absent,
            "tokens": absent,
        },
        evals=tuple(evals),
        seconds=np.array([]),
        throughput=np.array([]),
        summary={"status": "finished", "steps": steps} if summary else {},
        measured=measured or {},
        sketches=({"step": 0},) if similar else (),
        events=tuple(events),
    )
    if similar:
        run.__dict__["similarity"] = similar  # what the property caches
    return run


def over(values, steps=None):
    """A measurement with these rows."""
    values = np.asarray(values, dtype=float)
    steps = np.linspace(0, STEPS, len(values)).astype(np.int64) if steps is None else steps
    return Measured(np.asarray(steps), values)


def layered(*rows):
    return over(np.array(rows, dtype=float))


def told(group, heading=None):
    """The summary's sentences as one text, or those below a heading that begins like this."""
    if not isinstance(group, Study):
        group = study(group if isinstance(group, list) else [group])
    sections = summary(group)
    chosen = [s for h, s in sections if heading is None or h.startswith(heading)]
    return "\n".join(line for lines in chosen for line in lines)


def rule(rules, title):
    return next(r for r in rules if r.title == title)


def fired(rules, title, run):
    """True, False, or None where the run was not measured."""
    found = rule(rules, title).look(run)
    return None if found is None else bool(found)


def settling(moments, sketches=21):
    """Cosines that rise steadily to 1 up to each layer's share of the run, as in [n, L]."""
    at = np.linspace(0, 1, sketches)[:, None]
    cosines = np.minimum(1.0, at / np.array(moments))
    return {"attention": Measured((at[:, 0] * STEPS).astype(np.int64), cosines)}


def healthy(depth=DEPTH):
    rows = [np.full(depth, 0.5)] * 11
    names = ("attention_uniform", "attention_logit", "stream_norm", "stream_max", "grad_norm")
    measured = {f"{name}/layers": layered(*rows) for name in names}
    measured["relative_update/layers"] = layered(*[np.full(depth, 1e-3)] * 11)
    measured["skip_loss/layers"] = layered(np.full(depth, 0.3))
    measured["relative_update"] = over([1e-3] * 11)
    measured["stable_rank"] = over([8] * 11)
    return measured
