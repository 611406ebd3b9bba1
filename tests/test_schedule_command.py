"""`groundup schedule`: what it says of a recipe is what training does."""

from __future__ import annotations

import csv
import io
import re
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from groundup.cli import main
from groundup.experiment.preview import Preview, alike, previews
from groundup.model import ModelConfig, Transformer
from groundup.train import OptimizerConfig, RateConfig, Recipe, ResidualConfig, TrainConfig
from groundup.train.setup import build_optimizer, build_rates

SHORT = ["--steps", "60"]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["schedule", *arguments]) == 0
    return capsys.readouterr().out


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, str]]:
    text = said(capsys, "table", *arguments, "--every", "1", "--csv", "-")
    return list(csv.DictReader(io.StringIO(text)))


def test_the_numbers_of_wsd_with_linear_residual_warmup(capsys) -> None:
    found = rows(capsys, "quickstart")
    assert len(found) == 750
    for step, row in enumerate(found):
        n = step + 1
        factor = min(Fraction(n, 15), Fraction(1), Fraction(750 - step, 150))
        assert int(row["step"]) == step
        assert float(row["rate"]) == pytest.approx(float(Fraction(4, 1000) * factor), rel=1e-12)
        assert float(row["weight_decay"]) == 0.1
        assert float(row["rate_times_weight_decay"]) == pytest.approx(
            float(Fraction(4, 10_000) * factor), rel=1e-12
        )
        for layer in range(1, 13):
            alpha = min(Fraction(step, 15 * layer), Fraction(1))
            assert float(row[f"alpha_{layer}"]) == pytest.approx(float(alpha), rel=1e-12)


