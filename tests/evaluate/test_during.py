"""Evaluations while training: the same numbers as afterwards, and nothing left behind."""

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from groundup.data import Tokenizer
from groundup.data.tokenizer import train
from groundup.evaluate import lambada
from groundup.evaluate.during import During
from groundup.evaluate.perplexity import encoded, perplexity
from groundup.evaluate.scoring import Scorer
from groundup.model import ModelConfig, Transformer
from groundup.train.evaluating import EvaluateConfig

LENGTH = 24
PASSAGES = ["a dog runs over the river", "the stone falls under the cold river at night"] * 3
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(PASSAGES, 280)


@pytest.fixture
def model(tokenizer: Tokenizer) -> Transformer:
    config = ModelConfig(layers=2, width=16, heads=2, vocab_size=tokenizer.vocab_size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Transformer(config)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "books.txt").write_text("\n".join(PASSAGES) * 3)
    (tmp_path / "passages.txt.gz").write_bytes(gzip.compress("\n".join(PASSAGES).encode()))
    (tmp_path / "wiki.tokens").write_text(" \n = A dog = \n \n It runs @-@ fast . \n")
    row = {"query": "Why does it?", "choices": ["it runs", "over"], "gold": 0}
    (tmp_path / "piqa.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "gold": 1}))
    return {
        "texts": (str(tmp_path / "books.txt"),),
        "wikitext": (str(tmp_path / "wiki.tokens"),),
        "lambada": (str(tmp_path / "passages.txt.gz"),),
        "task_files": str(tmp_path),
    }


def test_numbers_are_those_of_the_parts(
    places: dict[str, Any], tokenizer: Tokenizer, model: nn.Module
) -> None:
    pytest.importorskip("lm_eval")
    during = During.make(
        EvaluateConfig(every=5, tasks=("piqa",), **places), tokenizer, LENGTH, batch=3
    )
    assert during is not None
    found = during.evaluate(model, CPU, "float32")
    scorer = Scorer(model.eval(), CPU, LENGTH)
    text = Path(places["texts"][0]).read_text()
    expected = perplexity(scorer, encoded([text], tokenizer), tokenizer.eos_id).numbers()
    words = lambada.last_words(scorer, PASSAGES, tokenizer, tokenizer.eos_id).numbers()
    assert found["eval/books/bits_per_byte"] == pytest.approx(expected["bits_per_byte"], rel=1e-6)
    assert found["eval/passages/perplexity"] == pytest.approx(words["perplexity"], rel=1e-6)
    assert found["eval/passages/acc"] == words["acc"]
    # The same question twice, with either answer as the right one.
    assert (found["eval/piqa/acc"], found["eval/piqa/acc_norm"]) == (0.5, 0.5)
    assert "eval/wiki/word_perplexity" in found
    assert sorted({key.split("/")[1] for key in found}) == ["books", "passages", "piqa", "wiki"]
    assert all(type(value) is float for value in found.values())
    assert found == during.evaluate(model, CPU, "float32")


class Counted(nn.Module):
    """Knows how it was called."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.dropout = inner, nn.Dropout(0.5)
        self.modes: set[bool] = set()

    def forward(self, tokens: torch.Tensor) -> Any:
        self.modes.add(self.training or self.dropout.training)
        return self.dropout(self.inner(tokens))


def test_training_goes_on_as_if_nothing_had_been(
    places: dict[str, Any], tokenizer: Tokenizer, model: Transformer
) -> None:
    counted = Counted(model).train()
    model.layers[0].eval()  # somebody's frozen layer
    modes = [module.training for module in counted.modules()]
    config = EvaluateConfig(every=5, texts=places["texts"], lambada=places["lambada"])
    during = During.make(config, tokenizer, LENGTH)
    assert during is not None
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    during.evaluate(counted, CPU, "float32")
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert states == after
    assert counted.modes == {False}
    assert [module.training for module in counted.modules()] == modes
    counted.inner = Failing()
    with pytest.raises(RuntimeError, match="out of memory"):
        during.evaluate(counted.train(), CPU, "float32")
    assert counted.training


class Failing(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")


def test_nothing_is_compiled_for_evaluations(
    places: dict[str, Any], tokenizer: Tokenizer, model: Transformer
) -> None:
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    for layer in model.layers:
        layer.compile(backend=backend)
    during = During.make(
        EvaluateConfig(every=1, texts=places["texts"], lambada=places["lambada"]), tokenizer, LENGTH
    )
    assert during is not None
    during.evaluate(model, CPU, "float32")
    assert not graphs
    model(torch.zeros(1, 4, dtype=torch.int64))
    assert graphs  # the layers are compiled otherwise


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": -1}, "every=-1"),
        ({"every": 10}, "every=10 is not valid: there is nothing to evaluate"),
        ({"tasks": ("piqa",)}, "tasks would be ignored: every=0"),
        ({"limit": 3}, "limit would be ignored: every=0"),
        ({"every": 1, "texts": ("a",), "task_files": "b"}, "task_files would be ignored"),
        ({"every": 1, "texts": ("a",), "shots": 0}, "shots would be ignored"),
        ({"every": 1, "texts": ("a",), "limit": 0}, "limit=0"),
        ({"every": 1, "tasks": ("a",), "shots": -1}, "shots=-1"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(**settings)


def test_what_cannot_be_read_shows_at_once(
    places: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    def make(**settings: Any) -> During | None:
        return During.make(EvaluateConfig(every=1, **settings), tokenizer, LENGTH)

    with pytest.raises(ValueError, match=r"nowhere"):
        make(texts=(str(tmp_path / "nowhere"),))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "books.txt").write_text("x y z")
    with pytest.raises(ValueError, match="something else is called 'books' as well"):
        make(texts=(*places["texts"], str(tmp_path / "other" / "books.txt")))
    (tmp_path / "empty.txt").write_text("")
    for option in ("lambada", "texts", "wikitext"):
        with pytest.raises(ValueError, match=r"empty\.txt"):
            make(**{option: (str(tmp_path / "empty.txt"),)})
    assert During.make(EvaluateConfig(), tokenizer, LENGTH) is None


def test_tasks_without_lm_eval(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(ValueError, match=r"pip install 'groundup\[eval\]'"):
        During.make(EvaluateConfig(every=1, tasks=("piqa",)), tokenizer, LENGTH)
