"""A model as lm-eval asks for one. Imports lm-eval, which takes seconds: import it where needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from lm_eval.api.model import TemplateLM
from numpy.typing import NDArray

from groundup.data import Tokenizer
from groundup.evaluate.perplexity import windows
from groundup.evaluate.scoring import Request, Score


class Scores(Protocol):
    """What is needed of a `Scorer`."""

    @property
    def length(self) -> int: ...

    def score(
        self, requests: Sequence[Request], advance: Callable[[int], None] = ...
    ) -> list[Score]: ...


Ids = NDArray[np.uint32]


@dataclass
class Encodings:
    """Ids of texts that are asked for again: at every evaluation of a training.

    Attributes:
        tokenizer: whose ids they are.
        beginning: the id before the first token of a text.
        pairs: by context and continuation.
        texts: of whole texts.
    """

    tokenizer: Tokenizer
    beginning: int
    pairs: dict[tuple[str, str], tuple[Ids, Ids]] = field(default_factory=dict)
    texts: dict[str, Ids] = field(default_factory=dict)


class HarnessModel(TemplateLM):
    """Answers lm-eval's questions with a `Scorer`.

    As lm-eval's own `HFLM` does: a context and its continuation are encoded together and cut where
    the context's own ids end, in the place of an empty context stands what texts begin with, and
    what does not fit is cut off on the left. A continuation longer than the model reads, which HFLM
    refuses, is scored in pieces like a text. Special tokens are never added, and what spells one is
    text. The processes of `Scorer.world` all ask for everything: lm-eval sees one.
    """

    def __init__(
        self,
        scorer: Scores,
        encodings: Encodings,
        advance: Callable[[int], None] = lambda done: None,
    ) -> None:
        super().__init__()
        self._scorer, self._encodings, self._advance = scorer, encodings, advance
        # The answers to a question have one context.
        self._encoded = lru_cache(maxsize=4)(encodings.tokenizer.encode)

    @property
    def eot_token_id(self) -> int:
        """What stands before the first token of a document: EOS, as in training."""
        return self._encodings.beginning

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """The ids of a text; special tokens are never added."""
        return self._encoded(string).tolist()

    def _encode_pair(self, context: str, continuation: str) -> tuple[Ids, Ids]:
        known, pair = self._encodings.pairs, (context, continuation)
        if pair not in known:
            before, after = super()._encode_pair(context, continuation)
            known[pair] = np.array(before, dtype=np.uint32), np.array(after, dtype=np.uint32)
        return known[pair]

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """(log p in nats, whether greedy) of each request's continuation given its context."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return found

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], Ids, Ids]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        for (context, continuation), _, ids in requests:
            if not len(ids):
                raise ValueError(
                    f"the answer {continuation!r} to {context[-80:]!r} is no token of its own"
                )
        asked = [self._pieces(context, ids) for _, context, ids in requests]
        return [
            (sum(score.logprob for score in scores), all(score.greedy for score in scores))
            for scores in self._score(asked)
        ]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """log p in nats of each request's text, the first token given what texts begin with.

        A long text is cut as lm-eval cuts it: into pieces as long as the model reads, the first
        token of each given the one before it, and the rest given as many before it as fit.
        """
        known = self._encodings.texts
        for request in requests:
            if (text := request.args[0]) not in known:
                known[text] = self._encodings.tokenizer.encode(text)
        asked = [self._windows(self.prefix_token_id, known[one.args[0]]) for one in requests]
        return [sum(score.logprob for score in scores) for scores in self._score(asked)]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """Not there: tasks that need it are refused before."""
        raise NotImplementedError("only tasks that score given text can be evaluated")

    def _pieces(self, context: Ids, ids: Ids) -> list[Request]:
        if len(ids) > self._scorer.length:
            return self._windows(int(context[-1]), ids)
        return [Request(np.concatenate([context, ids]), len(ids))]

    def _windows(self, before: int, ids: Ids) -> list[Request]:
        return list(windows(np.asarray(ids), before, self._scorer.length))

    def _score(self, asked: Sequence[list[Request]]) -> list[list[Score]]:
        """The scores of all pieces, grouped as they were asked for."""
        found = iter(self._scorer.score([piece for one in asked for piece in one], self._advance))
        return [[next(found) for _ in one] for one in asked]
