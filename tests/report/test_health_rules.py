"""Was it stable, is it healthy: each rule where it speaks, is silent, or has nothing to see."""

from __future__ import annotations

import re

import numpy as np
import pytest

from groundup.report.health import stability, telling, vitals
from tests.report.health_runs import (
    STEPS,
    fired,
    healthy,
    layered,
    make,
    noise,
    over,
    settling,
    told,
)


def test_a_quiet_run_gets_one_plain_sentence():
    evals = [(step, 3 + 50 / step) for step in (100, 200, 300, 400, 500)]
    text = told(make(evals=evals), "Was it stable")
    assert text.startswith("Nothing unusual. Looked for: spikes of loss and gradient norm")
    assert "held-out loss that rises" in text
    assert "drift" in text
    assert "\n" not in text


def test_spikes_are_counted_and_the_worst_is_named():
    norm = 1 + noise(STEPS, 9)
    norm[200], norm[300] = 2.0, 5.0
    text = told(make(grad_norm=norm), "Was it stable")
    assert "Spikes: “baseline” 0.50% of the gradient norm (2 of 400 updates)" in text
    window = norm[250:300]
    size = telling.significant((5 - window.mean()) / window.std())
    assert f"the largest at update 300 (gradient norm, {size} deviations)" in text
    assert "\nA spike lies 7 deviations from the 50 updates before it. The published" in text


def test_of_seeds_with_as_many_spikes_the_farthest_is_the_worst():
    runs = []
    for seed, height in ((0, 2.0), (1, 5.0)):
        norm = 1 + noise(STEPS, 9)
        norm[200 + seed] = height
        runs.append(make(seed=seed, grad_norm=norm))
    text = told(runs, "Was it stable")
    assert "(worst seed 1; 2 of 2 seeds) 0.25%" in text
    assert "the largest at update 201" in text


def test_the_score_of_a_summary_is_taken_as_it_stands():
    norm = 1 + noise(STEPS, 9)
    norm[200] = 5.0
    run = make(grad_norm=norm)
    score = {"percent": 0.1, "spikes": [200], "scored": 1000, "window": 1000}
    run.summary["spike_score"] = {"grad_norm": score}
    text = told(run, "Was it stable")
    assert "0.10% of the gradient norm (1 of 1000 updates)" in text
    # The window of the summary is the published one; the loss was measured anew, with 50.
    assert "the 50 updates before it" in text
    score["spikes"] = [STEPS]  # of a longer run
    assert "Spikes" not in told(run, "Was it stable")


def test_a_spike_of_all_variants_is_put_down_to_the_batch():
    norm = 1 + noise(STEPS, 9)
    norm[200] = 5.0
    other = norm.copy()
    other[300] = 5.0
    text = told([make(grad_norm=norm), make("x", grad_norm=other)], "Was it stable")
    assert "Both variants spike at update 200 of the same seed" in text
    text = told([make(grad_norm=norm), make("x", 1, grad_norm=other)], "Was it stable")
    assert "same batch" not in text


def test_events_of_the_monitor():
    events = [
        {"step": 90, "kind": "spike", "of": "loss", "action": "rewind", "to": 80},
        {"step": 95, "kind": "spike", "of": "grad_norm", "action": "skip"},
        {"step": 99, "kind": "spike", "of": "grad_norm", "action": "skip"},
    ]
    text = told(make(events=events), "Was it stable")
    assert "saw 3 spikes (1 of the loss and 2 of the gradient norm)" in text
    assert "went back once and skipped the update twice, first at update 90" in text
    assert "it last went from update 90 to 80" in text
    assert "monitor" not in told(make(), "Was it stable")


def test_events_of_one_update_are_one_action():
    skips = [
        {"step": step, "kind": "spike", "of": of, "action": "skip", "batch": step}
        for step in (7, 9, 10, 11)
        for of in ("loss", "grad_norm")
    ]
    text = told(make(events=skips), "Was it stable")
    assert "saw 8 spikes (4 of the loss and 4 of the gradient norm)" in text
    assert "skipped the update 4 times, first at update 7" in text
    # The same update spikes again on another batch after the run went back.
    back = [
        {"step": 90, "kind": "spike", "of": of, "action": "rewind", "to": 80, "batch": batch}
        for batch in (90, 101)
        for of in ("loss", "grad_norm")
    ]
    assert "went back twice, first at update 90" in told(make(events=back), "Was it stable")


