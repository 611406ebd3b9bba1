"""Checkpoints of one process: exact, atomic, and what is damaged is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groundup.train import checkpoint
from groundup.train.checkpoint import CheckpointError, Checkpoints, metadata, places
from groundup.train.world import ALONE
from tests.train.checkpoints import as_of_old, made, resumed, same, saved, sign, update


@pytest.mark.parametrize("updates_before", [0, 2])
def test_everything_comes_back_to_the_bit(tmp_path: Path, updates_before: int) -> None:
    model, optimizer = made(0)
    saved(tmp_path, 3, model, optimizer, {"wall_seconds": 1.5, "ids": [1, {"a": None}]})
    other, other_optimizer = made(1, updates_before)
    (step, state), notes = resumed(tmp_path, other, other_optimizer)
    assert (step, notes) == (3, [])
    assert state == {"step": 3, "format": 2, "wall_seconds": 1.5, "ids": [1, {"a": None}]}
    assert same(model.state_dict(), other.state_dict())
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert same(optimizer.state[p], other_optimizer.state[q])
    for m, o in ((model, optimizer), (other, other_optimizer)):
        torch.manual_seed(5)
        update(m, o)
    assert same(model.state_dict(), other.state_dict())


def test_an_optimizer_before_its_first_update_comes_back_as_one(tmp_path: Path) -> None:
    model, optimizer = made(0, 0)
    saved(tmp_path, 0, model, optimizer)
    assert not optimizer.state
    other, other_optimizer = made(1, 2)
    assert resumed(tmp_path, other, other_optimizer)[0][0] == 0
    assert not other_optimizer.state
    for m, o in ((model, optimizer), (other, other_optimizer)):
        torch.manual_seed(5)
        update(m, o)
    assert same(model.state_dict(), other.state_dict())


def test_state_of_some_parameters_only(tmp_path: Path) -> None:
    """A parameter that had no gradient has none; so it is after loading."""
    model, optimizer = made(0, 0)
    model[2](torch.randn(3, 8)).sum().backward()
    optimizer.step()
    saved(tmp_path, 1, model, optimizer)
    other, other_optimizer = made(1, 0)
    resumed(tmp_path, other, other_optimizer)
    assert set(other_optimizer.state) == set(other[2].parameters())


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    assert resumed(tmp_path / "none", *made(0)) == (None, [])


# ---------------------------------------------------------------------- which are kept


@settings(max_examples=6, deadline=None)
@given(
    keep=st.integers(1, 3),
    every=st.none() | st.integers(1, 8),
    needed=st.none() | st.integers(1, 12),
    steps=st.sets(st.integers(1, 12), min_size=1, max_size=6),
)
def test_which_stay(tmp_path_factory, keep, every, needed, steps) -> None:
    folder = tmp_path_factory.mktemp("kept")
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    checkpoints = Checkpoints(folder, ALONE, keep, every)
    there: list[int] = []
    for step in sorted(steps):
        checkpoints.save(step, model, optimizer, {}, needed)
        there.append(step)
        there = [
            s
            for i, s in enumerate(there)
            if i >= len(there) - keep or s == needed or (every and s % every == 0)
        ]
    checkpoints.close()
    assert checkpoints.steps() == there == checkpoint.steps_in(folder)
    assert sorted(path.name for path in folder.iterdir()) == [f"step-{s:08d}" for s in there]


def test_a_partial_one_is_never_taken_and_is_removed_at_the_start(tmp_path: Path) -> None:
    model, optimizer = made(0)
    saved(tmp_path, 15, model, optimizer)
    for name in (".step-00000020.partial", ".step-00000010.removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text("{")
    (tmp_path / "step-00000018.bak").mkdir()
    assert checkpoint.steps_in(tmp_path) == [15]
    assert resumed(tmp_path, model, optimizer)[0][0] == 15
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000015",
        "step-00000018.bak",
    ]


def test_one_that_is_there_already_stays(tmp_path: Path) -> None:
    model, optimizer = made(0)
    place = saved(tmp_path, 3, model, optimizer)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    update(model, optimizer)
    saved(tmp_path, 3, model, optimizer)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_removing_and_states(tmp_path: Path) -> None:
    model, optimizer = made(0)
    for step in (1, 2, 3):
        saved(tmp_path, step, model, optimizer, {"passed": step}, keep=3)
    (tmp_path / "step-00000002" / "state.json").write_text("[")
    checkpoints = Checkpoints(tmp_path, ALONE, 3)
    assert [(step, state["passed"]) for step, state in checkpoints.states()] == [(1, 1), (3, 3)]
    checkpoints.remove(3)
    assert checkpoints.steps() == [1, 2]
    checkpoints.close()


def test_one_that_is_being_removed_is_none_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a kill finds it."""
    saved(tmp_path, 3, *made(0))
    seen = []
    monkeypatch.setattr(places.shutil, "rmtree", lambda *_, **__: seen.append(
        checkpoint.steps_in(tmp_path)))  # fmt: skip
    checkpoint.remove(tmp_path, 3)
    assert seen[-1] == []
    monkeypatch.undo()
    assert resumed(tmp_path, *made(0)) == (None, [])
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- damage

