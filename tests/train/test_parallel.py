"""Runs of two and of four processes give what one gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.train import Recipe, toml, train
from groundup.train.evaluating import EvaluateConfig
from groundup.train.parallel.config import ParallelConfig
from tests.residual.where import ranks
from tests.train.runs import forget_the_end, metrics
from tests.train.runs_on_two_ranks import RESTING, with_gains

MODULE = "tests.train.runs_on_two_ranks"


@pytest.fixture(scope="module")
def place(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "recipe.toml").write_text(toml.dumps(recipe))
    train(recipe, folder / "one")
    train(replace(recipe, residual=RESTING), folder / "resting")
    train(with_gains(recipe), folder / "gains")
    texts = ("def x return self", "if x in y : return None else : 1", "for x in self")
    (folder / "held.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    evaluate = EvaluateConfig(4, texts=(str(folder / "held.jsonl"),))
    train(replace(recipe, evaluate=evaluate), folder / "evaluated")
    for name in ("ddp", "fsdp"):
        shutil.copytree(folder / "one", folder / "begun" / name)
        forget_the_end(folder / "begun" / name)
    return folder


@pytest.fixture(scope="module")
def outcomes(place: Path) -> dict[str, str]:
    return ranks.run(MODULE, place)


@pytest.mark.parametrize("name", ranks.names(MODULE))
def test_on_two_ranks(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[name] == ""


def test_one_goes_on_where_two_stood(outcomes: dict[str, str], place: Path, recipe: Recipe) -> None:
    for name in ("ddp", "fsdp"):
        out = place / f"{name}-alone"
        shutil.copytree(place / name, out)
        forget_the_end(out)
        train(recipe, out)
        for line, other in zip(metrics(out), metrics(place / "one"), strict=True):
            assert line == pytest.approx(other, rel=2e-4)


def test_four_started_by_torchrun(place: Path) -> None:
    out = place / "four"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "4", "-m", "groundup", "train", str(place / "recipe.toml")]
    flags = ["--parallel.mode", "fsdp", "--parallel.replicas", "2"]
    subprocess.run([*command, "--out", str(out), *flags], check=True, timeout=120)
    for line, other in zip(metrics(out), metrics(place / "one"), strict=True):
        assert line == pytest.approx(other, rel=2e-4)
    (start,) = [json.loads(line) for line in (out / "starts.jsonl").read_text().splitlines()]
    assert start["processes"] == json.loads((out / "summary.json").read_text())["processes"] == 4


def test_settings_that_would_be_ignored_or_do_not_fit() -> None:
    with pytest.raises(ValueError, match="offload=True would be ignored by mode='ddp'"):
        ParallelConfig(mode="ddp", offload=True)
    with pytest.raises(ValueError, match="replicas=2 would be ignored by mode='auto'"):
        ParallelConfig(replicas=2)
    sharded = ParallelConfig(mode="fsdp", replicas=3)
    with pytest.raises(ValueError, match=r"parallel.replicas=3 .* number of processes, which is 4"):
        sharded.check(4, "bf16")
    with pytest.raises(ValueError, match="with train.precision='float32'"):
        replace(sharded, gather="bf16").check(3, "float32")


@pytest.mark.parametrize("what", ["full", "ops"])
def test_recomputing_changes_nothing(recipe: Recipe, tmp_path: Path, what: str) -> None:
    plain, again = (
        replace(recipe, train=replace(recipe.train, recompute=how)) for how in ("none", what)
    )
    train(plain, tmp_path / "plain")
    train(again, tmp_path / "again")
    assert metrics(tmp_path / "again") == metrics(tmp_path / "plain")