def test_skipped_updates_are_told_apart_from_the_end():
    loss = 3 + noise(STEPS)
    loss[[120, *range(STEPS - 3, STEPS)]] = np.nan
    run = make(loss=loss, summary=False, planned=900)
    run.recipe["train"]["nonfinite"] = 2
    text = told(run, "Was it stable")
    assert "Not finite: “baseline” loss 3 times, first at update 120" in text
    assert "Diverged: “baseline” ended at update 499" in text
    going = make(loss=loss, summary=False, planned=900)
    going.recipe["train"]["nonfinite"] = 3
    text = told(going, "Was it stable")
    assert "Not finite: “baseline” loss 4 times" in text
    assert "Diverged" not in text
    assert "Not at the end" in text


def test_warnings_are_told_where_the_score_is_silent():
    norm = 1 + noise(STEPS, 9)
    norm[200] = 5.0
    events = [
        {"step": step, "kind": "spike", "of": "grad_norm", "action": "warn"} for step in (200, 490)
    ]
    text = told(make(grad_norm=norm, events=events), "Was it stable")
    assert "“baseline” warned of 1 spike that the score does not count, at update 490" in text
    text = told(make(grad_norm=norm, events=events[:1]), "Was it stable")
    assert "What the spike monitor did" not in text


def test_losses_that_are_not_finite():
    loss = 3 + noise(STEPS)
    loss[[120, 130]] = np.nan
    text = told(make(loss=loss), "Was it stable")
    assert "Not finite: “baseline” loss twice, first at update 120" in text
    assert fired(stability.RULES, "Not finite", make()) is False
    never = make(loss=np.full(STEPS, np.nan), grad_norm=np.full(STEPS, np.nan))
    assert fired(stability.RULES, "Not finite", never) is None


def test_divergence():
    loss = 3 + noise(STEPS)
    loss[-1] = np.nan
    ended = make(loss=loss, summary=False, planned=900)
    text = told(ended, "Was it stable")
    assert (
        "Diverged: “baseline” ended at update 499 with a loss that is not finite (the last finite "
        f"loss {telling.significant(loss[-2])} at update 498). A" in text
    )
    assert "A spike lies" not in text
    assert "Not finite" not in text
    assert "Not at the end" not in text
    seen = [
        {"step": step, "kind": "spike", "of": "grad_norm", "action": "warn", "value": value}
        for step, value in ((480, 9.0), (498, 6.7e11), (499, None))
    ]
    text = told(make(loss=loss, summary=False, planned=900, events=seen), "Was it stable")
    assert (
        "the monitor recorded 2 spikes from update 480 on, up to 6.7e11 (gradient norm) at" in text
    )
    rising = make(loss=np.linspace(3, 6, STEPS))
    assert "ends at a training loss of 5.97" in told(rising, "Was it stable")
    assert fired(stability.RULES, "Diverged", make()) is False
    assert fired(stability.RULES, "Diverged", make(steps=50)) is None


def test_drift_of_the_gradient_norm_at_a_constant_rate():
    title = "The gradient norm grows"
    growing = np.interp(np.arange(STEPS), [0, 400, 499], [1, 9, 0.1])
    run = make(grad_norm=growing)
    text = told(run, "Was it stable")
    # From update 9, where the rate is at its peak, to the decay: the middle of 20–40% and of the
    # last 20% of a straight line.
    early, late = (1 + 8 * (9 + share * 392) / 400 for share in (0.3, 0.9))
    numbers = [telling.significant(value) for value in (late / early, early, late)]
    assert "The gradient norm grows: “baseline” {}-fold, {} to {}".format(*numbers) in text
    assert "between updates 9 and 400 (constant rate)" in text
    # Growth under a falling rate is no drift.
    falling = np.linspace(1, 0.01, STEPS)
    assert fired(stability.RULES, title, make(grad_norm=growing, rate=falling)) is None
    assert fired(stability.RULES, title, make()) is False
    assert fired(stability.RULES, title, make(rate=np.full(STEPS, np.nan))) is None


