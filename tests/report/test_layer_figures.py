"""Figures of what was measured: the values drawn are those in the folder."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from groundup.report import NothingToShow, figure, heat, hover, read_runs, style
from groundup.report.measured import Measured
from groundup.report.page import svg

STEPS, EVERY = 100, 10
LAYERED = {
    "activations": "stream_norm/layers",
    "branches": "branch_ratio/attention/layers",
    "neighbours": "stream_next/layers",
    "tokens": "stream_alike/layers",
    "gradients": "grad_norm/layers",
    "angles": "angle/layers",
    "attention": "attention_uniform/layers",
    "layers": "skip_loss/layers",
}
BELOW = {"attention": "attention_logit/layers"}


def values(seed, layers, steps=None):
    """Positive numbers below 1, other ones for each seed, step and layer."""
    steps = np.arange(0, STEPS + 1, EVERY) if steps is None else np.asarray(steps)
    grid = 0.1 + 0.8 * (((steps[:, None] * 7 + np.arange(layers) * 13 + seed * 31) % 97) / 97)
    return steps, grid


def measure(folder, name, steps, rows, **more):
    """Adds a quantity to measurements.jsonl; nan becomes null."""
    path = folder / "measurements.jsonl"
    old = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    by_step = {row["step"]: row for row in old}
    for step, row in zip(steps, rows, strict=True):
        entries = row.tolist() if isinstance(row, np.ndarray) else row
        if isinstance(entries, list):
            entries = [None if math.isnan(v) else v for v in entries]
        by_step.setdefault(int(step), {"step": int(step)})[name] = entries
    for row in by_step.values():
        row.update(more)
    path.write_text("".join(json.dumps(row) + "\n" for row in by_step.values()))
    return folder


@pytest.fixture
def measured(pair):
    """`pair` (4 layers, two seeds) with every quantity that has values by layer."""
    for i, folder in enumerate(pair):
        for name in {*LAYERED.values(), *BELOW.values(), "branch_ratio/feed_forward/layers"}:
            measure(folder, name, *values(i, 4))
    return pair


def images(drawn):
    """The maps by the title over each, without those of colour bars."""
    return [image for axes in drawn.axes for image in axes.images if hover.found(image) is not None]


def lines(drawn, last=True):
    """Lines that a reader reads off, by name, of the last axes that have some."""
    found = [
        {said.name: line for line in axes.lines if (said := hover.found(line)) is not None}
        for axes in drawn.axes
    ]
    return [names for names in found if names][-1 if last else 0]


@pytest.mark.parametrize("name", LAYERED)
def test_maps_show_the_mean_over_seeds(measured, name):
    drawn = figure(name, measured)
    expected = np.mean([values(0, 4)[1], values(1, 4)[1]], axis=0)
    image = images(drawn)[0]
    said = hover.found(image)
    np.testing.assert_array_equal(said.steps, values(0, 4)[0])
    np.testing.assert_allclose(said.values, expected)
    # The picture: column x belongs to the measurement nearest to it, rows to layers from below.
    pixels = np.asarray(image.get_array())
    rows = pixels.shape[0] // 4
    for x, measurement in ((0, 0), (399, 10), (200, 5), (61, 2)):
        np.testing.assert_allclose(pixels[rows // 2 :: rows, x], expected[measurement])
    assert tuple(image.get_extent()) == (0, STEPS, 0.5, 4.5)
    svg.inline(drawn, name, name)


def test_all_maps_of_a_figure_share_one_scale(measured):
    found = images(figure("branches", measured))
    assert len(found) == 4
    assert len({(image.norm.vmin, image.norm.vmax) for image in found}) == 1
    everything = np.concatenate([hover.found(image).values.ravel() for image in found])
    assert found[0].norm.vmin == np.quantile(everything, 0.05)
    assert found[0].norm.vmax == everything.max()


def test_profile_is_the_last_measurement(measured):
    found = lines(figure("activations", measured))
    assert list(found) == ["baseline", "linear"]
    expected = np.mean([values(2, 4)[1][-1], values(3, 4)[1][-1]], axis=0)
    np.testing.assert_allclose(found["linear"].get_ydata(), expected)
    assert found["linear"].get_xdata().tolist() == [1, 2, 3, 4]


def test_largest_logit_of_all_layers(measured):
    found = lines(figure("attention", measured))
    expected = np.mean([values(0, 4)[1].max(axis=1), values(1, 4)[1].max(axis=1)], axis=0)
    np.testing.assert_allclose(found["baseline"].get_ydata(), expected)


def test_the_last_layer_has_no_next_one(tmp_path, write_run):
    steps, grid = values(0, 5)
    grid[:, -1] = math.nan
    folder = measure(write_run(tmp_path / "a", layers=5), "stream_next/layers", steps, grid)
    (image,) = images(figure("neighbours", [folder]))
    np.testing.assert_allclose(hover.found(image).values, grid[:, :-1])


def test_values_that_are_missing_stay_empty(tmp_path, write_run):
    steps, grid = values(0, 3)
    grid[5, 1] = math.nan
    grid[:, 2] = 0.0
    folder = measure(write_run(tmp_path / "a", layers=3), "grad_norm/layers", steps, grid)
    (image,) = images(figure("gradients", [folder]))
    pixels = image.get_array()
    rows = pixels.shape[0] // 3
    assert pixels.mask[rows + rows // 2, 200]
    assert pixels.mask.sum() == rows * pixels.mask[rows].sum()
    # A zero is no value of a logarithmic scale, but not an empty cell either.
    assert image.norm(0.0) == 0
    svg.inline(figure("gradients", [folder]), "g", "g")


def test_a_run_that_stopped_early_leaves_the_rest_empty(tmp_path, write_run):
    long = measure(write_run(tmp_path / "a"), "grad_norm/layers", *values(0, 4))
    short = measure(
        write_run(tmp_path / "b", "linear"), "grad_norm/layers", *values(0, 4, [0, 10, 20])
    )
    _, image = images(figure("gradients", [long, short]))
    filled = ~image.get_array().mask[0]
    assert filled.sum() == 100  # up to update 25 of 100, in 400 columns


@pytest.mark.parametrize(
    ("layers", "steps"), [(1, [0, 100]), (120, range(0, 101, 2)), (12, [50]), (3, [0, 1, 2])]
)
@pytest.mark.parametrize("name", ["activations", "layers", "attention", "branches"])
def test_any_depth_and_number_of_measurements(tmp_path, write_run, name, layers, steps):
    folder = write_run(tmp_path / "a", layers=layers)
    measure(folder, LAYERED[name], *values(0, layers, steps))
    if name in BELOW:
        measure(folder, BELOW[name], *values(0, layers, steps))
    drawn = figure(name, [folder])
    (image,) = images(drawn)
    assert image.get_array().shape[0] % layers == 0
    svg.inline(drawn, name, name)


def test_unusual_names(tmp_path, write_run):
    names = ["_under", "$x_1$ & <b>", "層の暖機", "a\nb", "long " * 30]
    folders = [
        measure(write_run(tmp_path / str(i), name), "stream_norm/layers", *values(i, 4))
        for i, name in enumerate(names)
    ]
    text = svg.inline(figure("activations", folders), "a", "a")
    assert "<b>" not in text
    assert "層の暖機" in text


def test_of_many_variants_six_maps(tmp_path, write_run):
    folders = [
        measure(
            write_run(tmp_path / str(i), f"v{i}", eval_loss=4 - 0.1 * i),
            "stream_norm/layers",
            *values(i, 4),
        )
        for i in range(10)
    ]
    drawn = figure("activations", [*folders, write_run(tmp_path / "b", eval_loss=1.0)])
    titles = [image.axes.get_title(loc="left") for image in images(drawn)]
    assert titles == [f"layer · v{i}" for i in range(4, 10)]
    assert "4 of 10 variants are left out" in drawn.get_supxlabel()


def test_similarity_is_the_mean_over_branches(pair):
    runs = read_runs(pair[:1])
    steps, first = values(0, 4)
    _, second = values(5, 4)
    runs[0].__dict__["similarity"] = {
        "attention": Measured(steps, first),
        "feed_forward": Measured(steps, second),
    }
    (image,) = images(figure("similarity", runs))
    np.testing.assert_allclose(hover.found(image).values, (first + second) / 2)
    assert (image.norm.vmin, image.norm.vmax) == (0.2, 1)


def test_updates_are_drawn_as_measured(pair):
    steps = np.arange(0, 101, 10)
    for i, folder in enumerate(pair):
        measure(folder, "angle", steps, (0.1 + 0.01 * steps + i).tolist())
        measure(folder, "update_norm", steps, [None, 0.0, *(1.0 + steps[2:]).tolist()])
    drawn = figure("updates", pair)
    first, second = drawn.axes
    assert "‖Δw‖" in first.get_title(loc="left")
    found = {said.name: line for line in second.lines if (said := hover.found(line))}
    np.testing.assert_allclose(found["linear"].get_ydata(), 0.1 + 0.01 * steps + 2.5)
    found = {said.name: line for line in first.lines if (said := hover.found(line))}
    # What a logarithmic axis cannot show is left out.
    assert found["baseline"].get_xdata().tolist() == steps[2:].tolist()


def test_momentum_cosine_may_be_negative(tmp_path, write_run):
    folder = measure(write_run(tmp_path / "a"), "momentum_cosine", [0, 50], [-0.5, 0.25])
    (found,) = lines(figure("noise", [folder])).values()
    assert found.get_ydata().tolist() == [-0.5, 0.25]


EDGES = [0, 1, 2, 8, 32]


def test_positions(pair):
    rows = np.array([[6.0, 5.0, 4.0, 3.0], [5.0, 4.0, 3.0, 2.0]])
    for i, folder in enumerate(pair):
        shift = {0: 0.0, 1: 0.2, 2: -0.5, 3: 0.0}[i]
        measure(folder, "loss/positions", [50, 100], rows + shift, loss_bins=EDGES)
    above, below = figure("positions", pair).axes
    found = {said.name: line for line in above.lines if (said := hover.found(line))}
    np.testing.assert_allclose(found["baseline"].get_ydata(), rows[1] + 0.1)
    # The first bin is position 1 alone, the third positions 3 to 8.
    np.testing.assert_allclose(
        found["baseline"].get_xdata(), [1, 2, math.sqrt(3 * 8), math.sqrt(9 * 32)]
    )
    (gap,) = (line for line in below.lines if hover.found(line))
    np.testing.assert_allclose(gap.get_ydata(), -0.35)
    assert above.get_xscale() == "log"


def test_positions_need_bins(tmp_path, write_run):
    folder = measure(
        write_run(tmp_path / "a"), "loss/positions", [50], np.ones((1, 3)), loss_bins=EDGES
    )
    with pytest.raises(NothingToShow, match="positions"):
        figure("positions", [folder])


def test_a_scale_says_what_lies_beyond_it():
    plain = heat.fitted([np.array([1.0, 1.0, 100.0])], log=True)
    assert plain == heat.Scale(1.0, 100.0, log=True)
    deep = heat.fitted([np.array([0.0, 1e-9, 1e-8, 0.5, 1.0, math.nan])], log=True)
    assert deep == heat.Scale(1e-4, 1.0, log=True, under=True)
    blown = heat.fitted([np.append(np.linspace(1, 2, 1000), 1e30)], log=True)
    assert blown.over
    assert blown.high < 3
    assert heat.fitted([np.zeros(3)], log=True).under
    same = heat.fitted([np.full(4, 5.0)], log=True)
    assert same.low < same.high == 5
    assert heat.fitted([np.array([-0.01, 0.3])], log=False, unit=True) == heat.Scale(0.0, 1.0)
    assert heat.fitted([np.array([-0.33, 0.3])], log=False, unit=True) == heat.Scale(-0.4, 1.0)
    assert heat.fitted([np.array([0.87, 1.0])], log=False, unit=True) == heat.Scale(0.8, 1.0)
    flat = heat.fitted([np.full(4, 5.0)], log=False)
    assert flat.low < flat.high


@pytest.fixture
def blown(tmp_path, write_run, rows):
    """A run, and one that diverged with numbers a million times as large."""
    metrics = [*rows(50), rows(51)[50] | {"loss": None}]
    sound = write_run(tmp_path / "a", "baseline")
    lost = write_run(tmp_path / "b", "hot", steps=51, planned=100, metrics=metrics, summary=False)
    for folder, times in ((sound, 1.0), (lost, 1e6)):
        steps, grid = values(0, 4)
        measure(folder, "stream_norm/layers", steps, times * grid)
        measure(folder, "attention_logit/layers", steps, times * grid)
        measure(folder, "attention_uniform/layers", steps, grid / times)
        measure(folder, "angle", steps, (times * grid[:, 0]).tolist())
    return [sound, lost]


@pytest.mark.parametrize("name", ["activations", "attention", "updates"])
def test_scales_are_those_of_the_runs_that_did_not_diverge(blown, name):
    drawn = figure(name, blown)
    assert "Scales are fitted to the runs that did not diverge." in drawn.get_supxlabel()
    axes = next(a for a in reversed(drawn.axes) if any(hover.found(line) for line in a.lines))
    low, high = axes.get_ylim()
    ours = {said.name: line for line in axes.lines if (said := hover.found(line))}["baseline"]
    assert low <= ours.get_ydata().min() < ours.get_ydata().max() <= high < 10
    if name == "activations":
        assert all(image.norm.vmax < 1 for image in images(drawn))
    assert "fitted" not in figure(name, blown[:1]).get_supxlabel()
    # Where none came to an end, there is nothing else to fit to.
    assert "fitted" not in figure(name, blown[1:]).get_supxlabel()


def test_what_a_logarithmic_axis_lacks_is_counted(tmp_path, write_run):
    folder = measure(write_run(tmp_path / "a"), "phi", [0, 10, 20, 30], [0.1, -0.2, 0.0, None])
    measure(folder, "momentum_cosine", [0, 10], [-0.5, 0.5])
    told = figure("noise", [folder]).get_supxlabel()
    assert "“signal-to-noise ratio φ of the gradient”: 2 of 3 measurements" in told
    assert "momentum" not in told


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (7.87, 13.98, [8, 10, 12]),
        (0.9, 30, [1, 2, 5, 10, 20]),
        (1e-5, 1e-1, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_round(low, high, expected):
    assert style.log_ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("ends", [(3.0, 3.00001), (9.99, 10.01), (1e-7, 1.1e-7), (2e11, 9e11)])
def test_ticks_of_a_narrow_axis(ends):
    ticks = style.log_ticks(*ends)
    assert len(ticks) > 1
    assert all(ends[0] * (1 - 1e-9) <= tick <= ends[1] * (1 + 1e-9) for tick in ticks)


@pytest.mark.parametrize(("depth", "expected"), [(1, [1]), (6, [1, 2, 3, 4, 5, 6])])
def test_few_layers_have_each_their_number(tmp_path, write_run, depth, expected):
    folder = write_run(tmp_path / "a", layers=depth)
    measure(folder, "stream_norm/layers", *values(0, depth))
    axes = images(figure("activations", [folder]))[0].axes
    assert axes.get_yticks().tolist() == expected


def test_a_scale_says_what_of_other_maps_lies_beyond_it():
    scale = heat.fitted([np.array([0.7, 1.0])], False, True, [np.array([0.0, math.nan])])
    assert scale == heat.Scale(0.7, 1.0, under=True)
    assert heat.fitted([np.array([1.0, 9.0])], True, others=[np.array([1e6])]).over
