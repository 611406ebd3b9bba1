"""What a training run reads, opened: batches, held-out text, and the documents behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from groundup.data.batches import Batches, BatchStream
from groundup.data.config import DataConfig
from groundup.data.documents import Document, Documents
from groundup.data.mixture.batches import MixedBatches
from groundup.data.mixture.documents import MixedDocuments
from groundup.data.mixture.preparation import Corpora
from groundup.data.mixture.weights import WHOLE
from groundup.data.tokenizer import load
from groundup.data.tokens import TokenFile

__all__ = ["DocumentNames", "HeldOutText", "Opened", "open_data"]

_EPOCHS = 4.0  # beyond which repeating text is warned about


class DocumentNames(Protocol):
    """Names the documents of one token stream, or of several."""

    def of_windows(
        self, windows: Iterable[int], length: int, limit: int
    ) -> tuple[list[tuple[Document, int]], int]:
        """The documents of these windows, as `order` of the batches numbers them."""


@dataclass(frozen=True)
class HeldOutText:
    """Held-out tokens of a corpus.

    Attributes:
        name: of the part of a mixture; "" where there is one corpus.
        tokens: 1-dimensional array of token ids.
        weight: of its loss in the loss of all: the share of the part in the last update of the
            run. They add up to 1.
    """

    name: str
    tokens: NDArray[np.integer]
    weight: float


@dataclass(frozen=True)
class Opened:
    """What a run reads.

    Attributes:
        batches: by update.
        documents: names those of a batch.
        held_out: that of each corpus, in order.
        identity: a name for everything that decides on the batches' content and is not in seed,
            batch size and length: the text, the tokenizer and, of a mixture, its course.
        tokenizer: the tokenizer.json.
        separator: its end-of-document token, which stands between documents.
        notes: what there is to say before the run, of a mixture: how often it reads each part.
    """

    batches: BatchStream
    documents: DocumentNames
    held_out: tuple[HeldOutText, ...]
    identity: str
    tokenizer: Path
    separator: int
    notes: tuple[str, ...] = ()


def open_data(
    config: DataConfig,
    prepared: Corpora,
    batch: int,
    seed: int,
    steps: int,
    warmup_end: float | None = None,
) -> Opened:
    """Open what `prepare_all(config)` has prepared.

    Args:
        config: with a mixture or without.
        prepared: its token files.
        batch: sequences of an update.
        seed: decides the order.
        steps: length of the run in updates.
        warmup_end: updates until its residual warmup is complete: the "warmup" in a mixture's
            points.

    Errors: `ValueError` naming the field; `TokenFileError` if a file is damaged.
    """
    files = [TokenFile.open(part.train) for part in prepared.parts]
    held_out = [TokenFile.open(part.validation).tokens for part in prepared.parts]
    tokenizer = load(prepared.tokenizer)
    documents = [Documents(file, tokenizer) for file in files]
    if not config.mixture:
        return Opened(
            batches=Batches(files[0].tokens, config.length, batch, seed),
            documents=documents[0],
            held_out=(HeldOutText("", held_out[0], 1.0),),
            identity=prepared.identity,
            tokenizer=prepared.tokenizer,
            separator=tokenizer.eos_id,
        )
    course = config.shares(steps, batch, warmup_end)
    names = [part.name for part in config.mixture]
    tokens = [file.tokens for file in files]
    batches = MixedBatches(names, tokens, course, config.length, batch, seed)
    last = course[-1] / WHOLE
    # Not in the recipe: what its fractions are of, should the run be made longer.
    digest = hashlib.sha256(course.astype("<i8").tobytes()).hexdigest()
    return Opened(
        batches=batches,
        documents=MixedDocuments(names, documents, batches.windows),
        held_out=tuple(map(HeldOutText, names, held_out, last.tolist())),
        identity=f"{prepared.identity}-{digest[:12]}",
        tokenizer=prepared.tokenizer,
        separator=tokenizer.eos_id,
        notes=tuple(_notes(batches, names, steps)),
    )


def _notes(batches: MixedBatches, names: list[str], steps: int) -> Iterable[str]:
    used = batches.counts.before(steps)
    epochs = batches.epochs(steps)
    said = [
        f"{name} {part / sum(used):.1%} ({times:.3g} epochs)"
        for name, part, times in zip(names, used, epochs, strict=True)
    ]
    yield f"of the sequences of this run: {', '.join(said)}"
    for name, times in zip(names, epochs, strict=True):
        if times > _EPOCHS:
            yield (
                f"{name} will be read {times:.3g} times: beyond about {_EPOCHS:g} times more of "
                "the same text is worth less and less (Muennighoff et al. 2023, arXiv:2305.16264)"
            )
