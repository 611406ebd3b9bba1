"""Parquet files, held against pyarrow, which reads them in one go."""

from __future__ import annotations

import importlib.util
import io
from collections import Counter
from pathlib import Path
from random import Random

from groundup.data import DataConfig
from groundup.data.corpus.reading import documents
from groundup.data.texts import listings, measured
from tests.fuzz.damage import damage
from tests.fuzz.trial import Target, Trial, Wrong

THERE = importlib.util.find_spec("pyarrow") is not None


def _make(folder: Path) -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {"text": [f"document {n} {'é' * (n % 9)}" for n in range(300)], "id": list(range(300))}
    files = []
    for compression in ("none", "snappy", "zstd", "gzip"):
        for plain in (True, False):
            out = io.BytesIO()
            pq.write_table(pa.table(rows), out, row_group_size=100, compression=compression,
                           use_dictionary=not plain, write_page_checksum=plain)  # fmt: skip
            files.append(out.getvalue())
    return files


def _draw(files: list[bytes], draw: Random, folder: Path) -> Trial:
    path = folder / "a.parquet"
    whole = draw.choice(files)
    # The footer at the end says where everything is.
    if draw.random() < 0.5:
        path.write_bytes(damage(whole, draw, files))
    else:
        cut = len(whole) - draw.randint(8, 800)
        path.write_bytes(whole[:cut] + damage(whole[cut:], draw, files))
    return Trial("a.parquet", lambda: _read(path, whole), (str(path),))


def _read(path: Path, whole: bytes) -> str:
    config = DataConfig(source=str(path), folder=str(path.parent), vocab_size=257)
    (text,) = measured(config, listings(config), path.parent, lambda *about: None, 1)
    skipped: Counter[str] = Counter()
    found = [one for shard in text.shards for one in documents(shard, skipped)]
    if found == _texts(whole):
        return "whole"
    if "".join(found) != "".join(one or "" for one in _texts(path.read_bytes())):
        raise Wrong("other documents than the file holds")
    return "other"


def _texts(content: bytes) -> list[str | None]:
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(content), columns=["text"]).column("text").to_pylist()


TARGET = Target("parquet", _make, _draw, few=40)
