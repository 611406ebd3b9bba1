"""What the figures show, as numbers; and that each kind is drawn."""

from __future__ import annotations

import dataclasses

import pytest

from groundup.experiment.studies.shown import Column, Course, Layers, Lines
from groundup.report import style
from groundup.report.studies import forest, over, rates
from groundup.report.studies.figures import pictures
from groundup.report.studies.findings import ArmFindings, Measured
from groundup.report.studies.intervals import Paired
from groundup.report.studies.reach import reach

from .made import made_arm, made_findings, made_run, with_arms

NORMS = Measured((0, 50, 100), ((1.0, 2.0), (2.0, None), (3.0, 4.0)))
NOISE = Measured((0, 50, 100), (0.5, None, 0.25))


def measured(name: str, values) -> ArmFindings:
    more = {"measured": {"norm/layers": NORMS, "phi": NOISE}, "numbers": {"right": 0.5}}
    return ArmFindings(
        name, (), 1e-3, tuple(made_run(s, v, **more) for s, v in enumerate(values, start=1))
    )


FOUND = made_findings(measured("new", (3.9, 4.0)), measured("old", (4.0, None)))
CHAIN = {"new": "old", "newer": "new"}
BOTH = {"new": 1.0, "old": 2.0, "neither": 3.0}


def test_lines_over_arms() -> None:
    (line,) = over.points(Lines("n", "t", "x", {"L": BOTH, "one": {"new": 1.0}}), FOUND)
    assert line.label == "L"
    assert line.seeds == (((1.0, 3.9), (2.0, 4.0)), ((1.0, 4.0),))
    assert line.mean == [(1.0, pytest.approx(3.95)), (2.0, 4.0)]
    assert line.lost == (2.0,)
    (spikes,) = over.points(Lines("n", "t", "x", {"L": BOTH}, "gradient spikes"), FOUND)
    assert spikes.mean == [(1.0, 1.25), (2.0, 1.25)]


def test_a_line_of_which_little_came_to_its_end_keeps_its_crosses() -> None:
    arms = made_arm("new", (3.9,)), made_arm("old", (None, None))
    figure = Lines("n", "t", "x", {"L": BOTH, "M": {"old": 2.0}}, log=True)
    shown = over.points(figure, made_findings(*arms))
    assert [(line.label, line.mean, line.lost) for line in shown] == [
        ("L", [(1.0, 3.9)], (2.0,)),
        ("M", [], (2.0,)),
    ]
    drawn = over.draw_points(figure, shown)
    crosses = [line for line in drawn.axes[0].lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[2.0], [2.0]]
    assert crosses[0].get_ydata() != crosses[1].get_ydata()
    assert drawn.get_supxlabel() == "a cross: a run of it diverged"


def test_where_nothing_spiked_the_axis_does_not_reach_as_far_below_zero() -> None:
    def reach_of(value: str) -> tuple[float, float]:
        figure = Lines("n", "t", "x", {"L": BOTH}, value)
        return over.draw_points(figure, over.points(figure, FOUND)).axes[0].get_ylim()

    assert reach_of("loss spikes") == (-0.05, 1)
    low, high = reach_of("gradient spikes")
    assert 1 < low < 1.25 < high < 1.5


def test_lines_of_a_column() -> None:
    figure = Lines("n", "t", "x", {"L": BOTH}, "right")
    with pytest.raises(ValueError, match="value='right' of the figure 'n'"):
        over.points(figure, FOUND)
    arms = (measured(name, (3.9, 4.0)) for name in ("new", "old"))
    found = made_findings(*arms, columns=(Column("right, %", "right", factor=100),))
    assert over.points(figure, found)[0].mean == [(1.0, 50.0), (2.0, 50.0)]


def test_a_run_that_has_not_ended_is_not_at_its_end() -> None:
    half = dataclasses.replace(
        made_run(3, 9.9, measured={"norm/layers": Measured((0,), ((9.0, 9.0),))}),
        value=None,
        status="not ended",
        updates=20,
        losses=(9.0,),
    )
    whole = measured("new", (3.9, 4.0))
    found = made_findings(dataclasses.replace(whole, runs=(*whole.runs, half)), (4.0, 4.1))
    for show, figure in (
        (over.layers, Layers("n", "t", "norm/layers", ("new",))),
        (over.courses, Course("n", "t", "loss", ("new",))),
    ):
        assert show(figure, found) == show(figure, FOUND)


@pytest.mark.parametrize(("at", "row"), [(1.0, (3.0, 4.0)), (0.49, (1.0, 2.0))])
def test_values_by_layer(at: float, row: tuple[float, float]) -> None:
    new, old = over.layers(Layers("n", "t", "norm/layers", ("new", "old", "neither"), at), FOUND)
    assert (new.label, new.is_baseline, old.is_baseline) == ("new", False, True)
    assert new.mean == list(enumerate(row, start=1))
    assert over.layers(Layers("n", "t", "norm/layers", ("new",), 0.5), FOUND) == []  # of one layer


