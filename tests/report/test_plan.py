"""The pictures of a plan: in the characters of a terminal, and as a figure."""

from __future__ import annotations

import doctest
import math
from pathlib import Path

import pytest

from groundup.experiment.preview import previews
from groundup.model import ModelConfig
from groundup.report import plan
from groundup.report.plan import terminal
from groundup.report.plan import text as plan_text
from groundup.report.plan.terminal import curve, heat
from groundup.train import RateConfig, Recipe, ResidualConfig, TrainConfig
from groundup.train.recipe_file import expand


def recipe(steps: int = 200, residual: str = "linear", **rate: object) -> Recipe:
    return Recipe(
        name="small",
        model=ModelConfig(layers=4, width=16, heads=2),
        residual=ResidualConfig(residual, T=None if residual == "none" else 10),
        rate=RateConfig(peak=2e-3, warmup=20, decay=50, **rate),  # type: ignore[arg-type]
        train=TrainConfig(steps=steps),
    )


def picture(text: str) -> list[str]:
    """What stands right of the axis."""
    return [line[10:] for line in text.splitlines() if line[9:10] in ("┤", "│")]


def dots(text: str) -> dict[int, list[int]]:
    """Column of dots → the heights that are set in it, from Unicode's own numbering of them."""
    rows = picture(text)
    found: dict[int, list[int]] = {}
    for y, row in enumerate(rows):
        for x, character in enumerate(row):
            bits = 0 if character == " " else ord(character) - 0x2800
            for number, (column, line) in enumerate(
                [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]
            ):
                if bits >> number & 1:
                    height = 4 * len(rows) - 1 - (4 * y + line)
                    found.setdefault(2 * x + column, []).append(height)
    return found


@pytest.mark.parametrize("width", [40, 79, 132])
def test_a_curve_goes_through_its_values(width: int) -> None:
    def value(step: int) -> float:
        return 0.5 + 0.5 * math.sin(step / 30)

    found = dots(curve(value, 200, 1.0, width, height=7))
    columns = 2 * (width - 10)
    assert sorted(found) == list(range(columns))  # no gap
    for x, heights in found.items():
        step = round(x * 199 / (columns - 1))
        assert round(value(step) * 27) in heights
    levels = {height for heights in found.values() for height in heights}
    assert levels == set(range(28))


def test_a_jump_is_a_line_without_a_gap() -> None:
    found = dots(curve(lambda step: float(step >= 50), 100, 1.0, 60, height=3))
    assert max(map(len, found.values())) == 12 - 1  # from the second to the top
    assert all(heights in ([0], [11]) for heights in found.values() if len(heights) == 1)


@pytest.mark.parametrize("width", [40, 80, 133])
@pytest.mark.parametrize("steps", [1, 2, 3, 150, 100_000])
def test_pictures_keep_to_their_width(width: int, steps: int) -> None:
    for text in (
        curve(lambda step: 1.0, steps, 1.0, width),
        heat(lambda step: [0.5, 1.0], steps, [1, 2], width),
    ):
        lines = text.splitlines()
        assert max(map(len, lines)) == width
        assert lines[-1].split()[0] == "0"


def test_the_labels_of_the_updates_stand_where_they_belong() -> None:
    lines = curve(lambda step: 1.0, 751, 1.0, 80).splitlines()
    ticks = [x - 10 for x, character in enumerate(lines[-2]) if character == "┬"]
    assert ticks == [round(69 * at / 750) for at in (0, 200, 400, 600)]
    assert lines[-1].split() == ["0", "200", "400", "600", "updates"]


def test_a_heat_map_is_in_shades_with_the_deepest_layer_on_top() -> None:
    values = {1: 1.0, 2: 0.999, 3: 0.5, 4: 0.01, 5: 0.0}
    text = heat(lambda step: [values[l] for l in range(1, 6)], 100, [1, 2, 3, 4, 5], 40)
    assert [row[:1] for row in picture(text)] == ["", "░", "▒", "▓", "█"]
    labels = [line[:8].strip() for line in text.splitlines()[:5]]
    assert labels == ["layer 5", "layer 4", "layer 3", "layer 2", "layer 1"]


def test_doctest() -> None:
    assert doctest.testmod(terminal).failed == 0