def test_overfitting():
    title = "Overfitting"
    falling = [(100, 3.5), (200, 3.0), (300, 2.9), (400, 3.0), (500, 3.1)]
    text = told(make(evals=falling), "Was it stable")
    assert "held-out loss rises from 2.900 (update 300) to 3.100 (update 500)" in text
    assert "while training loss falls" in text
    once = [*falling[:4], (500, 2.89)]
    assert fired(stability.RULES, title, make(evals=once)) is False
    assert fired(stability.RULES, title, make(evals=falling[:2])) is None
    both = make(evals=falling, loss=np.linspace(3, 6, STEPS))
    assert fired(stability.RULES, title, both) is False


def test_a_run_that_is_not_at_its_end():
    text = told(make(summary=False, planned=900), "Was it stable")
    assert "Not at the end: “baseline” after 500 of 900 updates" in text


def test_bounds_of_stability():
    falling = [(100, 3.0), (200, 2.9)]
    for rise, expected in ((0.011, True), (0.009, False)):
        evals = [*falling, (400, 2.9 + rise), (500, 2.9 + rise)]
        assert fired(stability.RULES, "Overfitting", make(evals=evals)) is expected
    for growth, expected in ((2.1, True), (1.9, False)):
        norm = np.where(np.arange(STEPS) < 250, 1.0, growth)
        title = "The gradient norm grows"
        assert fired(stability.RULES, title, make(grad_norm=norm)) is expected
    for steps, expected in ((70, True), (60, None)):  # 1 and 20% of it are not at the peak
        norm = np.where(np.arange(steps) < steps / 2, 1.0, 9.0)
        assert fired(stability.RULES, title, make(steps=steps, grad_norm=norm)) is expected
    for steps, expected in ((101, True), (99, None)):
        run = make(steps=steps, loss=np.linspace(3, 6, steps))
        assert fired(stability.RULES, "Diverged", run) is expected
    # Against the loss at 10%, not at 5% or 20%.
    for start, expected in ((40, True), (60, False)):
        loss = np.where(np.arange(STEPS) < start, 9.0, 5.0)
        loss[-50:] = 7.0
        assert fired(stability.RULES, "Diverged", make(loss=loss)) is expected


def vital(title, **measured):
    named = {name.replace("__", "/"): value for name, value in measured.items()}
    return fired(vitals.RULES, title, make(measured=named))


def test_attention_collapse():
    title = "Attention collapses"
    low = layered([0.6] * 6, [0.5, 0.02, 0.01, 0.5, 0.5, 0.5])
    text = told(make(measured={"attention_uniform/layers": low}), "Is it healthy")
    assert "layers 2, 3 at 1.0% of the entropy" in text
    assert "2303.06296" in text
    early = layered([0.01] * 6, [0.5] * 6)
    assert vital(title, attention_uniform__layers=early) is False
    assert vital(title) is None


def test_attention_logits():
    title = "Attention logits are large"
    rows = [[size, 1, 1] for size in (10, 20, 40, 80, 160)]
    assert vital(title, attention_logit__layers=layered(*rows)) is True
    assert vital(title, attention_logit__layers=layered(*rows[:4])) is False  # still below 100
    held = [[size, 1, 1] for size in (10, 150, 160, 160, 160)]
    assert vital(title, attention_logit__layers=layered(*held)) is False
    once = layered([1, 2, 3], [1, 2e4, 3], [1, 2, 3])
    text = told(make(measured={"attention_logit/layers": once}), "Is it healthy")
    assert "20,000 (layer 2, update 250)" in text
    assert vital(title) is None


