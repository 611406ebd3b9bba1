"""Reading run folders: whole ones, ones in mid-write, and what is not a run."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from groundup.measure.similarity import sketch
from groundup.report import find_runs, read_run, read_runs


def test_reads_a_whole_run(tmp_path, write_run):
    run = read_run(write_run(tmp_path / "a", "linear", seed=3))
    assert (run.variant, run.seed, run.updates, run.planned) == ("linear", 3, 100, 100)
    assert (run.finished, run.notes, run.layers) == (True, (), 4)
    assert run.final_eval == (100, 3.5)
    assert [step for step, _ in run.evals] == list(range(10, 101, 10))
    assert run.series["tokens"][-1] == 12800
    assert run.setting("residual", "T") == 5
    assert run.setting("residual", "T", "deeper") is None


def test_last_line_cut_off(tmp_path, write_run):
    folder = write_run(tmp_path / "a", summary=False, steps=30, planned=100)
    whole = (folder / "metrics.jsonl").read_bytes()
    for cut in (1, 2, 20, 60):
        (folder / "metrics.jsonl").write_bytes(whole[:-cut])
        run = read_run(folder)
        # Without its newline only, the last line is still whole.
        assert run.updates == (30 if cut == 1 else 29)
        assert any("cut off" in note for note in run.notes) == (cut > 1)
        assert any("update" in note and "of 100" in note for note in run.notes)


def test_a_cut_through_a_letter(tmp_path, write_run):
    folder = write_run(tmp_path / "a", steps=5)
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write('{"step": 5, "note": "é'.encode()[:-1])
    assert read_run(folder).updates == 5


def test_no_summary(tmp_path, write_run):
    run = read_run(write_run(tmp_path / "a", summary=False, planned=200))
    assert not run.finished
    assert run.final_eval == (100, pytest.approx(3.1 + 5 / (1 + 99 / 5)))
    assert "still going on or was stopped" in run.notes[0]


def test_summary_in_mid_write(tmp_path, write_run):
    folder = write_run(tmp_path / "a")
    (folder / "summary.json").write_text('{"variant": "lin')
    assert any("summary.json could not be read" in note for note in read_run(folder).notes)


def test_stopped_run_says_its_status(tmp_path, write_run):
    run = read_run(write_run(tmp_path / "a", planned=300, summary={"status": "stopped"}))
    assert run.notes == ("Its status is “stopped”, at update 100 of 300.",)


def test_null_losses(tmp_path, write_run, rows):
    metrics = rows(20)
    metrics[7] |= {"loss": None, "grad_norm": None}
    metrics[8]["loss"] = math.inf
    run = read_run(write_run(tmp_path / "a", metrics=metrics, steps=20))
    assert np.flatnonzero(np.isnan(run.series["loss"])).tolist() == [7, 8]
    assert np.flatnonzero(np.isnan(run.series["grad_norm"])).tolist() == [7]
    assert run.notes == ("2 updates had no finite loss or gradient norm.",)


def skipped(rows, steps, at):
    """Metrics whose updates `at` were skipped, with the events of that: one for each series."""
    metrics = rows(steps)
    for step in at:
        metrics[step] |= {"loss": None, "grad_norm": None, "skipped": True}
    kind = {"kind": "spike", "value": None, "action": "skip"}
    return metrics, [{"step": s, "of": of, **kind} for s in at for of in ("loss", "grad_norm")]


@pytest.mark.parametrize(
    ("limit", "at", "diverged"),
    [
        (3, [5, 16, 17, 18, 19], True),
        (3, [17, 18, 19], False),
        (3, [16, 17, 18], False),
        (3, [15, 17, 18, 19], False),
        (30, list(range(20)), False),
        (10, list(range(20)), True),
        (0, [19], True),
        (None, [19], True),  # of a run from before updates were skipped
    ],
)
def test_only_the_update_beyond_the_limit_ends_a_run(
    tmp_path, write_run, rows, limit, at, diverged
):
    metrics, events = skipped(rows, 20, at)
    settings = {} if limit is None else {"train.nonfinite": limit}
    folder = write_run(
        tmp_path / "a", metrics=metrics, events=events, settings=settings, summary=False
    )
    run = read_run(folder)
    assert run.diverged is diverged
    assert any("It diverged" in note for note in run.notes) is diverged
    number = "1 update" if len(at) == 1 else f"{len(at)} updates"
    were = "was" if len(at) == 1 else "were"
    assert run.notes[-1] == f"{number} had no finite loss or gradient norm and {were} skipped."


def sketches(folder, shapes, damage=None):
    lines = [
        {"step": step, "attention": [sketch(torch.randn(shape), 16) for _ in range(2)]}
        for step, shape in enumerate(shapes)
    ]
    if damage is not None:
        lines[damage]["attention"][1] = "?" + lines[damage]["attention"][1][1:]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "sketches.jsonl").write_text(text)
    return read_run(folder)


def test_sketches_of_another_shape_are_left_out(tmp_path, write_run):
    folder = write_run(tmp_path / "a")
    early, late = (256, 32), (128, 32)
    run = sketches(folder, [early, late, early, late])
    assert run.notes == (
        "2 lines of sketches.jsonl left out: of inputs of another shape than the last line’s.",
    )
    assert run.similarity["attention"].steps.tolist() == [1, 3]
    assert run.similarity["attention"].last.tolist() == [1.0, 1.0]
    run = sketches(folder, [late, (128, 16), (128, 16)])
    assert "1 line of sketches.jsonl" in run.notes[0]
    assert len(run.similarity["attention"].steps) == 2
    assert sketches(folder, [late, late]).notes == ()


@pytest.mark.parametrize("damage", [0, 1, 2])
def test_damaged_sketches_are_refused(tmp_path, write_run, damage):
    run = sketches(write_run(tmp_path / "a"), [(8, 4)] * 3, damage)
    with pytest.raises(ValueError, match=r"sketches\.jsonl is damaged"):
        _ = run.similarity


def test_parts_of_a_mixture(tmp_path, write_run, rows):
    mixture = [{"source": "a.txt", "name": "books"}, {"source": "b.txt", "name": "imdb"}]
    metrics = rows(20)
    metrics[9] |= {"eval_loss/books": 5.0, "eval_loss/imdb": 6.0}
    settings = {"data.mixture": mixture}
    run = read_run(write_run(tmp_path / "a", metrics=metrics[:19], settings=settings))
    assert run.parts == {"books": 5.0, "imdb": 6.0}
    metrics[19] |= {"eval_loss/books": 4.0, "eval_loss/imdb": None}
    assert read_run(write_run(tmp_path / "b", metrics=metrics, settings=settings)).parts == {
        "books": 4.0
    }
    assert read_run(write_run(tmp_path / "c", metrics=metrics)).parts == {}
    odd = {"data.mixture": ["books", {"name": 3}]}
    assert read_run(write_run(tmp_path / "d", settings=odd)).parts == {}


def test_final_evaluation_that_is_not_finite(tmp_path, write_run):
    run = read_run(write_run(tmp_path / "a", eval_loss=None))
    assert run.final_eval is not None
    assert "no finite evaluation loss" in run.notes[0]


def test_damaged_and_repeated_lines(tmp_path, write_run):
    folder = write_run(tmp_path / "a", steps=3)
    lines = [
        {"step": 0, "loss": 9.0},
        {"step": 1, "loss": 8.0},
        {"step": 1, "loss": 7.0},
        ["no object"],
        {"loss": 1.0},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"step": 2, "loss": 6.0}\n'
    (folder / "metrics.jsonl").write_text(text)
    run = read_run(folder)
    assert run.series["loss"].tolist() == [9.0, 7.0, 6.0]
    assert "2 unreadable lines" in " ".join(run.notes)


@pytest.mark.parametrize("text", [None, "", "\n", '{"step": 0, "lo'])
def test_no_metrics(tmp_path, text, write_run):
    folder = write_run(tmp_path / "a")
    (folder / "metrics.jsonl").unlink()
    if text is not None:
        (folder / "metrics.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        read_run(folder)


def test_recipe_missing_or_wrong(tmp_path, write_run):
    folder = write_run(tmp_path / "a", summary=False)
    (folder / "recipe.toml").write_text("name = ")
    with pytest.raises(ValueError, match=r"recipe\.toml is not a recipe"):
        read_run(folder)
    (folder / "recipe.toml").unlink()
    run = read_run(folder)
    assert (run.variant, run.seed) == ("a", None)
    assert "no recipe.toml" in run.notes[0]


def test_same_variant_and_seed_are_told_apart(tmp_path, write_run):
    folders = [write_run(tmp_path / name, "linear") for name in ("slow", "fast")]
    assert [run.variant for run in read_runs(folders)] == ["linear (slow)", "linear (fast)"]
    assert [run.variant for run in read_runs([folders[0], str(folders[0])])] == ["linear"]
    folders = [
        write_run(tmp_path / out / variant / f"seed-{seed}", variant, seed=seed)
        for out, variant in (("1e-3", "linear"), ("2e-3", "linear"), ("2e-3", "baseline"))
        for seed in (0, 1)
    ]
    assert [run.variant for run in read_runs(folders)] == [
        "linear (1e-3/linear)",
        "linear (1e-3/linear)",
        "linear (2e-3/linear)",
        "linear (2e-3/linear)",
        "baseline",
        "baseline",
    ]
    with pytest.raises(ValueError, match="no run folder"):
        read_runs([])


def test_find_runs(tmp_path, pair):
    assert find_runs(tmp_path) == sorted(pair)
    assert find_runs(pair[0]) == [pair[0]]
    assert find_runs(tmp_path / "nowhere") == []
