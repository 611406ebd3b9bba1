"""LAMBADA, against LM Evaluation Harness's own task."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data import Tokenizer
from groundup.evaluate.lambada import LastWords, last_words, request, split
from groundup.evaluate.scoring import Scorer
from tests.evaluate.harness_lm import Plain, evaluated
from tests.evaluate.texts import PASSAGES


def predictable(scorer: Scorer, tokenizer: Tokenizer) -> str:
    """A passage that the model ends as it ends: a word of which every token is the likeliest."""
    for start in map(chr, range(ord("a"), ord("z") + 1)):
        for context in (f"the {start}", f"in {start} stone", f"{start} is"):
            ids = tokenizer.encode(context).tolist()
            with torch.no_grad():
                likeliest = int(scorer.model(torch.tensor([ids]))[0, -1].argmax())
            word = tokenizer.decode([likeliest])
            if word.startswith(" ") and word[1:].isalpha():
                return context + word
    raise AssertionError("the model predicts no word")


def test_equal_to_the_harness(tokenizer: Tokenizer, scorer: Scorer) -> None:
    passages = [*PASSAGES, predictable(scorer, tokenizer)]
    lm = Plain(scorer.model, tokenizer, scorer.length)
    theirs = evaluated("lambada_openai", "lambada", [{"text": text} for text in passages], lm)
    ours = last_words(scorer, passages, tokenizer, tokenizer.eos_id)
    assert 0 < ours.right < len(passages)
    assert ours.numbers()["acc"] == pytest.approx(theirs["acc"], abs=1e-12)
    assert ours.numbers()["perplexity"] == pytest.approx(theirs["perplexity"], rel=1e-9)


@settings(deadline=None)
@given(st.text(st.sampled_from("ab .,\né"), min_size=1, max_size=12))
def test_tokens_are_those_of_the_harness(tokenizer: Tokenizer, passage: str) -> None:
    lm = Plain(torch.nn.Identity(), tokenizer, 24)
    words = passage.split(" ")
    context, target = " ".join(words[:-1]), " " + words[-1]
    assert split(passage) == (context, target)
    ours = request(context, target, tokenizer, tokenizer.eos_id)
    tokens = list(ours.tokens)
    if context.rstrip() or not context:  # of one of nothing but spaces the harness has no answer
        before, wanted = (
            lm._encode_pair(context, target)
            if context
            else ([tokenizer.eos_id], lm.tok_encode(target))
        )
        assert (tokens, ours.scored) == ([*before, *wanted], len(wanted))
    assert tokenizer.decode(tokens).removeprefix(tokenizer.eos) == context + target


def test_what_begins_a_text_is_before_a_passage_of_one_word(tokenizer: Tokenizer) -> None:
    alone = request("", " word", tokenizer, tokenizer.eos_id)
    assert alone.tokens[0] == tokenizer.eos_id
    assert alone.scored == len(alone.tokens) - 1 == len(tokenizer.encode(" word"))


def test_a_target_that_melts_into_its_context_is_one_token() -> None:
    """Of tokenizers that merge over spaces: the harness has no answer there."""

    class Merging:
        def encode(self, text: str) -> torch.Tensor:
            return torch.arange({"a b c": 2, "a b": 2, "a": 1, "a b ": 1}[text])

    found = request("a b", " c", Merging(), 9)  # type: ignore[arg-type]
    assert (list(found.tokens), found.scored) == ([0, 1], 1)
    found = request("a", " b ", Merging(), 9)  # type: ignore[arg-type]
    assert (list(found.tokens), found.scored) == ([9, 0], 1)


def test_numbers() -> None:
    numbers = LastWords(nats=6.0, right=1, tokens=9, passages=4).numbers()
    assert numbers["acc"] == 0.25
    assert numbers["perplexity"] == pytest.approx(4.4816890703)  # e^1.5
    with pytest.raises(ValueError, match="there is no passage"):
        last_words(None, [], None, 0)  # type: ignore[arg-type]
