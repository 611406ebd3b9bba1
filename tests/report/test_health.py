"""The health summary as a whole, and when and in which layers residual warmup helped."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from groundup.report.health import layers, summary, telling, when
from groundup.report.measured import Measured
from groundup.report.table import Study, study
from tests.report.health_runs import (
    DECAY,
    DEPTH,
    STEPS,
    healthy,
    layered,
    make,
    noise,
    over,
    settling,
    told,
)


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


@pytest.mark.parametrize(("gap", "told_of"), [(-1e-5, False), (-4.9e-4, False), (-6e-4, True)])
def test_a_gap_that_shows_as_zero_is_no_lead(gap, told_of):
    base = 3 + noise(STEPS, 1)
    pairs = [
        run
        for seed in (0, 1)
        for run in (
            make(seed=seed, loss=base),
            make("x", seed=seed, schedule="linear", loss=base + gap),
        )
    ]
    text = told(pairs, "When")
    assert ("stays below" in text) is told_of
    assert ("At the end it is within 0.0005 nats of the baseline’s." in text) is not told_of
    assert ("none of 2 seeds end below" in text) is not told_of
    assert "leaves it as it is" in text
    risen = told([make(loss=base), make("x", schedule="linear", loss=base - gap)], "When")
    assert ("never comes to stay below" in risen) is told_of


def test_many_that_show_as_zero_are_not_counted_as_below():
    base = 3 + noise(STEPS, 1)
    others = [make(f"v{i}", schedule="linear", loss=base - 1e-5 * (i + 1)) for i in range(5)]
    text = told([make(loss=base), *others], "When")
    assert "Of 5 variants with residual warmup, 0 end" in text


def test_noise_alone_is_seldom_called_a_gap():
    called = 0
    for seed in range(40):
        base = 3 + noise(STEPS, 2 * seed, 0.05)
        runs = [make(loss=base), make("x", schedule="linear", loss=3 + noise(STEPS, 999 - seed))]
        called += "cannot be told" not in told(runs, "When")
    assert called <= 4


def test_a_small_gap_beyond_noise_is_called_so():
    base = 3 + noise(STEPS, 1)
    error = 0.01 / np.sqrt(11)  # of 11 updates
    wild = np.where(np.arange(STEPS) < 45, noise(STEPS, 5, 1.0), 0.0)  # of a steep beginning
    for errors, expected in ((7, False), (1, True)):
        ours = base + wild + noise(STEPS, 2) - errors * error
        text = told([make(loss=base), make("x", schedule="linear", loss=ours)], "When")
        assert ("cannot be told" in text) is expected


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


def depth_runs(base, ours, seed=0, **more):
    return [
        make(seed=seed, measured={"skip_loss/layers": layered(np.zeros(DEPTH), base)}),
        make(
            "linear",
            seed,
            schedule="linear",
            measured={"skip_loss/layers": layered(ours)},
            **more,
        ),
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


def test_one_bar_for_the_layers_of_all_variants():
    for rest in (0.005, 0.1, 60.0):  # whatever the others are worth
        assert layers.idle(np.array([rest, 0.0099, 0.0101])) == [1] * (rest < 0.01) + [2]
    assert layers.idle(np.full(3, np.nan)) == []


def test_layers_hardly_used_are_those_of_every_seed():
    rows = [[1, 0.001, 0.002, 0.1, 0.1, 0.1], [1, 0.1, 0.003, 0.1, 0.1, 0.1]]
    runs = [make(seed=i, measured={"skip_loss/layers": layered(r)}) for i, r in enumerate(rows)]
    text = told(runs, "In")
    assert "4 and 5 (by seed) of 6 layers are used" in text
    assert "; layer 3 hardly in any seed (0.0030 nats or less)" in text
    rows[1] = [1, 0.1, 0.1, 0.001, 0.1, 0.1]
    runs = [make(seed=i, measured={"skip_loss/layers": layered(r)}) for i, r in enumerate(rows)]
    assert "; which are hardly used differs from seed to seed" in told(runs, "In")


def test_no_layer_used():
    low = make(measured={"skip_loss/layers": layered([0.003, -0.0007, 0, 0, 0, 0])})
    text = told(low, "In")
    assert "none of 6 layers is used; layers 1–6 hardly (0.0030 nats or less)" in text
    assert "Most layers are hardly used: “baseline” layers 1–6 of 6" in told(low, "Is it healthy")
    assert "Nothing unusual" not in told(low, "Is it healthy")
    one = make(measured={"skip_loss/layers": layered([1, 1, 1, 1, 1, -0.0007])})
    assert "layer 6 hardly (worth nothing)" in told(one, "In")
    # Layers that still sleep say nothing about the model.
    asleep = make(
        schedule="linear", T=1000, measured={"skip_loss/layers": layered(np.zeros(DEPTH))}
    )
    assert "Most layers" not in told(asleep)


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


def test_a_stream_that_keeps_its_size():
    text = told(make(measured={"stream_norm/layers": layered(np.full(DEPTH, 3.0))}), "In")
    assert text == "How the residual stream grows with depth (norm): “baseline” keeps its size."
    rows = layered([1.0, 2, 2, 2, 2, 2])
    text = told(make(measured={"stream_norm/layers": rows}), "In")
    assert "“baseline” 2.0-fold from layer 1 to 6, keeps its size from 3 on." in text


def test_what_branches_add_by_thirds():
    measured = {
        "branch_ratio/attention/layers": layered([0.6, 0.6, 0.3, 0.3, 0.1, 0.1]),
        "branch_ratio/feed_forward/layers": layered([0.2, 0.2, 0.1, 0.1, 0.1, 0.1]),
    }
    assert "“baseline” 0.40, 0.20 and 0.10" in told(make(measured=measured), "In")


def test_which_layers_settle_first():
    runs = [
        make(similar=settling([1.0] * 6)),
        make("x", schedule="linear", similar=settling([0.5, 0.5, 0.8, 0.8, 1, 1])),
        make("y", schedule="reverse", similar=settling([1, 1, 0.8, 0.8, 0.5, 0.5])),
    ]
    text = told(runs, "In")
    assert "to their last sketch (at update 500), halfway" in text
    assert "“baseline”: no clear order (0.50, 0.50 and 0.50; " in text
    # 0.5/0.8 at half; 0.9 of 0.8 is 72%, seen at the next sketch, 75%.
    assert (
        "“x”: shallow layers settle first (1.00, 0.62 and 0.50; within 0.9 from 45%, 75% and 90% "
        "of the way on)" in text
    )
    assert "“y”: deep layers settle first (0.50, 0.62 and 1.00; " in text
    assert "coarse" not in text
    few = told(make(similar=settling([0.5] * 6, sketches=6)), "In")
    assert "With 6 sketches this is coarse" in few
    assert not told(make(similar=settling([0.5] * 6, sketches=4)), "In")


def test_an_order_needs_a_clear_lead():
    for lead, expected in ((0.12, "shallow layers"), (0.08, "no clear order")):
        half = [0.5 / (0.5 + lead)] * 2 + [1.0] * 4
        assert expected in told(make(similar=settling(half)), "In")


def test_two_seeds_are_too_few_for_layers():
    runs = []
    for seed in (0, 1):
        runs += depth_runs([1, 1, 1, 1, 1, 1 + seed / 100], [1, 1, 1, 1, 2, 2 + seed / 100], seed)
    assert "Mean of 2 and 2 seeds, too few to tell a difference from chance" in told(runs, "In")


def test_an_order_needs_all_seeds():
    shallow, deep = settling([0.5, 0.5, 0.8, 0.8, 1, 1]), settling([1, 1, 0.8, 0.8, 0.7, 0.7])
    assert "shallow" in told([make(seed=s, similar=shallow) for s in (0, 1)], "In")
    assert "no clear" in told([make(similar=shallow), make(seed=1, similar=deep)], "In")


def test_a_layer_that_leaves_again_is_not_settled():
    cosines = np.full((11, 3), 0.95)
    cosines[6, 0] = 0.2
    cosines[:3, 1] = np.nan  # a branch at α = 0 has no direction
    run = make(depth=3, similar={"mlp": Measured(np.arange(11) * 10, cosines)})
    text = told(run, "In")
    assert "to their last sketch (at update 100 of 500), halfway" in text
    assert "within 0.9 from 70%, 30% and 0% of the way on" in text


def test_layers_that_are_near_only_at_the_last_sketch():
    cosines = np.full((6, 3), 0.5)
    cosines[-1] = 1.0
    run = make(depth=3, similar={"mlp": Measured(np.arange(6) * 10, cosines)})
    assert "“baseline”: no clear order (0.50, 0.50 and 0.50)." in told(run, "In")
    cosines[4, 0] = 0.95
    assert "within 0.9 from 80% of the way on for the early" in told(
        make(depth=3, similar={"mlp": Measured(np.arange(6) * 10, cosines)}), "In"
    )


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


def test_layers_are_listed_as_people_do():
    assert telling.layer_list([3]) == "layer 3"
    assert telling.layer_list([3, 1, 2, 7]) == "layers 1–3 and 7"
    assert telling.layer_list([1, 2, 5, 6, 7, 9]) == "layers 1, 2, 5–7 and 9"


def test_numbers_of_any_size_are_short():
    given = (0.001337, 4.71, 12345, 0, 3.14e-8, 99.9, math.inf, 0.098)
    shown = ("0.0013", "4.7", "12,000", "0", "3.1e−08", "100", "∞", "0.098")
    got = [telling.significant(value) for value in given]
    assert got == list(shown)