@pytest.mark.parametrize(("mode", "power"), [("coupled", 1), ("independent", 0), ("squared", 2)])
def test_the_weight_decay_of_an_update_in_each_mode(mode: str, power: int, capsys) -> None:
    for row in rows(capsys, "quickstart", *SHORT, "--rate.weight-decay", mode):
        omega = float(row["rate"]) / 4e-3
        expected = 4e-3 * 0.1 * omega**power
        assert float(row["rate_times_weight_decay"]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mode", ["coupled", "independent", "squared"])
@pytest.mark.parametrize("layers", ["none", "linear"])
def test_what_is_foreseen_is_what_training_sets(mode: str, layers: str) -> None:
    """Against the schedule that the trainer makes, written into an optimizer, step by step."""
    recipe = Recipe(
        model=ModelConfig(vocab_size=300, layers=3, width=16, heads=2),
        rate=RateConfig(
            peak=3e-3,
            warmup="64 tokens",
            warmup_shape="cosine",
            decay="rest",
            shape="sqrt",
            floor=0.1,
            weight_decay=mode,  # type: ignore[arg-type]
            layers=ResidualConfig(layers, T=None if layers == "none" else 4),
        ),
        train=TrainConfig(steps=20, batch=1),
    )
    preview = Preview("", recipe)
    with torch.device("meta"):
        model = Transformer(recipe.model)
    optimizer = build_optimizer(model, recipe)
    rates = build_rates(optimizer, recipe)
    decayed = 0
    for step in range(20):
        rates.at(step)
        for group in optimizer.param_groups:
            layer = group.get("layer")
            assert float(group["lr"]) == pytest.approx(preview.rate(step, layer), rel=1e-12)
            if group["weight_decay"]:
                found = preview.weight_decay(step, layer)
                assert group["weight_decay"] == pytest.approx(found, rel=1e-12)
                decayed += 1
    assert decayed >= 20


def test_the_rates_of_the_layers(capsys) -> None:
    flags = ["--rate.layers.schedule", "linear", "--rate.layers.T", "3", "--model.layers", "4"]
    for row in rows(capsys, "quickstart", *SHORT, *flags):
        for layer in range(1, 5):
            part = min(1.0, (int(row["step"]) + 1) / (3 * layer))
            assert float(row[f"rate_{layer}"]) == pytest.approx(float(row["rate"]) * part)
    text = said(capsys, "table", "quickstart", *SHORT, *flags)
    for layer in range(1, 5):  # n = step + 1: at its full rate from update 3·l − 1 on
        (line,) = (line for line in text.splitlines() if f"layer {layer} at its full" in line)
        assert int(line.split()[0]) == 3 * layer - 1


def test_the_table_says_when_what_begins_and_ends(capsys) -> None:
    text = said(capsys, "table", "quickstart")
    lines = [line.split() for line in text.splitlines()]
    moments = {
        int(words[0]): " ".join(words[10:])
        for words in lines
        if words[:1] != [] and words[0].isdigit()
    }
    assert moments == {
        0: "first update",
        1: "second update",
        15: "hold begins, layer 1 at α = 1",
        **{15 * layer: f"layer {layer} at α = 1" for layer in range(2, 13)},
        600: "linear decay begins",
        749: "last update",
    }
    assert "15  0.004  0.1  0.0004" in re.sub(r" +", "  ", text)
    assert "weight decay a step, rate·λ (coupled), 0.0004 at the peak: falls with the rate" in text
    assert "A warmup of 15 of 750 steps, 2%" in text


@pytest.mark.parametrize(
    ("flags", "moments"),
    [
        # All lengths are 0.24 · 60 = 14.4 updates.
        (["--residual.schedule", "equal"], {15: "all layers at α = 1"}),
        (["--residual.schedule", "none"], {}),
        (["--residual.schedule", "fix-L"], {}),
        (
            ["--residual.schedule", "reverse", "--model.layers", "2"],
            {8: "layer 2 at α = 1", 15: "layer 1 at α = 1"},
        ),
        (
            ["--model.layers", "4", "--residual.schedule", "stagewise-L", "--residual.T", "25"],
            {25: "layer 1 at α = 1", 50: "layer 2 at α = 1"},
        ),
    ],
)
def test_moments_of_the_layers(flags: list[str], moments: dict[int, str], capsys) -> None:
    text = said(capsys, "table", "quickstart", *SHORT, *flags, "--csv", "-")
    found = {int(row["step"]): row["moment"] for row in csv.DictReader(io.StringIO(text))}
    assert {step: moment for step, moment in found.items() if "α" in moment} == moments


def test_of_a_deep_model_some_layers_are_followed(capsys) -> None:
    text = said(capsys, "table", "quickstart", "--model.layers", "120", "--residual.T", "3")
    followed = [int(layer) for layer in re.findall(r"layer (\d+) at α = 1", text)]
    assert len(followed) == 16
    assert {1, 120} <= set(followed)
    assert "layer 120 at α = 1" in next(line for line in text.splitlines() if " 360 " in line)


def test_variants_are_told_apart(capsys) -> None:
    text = said(capsys, "table", "quickstart-post-ln")
    assert re.findall(r"^(baseline|linear-square|stagewise-L)$", text, re.MULTILINE) == [
        "baseline",
        "linear-square",
        "stagewise-L",
    ]
    assert text.count("Warning (baseline, linear-square, stagewise-L)") == 1
    assert "is shorter than 2/(1 − β₂) = 40" in " ".join(text.split())


def test_variants_that_share_a_course_share_a_picture(capsys) -> None:
    text = said(capsys, "plot", "quickstart-post-ln", "--width", "80")
    assert text.count("learning rate: linear warmup to 12, hold to 480, linear decay") == 1
    assert text.count("α of each layer") == 2  # the baseline has none


def test_a_sweep_shows_each_of_its_courses(tmp_path: Path, capsys) -> None:
    recipe = tmp_path / "grid.toml"
    recipe.write_text(
        "name = 'grid'\n[train]\nsteps = 100\n[sweep]\nrate.warmup = [0, 0.05, 10]\n"
        "optimizer.weight_decay = [0, 0.1]\n"
    )
    text = " ".join(said(capsys, "plot", str(recipe), "--width", "80").split())
    assert "6 variants" in text
    assert text.count("learning rate: ") == 3
    assert "there is no weight decay (warmup-0.weight_decay-0, warmup-0.05.weight_decay-0" in text
    assert "Warning (warmup-0.weight_decay-0, warmup-0.weight_decay-0.1): there is no war" in text


@pytest.mark.parametrize(
    ("flags", "warning"),
    [
        (["--residual.fraction", "0.95"], "the rate decays from step 600"),
        (["--residual.total", "900"], "but the run has 750: at its end the least α is 0.83"),
        (["--rate.warmup", "2"], "2 steps is 0.267% of the run; few published ones"),
        (["--rate.warmup", "0"], "there is no warmup of the rate"),
        (["--optimizer.name", "lionar", "--rate.warmup", "0"], None),
    ],
)
def test_warnings(flags: list[str], warning: str | None, capsys) -> None:
    text = " ".join(said(capsys, "table", "quickstart", *flags).split())
    assert ("Warning: " in text) == (warning is not None)
    assert warning is None or warning in text


def test_decay_modes_need_a_decoupled_decay() -> None:
    for name, kind in (("adam", "L2"), ("lionar", "angle")):
        with pytest.raises(ValueError, match=rf"'squared' .*{name}.* of the kind '{kind}'"):
            Recipe(
                model=ModelConfig(vocab_size=300, layers=1, width=16, heads=2),
                optimizer=OptimizerConfig(name, weight_decay=0.1),
                rate=RateConfig(weight_decay="squared"),
            )


def test_figures_and_tables_go_where_they_are_told(tmp_path: Path, capsys) -> None:
    for name, begin in (("a.png", b"\x89PNG"), ("sub/a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        text = said(capsys, "plot", "quickstart", *SHORT, "--out", str(tmp_path / name))
        assert text.splitlines()[-1] == str(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begin)
    said(capsys, "table", "quickstart", *SHORT, "--csv", str(tmp_path / "deep" / "a.csv"))
    assert (tmp_path / "deep" / "a.csv").read_text().startswith("variant,step,moment,rate")


def test_nothing_is_trained_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    for action in ("plot", "table"):
        said(capsys, action)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tabel"], "action='tabel' is unknown: did you mean 'table'"),
        (["plot", "quickstrat"], "did you mean 'quickstart'"),
        (["plot", "--until", "0"], "until=0"),
        (["plot", "--width", "20"], "width=20"),
        (["plot", "--out", "a.jpg"], "out='a.jpg' is not valid: end it in .png, .svg, .pdf"),
        (["plot", "--out", "a.png", "--width", "80"], "width=80 would be ignored"),
        (["table", "--every", "0"], "every=0"),
        (["plot", "quickstart-post-ln", "--residual.T", "5"], "residual would be ignored"),
    ],
)
def test_bad_input_is_said_in_one_line(arguments: list[str], message: str, capsys) -> None:
    assert main(["schedule", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_the_command_explains_itself(capsys) -> None:
    assert "groundup schedule plot" in said(capsys)
    for action in ("plot", "table"):
        with pytest.raises(SystemExit) as stop:
            main(["schedule", action, "--help"])
        assert stop.value.code == 0
        assert "Nothing is trained" in " ".join(capsys.readouterr().out.split())


def test_previews_are_grouped_by_what_they_have_in_common() -> None:
    a, b = Recipe(), Recipe(rate=RateConfig(peak=2e-3))
    found = previews({"a": a, "b": b, "c": a})
    assert [names for names, _ in alike(found, lambda p: p.rate_key)] == [["a", "c"], ["b"]]
    assert [names for names, _ in alike(found, lambda p: p.alpha_key)] == [["a", "b", "c"]]
