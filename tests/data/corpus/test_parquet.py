from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data import DataError
from groundup.data.corpus.cutting import Shard, shards
from groundup.data.corpus.measuring import measure
from groundup.data.corpus.parquet import measure_parquet, read_parquet
from groundup.data.corpus.reading import documents
from groundup.data.corpus.sources import find
from tests.data.corpus.reader import read

TEXTS = ["one\ntwo", None, "", "東京 🙂 \x00", "one\ntwo", None, "last"]
STRINGS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int16(), pa.large_string()),
]


def write(path: Path, texts: list[str | None], **settings) -> Path:
    table = pa.table({"id": list(range(len(texts))), "text": pa.array(texts, pa.string())})
    pq.write_table(table, path, **settings)
    return path


@pytest.mark.parametrize("kind", STRINGS, ids=str)
def test_every_type_of_string(tmp_path, kind):
    column = pa.array(TEXTS, pa.string()).cast(kind)
    pq.write_table(pa.table({"n": list(range(7)), "text": column}), tmp_path / "x.parquet")
    texts, skipped = read(tmp_path / "x.parquet")
    assert texts == [text for text in TEXTS if text]
    assert skipped == {"null documents": 2, "empty documents": 1}


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.none() | st.text(max_size=300), min_size=1, max_size=60),
    rows=st.integers(1, 30),
    wanted=st.integers(1, 5000),
)
def test_cutting_by_row_groups_never_changes_documents(tmp_path_factory, texts, rows, wanted):
    path = write(tmp_path_factory.mktemp("p") / "x.parquet", texts, row_group_size=rows)
    groups = -(-len(texts) // rows)
    assert measure_parquet(path)[1] == groups
    listing = find(str(path))
    measures = measure(listing, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("groundup.data.corpus.cutting._sections", lambda length: wanted)
        cut = shards(listing, measures, "text")
    if measures.length > wanted:
        assert len(cut) == min(groups, -(-measures.length // wanted))
    skipped: Counter[str] = Counter()
    found = [text for one in cut for text in documents(Shard.from_json(one.to_json()), skipped)]
    assert found == [text for text in texts if text]
    assert skipped["null documents"] == texts.count(None)


def test_a_column_that_is_not_there_or_holds_no_text(tmp_path):
    path = write(tmp_path / "x.parquet", ["a"])
    with pytest.raises(DataError, match=r"x\.parquet: there is no text_field 'body'.*'id', 'text'"):
        read(path, "body")
    with pytest.raises(DataError, match="text_field 'id' is a column of int64.*strings"):
        read(path, "id")
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(twice, path)
    with pytest.raises(DataError, match="more than one text_field 'text'"):
        read(path)
    pq.write_table(pa.table({"text": [b"\xff"]}), path)
    with pytest.raises(DataError, match="a column of binary"):
        read(path)


def test_bytes_that_are_no_utf8_are_named(tmp_path):
    path = tmp_path / "x.parquet"
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"]).buffers())
    pq.write_table(pa.table({"text": pa.concat_arrays([pa.array(["fine"] * 300), broken])}), path)
    with pytest.raises(DataError, match=r"x\.parquet, row group 0, row 301 of it: .*UTF-8"):
        read(path)


def test_nothing_and_a_file_that_is_no_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    for content in (b"", b"PAR1", b"this is no Parquet file at all, though it is long enough"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.parquet: the file is damaged or no Parquet"):
            read(path)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_damaged_files_are_errors_and_never_other_text(tmp_path, compression):
    source = random.Random(4)
    texts = [f"{i} " + "é東" * source.randint(0, 30) if i % 7 else None for i in range(200)]
    path = tmp_path / "x.parquet"
    write(path, texts, row_group_size=64, write_page_checksum=True, compression=compression)
    whole = path.read_bytes()
    wanted = [text for text in texts if text is not None]
    footer = int.from_bytes(whole[-8:-4], "little")
    outcomes: Counter[str] = Counter()
    for attempt in range(150):
        content = bytearray(whole)
        if attempt % 3 == 0:
            content = content[: source.randrange(len(content))]
        for _ in range(attempt % 3):
            in_footer = source.random() < 0.5
            place = source.randrange(len(content) - in_footer * (len(content) - footer))
            content[-1 - place] = source.randrange(256)
        path.write_bytes(content)
        found: list[str] | str
        try:
            measure_parquet(path)
            found = list(read_parquet(path, 0, -1, "text", Counter()))
        except DataError as error:
            found = str(error)
        assert found == wanted or str(path) in found
        outcomes["whole" if found == wanted else "error"] += 1
    assert outcomes["error"] > 75


def test_memory_does_not_grow_with_the_row_group(tmp_path):
    source = random.Random(5)
    text = "".join(source.choice("abcdefgh ") for _ in range(20_000))
    texts = [f"{i} {text}" for i in range(3000)]
    path = write(tmp_path / "x.parquet", texts, use_dictionary=False)
    assert measure_parquet(path) == (pytest.approx(60_000_000, rel=0.02), 1)
    before = pa.total_allocated_bytes()
    most = 0
    tracemalloc.start()
    for _ in read_parquet(path, 0, -1, "text", Counter()):
        most = max(most, pa.total_allocated_bytes() - before)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 30_000_000  # 22.6 MB, of a row group four times as large as well
    assert peak < 12_000_000
