"""The health summary: every rule where it speaks, is silent, or has nothing to look at."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from groundup.report.health import layers, stability, summary, telling, vitals, when
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


# -- when ---------------------------------------------------------------------------------------


def course(gap):
    """A pair whose training losses differ by `gap`, with the same noise in both and some more."""
    at = np.arange(STEPS)
    base = 3 + 5 / (1 + at / 20) + noise(STEPS, 1, 0.05)
    ours = base + gap(at) + noise(STEPS, 2, 0.002)
    return [make(loss=base), make("linear", schedule="linear", loss=ours)]


def test_when_it_comes_below_for_good():
    # 0.3 above at first, 0 at update 150, 0.1 below from 200 on; layers wake until update 60.
    runs = course(lambda at: np.interp(at, [0, 100, 200], [0.3, 0.1, -0.1]))
    text = told(runs, "When")
    assert "“linear”: its training loss lies up to 0.3" in text
    assert "while its layers wake (to update 60)" in text
    crossing = int(re.search(r"stays below from update (\d+) on", text)[1])
    assert abs(crossing - 150) <= 6
    assert f"{crossing - 60} updates after residual warmup ends" in text
    start = int(re.search(r"(\d+) updates before the rate’s decay begins", text)[1]) + crossing
    assert abs(start - DECAY * STEPS) <= 2
    assert "−0.10" in text.split(" at the end")[0]
    assert "within noise" in text  # of the decay
    assert "One seed" in text


def test_decay_widens_narrows_and_turns():
    for end, verb in ((-0.3, "widens"), (-0.03, "narrows"), (0.1, "turns it around")):
        runs = course(lambda at, end=end: np.interp(at, [0, 100, 400, 499], [0.2, -0.1, -0.1, end]))
        assert verb in told(runs, "When")
    assert "never comes to stay below (+0.0" in told(runs, "When")


def test_a_gap_within_noise_is_called_so():
    text = told(course(lambda at: 0.0 * at), "When")
    assert "at no time while its layers wake" in text
    assert "cannot be told from the baseline’s" in text


def test_noise_alone_is_seldom_called_a_gap():
    called = 0
    for seed in range(40):
        base = 3 + noise(STEPS, 2 * seed, 0.05)
        runs = [make(loss=base), make("x", schedule="linear", loss=3 + noise(STEPS, 999 - seed))]
        called += "cannot be told" not in told(runs, "When")
    assert called <= 4


def test_seeds_that_disagree_are_told():
    base = 3 + noise(STEPS, 1)
    runs = [make(loss=base, seed=s) for s in (0, 1)]
    runs += [
        make("linear", seed=s, schedule="linear", loss=base + gap)
        for s, gap in ((0, -0.2), (1, 0.05))
    ]
    text = told(runs, "When")
    assert "Mean of 2 seeds" in text
    assert "1 of 2 seeds end below the baseline" in text
    assert "The seeds do not agree; their mean stays below" in text


def test_seeds_that_agree_give_their_moments():
    base = 3 + noise(STEPS, 1)
    at = np.arange(STEPS)
    runs = [make(loss=base, seed=s) for s in (0, 1)]
    runs += [
        make("linear", seed=s, schedule="linear", loss=base + np.where(at < m, 0.1, -0.1))
        for s, m in ((0, 100), (1, 140))
    ]
    moments = re.search(r"by seed it stays below from update (\d+) and (\d+)", told(runs, "When"))
    assert [abs(int(m) - at) <= 6 for m, at in zip(moments.groups(), (100, 140), strict=True)]


def test_no_gap_is_told_without_a_warmup_or_a_pair():
    base = make()
    assert not when.sentences(study([base]))
    assert not when.sentences(study([base, make("other rate")]))
    assert not when.sentences(study([base, make("linear", seed=5, schedule="linear")]))
    lost = make("linear", schedule="linear", loss=np.full(STEPS, np.nan))
    assert not when.sentences(study([base, lost]))


def test_a_warmup_longer_than_the_run_is_told():
    base = 3 + noise(STEPS, 1)
    runs = [make(loss=base), make("slow", schedule="linear", T=200, loss=base + 0.5)]
    assert "to update 1200, beyond the 500 made so far" in told(runs, "When")


# -- layers -------------------------------------------------------------------------------------


def depth_runs(base, ours, **more):
    return [
        make(measured={"skip_loss/layers": layered(np.zeros(DEPTH), base)}),
        make("linear", schedule="linear", measured={"skip_loss/layers": layered(ours)}, **more),
    ]


def test_layers_that_are_hardly_used_are_named():
    text = told(depth_runs([2, 0.3, 0.2, 0.004, -0.02, 0.1], [2, 0.3, 0.3, 0.2, 0.2, 0.2]), "In")
    assert "“baseline”: 4 of 6 layers are used, layer 1 most (2.000 nats" in text
    assert "layers 4, 5 hardly" in text
    assert "without layer 5 the loss is even lower" in text
    assert "“linear”: 6 of 6 layers are used" in text
    assert "early (layers 1, 2) 1.150 → 1.150" in text
    assert "late (layers 5, 6) 0.040 → 0.200" in text
    assert "One seed" in text


def test_many_equal_layers_are_all_used():
    assert layers.idle(np.full(100, 0.005)) == []
    assert layers.idle(np.array([1.0, 0.009, 0.02])) == [2]
    assert layers.idle(np.array([0.1, 0.004, 0.1])) == []  # 6% of the mean
    assert layers.idle(np.array([0.1, 0.003, 0.1])) == [2]
    assert layers.idle(np.full(3, np.nan)) == []


def test_seeds_decide_where_layers_differ():
    rows = {0: 0.01, 1: -0.01, 2: 0.0}
    runs = []
    for seed, off in rows.items():
        base = np.array([1, 1, 0.5, 0.5, 0.2, 0.2]) + off
        runs.append(make(seed=seed, measured={"skip_loss/layers": layered(base)}))
        ours = base + np.array([0, 0, 0.005, 0.005, 0.3, 0.3])
        runs.append(
            make("x", seed, schedule="linear", measured={"skip_loss/layers": layered(ours)})
        )
    text = told(runs, "In")
    assert "Mean of 3 and 3 seeds; by more than 2 standard deviations over seeds: late." in text


def test_unfinished_warmup_is_told_with_the_layers():
    runs = depth_runs([1] * 6, [1] * 6, T=1000)
    assert "residual warmup had not ended" in told(runs, "In")


def test_models_of_other_depth_are_not_compared():
    runs = [
        make(measured={"skip_loss/layers": layered([1, 1, 1])}, depth=3),
        make("deep", schedule="linear", measured={"skip_loss/layers": layered([1] * 6)}),
    ]
    text = told(runs, "In")
    assert "3 of 3 layers" in text
    assert "6 of 6 layers" in text
    assert "→" not in text


@pytest.mark.parametrize(("layers_", "expected"), [(3, "111"), (4, "121"), (12, "444"), (8, "323")])
def test_thirds_cover_every_layer_once(layers_, expected):
    spans = layers.thirds(layers_)
    assert "".join(str(s.stop - s.start) for s in spans) == expected
    assert spans[0].start == 0
    assert spans[-1].stop == layers_


def test_growth_of_the_stream():
    steady = np.arange(1, 13.0)
    doubling = 2.0 ** np.arange(12)
    runs = [
        make(measured={"stream_norm/layers": layered(steady)}, depth=12),
        make("x", schedule="linear", measured={"stream_norm/layers": layered(doubling)}, depth=12),
    ]
    text = told(runs, "In")
    assert "“baseline” 12-fold from layer 1 to 12, 2-fold from 6 on" in text.replace("2.0", "2")
    assert "“x” 2,000-fold from layer 1 to 12, 64-fold" in text
    assert "In “x” the second half" in text
    only = told([make(measured={"stream_norm/layers": layered(steady)}, depth=12)], "In")
    assert "compounds" not in only


def test_what_branches_add_by_thirds():
    measured = {
        "branch_ratio/attention/layers": layered([0.6, 0.6, 0.3, 0.3, 0.1, 0.1]),
        "branch_ratio/feed_forward/layers": layered([0.2, 0.2, 0.1, 0.1, 0.1, 0.1]),
    }
    assert "“baseline” 0.40, 0.20 and 0.10" in told(make(measured=measured), "In")


def settling(moments, sketches=21):
    """Cosines that rise steadily to 1 up to each layer's share of the run, as in [n, L]."""
    at = np.linspace(0, 1, sketches)[:, None]
    cosines = np.minimum(1.0, at / np.array(moments))
    return {"attention": Measured((at[:, 0] * STEPS).astype(np.int64), cosines)}


