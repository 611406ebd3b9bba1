"""The text of a configuration: its source and held-out text, measured and cut into shards."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from groundup.data.claims import Claims, Gone
from groundup.data.config import DataConfig
from groundup.data.corpus.cutting import Shard, shards
from groundup.data.corpus.files import Listing
from groundup.data.corpus.measuring import Measures, Remembered, measure, remembered, unread
from groundup.data.corpus.places import root_of
from groundup.data.corpus.reading import documents
from groundup.data.corpus.sources import find
from groundup.data.errors import DataError
from groundup.data.progress import Progress
from groundup.data.split import ALL, split_value

__all__ = ["SAMPLE", "Text", "listings", "measured", "sample"]

SAMPLE = 20_000_000  # characters that a tokenizer is trained on, at most
_KNOWN = ".fingerprints.json"
_MUCH = 1 << 30  # bytes to read
_PLACES = 32  # of a larger source, from which they are taken


@dataclass(frozen=True)
class Text:
    """A source with its measures, and the split value below which its documents are held out."""

    listing: Listing
    measures: Measures
    shards: list[Shard]
    threshold: int


def listings(config: DataConfig) -> list[Listing]:
    """The source, and the held-out text if that is named."""
    source = find(config.source)
    if config.validation is None:
        return [source]
    validation = find(config.validation, "validation")
    source = source.without(validation)
    if not source.files:
        raise DataError(
            f"source={config.source!r} has no file that is not in "
            f"validation={config.validation!r} too: the held-out text must be another"
        )
    return [source, validation]


def measured(
    config: DataConfig, found: list[Listing], folder: Path, tell: Progress, workers: int
) -> list[Text]:
    """What `listings` has found, read once; `folder` is where that is remembered.

    A large source is read by one at a time of those that prepare in this folder.
    """
    names = [config.source, config.validation]
    thresholds = [int(config.validation_fraction * ALL)] if len(found) == 1 else [0, ALL]
    total = sum(listing.size for listing in found)
    before = 0
    texts = []
    with _alone(folder, found, tell), remembered(folder / _KNOWN) as known:
        for name, listing, threshold in zip(names, found, thresholds, strict=False):

            def advance(done: int, before: int = before) -> None:
                tell("read", before + done, total)
                known.save()

            measures = measure(listing, known, advance, workers)
            if measures.length == 0:
                raise DataError(f"{name}: the source is empty: it has no text")
            cut = shards(listing, measures, config.text_field)
            texts.append(Text(listing, measures, cut, threshold))
            before += listing.size
    return texts


@contextmanager
def _alone(folder: Path, found: list[Listing], tell: Progress) -> Iterator[None]:
    """Nobody else reads these files meanwhile, if there is much to read."""

    def small() -> bool:
        known = Remembered(folder / _KNOWN)
        return sum(unread(listing, known) for listing in found) < _MUCH

    names = json.dumps([root_of(listing.root) for listing in found])
    claimed = folder / f".reading-{hashlib.sha256(names.encode()).hexdigest()[:12]}"
    while not small():
        try:
            with Claims(claimed) as claims:
                if claims.once("read", small, lambda: tell("wait", 0, 1)):
                    yield
                    claims.remove()
                    return
        except Gone:
            continue
    yield


def sample(text: Text, tell: Progress) -> Iterator[str]:
    """Training documents: all, or equal parts from `_PLACES` places evenly spread over the source.

    Held-out documents are never among them.
    """
    skipped: Counter[str] = Counter()
    chosen, quota = text.shards, SAMPLE
    if text.measures.length > SAMPLE:
        places = min(_PLACES, len(chosen))
        chosen = [chosen[place * len(chosen) // places] for place in range(places)]
        quota = SAMPLE // places
    for done, shard in enumerate(chosen, start=1):
        left = quota
        for document in documents(shard, skipped):
            if split_value(document) >= text.threshold:
                yield document[:left]
            left -= len(document)
            if left <= 0:
                break
        tell("tokenizer", done, len(chosen))
