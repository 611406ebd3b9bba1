"""Perplexity, against one token at a time and against LM Evaluation Harness's windows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.utils import get_rolling_token_windows

from groundup.data import Tokenizer
from groundup.evaluate.perplexity import Encoded, Perplexity, encoded, perplexity, windows
from groundup.evaluate.scoring import Scorer

BEGINNING = 299

lengths = st.integers(1, 12)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int, int | None]:
    """Tokens, inputs at once, and a stride."""
    length = draw(lengths)
    return draw(st.integers(0, 60)), length, draw(st.none() | st.integers(1, length))


def contexts(tokens: int, length: int, stride: int | None) -> Iterator[int]:
    """How many inputs are before each token, the beginning included; told one token at a time."""
    step = stride or length
    for place in range(tokens):
        if place < length:
            # In the first window.
            yield place + 1
            continue
        window = (place - length) // step  # of those after the first
        stop = min(length + (window + 1) * step, tokens)
        yield length - (stop - 1 - place)


@settings(deadline=None)
@given(cuts())
def test_each_token_is_scored_once(cut: tuple[int, int, int | None]) -> None:
    number, length, stride = cut
    ids = np.arange(number)
    found = [request.tokens[-request.scored :] for request in windows(ids, 999, length, stride)]
    assert np.concatenate([[], *found]).tolist() == ids.tolist()


@settings(deadline=None)
@given(cuts())
def test_what_is_before_a_token(cut: tuple[int, int, int | None]) -> None:
    number, length, stride = cut
    expected = list(contexts(number, length, stride))
    found: list[int] = []
    for request in windows(np.arange(number), 999, length, stride):
        ids = list(request.tokens)
        assert len(ids) - 1 <= length
        places = [-1 if i == 999 else i for i in ids]
        assert places == list(range(places[0], places[0] + len(ids)))  # of the text as it stands
        found += [len(ids) - request.scored + at for at in range(request.scored)]
    assert found == expected
    least = length - (stride or length) + 1
    assert all(count >= min(least, place + 1) for place, count in enumerate(found))


@settings(deadline=None)
@given(cuts())
def test_the_windows_are_those_of_the_harness(cut: tuple[int, int, int | None]) -> None:
    number, length, stride = cut
    ids = list(range(number))
    theirs = get_rolling_token_windows(ids, 999, length, length - (stride or length) + 1)
    ours = [
        (list(request.tokens[:-1]), list(request.tokens[-request.scored :]))
        for request in windows(np.array(ids, dtype=np.int64), 999, length, stride)
    ]
    assert ours == list(theirs)


@settings(max_examples=6, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any),
    length=st.integers(1, 10),
    share=st.sampled_from([None, 0.3, 1.0]),
)
def test_as_one_token_at_a_time(
    scorer: Scorer, sizes: list[int], length: int, share: float | None
) -> None:
    draw = np.random.default_rng(sum(sizes))
    documents = [Encoded(draw.integers(0, BEGINNING, size), 2, 3) for size in sizes]
    stride = None if share is None else max(1, int(share * length))
    nats = 0.0
    for document in documents:
        ids = [BEGINNING, *document.tokens.tolist()]
        for place, count in enumerate(contexts(len(document.tokens), length, stride)):
            before = ids[place + 1 - count : place + 1]
            with torch.no_grad():
                logits = scorer.model(torch.tensor([before]))[0, -1]
            nats -= logits.log_softmax(0)[ids[place + 1]].item()
    found = perplexity(replace(scorer, length=length), documents, BEGINNING, stride)
    assert found == Perplexity(
        nats=pytest.approx(nats, rel=1e-9),
        tokens=sum(sizes),
        words=2 * len(sizes),
        bytes=3 * len(sizes),
        documents=len(sizes),
    )


def test_numbers_are_sums_over_sums() -> None:
    numbers = Perplexity(nats=12.0, tokens=8, words=4, bytes=24, documents=2).numbers()
    assert numbers["perplexity"] == pytest.approx(math.exp(1.5))
    assert numbers["word_perplexity"] == pytest.approx(math.exp(3.0))
    assert numbers["byte_perplexity"] == pytest.approx(math.exp(0.5))
    assert numbers["bits_per_byte"] == pytest.approx(0.5 * math.log2(math.e))
    assert numbers["byte_perplexity"] == pytest.approx(2 ** numbers["bits_per_byte"])


def test_what_no_float_holds_is_none() -> None:
    numbers = Perplexity(nats=1e6, tokens=10, words=0, bytes=10**9, documents=1).numbers()
    assert numbers["perplexity"] is None
    assert numbers["word_perplexity"] is None
    assert numbers["byte_perplexity"] == pytest.approx(math.exp(1e-3))


@pytest.mark.parametrize("bytes_each", [1, 2])
def test_bits_per_byte_do_not_depend_on_the_tokens(bytes_each: int) -> None:
    """Of a model that takes every byte for equally likely, whatever its tokens: 8."""

    class Equal(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*tokens.shape, 256**bytes_each)

    text = b"any text of an even number of bytes."
    ids = np.frombuffer(text, dtype=f"<u{bytes_each}")
    scorer = Scorer(Equal(), torch.device("cpu"), length=5)
    found = perplexity(scorer, [Encoded(ids, 7, len(text))], beginning=0).numbers()
    assert found["bits_per_byte"] == pytest.approx(8.0)
    assert found["byte_perplexity"] == pytest.approx(256.0)
    assert found["perplexity"] == pytest.approx(256.0**bytes_each)


def test_documents_are_read_a_few_at_a_time(scorer: Scorer) -> None:
    """Of a source that does not fit into memory."""
    alive = {"now": 0, "most": 0}

    class Counted(Encoded):
        def __init__(self) -> None:
            super().__init__(np.zeros(4, dtype=np.int64), 1, 1)
            alive["now"] += 1
            alive["most"] = max(alive.values())

        def __del__(self) -> None:
            alive["now"] -= 1

    heard: list[int] = []
    one = replace(scorer, batch=1, length=4)
    found = perplexity(one, (Counted() for _ in range(200)), 0, None, heard.append)
    assert found.documents == 200
    assert heard == [256, 512, 768, 800]
    assert alive["most"] < 100


def test_words_and_bytes_are_of_the_text(tokenizer: Tokenizer) -> None:
    texts = [" two  words\n", "", "naïve"]
    found = list(encoded(texts, tokenizer))
    assert [(one.words, one.bytes) for one in found] == [(2, 12), (0, 0), (1, 6)]
    assert [tokenizer.decode(one.tokens) for one in found] == texts
    assert not any(tokenizer.eos_id in one.tokens for one in found)


def test_refused(scorer: Scorer) -> None:
    document = Encoded(np.arange(4), 1, 1)
    for stride in (0, 25, -1):
        with pytest.raises(ValueError, match=rf"stride={stride} is not valid.*1 to length=24"):
            perplexity(scorer, [document], 0, stride)
    for nothing in ([], [Encoded(np.arange(0), 0, 0)]):
        with pytest.raises(ValueError, match="the text has no tokens"):
            perplexity(scorer, nothing, 0)
