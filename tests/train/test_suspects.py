"""Which documents of a batch a spike is laid to: the numbers, their order, the words."""

from __future__ import annotations

import copy
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from groundup.data import Documents
from groundup.measure import Verdict
from groundup.train import (
    Recipe,
    SpikesConfig,
    train,
)
from groundup.train.spikes import words as spike_words
from groundup.train.spikes.rewinds import Rewinds
from groundup.train.spikes.suspects import Suspects
from tests.data.test_documents import Letters, file_of
from tests.train.poisoned import acting
from tests.train.runs import changed, lines, metrics


@pytest.mark.parametrize("action", ["skip", "warn"])
def test_suspects_are_looked_at_with_the_model_of_that_moment(
    poisoned: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Before the update where it is skipped, else right after it."""
    recipe = changed(acting(poisoned, action), micro_batch=4, steps=45)
    original = Suspects.of
    told: dict[str, list[float]] = {}

    def looking(self: Suspects, series: str, batch: int) -> tuple[str, list[float]]:
        assert batch == 41
        held = [None if p.grad is None else p.grad.clone() for p in self._model.parameters()]
        losses, norms = own(self, batch)
        by, told[series] = original(self, series, batch)
        assert by == series
        expected = losses if series == "loss" else norms
        assert told[series] == pytest.approx(expected, rel=1e-4)
        told["loss"] = losses
        for p, before in zip(self._model.parameters(), held, strict=True):
            assert before is p.grad is None or torch.equal(before, p.grad)  # type: ignore[arg-type]
        return by, told[series]

    def own(self: Suspects, batch: int) -> tuple[list[float], list[float]]:
        twin = copy.deepcopy(self._model)
        rows = torch.cat([torch.cat((i, t[:, -1:]), 1) for i, t in self._rows(batch)])
        losses, norms = [], []
        for row in rows:
            twin.zero_grad()
            chances = twin(row[None, :-1]).softmax(-1)
            loss = -chances.gather(2, row[None, 1:, None]).log().mean()
            loss.backward()
            losses.append(loss.item())
            squares = [float(p.grad.double().square().sum()) for p in twin.parameters()]  # type: ignore[union-attr]
            norms.append(math.sqrt(sum(squares)))
        return losses, norms

    monkeypatch.setattr(Suspects, "of", looking)
    train(recipe, tmp_path)
    mean, loss = statistics.fmean(told["loss"]), metrics(tmp_path)[41]["loss"]
    if action == "skip":
        assert mean == pytest.approx(loss, rel=1e-5)
    else:
        assert abs(mean - loss) > 1e-3
    for event in lines(tmp_path, "events"):
        values = {d["number"]: d[event["of"]] for d in event["documents"]}
        assert max(values.values()) == round(max(told[event["of"]]), 4)


def test_looking_at_a_batch_changes_no_bit_of_a_compiled_run(
    poisoned: Recipe, tmp_path: Path
) -> None:
    recipe = changed(poisoned, steps=45, compile=True, precision="bf16")
    for name, spikes in (("with", poisoned.spikes), ("without", SpikesConfig(of=()))):
        torch._dynamo.reset()
        train(replace(recipe, spikes=spikes), tmp_path / name)
    torch._dynamo.reset()
    files = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("with", "without")]
    assert files[0] == files[1]
    assert 41 in {event["step"] for event in lines(tmp_path / "with", "events")}


def test_a_note_shows_no_control_characters() -> None:
    event = {
        "of": "loss",
        "by": "loss",
        "batch": 3,
        "samples": [24, 31],
        "documents": [
            {"number": 5, "starts": "a\x1b[31m\n b" + "c" * 90, "loss": 8.3131},
            {"number": None, "starts": "", "loss": 2.3},
        ],
        "document_count": 2,
    }
    said = spike_words.data(event)
    assert said.startswith("batch 3 (samples 24 to 31) of documents 5 “a·[31m b")
    assert "\x1b" not in said
    assert said.endswith("ccc…” (8.31 nats), “” (2.30)")
    assert len(said.split("“")[1].split("”")[0]) == 32


def test_what_is_not_finite_comes_first(tmp_path: Path) -> None:
    order = np.array([3, 1, 0, 2])
    batches = SimpleNamespace(order=lambda batch: order, length=2, size=4)
    documents = Documents(file_of([1, 0, 2, 0, 3, 0, 4, 0, 5]), Letters())
    suspects = SimpleNamespace(of=lambda series, batch: (series, [2.0, math.inf, 3.0, math.nan]))
    scene = spike_words.Scene(batches, documents, Rewinds(tmp_path), suspects)
    (event,) = scene.events(6, {"loss": Verdict(9.0, 3.0, 0.1)}, "warn")
    # Windows 1, 2, 0 and 3 in that order; each holds a document and the token that begins the next.
    found = [(document["number"], document["loss"]) for document in event["documents"]]
    assert found == [(1, None), (2, None), (3, None), (0, 3.0), (4, 2.0)]
    assert json.dumps(event, allow_nan=False)
    assert spike_words.data(event) == (
        "batch 6 (samples 24 to 27) of documents 1 “b” (not finite), 2 “c” (not finite), "
        "3 “d” (not finite) and 2 more"
    )
