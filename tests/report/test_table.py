"""The comparison's numbers and sentences, against arithmetic by hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from groundup.report import comparison, heldout, read_runs
from groundup.report.table import study
from groundup.report.words import headline


def compare(*folders, baseline=None):
    return comparison(read_runs(folders), baseline)


def test_numbers_by_hand(pair):
    result = compare(*pair)
    assert result.baseline == "baseline"
    base, linear = result.rows
    assert base.eval_loss.mean == pytest.approx(3.55)
    assert base.eval_loss.sd == pytest.approx(0.1 / math.sqrt(2))
    assert base.perplexity == pytest.approx(math.exp(3.55))
    assert (base.gap, base.gaps) == (None, ())
    assert linear.perplexity == pytest.approx(math.exp(3.47))
    assert [gap.value for gap in linear.gaps] == pytest.approx([-0.1, -0.06])
    assert [(gap.seed, gap.step) for gap in linear.gaps] == [(0, 100), (1, 100)]
    assert linear.gap.mean == pytest.approx(-0.08)
    assert linear.gap.sd == pytest.approx(0.04 / math.sqrt(2))
    assert (linear.seeds, linear.finished, linear.updates) == ((0, 1), 2, (100, 100))
    assert linear.wall_seconds.mean == pytest.approx(60.5)
    assert linear.tokens_per_second.mean == pytest.approx(1000.5)
    assert linear.spikes_loss.windows == (10,)
    assert linear.spikes_loss.scored == 160
    assert (linear.schedule, base.schedule) == ("linear", None)


def test_order_of_the_folders_does_not_choose_the_baseline(pair):
    assert [row.variant for row in compare(*reversed(pair)).rows] == ["baseline", "linear"]
    assert compare(*pair, baseline="linear").row("baseline").gap.mean == pytest.approx(0.08)


def test_baseline_without_a_usual_name_is_the_one_without_warmup(tmp_path, write_run):
    a = write_run(tmp_path / "a", "warm", schedule="linear")
    b = write_run(tmp_path / "b", "plain", schedule="none")
    assert compare(a, b).baseline == "plain"
    assert compare(a).baseline is None


def test_unknown_baseline_names_the_nearest(pair):
    with pytest.raises(ValueError, match="did you mean 'baseline'"):
        compare(*pair, baseline="base-line")
    with pytest.raises(ValueError, match="did you mean 'linear'"):
        compare(*pair).row("liner")


def test_summary_spike_scores_are_used(tmp_path, write_run):
    stated = {"loss": {"percent": 1.5, "window": 100, "scored": 800}}
    row = compare(write_run(tmp_path / "a", summary={"spike_score": stated})).rows[0]
    assert (row.spikes_loss.percent, row.spikes_loss.windows) == (1.5, (100,))
    assert row.spikes_grad_norm.windows == (10,)


def test_unequal_lengths_meet_where_both_were_evaluated(tmp_path, write_run, rows):
    base = write_run(tmp_path / "base", metrics=rows(100), eval_loss=3.4)
    short = write_run(
        tmp_path / "short",
        "linear",
        metrics=rows(64, offset=0.25),
        steps=64,
        planned=100,
        summary=False,
    )
    result = compare(base, short)
    (gap,) = result.row("linear").gaps
    assert (gap.step, gap.value) == (60, pytest.approx(0.25))
    main, details = headline(result)
    assert "is so far 0.250 higher" in main
    assert "after 60 of 100 updates, one seed" in main
    assert "not evidence" in details[0]
    assert result.row("linear").wall_seconds.mean == pytest.approx(32.0)
    assert result.row("linear").tokens_per_second.mean == pytest.approx(256.0)


def test_headline(pair):
    main, details = headline(compare(*pair))
    ours, theirs = math.exp(3.47), math.exp(3.55)
    assert main == (
        "With residual warmup (linear) the evaluation loss ends 0.080 lower (perplexity "
        f"{ours:.1f} against {theirs:.1f}) after 100 updates, mean of 2 seeds."
    )
    assert "−0.080 ± 0.028" in details[0]
    assert "both seeds agree in sign" in details[0]


def test_headline_when_seeds_disagree(tmp_path, write_run):
    losses = {0: 3.40, 1: 3.44, 2: 3.62}
    runs = [write_run(tmp_path / f"b{s}", seed=s, eval_loss=3.5) for s in losses]
    runs += [
        write_run(tmp_path / f"l{s}", "linear", seed=s, eval_loss=v) for s, v in losses.items()
    ]
    _, details = headline(compare(*runs))
    assert "2 of 3 seeds have it lower" in details[0]


def test_headline_of_one_seed_level_and_of_several_variants(tmp_path, write_run):
    runs = [
        write_run(tmp_path / "b", eval_loss=3.5),
        write_run(tmp_path / "l", "linear", eval_loss=3.5),
        write_run(tmp_path / "r", "reverse", schedule="reverse", eval_loss=3.7),
    ]
    main, details = headline(compare(*runs))
    assert "ends level with the baseline’s" in main
    assert "best of 2 variants" in details[0]
    assert "“reverse” 0.200 higher" in details[-1]


def test_headline_is_of_those_that_came_furthest(tmp_path, write_run, rows):
    runs = [
        write_run(tmp_path / "b", eval_loss=3.5, metrics=rows(100)),
        write_run(tmp_path / "l", "linear", eval_loss=3.45),
        write_run(tmp_path / "e", "early", metrics=rows(50, offset=-0.3), summary=False),
    ]
    main, details = headline(compare(*runs))
    assert "(linear) the evaluation loss ends 0.050 lower" in main
    assert not any("best of" in line for line in details)
    assert "“early” 0.300 lower (after 50 updates)" in details[-1]


def test_headline_without_pairs(tmp_path, write_run, rows):
    a = write_run(tmp_path / "a", seed=0)
    b = write_run(tmp_path / "b", "linear", seed=1)
    assert "no seed in common" in headline(compare(a, b))[0]
    assert compare(a, b).row("linear").gap is None
    quiet = [{k: v for k, v in row.items() if k != "eval_loss"} for row in rows(50)]
    c = write_run(tmp_path / "c", "linear", metrics=quiet, summary=False)
    assert "never evaluated after the same number" in headline(compare(a, c))[0]
    assert "has not been evaluated yet" in headline(compare(c))[0]
    assert "ended at an evaluation loss of 3.500" in headline(compare(a))[0]


def test_no_runs():
    with pytest.raises(ValueError, match="no runs"):
        comparison([])


def test_numbers_need_neither_matplotlib_nor_torch(pair):
    code = (
        "import sys; from groundup.report import comparison, read_runs\n"
        f"comparison(read_runs({[str(p) for p in pair]!r}))\n"
        "sys.exit(' '.join({'matplotlib', 'torch'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def write_depths(root, write_run, gaps, *, seeds=(0, 1), **settings):
    """Baseline and linear at each depth: `gaps` by depth; a deeper baseline is better by 0.2."""
    runs = []
    for i, (layers, gap) in enumerate(gaps.items()):
        for variant, schedule in (("baseline", "none"), ("linear", "linear")):
            for seed in seeds:
                loss = 4 - 0.2 * i + 0.01 * seed + (gap if variant == "linear" else 0)
                name = f"{variant}.layers-{layers}"
                runs.append(
                    write_run(
                        root / name / f"seed-{seed}",
                        name,
                        seed=seed,
                        schedule=schedule,
                        layers=layers,
                        eval_loss=loss,
                        settings={"measure.every": 5 * (variant == "linear"), **settings},
                    )
                )
    return runs


DEPTHS = {2: -0.2, 4: -0.1, 8: 0.05}


def test_each_depth_has_its_own_baseline(tmp_path, write_run):
    result = compare(*write_depths(tmp_path, write_run, DEPTHS))
    assert result.baseline is None
    assert result.baselines == {f"baseline.layers-{n}" for n in DEPTHS}
    for layers, gap in DEPTHS.items():
        row = result.row(f"linear.layers-{layers}")
        assert row.baseline == f"baseline.layers-{layers}"
        assert [g.value for g in row.gaps] == pytest.approx([gap, gap])
        assert result.row(row.baseline).gap is None
    main, details = headline(result)
    assert main == (
        "Residual warmup (linear) ends lower than without it at 2 of 3 variants: −0.200 "
        "(linear.layers-2), −0.100 (linear.layers-4), +0.050 (linear.layers-8) nats per token, "
        "mean of 2 seeds."
    )
    assert details == [
        "Paired by seed, it is lower in 4 of 6 pairs of runs. Two seeds say little about the "
        "spread."
    ]


def test_a_named_baseline_is_that_of_all(tmp_path, write_run):
    result = compare(*write_depths(tmp_path, write_run, DEPTHS), baseline="baseline.layers-2")
    assert result.baseline == "baseline.layers-2"
    assert result.row("linear.layers-8").gap.mean == pytest.approx(-0.35)
    assert result.row("baseline.layers-8").gap.mean == pytest.approx(-0.4)


def test_what_is_no_grid_has_own_baselines_where_there_are_several(tmp_path, write_run):
    """A length chosen for each depth: three settings that fill a third of their combinations."""
    runs = []
    for layers, T in ((2, 5), (4, 6), (8, 7)):
        for schedule in ("none", "linear"):
            runs.append(
                write_run(
                    tmp_path / f"{layers}-{schedule}",
                    f"{schedule} at {layers}",
                    schedule=schedule,
                    layers=layers,
                    length=f"T = {T}",
                )
            )
    group = study(read_runs(runs))
    assert group.baseline is None
    own = {name: base.name for name, base in group.counterparts.items()}
    assert own == {f"linear at {n}": f"none at {n}" for n in (2, 4, 8)}


def test_a_counterpart_differs_in_residual_warmup_only(tmp_path, write_run):
    runs = write_depths(tmp_path, write_run, DEPTHS, seeds=(0,))
    more = write_run(tmp_path / "x", "linear.layers-16", layers=16, schedule="linear")
    group = study(read_runs([*runs, more]))
    assert set(group.counterparts) == {f"linear.layers-{n}" for n in DEPTHS}


def test_one_baseline_of_all_outside_a_grid(tmp_path, write_run):
    base = write_run(tmp_path / "b", eval_loss=3.5)
    wide = write_run(tmp_path / "w", "wide", schedule="none", settings={"model.width": 128})
    lion = write_run(
        tmp_path / "l", "lion", schedule="linear", settings={"optimizer.name": "lion"}, layers=6
    )
    group = study(read_runs([wide, base, lion]))
    assert group.baseline.name == "baseline"
    assert [group.counterpart(v).name for v in group.others] == ["baseline", "baseline"]


@pytest.mark.parametrize(
    ("key", "ours", "theirs"),
    [
        ("data.source", "a.txt", "b.txt"),
        ("data.vocab_size", 512, 1024),
        ("data.length", 64, 128),
        ("data.validation", "a.txt", "b.txt"),
        ("train.eval_tokens", 1000, 2000),
        ("data.mixture", [{"source": "a", "weight": 1.0}], [{"source": "a", "weight": 2.0}]),
    ],
)
def test_losses_on_different_text_are_not_compared(tmp_path, write_run, key, ours, theirs):
    usual = {"data.tokenizer": "train"}
    a = write_run(tmp_path / "a", settings={**usual, key: ours})
    b = write_run(tmp_path / "b", "linear", settings={**usual, key: theirs})
    result = compare(a, b)
    assert result.row("linear").gap is None
    assert "were evaluated on different text" in headline(result)[0]
    note = heldout.note(read_runs([a, b]))
    assert note == (
        f"Runs that differ in {key} were evaluated on different text: their losses cannot be "
        "compared."
    )


def test_a_held_out_file_makes_other_sources_comparable(tmp_path, write_run):
    same = {"data.validation": "v.txt", "data.tokenizer": "t.json"}
    a = write_run(tmp_path / "a", settings={**same, "data.source": "a.txt"})
    b = write_run(tmp_path / "b", "linear", settings={**same, "data.source": "b.txt"})
    assert heldout.note(read_runs([a, b])) == ""
    assert compare(a, b).row("linear").gap is not None


def test_other_lengths_are_said(tmp_path, write_run, rows):
    base = write_run(tmp_path / "b", metrics=rows(160), steps=160, eval_loss=None)
    longer = write_run(
        tmp_path / "l", "linear", metrics=rows(300, offset=0.1), steps=300, eval_loss=None
    )
    main, details = headline(compare(base, longer))
    assert "the evaluation loss is 0.100 higher" in main
    assert "after 160 updates, one seed" in main
    assert details[0] == (
        "“linear”: its run is planned for 300 updates, the baseline’s for 160, so their rates "
        "differ."
    )


def test_a_baseline_that_diverged_is_no_gap(tmp_path, write_run, rows):
    runs = write_depths(tmp_path, write_run, DEPTHS, seeds=(0,))
    folder = tmp_path / "baseline.layers-8" / "seed-0"
    metrics = rows(50)
    metrics[-1]["loss"] = None
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    (folder / "summary.json").unlink()
    main, details = headline(compare(*runs))
    assert "at 2 of 2 variants: −0.200 (linear.layers-2), −0.100 (linear.layers-4)" in main
    assert details[0] == "“baseline.layers-8” diverged."