def test_courses() -> None:
    (norm,) = over.courses(Course("n", "t", "norm/layers", ("new",)), FOUND)
    assert norm.mean == [(0, 1.5), (50, 2.0), (100, 3.5)]
    (noise,) = over.courses(Course("n", "t", "phi", ("new",)), FOUND)
    assert noise.mean == [(0, 0.5), (100, 0.25)]
    (loss,) = over.courses(Course("n", "t", "loss", ("new",)), FOUND)
    assert loss.mean == [(pytest.approx(100 / 6), 5.0), (pytest.approx(500 / 6), 4.5)]
    assert over.courses(Course("n", "t", "phi", ("new",), until=60), FOUND) == []


def test_a_paired_course_is_the_difference_to_the_baseline_of_the_same_seed() -> None:
    """Of the baseline seed 2 diverged and seed 3 has not ended: what they had is left out."""
    old = made_arm("old", (4.0, None), planned=3)
    part = [dataclasses.replace(run, evaluations=((50, 4.0),)) for run in old.runs[1:]]
    old = dataclasses.replace(old, runs=(old.runs[0], *part))
    found = made_findings(made_arm("new", (3.9, 4.0, 4.1)), old)
    figure = Course("n", "t", "evaluation", ("new",), paired=True)
    (line,) = over.courses(figure, found)
    assert line.seeds == (((50.0, 0.0), (100.0, pytest.approx(-0.1))),)
    (plain,) = over.courses(dataclasses.replace(figure, paired=False), found)
    assert [seed[-1] for seed in plain.seeds] == [(100.0, 3.9), (100.0, 4.0), (100.0, 4.1)]
    (zero,) = [one for one in over.draw_courses(figure, [line]).axes[0].lines if one.zorder == 0]
    assert list(zero.get_ydata()) == [0, 0]
    assert over.courses(figure, dataclasses.replace(found, arms=found.arms[:1])) == []


def test_in_a_paired_course_no_line_looks_like_the_one_at_0() -> None:
    """`new` is a baseline, too: of `newer`."""
    study = dataclasses.replace(FOUND.study, baselines=CHAIN)
    found = dataclasses.replace(FOUND, study=study)
    found = with_arms(found, made_arm("newer", (3.8, 3.9)))
    figure = Course("n", "t", "evaluation", ("new", "newer"), paired=True)
    drawn = over.draw_courses(figure, over.courses(figure, found)).axes[0].lines
    zero = [line.get_color() for line in drawn if line.zorder == 0]
    assert len(zero) == 1
    assert zero[0] not in [line.get_color() for line in drawn if line.zorder != 0]


def test_differences_are_those_of_the_table_then_of_the_claims() -> None:
    found = made_findings((3.9, 4.0), (4.0, 4.2), baselines={})
    (row,) = forest.rows(found)
    assert (row.first, row.second, row.gap.mean) == ("new", "old", pytest.approx(-0.15))
    assert forest.rows(made_findings((3.9, 4.0), None)) == []


def test_a_difference_of_those_that_were_left_is_not_drawn_as_certain() -> None:
    certain, left = (
        made_findings((3.9, 3.8, 3.9, *lost), (4.0, 3.91, 4.01, 4.0)) for lost in ((3.9,), (None,))
    )
    colours = []
    for found in (certain, left):
        (row,) = forest.rows(found)
        axes = forest.draw([row], found).axes[0]
        colours.append({line.get_color() for line in axes.lines if line.get_marker() == "D"})
        (name,) = axes.get_yticklabels()
        assert name.get_text() == "new − old" + (" (1 diverged)" if row.diverged else "")
    assert colours == [{style.COLOURS[0]}, {style.MUTED}]
    both = made_findings((3.9, None, 3.8), (4.0, None, 3.9))
    assert forest.rows(both)[0].diverged == 0


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("new", "old", "new − old"),
        ("a.warmup-0.05", "a.warmup-0", "a: warmup-0.05 − warmup-0"),
        ("a.warmup-0", "b.warmup-0", "a − b: warmup-0"),
        ("a.warmup-0", "b.warmup-5", "a.warmup-0 − b.warmup-5"),
        ("a.warmup-0", "a", "a.warmup-0 − a"),
        ("pre-ln-stagewise-0", "pre-ln-stagewise-L", "pre-ln-stagewise-0 − pre-ln-stagewise-L"),
        (
            "pre-ln-stagewise-0-skip",
            "pre-ln-stagewise-0",
            "pre-ln-stagewise-0-skip\n− pre-ln-stagewise-0",
        ),
    ],
)
def test_what_both_names_have_is_said_once(first: str, second: str, said: str) -> None:
    row = forest.Difference(first, second, Paired({1: -0.1}, -0.1, None, None))
    (name,) = forest.draw([row], FOUND).axes[0].get_yticklabels()
    assert name.get_text() == said


