"""Was it stable: spikes and what was done about them, losses that rise, drift."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.measure.spikes import SpikeScore, default_window, run_spike_score
from groundup.report import curves
from groundup.report.health.reading import finite_median, settled_from
from groundup.report.health.telling import Finding, Rule, observed, significant
from groundup.report.runs import Run
from groundup.report.table import Study, evaluations
from groundup.report.words import count, counts, listing, number

__all__ = ["RULES", "sentences"]

Numbers = NDArray[np.float64]
Scores = dict[str, SpikeScore]

PUBLISHED_WINDOW = 1000
DEVIATIONS = 7.0
"""Both of the published spike score (arXiv:2501.00656)."""

DRIFT = 2.0
"""At a constant rate the gradient norm settles; OLMo 2 (arXiv:2501.00656) reports growing norms
before its predecessor became unstable. It gives no bound: doubling is ours."""
SHORTEST_HOLD = 50
"""Updates at a constant rate; with fewer, a fifth of them is too little for a median."""

RISE = 0.01
"""Nats per token, above the lowest held-out loss, at two evaluations in a row: a perplexity 1%
higher. Held-out text is the same every time, so this is not sampling noise of the text."""

DIVERGED_FROM = 0.1
"""Of the run, where the published spike score begins: a loss that ends above has unlearned."""
SHORTEST_RUN = 100
"""Updates; in a shorter run the loss of two windows of a few batches says little."""

_SHARED = 5  # steps that are named
_SERIES = {"loss": "loss", "grad_norm": "gradient norm"}
_DONE = {
    "warn": "only warned",
    "skip": "skipped the update",
    "rewind": "went back",
    "stop": "stopped the run",
}


def sentences(group: Study) -> list[str]:
    """What was unstable; one sentence where nothing was."""
    # Each takes about a second for 100,000 updates: once for all that is said of them.
    scores = {id(run): _scores(run) for run in group.runs}
    spikes = Rule(
        "Spikes",
        "spikes of loss and gradient norm",
        "",
        lambda run: _spikes(run, scores[id(run)]),
    )
    monitor = Rule(
        "What the spike monitor did",
        "interventions of the spike monitor",
        "",
        lambda run: _events(run, scores[id(run)]),
    )
    found, topics = observed(group, (spikes, monitor, *RULES))
    if not topics:
        return []
    clean = [f"Nothing unusual. Looked for: {listing(topics)}."] if not found else []
    return [*clean, *found, *_shared(group, scores), *_window(scores), *_monitors(group, scores)]


def _shared(group: Study, scores: Mapping[int, Scores]) -> list[str]:
    """Spikes that most variants have at the same step, and so on the same batch."""
    where: dict[tuple[int | None, int], set[str]] = {}
    for variant in group.variants:
        for run in variant.runs:
            found = scores[id(run)].values()
            for step in {int(run.steps[i]) for score in found for i in score.spikes}:
                where.setdefault((run.seed, step), set()).add(variant.name)
    most = max(2, len(group.variants) / 2)  # fewer can meet by chance
    shared = sorted({step for (_, step), names in where.items() if len(names) >= most})
    if not shared:
        return []
    few = listing([count(step) for step in shared[:_SHARED]])
    more = f" and {len(shared) - _SHARED} more" if len(shared) > _SHARED else ""
    return [
        f"{'Both' if len(group.variants) == 2 else 'Most'} variants spike at update"
        f"{'' if len(shared) == 1 else 's'} {few}{more} of the same seed, where they see the same "
        "batch: its text is a likely cause."
    ]


def _window(scores: Mapping[int, Scores]) -> list[str]:
    found = [score for series in scores.values() for score in series.values()]
    if not any(score.spikes for score in found):
        return []
    short = {score.window for score in found if score.window < PUBLISHED_WINDOW}
    if not short:
        return []
    return [
        f"A spike lies {DEVIATIONS:.0f} deviations from the {counts(short)} updates before it. The "
        f"published score takes {PUBLISHED_WINDOW}, for which these runs are too short: compare "
        "spike scores only with each other."
    ]


def _monitors(group: Study, scores: Mapping[int, Scores]) -> list[str]:
    """What the monitor of runs with events calls a spike, where that is not what is scored."""
    others = {}
    for run in group.runs:
        own = _monitor(run) if _finite_spikes(run) else None
        if own and {own} != {(s.window, DEVIATIONS) for s in scores[id(run)].values()}:
            others[own] = f"a window of {count(own[0])} updates and {own[1]:g} deviations"
    if not others:
        return []
    return [f"The monitor of the run used {listing(list(others.values()))} for its spikes."]


def _monitor(run: Run) -> tuple[int, float] | None:
    """(window, threshold) of the recipe's [spikes]; None where it has none."""
    threshold, window = (run.setting("spikes", key) for key in ("threshold", "window"))
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        return None
    return (window if isinstance(window, int) else default_window(run.planned)), float(threshold)