def test_massive_activations():
    title = "Massive activations"
    # A usual entry: 0.6745·8/√64 = 0.67; 1000 times that is 675.
    norms = layered([8.0] * 3)
    for size, expected in ((700, True), (600, False)):
        found = vital(title, stream_norm__layers=norms, stream_max__layers=layered([1, size, 1]))
        assert found is expected
    small = {"stream_norm__layers": layered([0.08] * 3), "stream_max__layers": layered([1, 50, 1])}
    assert vital(title, **small) is False  # a ratio alone does not make it massive
    assert vital(title, stream_norm__layers=norms) is None


def test_dead_relus():
    assert vital("Dead ReLUs", dead_relus=over([0.0, 0.2])) is True
    assert vital("Dead ReLUs", dead_relus=over([0.2, 0.05])) is False
    assert vital("Dead ReLUs") is None


def test_rank():
    assert vital("Weights lose rank", stable_rank=over([12, 1.5])) is True
    assert vital("Weights lose rank", stable_rank=over([1.5, 12])) is False
    assert vital("Weights lose rank") is None


def test_first_updates():
    title = "The first updates are large"
    assert vital(title, relative_update=over([0.2, *[0.004] * 10])) is True
    assert vital(title, relative_update=over([0.2, *[0.05] * 10])) is False  # 4 times
    assert vital(title, relative_update=over([0.005, *[0.0004] * 10])) is False
    assert vital(title) is None


def test_update_size():
    title = "Size of an update against that of the weights"
    for size, expected in ((1e-3, False), (0.02, False), (0.04, True), (1e-6, True)):
        assert vital(title, relative_update=over([size] * 11)) is expected
    assert vital(title) is None


def test_updates_of_layers():
    title = "Updates differ between layers"
    even, odd = [1e-3] * 6, [1e-3] * 5 + [2e-2]
    assert vital(title, relative_update__layers=layered(*[even] * 5)) is False
    text = told(make(measured={"relative_update/layers": layered(*[odd] * 5)}), "Is it healthy")
    assert "layer 6 far above (20 times the median layer’s)" in text
    assert vital(title) is None


def test_layers_that_still_sleep_are_not_judged():
    sleeping = layered(*[[1e-3] * 5 + [0.0]] * 5)
    title = "Updates differ between layers"
    run = make(schedule="linear", T=1000, measured={"relative_update/layers": sleeping})
    assert fired(vitals.RULES, title, run) is None
    awake = make(schedule="linear", T=10, measured={"relative_update/layers": sleeping})
    assert fired(vitals.RULES, title, awake) is True
    fixed = make(schedule="fix-L", measured={"relative_update/layers": sleeping})
    assert fired(vitals.RULES, title, fixed) is True


def test_gradients_of_layers():
    title = "Gradients differ between layers"
    rows = layered(*[[1.0, 0.5, 0.005]] * 5)
    text = told(make(measured={"grad_norm/layers": rows}), "Is it healthy")
    assert "layer 1 has 200 times the gradient norm of layer 3" in text
    assert vital(title, grad_norm__layers=layered(*[[1.0, 0.5, 0.02]] * 5)) is False
    assert vital(title) is None


def test_a_healthy_run_gets_one_plain_sentence():
    run = make(measured=healthy(), similar=settling([0.5] * 6))
    text = told(run, "Is it healthy")
    assert text.startswith("Nothing unusual. Looked at: layers in use, attention entropy,")
    assert "\n" not in text
    assert not told(run, "Not measured")


def test_what_was_not_measured_is_told_as_a_recipe_has_it():
    text = told(make(measured={"stable_rank": over([8, 8])}))
    line = text.split("\n")[-1]
    words = '"depth", "stream", "attention", "gradients", "updates", "similarity"'
    assert line.startswith(f"[measure] what = [{words}]")
    assert "which layers settle first" in line
    if (settings := pytest.importorskip("groundup.train.settings")) and hasattr(
        settings, "MEASUREMENTS"
    ):
        assert set(re.findall(r'"(\w+)"', words)) <= set(settings.MEASUREMENTS)


def test_without_measurements_the_recipe_is_told_to_measure():
    run = make()
    run.recipe["measure"] = {"every": 0}
    assert told(run, "Not measured").startswith("[measure] every = 100 in the recipe shows")
    some = make("x", measured={"stable_rank": over([8, 8])})
    some.recipe["measure"] = {"every": 50}
    assert told([run, some], "Not measured").startswith("[measure] what = [")


