"""Log-likelihoods of tokens under a model, in batches: all that evaluations ask of one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.measure import probing
from groundup.train.setup import compute_precision
from groundup.train.world import ALONE, World

_LOGITS = 1 << 24  # of so many at once log-probabilities are taken, in float32: 64 MiB


@dataclass(frozen=True)
class Request:
    """The last `scored` of `tokens`, each given those before it.

    Attributes:
        tokens: ids, 1-dimensional.
        scored: 1 ≤ scored < len(tokens).
    """

    tokens: Sequence[int] | NDArray[np.integer]
    scored: int

    def __post_init__(self) -> None:
        if not 1 <= self.scored < len(self.tokens):
            raise ValueError(
                f"scored={self.scored} is not valid: of {len(self.tokens)} tokens, 1 to "
                f"{len(self.tokens) - 1} have one before them"
            )


@dataclass(frozen=True)
class Score:
    """What a model makes of a request.

    Attributes:
        logprob: Σ log p of the scored tokens, in nats.
        greedy: whether each of them is the most likely one.
    """

    logprob: float
    greedy: bool


@dataclass(frozen=True)
class Scorer:
    """Scores requests with a model.

    Attributes:
        model: tokens [B, T] int64 → logits [B, T, V]; causal, so that padding on the right changes
            nothing. In evaluation mode.
        device: where the model is.
        length: tokens that it reads at once; of a longer request the first are left out.
        batch: sequences per forward.
        precision: "float32" or "bf16", as in a recipe.
        world: the processes that share the work; each of them asks for the same.
        heard: called after each batch.
    """

    model: nn.Module
    device: torch.device
    length: int
    batch: int = 16
    precision: str = "float32"
    world: World = field(default=ALONE)
    heard: Callable[[], None] = field(default=lambda: None, repr=False)

    def score(
        self, requests: Sequence[Request], advance: Callable[[int], None] = lambda done: None
    ) -> list[Score]:
        """The scores of the requests, in their order. `advance` hears how many sequences are done.

        Requests that differ in their last token only are read once. Sums are in float64, of
        log-probabilities in float32 (float64 of a float64 model).

        Raises:
            ValueError: if more tokens are to be scored than the model reads at once.
        """
        inputs = [self._inputs(request) for request in requests]
        known: dict[bytes, list[int]] = defaultdict(list)  # inputs → the requests that have them
        for place, ids in enumerate(inputs):
            known[ids.tobytes()].append(place)
        # The longest first: what does not fit into memory shows at once.
        order = sorted(known.values(), key=lambda those: -len(inputs[those[0]]))
        batches = [order[at : at + self.batch] for at in range(0, len(order), self.batch)]
        found: dict[int, Score] = {}
        for first in range(0, len(batches), self.world.size):
            # As many forwards in all processes, since each may be one of all together: where no
            # batch is left, one that is done twice.
            rows = batches[min(first + self.world.rank, len(batches) - 1)]
            mine = self._batch(requests, [inputs[those[0]] for those in rows], rows)
            for part in self.world.gather(mine):
                found.update(part)
            self.heard()
            advance(min((first + self.world.size) * self.batch, len(order)))
        probing.reshard(self.model)
        return [found[place] for place in range(len(requests))]

    def _inputs(self, request: Request) -> NDArray[np.int64]:
        if request.scored > self.length:
            raise ValueError(
                f"{request.scored} tokens are to be scored at once: the model reads {self.length}"
            )
        return np.asarray(request.tokens, dtype=np.int64)[-self.length - 1 : -1]

    def _batch(
        self, requests: Sequence[Request], inputs: list[NDArray[np.int64]], rows: list[list[int]]
    ) -> dict[int, Score]:
        """The scores of a batch: of each row its inputs, and the requests that have them."""
        padded = np.zeros((len(rows), max(map(len, inputs))), dtype=np.int64)
        for row, ids in zip(padded, inputs, strict=True):
            row[: len(ids)] = ids
        with torch.no_grad(), compute_precision(self.precision, self.device):
            logits = self.model(torch.from_numpy(padded).to(self.device))
        asked = [(place, row) for row, those in enumerate(rows) for place in those]
        of_asked = [requests[place] for place, _ in asked]
        lengths = np.array([request.scored for request in of_asked])
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)  # 0, 1, … in each
        firsts = np.array([len(inputs[row]) for _, row in asked]) - lengths
        where = (
            np.repeat([row for _, row in asked], lengths),
            np.repeat(firsts, lengths) + within,
        )
        wanted = [np.asarray(request.tokens)[-request.scored :] for request in of_asked]
        logprobs, likeliest = _of_targets(logits, where, np.concatenate(wanted))
        cuts = ends[:-1]
        return {
            place: Score(float(sums.sum()), bool(hits.all()))
            for (place, _), sums, hits in zip(
                asked, np.split(logprobs, cuts), np.split(likeliest, cuts), strict=True
            )
        }


def _of_targets(
    logits: Tensor,
    where: tuple[NDArray[np.integer], NDArray[np.integer]],
    wanted: NDArray[np.integer],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """log p of the tokens `wanted` [n] at the places `where` (rows [n], columns [n]) of logits
    [B, T, V], and whether each is the most likely one there."""
    rows, columns, targets = (
        torch.from_numpy(each.astype(np.int64)).to(logits.device) for each in (*where, wanted)
    )
    step = max(1, _LOGITS // logits.shape[-1])
    logprobs, hits = [], []
    for low in range(0, len(wanted), step):
        here = slice(low, low + step)
        part = logits[rows[here], columns[here]]
        part = part.to(torch.promote_types(part.dtype, torch.float32))
        logprobs.append(-F.cross_entropy(part, targets[here], reduction="none").double())
        hits.append(part.argmax(1) == targets[here])
    return torch.cat(logprobs).cpu().numpy(), torch.cat(hits).cpu().numpy()
