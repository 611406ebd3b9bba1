"""The primitive of every evaluation, against one token at a time in float64."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.evaluate.scoring import Request, Scorer
from groundup.train.world import World
from tests.evaluate.conftest import VOCABULARY

LENGTH = 24


def one_by_one(model: torch.nn.Module, request: Request, length: int) -> tuple[float, bool]:
    """Each scored token by a forward of its own, of nothing but what is before it."""
    ids = list(map(int, request.tokens))[-length - 1 :]
    total, greedy = 0.0, True
    for place in range(len(ids) - request.scored, len(ids)):
        with torch.no_grad():
            last = model(torch.tensor([ids[:place]]))[0, -1]
        total += (last[ids[place]].exp() / last.exp().sum()).log().item()
        greedy &= last[ids[place]].item() == last.max().item()
    return total, greedy


def drawn(seed: int, number: int, longest: int = 40) -> list[Request]:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(2, longest + 1, number)
    return [
        Request(draw.integers(0, VOCABULARY, n), int(draw.integers(1, min(n, LENGTH + 1))))
        for n in lengths
    ]


def continued(model: torch.nn.Module, tokens: list[int], more: int) -> list[int]:
    """With the likeliest tokens after them."""
    for _ in range(more):
        with torch.no_grad():
            tokens = [*tokens, int(model(torch.tensor([tokens]))[0, -1].argmax())]
    return tokens


def test_as_one_token_at_a_time(scorer: Scorer) -> None:
    greedy = Request(continued(scorer.model, [5, 7], 4), 4)
    nearly = Request([*greedy.tokens[:-1], (greedy.tokens[-1] + 1) % VOCABULARY], 4)
    requests = [greedy, nearly, *drawn(0, 10)]
    found = scorer.score(requests)
    assert found[0].greedy
    assert not found[1].greedy
    for request, score in zip(requests, found, strict=True):
        logprob, likeliest = one_by_one(scorer.model, request, LENGTH)
        assert score.logprob == pytest.approx(logprob, abs=1e-10)
        assert score.greedy == likeliest


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), batch=st.integers(1, 9), number=st.integers(1, 12))
def test_batches_and_padding_change_nothing(
    scorer: Scorer, seed: int, batch: int, number: int
) -> None:
    requests = drawn(seed, number)
    alone = [scorer.score([request])[0] for request in requests]
    together = replace(scorer, batch=batch).score(requests)
    assert [score.greedy for score in together] == [score.greedy for score in alone]
    np.testing.assert_allclose(
        [score.logprob for score in together], [score.logprob for score in alone], atol=1e-10
    )


def test_of_a_longer_request_the_first_tokens_are_left_out(scorer: Scorer) -> None:
    (long,) = (Request(range(60), 10),)
    assert scorer.score([long]) == scorer.score([Request(range(60 - LENGTH - 1, 60), 10)])
    assert scorer.score([long]) != scorer.score([Request(range(60 - LENGTH, 60), 10)])


@pytest.mark.parametrize(("tokens", "scored"), [([1], 1), ([1, 2], 0), ([1, 2], 2), ([], 0)])
def test_a_request_has_a_token_before_those_that_are_scored(tokens: list[int], scored: int) -> None:
    with pytest.raises(ValueError, match=f"scored={scored} is not valid"):
        Request(tokens, scored)


def test_more_than_the_model_reads_is_refused(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="25 tokens are to be scored at once: the model reads 24"):
        scorer.score([Request(range(26), 25)])
    assert scorer.score([Request(range(25), 24)])
    assert scorer.score([]) == []


def test_what_differs_in_the_last_token_only_is_read_once(scorer: Scorer) -> None:
    rows: list[int] = []
    hook = scorer.model.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        found = scorer.score([Request([1, 2, 3, last], 1) for last in range(VOCABULARY)])
    finally:
        hook.remove()
    assert rows == [1]
    assert np.exp([score.logprob for score in found]).sum() == pytest.approx(1.0)
    assert sum(score.greedy for score in found) == 1


def test_advance_hears_of_all_sequences(scorer: Scorer) -> None:
    heard: list[int] = []
    scorer.score(drawn(3, 10), heard.append)
    assert heard == [4, 8, 10]


def test_a_float32_model_is_summed_in_float64(model: torch.nn.Module) -> None:
    """A vocabulary of equals: −ln V each, in which float32 sums would lose digits."""

    class Equal(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*tokens.shape, 7)

    scorer = Scorer(Equal(), torch.device("cpu"), length=1 << 17)
    (score,) = scorer.score([Request(np.zeros(100_001, dtype=np.int64), 100_000)])
    each = float(torch.zeros(1, 7).log_softmax(1)[0, 0])
    assert score.logprob == pytest.approx(100_000 * each, rel=1e-12)


@dataclass(frozen=True)
class Threads(World):
    """Processes that are threads."""

    shared: Any = None

    def gather(self, value: Any) -> list[Any]:
        slots, barrier = self.shared
        slots[self.rank] = value
        barrier.wait(timeout=20)
        found = list(slots)
        barrier.wait(timeout=20)
        return found


@pytest.mark.parametrize("number", [1, 8, 17])
def test_processes_share_the_work(scorer: Scorer, number: int) -> None:
    requests = drawn(1, number)
    shared = ([None, None], threading.Barrier(2))
    counted = threading.local()
    found: dict[int, Any] = {}
    forwards: dict[int, int] = {}

    def work(rank: int) -> None:
        counted.forwards = 0
        here = replace(scorer, world=Threads(rank=rank, size=2, shared=shared))
        found[rank] = here.score(requests)
        forwards[rank] = counted.forwards

    def count(*_: Any) -> None:
        counted.forwards += 1

    hook = scorer.model.register_forward_pre_hook(count)
    try:
        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    finally:
        hook.remove()
    assert found[0] == found[1] == scorer.score(requests)
    batches = -(-number // scorer.batch)
    assert forwards[0] == forwards[1] == -(-batches // 2)  # none waits for one that does not come
