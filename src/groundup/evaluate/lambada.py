"""LAMBADA (Paperno et al. 2016, arXiv:1606.06031): the last word of a passage, given the rest.

As LM Evaluation Harness's task `lambada_openai` computes it: the word with the space before it is
scored after the passage without it. The word is right if each of its tokens is the likeliest one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from groundup.data import Tokenizer
from groundup.evaluate.perplexity import exponential
from groundup.evaluate.scoring import Request, Scorer

__all__ = ["LastWords", "last_words", "request", "split"]


@dataclass(frozen=True)
class LastWords:
    """How well the last words of passages are predicted.

    Attributes:
        nats: Σ −log p of the words.
        right: words of which every token is the likeliest.
        tokens: in the words.
        passages: how many.
    """

    nats: float
    right: int
    tokens: int
    passages: int

    def numbers(self) -> dict[str, float | int | None]:
        """Accuracy, and perplexity: e^(nats per word)."""
        return {
            "acc": self.right / self.passages,
            "perplexity": exponential(self.nats, self.passages),
            "nats": self.nats,
            "tokens": self.tokens,
            "passages": self.passages,
        }


def last_words(
    scorer: Scorer,
    passages: Sequence[str],
    tokenizer: Tokenizer,
    beginning: int,
    advance: Callable[[int], None] = lambda done: None,
) -> LastWords:
    """Of all the passages together.

    Raises:
        ValueError: if there is no passage.
    """
    if not passages:
        raise ValueError("there is no passage")
    requests = [request(*split(passage), tokenizer, beginning) for passage in passages]
    scores = scorer.score(requests, advance)
    return LastWords(
        nats=-math.fsum(score.logprob for score in scores),
        right=sum(score.greedy for score in scores),
        tokens=sum(request.scored for request in requests),
        passages=len(passages),
    )


def split(passage: str) -> tuple[str, str]:
    """What stands before the last space, and the rest with that space."""
    before, _, word = passage.rpartition(" ")
    return before, " " + word


def request(context: str, target: str, tokenizer: Tokenizer, beginning: int) -> Request:
    """`target` after `context`, tokenized as the harness does: spaces at the context's end belong
    to the target, whose tokens are those of both together behind as many as the context alone has.
    Where no token is before it, the `beginning` is, unless it begins with that."""
    whole = tokenizer.encode(context + target).tolist()
    # Where the two melt into fewer tokens, the last one holds the target.
    scored = max(1, len(whole) - len(tokenizer.encode(context.rstrip())))
    if scored == len(whole):
        whole = whole if whole[0] == beginning and len(whole) > 1 else [beginning, *whole]
        scored = len(whole) - 1
    return Request(whole, scored)