def test_a_monitor_that_judges_otherwise_is_told():
    seen = [{"step": 90, "kind": "spike", "of": "loss", "action": "warn", "value": 4.0}]
    run = make(events=seen)
    run.recipe["spikes"] = {"threshold": 6.0, "window": 30}
    text = told(run, "Was it stable")
    assert "The monitor of the run used a window of 30 updates and 6 deviations" in text
    run.recipe["spikes"] = {"threshold": 7.0}  # a tenth of 500 updates, as for the score
    assert "monitor of the run" not in told(run, "Was it stable")


ATTENTION, UNEVEN = "Attention logits are large", "Updates differ between layers"
FIRST, SIZE = "The first updates are large", "Size of an update against that of the weights"


SCALARS = ("dead_relus", "stable_rank", "relative_update")


def only(name, *rows):
    """Measured rows, or, of a single number each, a scalar."""
    return {name: over([row[0] for row in rows] if name in SCALARS else rows)}


MASSIVE, SMALL = "Massive activations", only("stream_norm/layers", [0.8])

BOUNDS = [
    # A rule, what is just beyond its bound, what is not.
    ("Attention collapses", only("attention_uniform/layers", [0.9, 0.045]), True),
    ("Attention collapses", only("attention_uniform/layers", [0.9, 0.055]), False),
    (ATTENTION, only("attention_logit/layers", [9, 11_000]), True),
    (ATTENTION, only("attention_logit/layers", [9, 9_000]), False),
    (ATTENTION, only("attention_logit/layers", [9], [9], [50], [110]), True),
    (ATTENTION, only("attention_logit/layers", [9], [9], [40], [90]), False),
    (ATTENTION, only("attention_logit/layers", [9], [9], [60], [110]), False),
    (MASSIVE, SMALL | only("stream_max/layers", [110]), True),
    (MASSIVE, SMALL | only("stream_max/layers", [90]), False),
    ("Dead ReLUs", only("dead_relus", [0.11]), True),
    ("Dead ReLUs", only("dead_relus", [0.09]), False),
    ("Weights lose rank", only("stable_rank", [9], [1.9]), True),
    ("Weights lose rank", only("stable_rank", [9], [2.1]), False),
    (FIRST, only("relative_update", [0.011], *[[1e-3]] * 9), True),
    (FIRST, only("relative_update", [0.009], *[[1e-3]] * 9), False),
    (FIRST, only("relative_update", [0.11], *[[0.02]] * 9), True),
    (FIRST, only("relative_update", [0.09], *[[0.02]] * 9), False),
    (SIZE, only("relative_update", *[[0.033]] * 9), True),
    (SIZE, only("relative_update", *[[0.027]] * 9), False),
    (SIZE, only("relative_update", *[[0.9e-5]] * 9), True),
    (SIZE, only("relative_update", *[[1.1e-5]] * 9), False),
    (UNEVEN, only("relative_update/layers", *[[1, 1, 11]] * 9), True),
    (UNEVEN, only("relative_update/layers", *[[1, 1, 9]] * 9), False),
    (UNEVEN, only("relative_update/layers", *[[11, 11, 1]] * 9), True),
    (UNEVEN, only("relative_update/layers", *[[9, 9, 1]] * 9), False),
    ("Gradients differ between layers", only("grad_norm/layers", *[[1, 110]] * 9), True),
    ("Gradients differ between layers", only("grad_norm/layers", *[[1, 90]] * 9), False),
]


@pytest.mark.parametrize(("title", "measured", "expected"), BOUNDS)
def test_bounds(title, measured, expected):
    assert fired(vitals.RULES, title, make(measured=measured)) is expected


def test_first_updates_are_those_of_the_first_tenth():
    title = "The first updates are large"
    for at, expected in ((45, True), (55, False)):
        steps = np.arange(0, STEPS, 5)
        size = np.where(steps == at, 0.2, 1e-3)
        assert (
            fired(vitals.RULES, title, make(measured={"relative_update": over(size, steps)}))
            is expected
        )