def test_which_layers_settle_first():
    runs = [
        make(similar=settling([1.0] * 6)),
        make("x", schedule="linear", similar=settling([0.5, 0.5, 0.8, 0.8, 1, 1])),
        make("y", schedule="reverse", similar=settling([1, 1, 0.8, 0.8, 0.5, 0.5])),
    ]
    text = told(runs, "In")
    assert "“baseline” 0.50, 0.50 and 0.50 (no clear order)" in text
    # 0.5/0.8 at half; 0.9 of 0.8 is 72%, seen at the next sketch, 75%.
    assert "“x” 1.00, 0.62 and 0.50 (shallow layers settle first)" in text
    assert "“y” 0.50, 0.62 and 1.00 (deep layers settle first)" in text
    assert "“baseline” 90%, 90% and 90%; “x” 45%, 75% and 90%" in text
    assert "coarse" not in text
    few = told(make(similar=settling([0.5] * 6, sketches=6)), "In")
    assert "With 6 sketches this is coarse" in few
    assert not told(make(similar=settling([0.5] * 6, sketches=4)), "In")


def test_an_order_needs_all_seeds():
    shallow, deep = settling([0.5, 0.5, 0.8, 0.8, 1, 1]), settling([1, 1, 0.8, 0.8, 0.7, 0.7])
    assert "shallow" in told([make(seed=s, similar=shallow) for s in (0, 1)], "In")
    assert "no clear" in told([make(similar=shallow), make(seed=1, similar=deep)], "In")


