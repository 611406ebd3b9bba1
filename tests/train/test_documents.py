"""Runs whose documents are kept apart: trained, evaluated, opened and exported."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from groundup.data import Batches, TokenFile, prepare
from groundup.model import LanguageModel, Transformer, initialize
from groundup.train import Recipe, ResidualConfig, train
from groundup.train.evaluate import HeldOut
from groundup.train.trained import open_trained
from tests.train.runs import forget_the_end, metrics


@pytest.fixture(scope="module")
def apart(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A few documents in each sequence."""
    source = tmp_path_factory.mktemp("short") / "texts.jsonl"
    texts = (f"def f{i}(x): return {i * i} + self.x" for i in range(300))
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = replace(recipe.data, source=str(source), length=32, documents="apart")
    none = ResidualConfig("none")  # in the first update of any other, attention is multiplied by 0
    return replace(recipe, data=data, residual=none)


@pytest.fixture(scope="module")
def run(apart: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("apart") / "run"
    train(apart, out)
    return out


def each_alone(model: LanguageModel, rows: torch.Tensor, separator: int) -> float:
    """Mean loss of rows [n, length + 1], the documents of each read by themselves."""
    found, documents = [], 0
    for row in rows:
        starts = sorted({0, *(row[:-1] == separator).nonzero().flatten().tolist()})
        for a, b in zip(starts, [*starts[1:], len(row) - 1], strict=True):
            logits = model(row[None, a:b])[0].double()
            found.append(F.cross_entropy(logits, row[a + 1 : b + 1], reduction="none"))
        documents += len(starts)
    assert documents > 2 * len(rows)
    return torch.cat(found).mean().item()


def test_losses_are_those_of_each_document_alone(apart: Recipe, run: Path) -> None:
    prepared = prepare(apart.data)
    tokens = TokenFile.open(prepared.train)
    end, length = tokens.header.eos_id, apart.data.length
    model = Transformer(replace(apart.model, vocab_size=300))
    initialize(model, apart.train.seed)
    batch = Batches(tokens.tokens, length, apart.train.batch, apart.train.seed).batch(0)
    first, *_, last = metrics(run)
    with torch.no_grad():
        loss = each_alone(model, torch.from_numpy(batch), end)
        assert first["loss"] == pytest.approx(loss, rel=1e-6)

        held_out = HeldOut(TokenFile.open(prepared.validation).tokens, length, 8, 256)
        inputs, targets = held_out.first(8)
        rows = torch.cat([inputs, targets[:, -1:]], dim=1)
        trained = open_trained(run, device="cpu").model
        assert trained.separator == end
        trained.separator = None
        assert last["eval_loss"] == pytest.approx(each_alone(trained, rows, end), rel=1e-5)
        together = held_out.evaluate(trained, torch.device("cpu"), "float32").loss
        assert abs(together - last["eval_loss"]) > 1e-4


def test_it_goes_on_exactly(apart: Recipe, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    forget_the_end(tmp_path / "run")
    train(apart, tmp_path / "run")
    for name in ("metrics.jsonl", "measurements.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()


def test_together_is_another_run(apart: Recipe, run: Path, tmp_path: Path) -> None:
    together = replace(apart, data=replace(apart.data, documents="together"))
    with pytest.raises(ValueError, match="documents"):
        train(together, run)
    train(together, tmp_path / "run")
    assert metrics(tmp_path / "run")[-1]["loss"] != metrics(run)[-1]["loss"]


def test_an_export_says_it(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from groundup.export import save

    exported = save(open_trained(run, device="cpu"), tmp_path / "out")
    assert exported.difference < 1e-5 * exported.largest
    assert "its own document alone" in (tmp_path / "out" / "README.md").read_text()


def test_models_of_transformers_attend_as_they_do(apart: Recipe) -> None:
    config = replace(apart.model, hf="gpt2")
    with pytest.raises(
        ValueError, match=r"data\.documents='apart' .* model\.hf='gpt2'.*'together'"
    ):
        replace(apart, model=config)
    with pytest.raises(ValueError, match="'apar' is unknown.*'apart'"):
        replace(apart.data, documents="apar")
