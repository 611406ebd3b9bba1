"""Reading run folders: whole ones, ones in mid-write, and what is not a run."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

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
    assert run.notes == ("2 updates had no finite loss.",)


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