def test_a_layer_that_leaves_again_is_not_settled():
    cosines = np.full((11, 3), 0.95)
    cosines[6, 0] = 0.2
    cosines[:3, 1] = np.nan  # a branch at α = 0 has no direction
    run = make(depth=3, similar={"mlp": Measured(np.arange(11) * 10, cosines)})
    assert "“baseline” 70%, 30% and 0%" in told(run, "In")


# -- stability ----------------------------------------------------------------------------------


def test_a_quiet_run_gets_one_plain_sentence():
    evals = [(step, 3 + 50 / step) for step in (100, 200, 300, 400, 500)]
    text = told(make(evals=evals), "Was it stable")
    first, second = text.split("\n")
    assert first.startswith("Nothing unusual. Looked for: spikes of loss and gradient norm")
    assert "held-out loss that rises" in first
    assert "drift" in first
    assert "the 50 updates before it" in second
    assert "1000" in second


def test_spikes_are_counted_and_the_worst_is_named():
    norm = 1 + noise(STEPS, 9)
    norm[200], norm[300] = 2.0, 5.0
    text = told(make(grad_norm=norm), "Was it stable")
    assert "Spikes: “baseline” 0.50% of the gradient norm (2 of 400 updates)" in text
    window = norm[250:300]
    size = telling.significant((5 - window.mean()) / window.std())
    assert f"the largest at step 300 (gradient norm, {size} deviations)" in text


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
    assert "Both variants spike at step 200 of the same seed" in text
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
    assert "went back once and skipped the update twice, first at step 90" in text
    assert "it last went from step 90 to 80" in text
    title = "What the spike monitor did"
    assert fired(stability.RULES, title, make()) is None
    warned = [{"step": 90, "kind": "spike", "of": "loss", "action": "warn"}]
    assert fired(stability.RULES, title, make(events=warned)) is False


def test_losses_that_are_not_finite():
    loss = 3 + noise(STEPS)
    loss[[120, 130]] = np.nan
    text = told(make(loss=loss), "Was it stable")
    assert "Not finite: “baseline” loss twice, first at step 120" in text
    assert fired(stability.RULES, "Not finite", make()) is False
    never = make(loss=np.full(STEPS, np.nan), grad_norm=np.full(STEPS, np.nan))
    assert fired(stability.RULES, "Not finite", never) is None


def test_divergence():
    loss = 3 + noise(STEPS)
    loss[-1] = np.nan
    ended = make(loss=loss, summary=False, planned=900)
    text = told(ended, "Was it stable")
    assert "Diverged: “baseline” has no finite loss or gradient at its end, step 499" in text
    assert "Not finite" not in text
    assert "Not at the end" not in text
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
    assert "Not at the end: “baseline” at update 500 of 900" in text


# -- vitals -------------------------------------------------------------------------------------


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


def healthy(depth=DEPTH):
    rows = [np.full(depth, 0.5)] * 11
    names = ("attention_uniform", "attention_logit", "stream_norm", "stream_max", "grad_norm")
    measured = {f"{name}/layers": layered(*rows) for name in names}
    measured["relative_update/layers"] = layered(*[np.full(depth, 1e-3)] * 11)
    measured["skip_loss/layers"] = layered(np.full(depth, 0.3))
    measured["relative_update"] = over([1e-3] * 11)
    measured["stable_rank"] = over([8] * 11)
    return measured


