"""[evaluate]: benchmarks and texts every so many updates of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from groundup.evaluate.perplexity import encoded, perplexity
from groundup.evaluate.scoring import Scorer
from groundup.train import Recipe, toml, train
from groundup.train.evaluating import EvaluateConfig
from groundup.train.trained import open_trained
from tests.train.runs import forget_the_end, metrics

KEYS = {f"eval/held/{m}perplexity" for m in ("", "word_", "byte_")} | {"eval/held/bits_per_byte"}
TEXT = "def x ( self ) :\nreturn None\n"


@pytest.fixture
def evaluated(recipe: Recipe, tmp_path: Path) -> Recipe:
    (tmp_path / "held.txt").write_text(TEXT)
    texts = (str(tmp_path / "held.txt"),)
    return replace(recipe, evaluate=EvaluateConfig(every=4, texts=texts))


def test_the_numbers_stand_in_the_lines_of_their_updates(evaluated: Recipe, tmp_path: Path) -> None:
    train(evaluated, tmp_path / "run")
    at = {
        line["step"]: {k for k in line if k.startswith("eval/")}
        for line in metrics(tmp_path / "run")
    }
    assert {step: names for step, names in at.items() if names} == {3: KEYS, 7: KEYS, 11: KEYS}
    trained = open_trained(tmp_path / "run", device="cpu")
    scorer = Scorer(trained.model, torch.device("cpu"), evaluated.data.length)
    by_hand = perplexity(scorer, encoded([TEXT], trained.tokenizer), trained.tokenizer.eos_id)
    found = metrics(tmp_path / "run")[-1]["eval/held/perplexity"]
    assert found == pytest.approx(by_hand.numbers()["perplexity"], rel=1e-6)


def test_training_does_not_notice(evaluated: Recipe, recipe: Recipe, tmp_path: Path) -> None:
    train(evaluated, tmp_path / "evaluated")
    train(recipe, tmp_path / "plain")
    seen = [
        {key: value for key, value in line.items() if not key.startswith("eval/")}
        for line in metrics(tmp_path / "evaluated")
    ]
    assert seen == metrics(tmp_path / "plain")


def test_it_may_be_asked_for_when_a_run_goes_on(
    evaluated: Recipe, recipe: Recipe, tmp_path: Path
) -> None:
    train(recipe, tmp_path / "run")
    forget_the_end(tmp_path / "run")
    train(evaluated, tmp_path / "run")
    assert metrics(tmp_path / "run")[-1].keys() >= KEYS
    assert not KEYS & metrics(tmp_path / "run")[3].keys()


def test_a_recipe_says_it_in_a_table(evaluated: Recipe) -> None:
    assert toml.build(toml.plain(evaluated)) == evaluated
    with pytest.raises(ValueError, match=r"\[evaluate\] every=-1"):
        toml.build({"evaluate": {"every": -1}})


def test_what_is_not_there_is_refused_before_the_run(recipe: Recipe, tmp_path: Path) -> None:
    lost = replace(recipe, evaluate=EvaluateConfig(every=4, texts=("nowhere.txt",)))
    with pytest.raises(ValueError, match=r"texts='nowhere\.txt'"):
        train(lost, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