def _scores(run: Run) -> Scores:
    """The spike score of each series, as the summary says, else measured on what there is."""
    stated, found = run.summary.get("spike_score"), {}
    for name in _SERIES:
        values = run.series.get(name)
        if values is None or not np.isfinite(values).any():
            continue
        stored = stated.get(name) if isinstance(stated, dict) else None
        if isinstance(stored, dict) and {f.name for f in fields(SpikeScore)} == stored.keys():
            score = SpikeScore(**stored)
        else:
            score = run_spike_score(values)
        if score.scored and all(at < len(values) for at in score.spikes):
            found[name] = score
    return found


def _spikes(run: Run, scores: Scores) -> list[Finding] | None:
    hit = {name: score for name, score in scores.items() if score.spikes}
    if not hit:
        return [] if scores else None
    shares = [
        f"{significant(score.percent or 0.0)}% of the {_SERIES[name]} ({len(score.spikes)} of "
        f"{count(score.scored)} updates)"
        for name, score in hit.items()
    ]
    size, name, step = max(_worst(run, name, score) for name, score in hit.items())
    far = "off every scale" if math.isinf(size) else f"{significant(size)} deviations"
    text = f"{listing(shares)}, the largest at update {count(step)} ({_SERIES[name]}, {far})"
    return [Finding(text, max(score.percent or 0.0 for score in hit.values()), size)]


def _worst(run: Run, name: str, score: SpikeScore) -> tuple[float, str, int]:
    """(deviations, series, step) of the farthest spike."""
    values = run.series[name]
    sizes = []
    for at in score.spikes:
        before = values[at - score.window : at]
        known = before[np.isfinite(before)]
        spread = float(np.std(known)) if len(known) else 0.0
        away = abs(values[at] - float(np.mean(known))) if len(known) else math.nan
        size = away / spread if spread > 0 else math.inf
        sizes.append((size if math.isfinite(size) else math.inf, name, int(run.steps[at])))
    return max(sizes)


def _events(run: Run, scores: Scores) -> list[Finding] | None:
    spikes = [event for event in run.events if event.get("kind") == "spike"]
    if not any(event.get("action") != "warn" for event in spikes):
        return _beyond_the_score(run, spikes, scores) if run.events else None
    # Loss and gradient norm of an update have an event each; after a rewind its batch is another.
    acted = dict.fromkeys((str(e.get("action")), e["step"], str(e.get("batch"))) for e in spikes)
    actions = Counter(action for action, _, _ in acted)
    done = [f"{_DONE.get(action, action)} {_times(n)}" for action, n in actions.items()]
    of = Counter(_SERIES.get(str(e.get("of")), str(e.get("of"))) for e in spikes)
    seen = listing([f"{n} of the {name}" for name, n in of.items()])
    text = f"saw {_plural(len(spikes), 'spike')} ({seen}) and {listing(done)}"
    first = spikes[0]["step"]
    text += (
        f", at update {count(first)}" if len(spikes) == 1 else f", first at update {count(first)}"
    )
    back = [event for event in spikes if isinstance(event.get("to"), int)]
    if back:
        text += f"; it last went from update {count(back[-1]['step'])} to {count(back[-1]['to'])}"
    return [Finding(text, len(spikes))]


def _beyond_the_score(run: Run, spikes: list[dict[str, Any]], scores: Scores) -> list[Finding]:
    """What was only warned of, where it is not told with the score or as divergence."""
    told = {(name, int(run.steps[i])) for name, score in scores.items() for i in score.spikes}
    rest = [event for event in spikes if (event.get("of"), event["step"]) not in told]
    if not rest or run.diverged:
        return []
    of = _SERIES.get(str(rest[0].get("of")), str(rest[0].get("of")))
    first = f"{'' if len(rest) == 1 else 'first '}at update {count(rest[0]['step'])} ({of})"
    text = f"warned of {_plural(len(rest), 'spike')} that the score does not count, {first}"
    return [Finding(text, len(rest))]


def _not_finite(run: Run) -> list[Finding] | None:
    recorded, told, total = False, [], 0
    for name, series in _SERIES.items():
        values = run.series.get(name)
        if values is None or not np.isfinite(values).any():
            continue
        recorded = True
        # Those before it were skipped; the one that ended the run is told as divergence.
        bad = np.flatnonzero(~np.isfinite(values[:-1] if run.diverged else values))
        if len(bad):
            total += len(bad)
            step = count(int(run.steps[bad[0]]))
            told.append(f"{series} {_times(len(bad))}, first at update {step}")
    if not recorded:
        return None
    return [Finding(listing(told), total)] if told else []


def _diverged(run: Run) -> list[Finding] | None:
    loss = run.series.get("loss")
    if loss is None or not np.isfinite(loss).any():
        return None
    if run.diverged:
        return [Finding(f"{_how_it_ended(run)}{_warned(run)}", math.inf)]
    width = curves.window([run])
    at = int(DIVERGED_FROM * len(loss))
    if len(loss) < SHORTEST_RUN:
        return None
    early, end = finite_median(loss[max(0, at - width) : at + 1]), finite_median(loss[-width:])
    if not end > early:
        return []
    text = (
        f"ends at a training loss of {number(end)}, above the {number(early)} at "
        f"{100 * DIVERGED_FROM:.0f}% of the run"
    )
    return [Finding(text, end - early)]


