"""[evaluate]: benchmarks and texts every so many updates of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.text import Text

from groundup.evaluate.during import During
from groundup.evaluate.perplexity import encoded, perplexity
from groundup.evaluate.scoring import Scorer
from groundup.report import figure, read_runs
from groundup.train import Recipe, toml, train
from groundup.train.evaluating import EvaluateConfig
from groundup.train.progress import Silent
from groundup.train.trained import open_trained
from tests.train.runs import forget_the_end, lines

KEYS = {f"eval/held/{m}perplexity" for m in ("", "word_", "byte_")} | {"eval/held/bits_per_byte"}
TEXT = "def x ( self ) :\nreturn None\n"


@pytest.fixture
def evaluated(recipe: Recipe, tmp_path: Path) -> Recipe:
    (tmp_path / "held.txt").write_text(TEXT)
    texts = (str(tmp_path / "held.txt"),)
    return replace(recipe, evaluate=EvaluateConfig(every=4, texts=texts))


def _evaluations(out: Path) -> dict[int, dict[str, float]]:
    """By step of measurements.jsonl."""
    found = {line["step"]: line for line in lines(out, "measurements")}
    evaluated = {
        step: {key: value for key, value in line.items() if key.startswith("eval/")}
        for step, line in found.items()
    }
    return {step: values for step, values in evaluated.items() if values}


def test_the_numbers_stand_in_the_lines_of_their_updates(evaluated: Recipe, tmp_path: Path) -> None:
    watch = Notes()
    train(evaluated, tmp_path / "run", watch)
    found = _evaluations(tmp_path / "run")
    assert {step: values.keys() for step, values in found.items()} == {3: KEYS, 7: KEYS, 11: KEYS}
    trained = open_trained(tmp_path / "run", device="cpu")
    scorer = Scorer(trained.model, torch.device("cpu"), evaluated.data.length)
    by_hand = perplexity(scorer, encoded([TEXT], trained.tokenizer), trained.tokenizer.eos_id)
    last = found[11]["eval/held/perplexity"]
    bits = [found[step]["eval/held/bits_per_byte"] for step in (3, 7, 11)]
    said = [note for note in watch.said if "bits per byte" in note]
    expected = zip((4, 8, 12), bits, strict=True)
    assert said == [f"after {n} updates: held {b:.3f} bits per byte" for n, b in expected]
    assert last == pytest.approx(by_hand.numbers()["perplexity"], rel=1e-6)
    (run,) = read_runs([tmp_path / "run"])
    assert run.measured["eval/held/perplexity"].steps.tolist() == [4, 8, 12]
    assert "held: bits per byte" in _titles(figure("evaluations", [run]))


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def test_one_number_of_each_is_said() -> None:
    numbers = {"b/acc_norm": 0.5, "b/acc": 0.25, "a/perplexity": 9.0, "a/acc": 0.125, "c/f1": 1.0}
    found = During.said({f"eval/{name}": value for name, value in numbers.items()})
    assert found == "b 0.250 acc, a 0.125 acc, c 1.000 f1"


def test_a_run_that_has_finished_says_what_to_do(
    evaluated: Recipe, recipe: Recipe, tmp_path: Path
) -> None:
    train(recipe, tmp_path / "run")
    for asked, count in ((recipe, 0), (evaluated, 1)):
        watch = Notes()
        train(asked, tmp_path / "run", watch)
        said = f"say groundup eval {tmp_path / 'run'}"
        assert sum(said in note for note in watch.said) == count


def _titles(drawn: Any) -> str:
    return " ".join(text.get_text() for text in drawn.findobj(Text))


def test_training_does_not_notice(evaluated: Recipe, recipe: Recipe, tmp_path: Path) -> None:
    train(evaluated, tmp_path / "evaluated")
    train(recipe, tmp_path / "plain")
    seen, plain = (tmp_path / run / "metrics.jsonl" for run in ("evaluated", "plain"))
    assert seen.read_bytes() == plain.read_bytes()


def test_a_run_that_goes_on_evaluates_the_same(evaluated: Recipe, tmp_path: Path) -> None:
    train(evaluated, tmp_path / "run")
    whole = _evaluations(tmp_path / "run")
    forget_the_end(tmp_path / "run")
    train(evaluated, tmp_path / "run")
    assert _evaluations(tmp_path / "run") == whole


def test_it_may_be_asked_for_when_a_run_goes_on(
    evaluated: Recipe, recipe: Recipe, tmp_path: Path
) -> None:
    train(recipe, tmp_path / "run")
    forget_the_end(tmp_path / "run")
    train(evaluated, tmp_path / "run")
    assert list(_evaluations(tmp_path / "run")) == [11]


def test_a_recipe_says_it_in_a_table(evaluated: Recipe) -> None:
    assert toml.build(toml.plain(evaluated)) == evaluated
    with pytest.raises(ValueError, match=r"\[evaluate\] every=-1"):
        toml.build({"evaluate": {"every": -1}})


def test_what_is_not_there_is_refused_before_the_run(recipe: Recipe, tmp_path: Path) -> None:
    lost = replace(recipe, evaluate=EvaluateConfig(every=4, texts=("nowhere.txt",)))
    with pytest.raises(ValueError, match=r"texts='nowhere\.txt'"):
        train(lost, tmp_path / "run")
    assert not (tmp_path / "run").exists()
