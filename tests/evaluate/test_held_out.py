"""The loss of held-out text, against what training computes."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.data import HeldOutText
from groundup.evaluate.held_out import held_out_loss
from groundup.evaluate.scoring import Scorer
from groundup.train.evaluate import HeldOutTexts
from tests.evaluate.conftest import VOCABULARY


@pytest.mark.parametrize("first", [0, 20, 1000])
def test_a_mixture_is_weighted_as_in_training(scorer: Scorer, first: int) -> None:
    draw = np.random.default_rng(0)
    texts = tuple(
        HeldOutText(name, draw.integers(0, VOCABULARY, size), weight)
        for name, size, weight in [("a", 43, 0.25), ("b", 90, 0.75)]
    )
    heard: list[int] = []
    found = held_out_loss(scorer, texts, 8, first, heard.append)
    for limit, loss in [(0, found.loss), (first, found.beginning)]:
        theirs = HeldOutTexts(texts, 8, 3, limit)
        losses = theirs.evaluate(scorer.model, scorer.device, "float32").losses()
        assert loss == pytest.approx(losses["eval_loss"], rel=1e-9)
    assert (found.windows, found.tokens) == (5 + 11, 128)
    assert heard == [40, 128]