def test_a_healthy_run_gets_one_plain_sentence():
    run = make(measured=healthy(), similar=settling([0.5] * 6))
    text = told(run, "Is it healthy")
    assert text.startswith("Nothing unusual. Looked at: attention entropy, attention logits,")
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


# -- all together -------------------------------------------------------------------------------


def test_of_many_variants_only_counts_and_extremes_are_told():
    base = 3 + noise(STEPS, 1)
    runs = [make(loss=base, evals=[(STEPS, 3.0)])]
    for i in range(20):
        measured = {"dead_relus": over([0.0, 0.2 + i / 100])} if i % 2 else {}
        measured["skip_loss/layers"] = layered([1] * DEPTH)
        runs.append(
            make(
                f"v{i}",
                schedule="linear",
                loss=base + (-0.1 if i < 15 else 0.1),
                evals=[(STEPS, 2.9 + i / 100)],
                measured=measured,
            )
        )
    text = told(runs)
    assert "Of 20 variants with residual warmup, 15 end with a training loss below" in text
    assert "the best, “v0”, and the worst, “v19”" in text
    assert "Dead ReLUs: in 10 of 21 variants; worst “v19” 39% never active" in text
    assert "“v7”" not in text
    assert len(text.split("\n")) < 16


def test_the_worst_seed_of_a_variant_is_named():
    runs = [make(seed=s, measured={"stable_rank": over([9, r])}) for s, r in ((0, 1.8), (1, 1.2))]
    assert "“baseline” (worst seed 1; 2 of 2 seeds) 9.0 at update 0, 1.2" in told(
        runs, "Is it healthy"
    )


def unusual():
    """Runs of which little or nothing can be said."""
    nothing = np.full(STEPS, np.nan)

    def all_of(change):
        return {name: Measured(*change(m.steps, m.values)) for name, m in healthy().items()}

    lost = all_of(lambda steps, values: (steps, values * np.nan))
    last = all_of(lambda steps, values: (steps[-1:], values[-1:]))
    return {
        "no variants": Study((), None),
        "one update": study([make(steps=1)]),
        "two updates": study([make(steps=2), make("x", steps=2, schedule="linear")]),
        "all nan": study([make(loss=nothing, grad_norm=nothing, rate=nothing, measured=lost)]),
        "one layer": study(
            [make(depth=1, measured=healthy(1)), make("x", depth=1, schedule="linear", T=9)]
        ),
        "one layer, similar": study(
            [make(depth=1, similar={"a": Measured(np.arange(5), np.ones((5, 1)))})]
        ),
        "one measurement": study([make(measured=last)]),
        "zeros": study([make(measured=all_of(lambda steps, values: (steps, 0 * values)))]),
        "infinite": study([make(measured=all_of(lambda s, v: (s, v * np.inf)))]),
        "no recipe": study([make(schedule="of the future", width=None)]),
        "scalars where layers are expected": study(
            [make(measured={k: over([1.0]) for k in healthy()})]
        ),
        "layers where scalars are expected": study(
            [make(measured={k: layered([1.0, 2.0]) for k in healthy()})]
        ),
        "no seed": study([make(seed=None), make("x", seed=None, schedule="linear")]),
    }


@pytest.mark.parametrize("case", unusual())
@pytest.mark.filterwarnings("error")
def test_nothing_is_too_little_to_be_summarized(case):
    for heading, lines in summary(unusual()[case]):
        assert heading
        assert lines
        for line in lines:
            assert line.strip() == line
            assert line[-1] in ".)"
            assert "nan" not in line
            assert "None" not in line
            assert "  " not in line


def test_no_runs_have_no_summary():
    assert summary(Study((), None)) == []


# -- words --------------------------------------------------------------------------------------


def test_layers_are_listed_as_people_do():
    assert telling.layer_list([3]) == "layer 3"
    assert telling.layer_list([3, 1, 2, 7]) == "layers 1–3 and 7"
    assert telling.layer_list([1, 2, 5, 6, 7, 9]) == "layers 1, 2, 5–7 and 9"


def test_numbers_of_any_size_are_short():
    given = (0.001337, 4.71, 12345, 0, 3.14e-8, 99.9, math.inf, 0.098)
    shown = ("0.0013", "4.7", "12,000", "0", "3.1e−08", "100", "∞", "0.098")
    got = [telling.significant(value) for value in given]
    assert got == list(shown)
