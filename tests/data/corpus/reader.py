from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections import Counter
from pathlib import Path

import zstandard

from groundup.data.corpus.cutting import shards
from groundup.data.corpus.measuring import measure
from groundup.data.corpus.reading import documents
from groundup.data.corpus.sources import find

COMPRESSORS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(source: str | Path, field: str = "text") -> tuple[list[str], Counter[str]]:
    listing = find(str(source))
    skipped: Counter[str] = Counter(listing.skipped)
    cut = shards(listing, measure(listing, {}), field)
    return [text for shard in cut for text in documents(shard, skipped)], skipped


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
