"""What sinks are given, when, and what happens when they fail."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from groundup.train import folder, sinks
from groundup.train.sinks import LogConfig, Sinks, check_installed, names, open_sinks
from groundup.train.toml import build, dumps, plain
from tests.train.sinks import OFFLINE, TENSORBOARD, Broken, Kept, Notes, clock, line, with_log

# --- names


def test_names_of_an_update() -> None:
    found = names.updated(
        {
            "step": 7,
            "loss": 2.5,
            "grad_norm": None,
            "rate": 1e-3,
            "alpha_mean": 0.5,
            "layers_awake": 3,
            "tokens": 1024,
            "eval_loss": 2.75,
        },
        {"step": 7, "seconds": 0.5, "tokens_per_second": 256.0, "utilization": 0.4},
    )
    assert found == {
        "train/loss": 2.5,
        "train/tokens": 1024.0,
        "eval/loss": 2.75,
        "schedule/rate": 1e-3,
        "schedule/alpha_mean": 0.5,
        "schedule/layers_awake": 3.0,
        "speed/seconds": 0.5,
        "speed/tokens_per_second": 256.0,
        "speed/utilization": 0.4,
    }
    assert all(type(value) is float for value in found.values())


def test_names_of_measurements() -> None:
    found = names.measured(
        {
            "update_norm": 0.5,
            "phi": None,
            "rrc": float("nan"),
            "angle/layers": [0.1, None, 0.3],
            "branch_norm/attention/layers": [1, 2],
            "angle/layers.0.attention.branch.query.weight": 0.25,
            "loss/positions": [4.0, 3.0],
            "loss_bins": [0, 16, 128],
            "sketch/attention/layers": ["AAEC", "AwQF"],
        }
    )
    assert found == {
        "measure/update_norm": 0.5,
        "angle/layer_01": 0.1,
        "angle/layer_03": 0.3,
        "branch_norm/attention/layer_01": 1.0,
        "branch_norm/attention/layer_02": 2.0,
        "angle/layers.0.attention.branch.query.weight": 0.25,
        "loss/position_000-015": 4.0,
        "loss/position_016-127": 3.0,
    }


def test_layers_sort_by_name() -> None:
    found = names.measured({"angle/layers": [float(l) for l in range(120)]})
    assert list(found) == sorted(found)
    assert list(found)[-1] == "angle/layer_120"


# --- fan-out


def test_measurements_wait_for_their_update() -> None:
    kept = Kept()
    with Sinks([kept], pytest.fail) as out:
        out.measured(0, {"update_norm": 1.0})
        out.measured(1, {"update_norm": 2.0})
        out.measured(2, {})
        out.updated(line(0), clock(0))
        out.flush()
        out.measured(1, {"rrc": 3.0})
        out.updated(line(1), clock(1))
        out.measured(3, {"update_norm": 4.0})  # of the final model: no update follows
    steps = [call[0] for call in kept.calls]
    assert steps == [0, "flush", 1, 3, "close"]
    assert kept.calls[0][1].keys() == {
        "train/loss",
        "schedule/rate",
        "speed/seconds",
        "speed/tokens_per_second",
        "measure/update_norm",
    }
    assert kept.calls[2][1]["measure/rrc"] == 3.0
    assert kept.calls[2][1]["measure/update_norm"] == 2.0
    assert kept.calls[3] == (3, {"measure/update_norm": 4.0})
    assert kept.calls[4] == ("close", False)


def test_a_sink_that_fails_is_left_out_and_the_others_go_on() -> None:
    kept, broken, notes = Kept(), Broken(), Notes()
    with Sinks([broken, kept], notes.note) as out:
        for step in range(5):
            out.updated(line(step), clock(step))
    assert [call[0] for call in kept.calls] == [0, 1, 2, 3, 4, "close"]
    assert [call[0] for call in broken.calls] == [0, 1, "close"]
    assert broken.calls[-1] == ("close", True)
    assert notes.said == [
        "broken failed (no space left) and is left out from here on; metrics.jsonl goes on"
    ]


@pytest.mark.parametrize("method", ["write", "flush", "close"])
def test_no_method_of_a_sink_stops_training(method, monkeypatch) -> None:
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(Kept, method, fail)
    notes = Notes()
    with Sinks([Kept()], notes.note) as out:
        out.updated(line(0), clock(0))
        out.flush()
    assert notes.said == [
        "kept failed (RuntimeError) and is left out from here on; metrics.jsonl goes on"
    ]


def test_a_run_that_fails_is_closed_as_such() -> None:
    kept = Kept()
    with pytest.raises(KeyboardInterrupt), Sinks([kept], pytest.fail):
        raise KeyboardInterrupt
    assert kept.calls == [("close", True)]


# --- recipe


def test_off_unless_asked_for(recipe, tmp_path) -> None:
    with open_sinks(recipe, tmp_path, 0, pytest.fail) as out:
        out.updated(line(0), clock(0))
    assert list(tmp_path.iterdir()) == []


def test_neither_library_is_imported_with_training() -> None:
    code = (
        "import sys, groundup.train; print(sorted({'tensorboard', 'wandb'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("field", ["project", "entity", "group", "mode"])
def test_settings_without_wandb_are_refused(field) -> None:
    with pytest.raises(ValueError, match=rf"\[log\] {field}='offline' would be ignored"):
        build({"log": {field: "offline"}})


def test_the_table_in_a_recipe(recipe) -> None:
    log = LogConfig(True, True, "p", "e", "g", "offline")
    said = dumps(with_log(recipe, log))
    assert 'mode = "offline"' in said
    assert build(plain(with_log(recipe, log))).log == log
    with pytest.raises(ValueError, match=r"log.mode='sometimes' is not valid.*'offline'"):
        build({"log": {"wandb": True, "mode": "sometimes"}})


def test_where_its_numbers_go_does_not_make_another_run(recipe, tmp_path) -> None:
    folder.write_recipe(tmp_path, recipe)
    assert not folder.refuse_another_run(tmp_path, with_log(recipe, OFFLINE))
    with pytest.raises(folder.FolderError):
        folder.refuse_another_run(tmp_path, replace(recipe, name="other"))


@pytest.mark.parametrize(("field", "log"), [("tensorboard", TENSORBOARD), ("wandb", OFFLINE)])
def test_a_library_that_is_not_installed_is_refused(field, log, recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(sinks, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"log\.{field}=true.*pip install {field}"):
        check_installed(log)
    with pytest.raises(ValueError, match="pip install"):
        open_sinks(with_log(recipe, log), tmp_path, 0, pytest.fail)
    check_installed(LogConfig())


def test_a_folder_of_that_name_is_not_the_library(tmp_path, monkeypatch) -> None:
    (tmp_path / "wandb").mkdir()
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ValueError, match="pip install wandb"):
        check_installed(OFFLINE)


def test_what_cannot_be_opened_stops_only_a_run_that_has_not_begun(
    recipe, tmp_path, monkeypatch
) -> None:
    def fail(*_):
        raise RuntimeError("no key")

    kept, notes = Kept(), Notes()
    monkeypatch.setitem(sinks._SINKS, "tensorboard", lambda *_: kept)
    monkeypatch.setitem(sinks._SINKS, "wandb", fail)
    both = with_log(recipe, replace(OFFLINE, tensorboard=True))
    with pytest.raises(ValueError, match=r"log\.wandb=true does not work here: no key"):
        open_sinks(both, tmp_path, 0, notes.note)
    assert kept.calls == [("close", True)]
    with open_sinks(both, tmp_path, 8, notes.note) as out:
        out.updated(line(8), clock(8))
    assert notes.said == ["log.wandb=true: left out, since it does not work here (no key)"]
    assert kept.calls[1][0] == 8