def test_pictures_of_a_plan_hold_what_there_is() -> None:
    found = previews({"": recipe(weight_decay="independent", layers=ResidualConfig("equal", T=30))})
    text = plan_text.pictures(found, None, 70)
    assert "learning rate: linear warmup to 20, hold to 150, linear decay" in text
    assert "weight decay a step, rate·λ (independent), 0.0002 at the peak" in text
    assert "α of each layer" in text
    assert "each layer’s part of the rate" in text
    assert max(map(len, text.splitlines())) == 70


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        ({"warmup": 0, "decay": 0}, "learning rate: hold"),
        ({"warmup_shape": "cosine"}, "cosine warmup to 20, hold to 150"),
        ({"warmup_shape": "radam", "warmup": "untuned"}, "radam warmup to 150, linear decay"),
        ({"decay": "rest", "shape": "inverse-sqrt"}, "linear warmup to 20, inverse-sqrt decay"),
    ],
)
def test_a_factor_is_told_by_its_segments(rate: dict[str, object], said: str) -> None:
    found = Recipe(
        rate=RateConfig(**{"warmup": 20, "decay": 50} | rate),  # type: ignore[arg-type]
        train=TrainConfig(steps=200),
    )
    assert said in plan_text.pictures(previews({"": found}), None, 120)


def test_only_the_first_updates() -> None:
    text = plan_text.pictures(previews({"": recipe()}), 10, 80)
    first = picture(text)[:7]
    # Halfway up the warmup: the curve ends in the middle.
    assert first[3].rstrip()[-1] != " "
    assert all(not row.strip() for row in first[:3])


def test_the_figure_has_a_panel_for_each_thing_and_a_line_for_each_course() -> None:
    base = recipe(weight_decay="squared", layers=ResidualConfig("linear", T=5))
    variants = expand(
        base,
        [
            {"name": "a"},
            {"name": "b", "residual": {"schedule": "equal", "T": 10.0}},
            {"name": "c", "rate": {"peak": 1e-3}},
            {"name": "d", "rate": {"weight_decay": "coupled"}},
        ],
    )
    fig = plan.figure(previews(variants))
    rate, decay, *maps = [axes for axes in fig.axes if axes.get_title(loc="left")]
    assert [len(axes.lines) for axes in (rate, decay)] == [3, 3]
    titles = [axes.get_title(loc="left") for axes in maps]
    assert titles == [
        "α of each layer · a, 2 more",
        "α of each layer · b",
        "each layer’s part of the rate · a, 3 more",
    ]
    x, y = (list(data) for data in rate.lines[0].get_data())
    assert y[x.index(9)] == pytest.approx(2e-3 * 10 / 20)
    assert max(y) == pytest.approx(2e-3)
    x, y = (list(data) for data in decay.lines[0].get_data())
    assert y[x.index(9)] == pytest.approx(2e-3 * 0.1 * (10 / 20) ** 2)
    image = maps[0].images[0].get_array()
    assert image.min() == 0.0
    assert image.max() == 1.0
    # A course looks the same in both panels, and the legend names all of them.
    looks = [
        [(line.get_color(), str(line.get_linestyle())) for line in a.lines] for a in (rate, decay)
    ]
    assert looks[0] == looks[1]
    assert len(set(looks[0])) == 3
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a, b", "c", "d"]


def test_variants_of_one_rate_that_all_decay_alike_or_not_at_all_share_a_line() -> None:
    base = recipe(residual="none")
    names = ["adamw", "lionar", "liona"]
    changes = [{"name": name, "optimizer": {"name": name, "weight_decay": 0.1}} for name in names]
    fig = plan.figure(previews(expand(base, changes)))
    assert [sum(len(line.get_xdata()) > 2 for line in a.lines) for a in fig.axes] == [1, 1]
    only = plan.figure(previews(expand(base, changes[1:2])))
    assert [axes.get_title(loc="left") for axes in only.axes] == ["learning rate"]


def test_what_is_left_out_is_said() -> None:
    changes = [{"name": f"v{i}", "residual": {"schedule": "linear", "T": i}} for i in range(1, 10)]
    changes = [change | {"rate": {"peak": i * 1e-3}} for i, change in enumerate(changes, 1)]
    rate, *_, α, _ = plan.figure(previews(expand(recipe(), changes))).axes
    assert rate.get_title(loc="left") == "learning rate, the first 7 of 9 courses"
    assert α.get_title(loc="left") == "α of each layer, the first 4 of 9 courses · v4"


def test_a_figure_of_the_first_updates_only() -> None:
    fig = plan.figure(previews({"": recipe(residual="none")}), until=40)
    assert fig.axes[0].get_xlim() == (0, 40)
    assert max(fig.axes[0].lines[0].get_xdata()) == 39


def test_every_joint_is_drawn_however_long_the_run(tmp_path: Path) -> None:
    long = recipe(steps=100_000, residual="none")
    (line, *_) = plan.figure(previews({"": long})).axes[0].lines
    x, y = (list(data) for data in line.get_data())
    assert {0, 19, 20, 99_950, 99_999} <= set(x)
    assert y[x.index(19)] == pytest.approx(2e-3)
    assert len(x) < 2000