def _how_it_ended(run: Run) -> str:
    """Which series was not finite at the end, and the last finite value of each."""
    told, last = [], []
    for name, series in _SERIES.items():
        known = np.flatnonzero(np.isfinite(run.series[name]))
        if np.isfinite(run.series[name][-1]):
            continue
        told.append(series)
        if len(known):
            value, step = float(run.series[name][known[-1]]), int(run.steps[known[-1]])
            last.append(f"{series} {significant(value)} at update {count(step)}")
    if not told:
        return f"has no finite held-out loss at its end, after {count(run.updates)} updates"
    are = "is" if len(told) == 1 else "are"
    at = count(int(run.steps[-1]))
    text = f"ended at update {at} with a {listing(told)} that {are} not finite"
    return f"{text} (the last finite {listing(last)})" if last else text


def _warned(run: Run) -> str:
    """The spikes before the end, which the score of a run that was cut off may not cover."""
    spikes = _finite_spikes(run)
    if not spikes:
        return ""
    largest = max(spikes, key=lambda event: float(event["value"]))
    of = _SERIES.get(str(largest.get("of")), str(largest.get("of")))
    text = f"{significant(float(largest['value']))} ({of}) at update {count(largest['step'])}"
    if len(spikes) == 1:
        return f"; before that the monitor recorded a spike of {text}"
    first = count(min(event["step"] for event in spikes))
    return (
        f"; before that the monitor recorded {count(len(spikes))} spikes from update {first} on, "
        f"up to {text}"
    )


def _finite_spikes(run: Run) -> list[dict[str, Any]]:
    """Those of events.jsonl that have a number."""
    spikes = [event for event in run.events if event.get("kind") == "spike"]
    return [e for e in spikes if isinstance(e.get("value"), float) and math.isfinite(e["value"])]


def _drift(run: Run) -> list[Finding] | None:
    norm, start = run.series.get("grad_norm"), settled_from(run)
    if norm is None or not np.isfinite(norm).any():
        return None
    decay = curves.decay_start(run)
    held = (run.steps >= start) & (run.steps < (math.inf if decay is None else decay))
    values = norm[held]
    if len(values) < SHORTEST_HOLD or not np.isfinite(run.series["rate"]).any():
        return None
    fifth = len(values) // 5
    early, late = finite_median(values[fifth : 2 * fifth]), finite_median(values[-fifth:])
    if not (early > 0 and late / early > DRIFT):
        return []
    steps = run.steps[held]
    text = (
        f"{significant(late / early)}-fold, {significant(early)} to {significant(late)}, between "
        f"updates {count(int(steps[0]))} and {count(int(steps[-1]))} (constant rate)"
    )
    return [Finding(text, late / early)]


def _overfits(run: Run) -> list[Finding] | None:
    known = sorted((step, v) for step, v in evaluations(run).items() if math.isfinite(v))
    if len(known) < 3:
        return None
    best = min(range(len(known)), key=lambda i: known[i][1])
    step, lowest = known[best]
    if best > len(known) - 3 or min(v for _, v in known[-2:]) < lowest + RISE:
        return []
    width = curves.window([run])
    loss = run.series["loss"]
    then = finite_median(loss[(run.steps < step) & (run.steps >= step - width)])
    now = finite_median(loss[-width:])
    if not now < then:
        return []
    text = (
        f"held-out loss rises from {number(lowest)} (update {count(step)}) to "
        f"{number(known[-1][1])} (update {count(known[-1][0])}), while training loss falls from "
        f"{number(then)} to {number(now)}"
    )
    return [Finding(text, known[-1][1] - lowest)]


def _unfinished(run: Run) -> list[Finding] | None:
    if not run.recipe and not run.summary:
        return None  # nothing says how long it was to be
    if run.finished or run.diverged or run.updates >= run.planned:
        return []
    text = f"after {count(run.updates)} of {count(run.planned)} updates"
    return [Finding(text, 1 - run.updates / run.planned)]


def _plural(n: int, noun: str) -> str:
    return f"{count(n)} {noun}{'' if n == 1 else 's'}"


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{count(n)} times")


RULES = (
    Rule(
        "Not finite",
        "losses or gradients that are not finite",
        "Such an update is a sign of overflow and is not made; the run stops where more than "
        "train.nonfinite come in a row.",
        _not_finite,
    ),
    Rule(
        "Diverged",
        "divergence",
        "A lower peak rate or a longer warmup of it is the usual remedy.",
        _diverged,
    ),
    Rule(
        "The gradient norm grows",
        "drift of the gradient norm at a constant rate",
        "Growing norms came before instability in OLMo (arXiv:2501.00656).",
        _drift,
    ),
    Rule(
        "Overfitting",
        "held-out loss that rises while training loss falls",
        "More text, fewer passes over it or a smaller model help; repeating text up to four times "
        "costs little (arXiv:2305.16264).",
        _overfits,
    ),
    Rule(
        "Not at the end",
        "runs that stopped early",
        "Stopped or still going on: what is said here holds only so far.",
        _unfinished,
    ),
)
