"""Comparisons: planned, trained, shown, reported."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from groundup.cli import main
from groundup.experiment import compare, plan
from groundup.experiment.display import Display, awake
from groundup.train import Recipe, recipe_file, toml
from groundup.train.progress import Status


def test_every_variant_with_every_seed(recipe: Recipe, tmp_path: Path) -> None:
    runs = plan(recipe_file.expand(recipe, []), [3, 4], tmp_path)
    assert [(r.variant, r.seed) for r in runs] == [
        ("baseline", 3), ("linear", 3), ("baseline", 4), ("linear", 4),
    ]  # fmt: skip
    assert runs[1].folder == tmp_path / "linear" / "seed-3"
    assert runs[0].recipe.residual.schedule == "none"


def test_nothing_to_compare_and_double_seeds_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        plan({}, [0], tmp_path)
    with pytest.raises(ValueError, match="each seed once"):
        plan(recipe_file.expand(recipe, []), [1, 1], tmp_path)


def test_awake_has_one_character_a_layer() -> None:
    assert awake([1.0, 0.999, 0.5, 0.1, 0.0]) == "█▇▄  "


@pytest.mark.parametrize("terminal", [True, False])
def test_display_shows_progress_and_layers(recipe: Recipe, tmp_path: Path, terminal: bool) -> None:
    runs = plan(recipe_file.expand(recipe, []), [0], tmp_path)
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120)
    with Display(runs, console) as display:
        row = display.watch(runs[1])
        for step in range(1, 11):
            alphas = [min(step / l / 5, 1.0) for l in range(1, 4)]
            row.update(Status(step, 10, 5.0, 1e-3, alphas, 1234.0, 4.5 if step == 5 else None))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "linear, seed 0" in text
    assert "10/10" in text
    assert "4.5000" in text
    assert "1,234" in text
    assert "██▅" in text


def test_compare_from_the_command_line(recipe: Recipe, tmp_path: Path, capsys) -> None:
    path = tmp_path / "small.toml"
    path.write_text(toml.dumps(recipe))
    out = tmp_path / "out"
    arguments = ["compare", str(path), "--steps", "8", "--out", str(out), "--seeds", "0", "1"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    table = [line for line in said.splitlines() if line.startswith(("baseline (2", "linear (2"))]
    assert len(table) == 2
    summaries = {
        (variant, seed): json.loads((out / variant / f"seed-{seed}" / "summary.json").read_text())
        for variant in ("baseline", "linear")
        for seed in (0, 1)
    }
    # What is printed is what was measured.
    gaps = [
        summaries["linear", s]["eval_loss"] - summaries["baseline", s]["eval_loss"] for s in (0, 1)
    ]
    assert f"{abs(sum(gaps) / 2):.4f}" in table[1]
    assert all(s["steps"] == 8 for s in summaries.values())
    assert "seeds" in said
    assert (out / "report.html").stat().st_size > 10_000
    # The same command again trains nothing and says the same.
    before = (out / "linear" / "seed-1" / "metrics.jsonl").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (out / "linear" / "seed-1" / "metrics.jsonl").stat().st_mtime_ns == before


def test_one_run_after_another_with_the_same_weights_and_batches(
    recipe: Recipe, tmp_path: Path
) -> None:
    short = replace(
        recipe, train=replace(recipe.train, steps=6), rate=replace(recipe.rate, decay=2)
    )
    tables = [
        {"name": "a", "residual": {"schedule": "none"}},
        {"name": "b", "residual": {"schedule": "equal", "total": 1e-9}},
    ]
    runs = plan(recipe_file.expand(short, tables), [0], tmp_path)
    compare(runs, lambda run: Display([run], Console(file=io.StringIO())).watch(run))
    losses = {
        run.variant: [json.loads(x)["loss"] for x in (run.folder / "metrics.jsonl").open()]
        for run in runs
    }
    assert len(losses["a"]) == len(losses["b"]) == 6