def test_rates_stand_beside_those_of_the_baseline() -> None:
    new, old = made_arm("new", (3.9,)), made_arm("old", (4.0,))
    assert rates.panels(made_findings(new, old)) == [(old, new)]
    assert rates.panels(made_findings(new, old, baselines={})) == [(old,), (new,)]
    newer, found = made_arm("newer", (3.8,)), made_findings(new, old, baselines=CHAIN)
    assert rates.panels(with_arms(found, newer)) == [(old, new, newer)]
    assert rates.panels(FOUND) == []


def test_marks_at_the_top_stay_there_however_many_arms() -> None:
    lost = {1e-3: 4.2, 2e-3: 4.1, 4e-3: None}
    arms = tuple(made_arm(f"new-{i}", (3.9,), lost) for i in range(17))
    axes = rates.draw([arms], FOUND).axes[0]
    heights = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "x"]
    assert len(set(heights)) == 17
    assert 0.7 < min(heights) < max(heights) < 1


@pytest.mark.parametrize(
    ("distances", "far"),
    [
        ((), None),
        ((0.0, 0.0), None),
        ((1.0, 1.0, 8.0), None),
        ((1.0, 1.0, 8.1), 4.0),
        ((0.1, 0.3, 0.2, 2.1), 1.0),
    ],
)
def test_an_axis_is_cut_where_one_would_hide_the_others(distances, far) -> None:
    assert reach(distances) == (far if far is None else pytest.approx(far))


def test_a_run_that_learned_nothing_does_not_hide_the_others() -> None:
    pairs = ((4.0, 4.1), (4.0, 4.2), (4.0, 6.5))
    rows = [
        forest.Difference("new", f"old-{i}", Paired({1: a - b}, a - b, None, None))
        for i, (a, b) in enumerate(pairs)
    ]
    axes = forest.draw(rows, FOUND).axes[0]
    assert axes.get_xlim() == pytest.approx((-0.8, 0.8))
    assert [line.get_marker() for line in axes.lines].count("<") == 1
    assert forest.draw(rows[:2], FOUND).axes[0].get_xlim()[1] < 0.1

    arms = [made_arm("old", (4.0,), {1e-3: 4.1, 2e-3: 4.0}), made_arm("new", (3.9,), {1e-3: 4.2})]
    stuck = made_arm("new", (3.9,), {1e-3: 4.2, 2e-3: 4.1, 4e-3: 6.5})
    axes = rates.draw([(arms[0], stuck)], FOUND).axes[0]
    assert axes.get_ylim()[1] < 4.6
    assert [(text.get_text(), text.get_position()[0]) for text in axes.texts] == [("↑", 4e-3)]
    assert not rates.draw([tuple(arms)], FOUND).axes[0].texts


def test_what_a_logarithm_leaves_out_is_said() -> None:
    figure = Course("n", "t", "loss", ("new",), log=True)
    for last, said in ((4.0, ""), (-4.0, "what is not above 0 is left out")):
        run = made_run(1, 3.9, losses=(5.0, last))
        found = made_findings(ArmFindings("new", (), 1e-3, (run,)), (4.0,))
        drawn = over.draw_courses(figure, over.courses(figure, found))
        assert drawn.get_supxlabel() == said


def test_each_kind_is_drawn_and_small() -> None:
    figures = (
        Lines("lines", "t", "x", {"L": BOTH}, log=True),
        Layers("layers", "t", "norm/layers", ("new", "old"), log=True),
        Course("course", "t", "phi", ("new", "old"), log=True),
        Course("missing", "t", "rrc", ("new", "old")),
    )
    tuned = {1e-3: 4.0, 2e-3: None}
    found = made_findings(
        measured("new", (3.9, 4.0)), measured("old", (4.0, None)), figures=figures
    )
    names = ["", "-lines", "-layers", "-course"]
    assert [p.file for p in pictures(found)] == [f"placement-cpu{name}.png" for name in names]
    found = made_findings(
        made_arm("new", (3.9,), tuned), made_arm("old", (4.0, 3.9)), figures=figures
    )
    *_, last = pictures(found)
    assert last.file == "placement-cpu-rates.png"
    drawn = [*pictures(FOUND), last]
    drawn += [
        p for p in pictures(made_findings(*FOUND.arms[::-1], figures=figures)) if "-" in p.file
    ]
    content = [p.png() for p in drawn]
    assert {(png[:4], len(png) < 60_000) for png in content} == {(b"\x89PNG", True)}
    assert drawn[0].png() == content[0]
