"""The columns of the runs, their CSV, and the command that writes it."""

from __future__ import annotations

import csv
import fcntl
import math

import pytest

from groundup.cli import main
from groundup.report import read_runs, write_csv
from groundup.report.page.columns import columns
from groundup.report.status import status
from groundup.report.table import study


def table(folders, **options):
    return {c.key: c for c in columns(study(read_runs(folders), **options))}


def test_what_differs_comes_first_then_results(pair):
    found = table(pair)
    keys = list(found)
    assert keys[:4] == ["variant", "residual.schedule", "residual.T", "seed"]
    assert keys[4:7] == ["eval_loss", "eval_perplexity", "gap"]
    assert keys[-1] == "folder"
    assert not {"published_perplexity", "events", "eval_step"} & set(keys)
    assert found["residual.T"].values == (None, None, 5, 5)
    assert found["gap"].values == (None, None, pytest.approx(-0.1), pytest.approx(-0.06))
    assert found["eval_perplexity"].values[0] == pytest.approx(math.exp(3.5))


def test_settings_are_told_apart_as_they_are_written(tmp_path, write_run):
    folders = [
        write_run(tmp_path / str(i), f"v{i}", schedule="none", settings={"rate.warmup": value})
        for i, value in enumerate([1, 1.0, True, "untuned", [1, 2]])
    ]
    assert table(folders)["rate.warmup"].values == (1, 1.0, "true", "untuned", "[1, 2]")


def test_a_diverged_run_has_no_result(tmp_path, write_run, rows):
    metrics = rows(30)
    metrics[-1]["loss"] = None
    folders = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", "linear", metrics=metrics, summary=False),
        write_run(tmp_path / "c", "equal", metrics=rows(34), summary=False),
        write_run(tmp_path / "d", "reverse", summary={"status": "interrupted"}),
    ]
    found = table(folders)
    assert found["status"].values == ("finished", "diverged", "stopped", "interrupted")
    assert found["eval_loss"].values[:2] == (3.5, None)
    assert found["gap"].values[1] is None
    assert found["eval_step"].values == (100, None, 30, 100)


def test_a_run_that_is_written_is_still_going(tmp_path, write_run, rows):
    folder = write_run(tmp_path / "a", metrics=rows(30), planned=100, summary=False)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert status(read_runs([folder])[0]) == "still going"
    assert status(read_runs([folder])[0]) == "stopped"


def test_csv_has_one_row_a_run_and_full_numbers(pair, tmp_path):
    out = write_csv(pair, tmp_path / "deep" / "runs.csv")
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["folder"] for row in rows] == [str(folder) for folder in pair]
    assert list(rows[0])[:4] == ["folder", "variant", "residual.schedule", "residual.T"]
    assert [float(row["eval_loss"]) for row in rows] == [3.5, 3.6, 3.4, 3.54]
    assert (rows[0]["gap"], float(rows[2]["gap"])) == ("", 3.4 - 3.5)
    assert float(rows[2]["eval_perplexity"]) == math.exp(3.4)


def test_csv_of_hostile_names_reads_back(tmp_path, write_run):
    name = 'a,"b"\nc;=1'
    out = write_csv([write_run(tmp_path / "r", name)], tmp_path / "r.csv")
    with open(out, newline="") as file:
        assert next(csv.DictReader(file))["variant"] == name


def test_command_writes_csv_and_figures(pair, tmp_path, capsys):
    runs = [str(folder) for folder in pair]
    assert main(["report", *runs, "--csv", str(tmp_path / "x.csv")]) == 0
    assert (tmp_path / "x.csv").read_text().count("\n") == 5
    for name in ("x.png", "x.svg", "x.pdf"):
        assert main(["report", *runs, "--figure", "loss", "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 1000
    assert main(["report", "--figure", "list"]) == 0
    assert "grad_norm" in capsys.readouterr().out
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--csv", "a.csv", "--out", "b.html"], "--out would be ignored"),
        (["--csv", "a.csv", "--title", "b"], "--title would be ignored"),
        (["--csv", "a.csv", "--figure", "loss"], "--figure would be ignored"),
        (["--figure", "loss", "--title", "b"], "--title would be ignored"),
        (["--figure", "loss"], "say with --out"),
        (["--figure", "lost", "--out", "a.png"], "did you mean 'loss'"),
        (["--figure", "list"], "runs would be ignored"),
        (["--figure", "loss", "--out", "a.jpeg"], "a.jpeg"),
    ],
)
def test_command_refuses_what_it_would_ignore(arguments, message, pair, capsys):
    assert main(["report", str(pair[0]), *arguments]) == 2
    assert message in capsys.readouterr().err
