"""Token files of everything that a run reads: of one corpus, or of each part of a mixture.

The parts of a mixture share a tokenizer: the one that is given, or one that is trained on a sample
of all of them, in proportion to the highest weight of each (that of a factor counts as 1; a part
smaller than what falls to it gives all it has). It does not depend on the length of the run, so
that runs of any length share their token files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from groundup._atomic import remove_leftovers
from groundup.data import tokenizer as tokenizers
from groundup.data.claims import Claims, Gone
from groundup.data.config import DataConfig
from groundup.data.corpus.files import Listing
from groundup.data.errors import DataError
from groundup.data.lock import LOCK_NAME
from groundup.data.mixture.part import MixturePart, corpus_fields
from groundup.data.mixture.weights import peak
from groundup.data.preparation import Share, cores, folder_of, prepare, prepare_share
from groundup.data.prepared import Prepared
from groundup.data.progress import Progress, silent
from groundup.data.texts import SAMPLE, Text, listings, measured, sample

__all__ = ["Corpora", "prepare_all", "prepare_all_shares"]

_CLAIMS = ".claims"


@dataclass(frozen=True)
class Corpora:
    """What a run reads: the token files of its corpus, or of each part of its mixture in order."""

    parts: tuple[Prepared, ...]

    @property
    def tokenizer(self) -> Path:
        """The tokenizer.json of all of them."""
        return self.parts[0].tokenizer

    @property
    def identity(self) -> str:
        """A name for all the text and the tokenizer: of one corpus, that of its folder."""
        names = [part.folder.name for part in self.parts]
        if len(names) == 1:
            return names[0]
        return f"mixture-{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:12]}"


def prepare_all(
    config: DataConfig, *, progress: Progress | None = None, workers: int | None = None
) -> Corpora:
    """Make (or find) the token files of `config`: `prepare` for each of its corpora.

    Errors: as of `prepare`; `DataError` if held-out text of one part is in another part's source.
    """
    configs = _resolved(config, progress, workers)
    return Corpora(tuple(prepare(one, progress=progress, workers=workers) for one in configs))


def prepare_all_shares(
    config: DataConfig,
    share: Share,
    *,
    progress: Progress | None = None,
    workers: int | None = None,
) -> tuple[int, int]:
    """`prepare_share` for each of the corpora: the parts that are there, and those to be."""
    counts = [
        prepare_share(one, share, progress=progress, workers=workers)
        for one in _resolved(config, progress, workers)
    ]
    return sum(done for done, _ in counts), sum(total for _, total in counts)


def _resolved(
    config: DataConfig, progress: Progress | None, workers: int | None
) -> tuple[DataConfig, ...]:
    """A configuration for each corpus, with the tokenizer that all of them share."""
    configs = config.corpora()
    if not config.mixture:
        return configs
    found = [_listed(part, one) for part, one in zip(config.mixture, configs, strict=True)]
    _refuse_leaks(config.mixture, found)
    if config.tokenizer != "train":
        return configs
    tell = silent if progress is None else progress
    path = _tokenizer(config, found, tell, cores() if workers is None else workers)
    return tuple(
        replace(one, tokenizer=str(path), vocab_size=DataConfig.vocab_size) for one in configs
    )


def _listed(part: MixturePart, config: DataConfig) -> list[Listing]:
    try:
        return listings(config)
    except DataError as error:
        raise DataError(f"mixture, {part.name!r}: {error}") from None


def _refuse_leaks(parts: Sequence[MixturePart], found: Sequence[list[Listing]]) -> None:
    for part, (_, *held_out) in zip(parts, found, strict=True):
        for other, (source, *_) in zip(parts, found, strict=True):
            for text in held_out if other is not part else ():
                if len(source.without(text).files) < len(source.files):
                    raise DataError(
                        f"validation={part.validation!r} of {part.name!r} is not valid: "
                        f"source={other.source!r} of {other.name!r} has files of it, so that it "
                        "would be trained on"
                    )


def _tokenizer(
    config: DataConfig, found: Sequence[list[Listing]], tell: Progress, workers: int
) -> Path:
    """The tokenizer.json trained on all parts, in a folder named after what it depends on."""
    folder = folder_of(config)
    texts = [
        measured(one, listing, folder, tell, workers)[0]
        for one, listing in zip(config.corpora(), found, strict=True)
    ]
    peaks = [peak(part.weight) for part in config.mixture]
    shares = [one / sum(peaks) for one in peaks]
    identity = [
        [text.measures.fingerprint, str(text.threshold), share, _reading(part)]
        for text, share, part in zip(texts, shares, config.mixture, strict=True)
    ]
    key = hashlib.sha256(json.dumps([config.vocab_size, identity]).encode()).hexdigest()
    target = folder / f"mixture-{config.vocab_size}-{key[:12]}"
    path = target / "tokenizer.json"
    while not path.exists():
        target.mkdir(exist_ok=True)
        (target / LOCK_NAME).touch()  # prepared files, which are no source
        with suppress(Gone), Claims(target / _CLAIMS) as claims:
            if claims.once("tokenizer", path.exists, lambda: tell("wait", 0, 1)):
                remove_leftovers(target)
                tokenizers.train(_samples(texts, shares, tell), config.vocab_size).save(path)
    shutil.rmtree(target / _CLAIMS, ignore_errors=True)
    return path


def _reading(part: MixturePart) -> dict[str, object]:
    """What else decides on the text that is read from the files of a part."""
    where = ("source", "validation")
    return {name: value for name, value in corpus_fields(part).items() if name not in where}


def _samples(texts: Sequence[Text], shares: Sequence[float], tell: Progress) -> Iterator[str]:
    for text, share in zip(texts, shares, strict=True):
        there = min(text.measures.length, SAMPLE)
        yield from _thinned(sample(text, tell), share * SAMPLE / there)


def _thinned(documents: Iterable[str], fraction: float) -> Iterator[str]:
    """Documents with about that fraction of all characters, from beginning to end."""
    seen = kept = 0
    for document in documents:
        if kept <= fraction * seen:
            yield document
            kept += len(document)
        seen += len(document)