FILES = [".metadata", "__0_0.distcp", "state.json", "manifest.json"]


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    middle = len(data) // 2
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 3])
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "flipped":
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif how == "longer":
        path.write_bytes(data + b"\0")
    else:
        path.write_bytes(b"\0" * len(data))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["missing", "truncated", "emptied", "flipped", "longer", "zeros"])
def test_the_one_before_a_damaged_one_is_used(tmp_path: Path, name: str, how: str) -> None:
    model, optimizer = made(0)
    saved(tmp_path, 3, model, optimizer)
    good = {k: v.clone() for k, v in model.state_dict().items()}
    update(model, optimizer)
    newest = saved(tmp_path, 4, model, optimizer)
    damage(newest / name, how)
    other, other_optimizer = made(1)
    (step, _), (note,) = resumed(tmp_path, other, other_optimizer)
    assert step == 3
    assert same(other.state_dict(), good)
    assert f"{newest} cannot be read: " in note
    assert "step-00000004.damaged" in note
    # One byte of the manifest may be of what it says of another file.
    assert name in note or (name, how) == ("manifest.json", "flipped")
    assert "\n" not in note
    assert checkpoint.steps_in(tmp_path) == [3]
    assert (tmp_path / "step-00000004.damaged").is_dir()
    # The same step again, damaged again: nothing is overwritten.
    damage(saved(tmp_path, 4, model, optimizer) / name, how)
    resumed(tmp_path, other, other_optimizer)
    assert (tmp_path / "step-00000004.damaged-2").is_dir()


def test_none_is_whole(tmp_path: Path) -> None:
    """All are named, and none is touched: a restart must not begin from nothing."""
    model, optimizer = made(0)
    for step in (3, 4):
        damage(saved(tmp_path, step, model, optimizer) / "__0_0.distcp", "truncated")
    for _ in range(2):
        with pytest.raises(
            CheckpointError, match=r"none of the .*00000004.*; .*00000003"
        ) as caught:
            resumed(tmp_path, model, optimizer)
        assert "\n" not in str(caught.value)
    assert checkpoint.steps_in(tmp_path) == [3, 4]


def test_a_disk_that_fails_to_read_says_nothing_about_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = made(0)
    for step in (3, 4):
        saved(tmp_path, step, model, optimizer, {"of": step})
    digest = checkpoint.manifest.entry

    def failing(path: Path):
        if path.parent.name == "step-00000004":
            raise OSError(5, "Input/output error", str(path))
        return digest(path)

    monkeypatch.setattr(checkpoint.manifest, "entry", failing)
    notes: list[str] = []
    checkpoints = Checkpoints(tmp_path, ALONE, 2)
    step, _ = checkpoints.resume(model, optimizer, notes.append)
    assert step == 3
    assert "Input/output error" in notes[0]
    assert "one before is used" in notes[0]
    assert checkpoints.steps() == [3]
    monkeypatch.undo()
    checkpoints.save(4, model, optimizer, {"of": "again"})
    checkpoints.close()
    assert {step: state["of"] for step, state in checkpoints.states()} == {3: 3, 4: "again"}
    state = json.loads((tmp_path / "step-00000004.unreadable" / "state.json").read_text())
    assert state["of"] == 4


def test_one_without_checksums_is_taken_and_said_to_be(tmp_path: Path) -> None:
    model, optimizer = made(0)
    for step in (3, 4):
        as_of_old(saved(tmp_path, step, model, optimizer))
    (step, _), (note,) = resumed(tmp_path, *made(1))
    assert step == 4
    assert "holds no checksums" in note
    (tmp_path / "step-00000004" / "__0_0.distcp").write_bytes(b"0" * 100)
    (step, _), notes = resumed(tmp_path, *made(1))
    assert step == 3
    assert any("step-00000004.damaged" in note for note in notes)


# ---------------------------------------------------------------------- what does not fit


def test_a_checkpoint_of_another_model_is_refused_with_the_names(tmp_path: Path) -> None:
    saved(tmp_path, 2, *made(0))
    saved(tmp_path, 3, *made(0))
    other = nn.Sequential(nn.Linear(4, 9), nn.RMSNorm(9), nn.Linear(9, 2, bias=False))
    optimizer = torch.optim.AdamW(other.parameters())
    with pytest.raises(CheckpointError, match=r"step-00000003 is of another model") as caught:
        resumed(tmp_path, other, optimizer)
    assert "0.weight (8, 4) there and (9, 4) here" in str(caught.value)
    assert "2.bias (2,) there and not here" in str(caught.value)
    assert checkpoint.steps_in(tmp_path) == [2, 3]
    with pytest.raises(CheckpointError, match="another model"):
        checkpoint.load(tmp_path, 3, other, None)


def test_a_checkpoint_of_other_groups_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 3, *made(0))
    model, _ = made(0)
    with pytest.raises(CheckpointError, match="2 groups of parameters there and 1 here"):
        resumed(tmp_path, model, torch.optim.AdamW(model.parameters()))


def test_what_cannot_be_saved_is_refused_at_once(tmp_path: Path) -> None:
    model, optimizer = made(0)
    checkpoints = Checkpoints(tmp_path, ALONE, 2)
    optimizer.state[model[0].weight]["odd"] = [torch.ones(1)]
    with pytest.raises(CheckpointError, match=r"keeps 'odd', a list, for 0\.weight"):
        checkpoints.save(3, model, optimizer, {})
    foreign = torch.optim.SGD([*model.parameters(), nn.Parameter(torch.ones(3))])
    with pytest.raises(CheckpointError, match=r"shape \(3,\) that is no parameter of the model"):
        checkpoints.save(3, model, foreign, {})
    checkpoints.close()
    assert not list(tmp_path.iterdir())


def test_metadata_holds_nothing_but_tensors_and_state_is_json(tmp_path: Path) -> None:
    place = saved(tmp_path, 3, *made(0), {"versions": {"a": "1"}})
    reader = metadata.Reader(place, {"__0_0.distcp"})
    kinds = {type(value).__name__ for value in reader.read_metadata().state_dict_metadata.values()}
    assert kinds == {"TensorStorageMetadata"}
    assert json.loads((place / "state.json").read_text())["versions"] == {"a": "1"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"optimizer": 3}', "[" * 100_000,
    '{"optimizer": {"groups": [1, 2], "state": {}}}'])  # fmt: skip
def test_a_state_that_is_garbage_though_it_was_signed(tmp_path: Path, text: str) -> None:
    place = saved(tmp_path, 3, *made(0))
    (place / places.STATE).write_text(text)
    sign(place)
    with pytest.raises(CheckpointError):
        resumed(tmp_path, *made(1))
