from __future__ import annotations

import gzip
import io
import random
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data import DataError
from groundup.data.corpus import retried
from groundup.data.corpus.cutting import WHOLE, shards
from groundup.data.corpus.measuring import measure
from groundup.data.corpus.reading import documents
from groundup.data.corpus.retried import Retried
from groundup.data.corpus.sources import find
from tests.data.corpus.reader import COMPRESSORS, lines, read

_numbers = count()


@pytest.fixture
def store(tmp_path):
    """A folder of a store, and the same files in a folder here."""
    address = f"memory://bucket{next(_numbers)}"
    contents = {
        "a.txt": b"first",
        "sub/b.jsonl": lines(["one", "two", ""]),
        "sub/c.jsonl.gz": gzip.compress(lines(["three"])),
        "long.txt.zst": COMPRESSORS[".zst"](b"many lines\n" * (WHOLE // 10)),
        "many.jsonl": lines([f"{i} " + "x" * 500 for i in range(2000)]),
        "image.png": b"png",
        ".hidden.txt": b"h",
    }
    table = io.BytesIO()
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(90)]}), table, row_group_size=30)
    contents["sub/d.parquet"] = table.getvalue()
    fs = fsspec.filesystem("memory")
    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    for name, content in contents.items():
        fs.pipe(f"{address}/{name}", content)
        (here / name).write_bytes(content)
    yield address, here
    fs.rm(address, recursive=True)


def test_a_folder_of_a_store_reads_as_a_folder_here(store):
    address, here = store
    assert read(address) == read(here)
    assert len(read(address)[0]) > 2100
    found = find(address)
    assert found.origin == address
    assert find(str(here)).origin == ""
    assert [file.path for file in found.files] == [file.path for file in find(str(here)).files]


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("*.txt", ["a.txt"]),
        ("**/*.jsonl*", ["many.jsonl", "sub/b.jsonl", "sub/c.jsonl.gz"]),
        ("sub/[bc].jsonl*", ["b.jsonl", "c.jsonl.gz"]),
        ("sub/*", ["b.jsonl", "c.jsonl.gz", "d.parquet"]),
        ("sub/b.jsonl", ["b.jsonl"]),
    ],
)
def test_patterns_there_and_here(store, pattern, paths):
    address, here = store
    for root in (address, str(here), f"file://{here}"):
        found = find(f"{root}/{pattern}")
        assert [file.path for file in found.files] == paths
    assert read(f"{address}/{pattern}")[0] == read(f"{here}/{pattern}")[0]


def test_a_file_of_a_store_is_recognized_without_reading_it(store, monkeypatch):
    address, _ = store
    monkeypatch.setattr("groundup.data.corpus.measuring.open_stream", None)
    first = measure(find(f"{address}/sub/*.jsonl*"), {})
    assert [file.length for file in first.files] == [len(lines(["one", "two", ""])), -1]
    assert measure(find(f"{address}/sub/*.jsonl*"), {}) == first
    fs = fsspec.filesystem("memory")
    fs.pipe(f"{address}/sub/b.jsonl", lines(["one", "TWO", ""]))  # the same size
    assert measure(find(f"{address}/sub/*.jsonl*"), {}).fingerprint != first.fingerprint


def test_a_file_that_changes_meanwhile_is_an_error(store):
    address, _ = store
    listing = find(f"{address}/a.txt")
    (shard,) = shards(listing, measure(listing, {}), "text")
    assert list(documents(shard, Counter())) == ["first"]
    fsspec.filesystem("memory").pipe(f"{address}/a.txt", b"other")
    with pytest.raises(DataError, match=r"a\.txt: the file has changed"):
        list(documents(shard, Counter()))


def test_what_cannot_be_reached(store):
    address, _ = store
    with pytest.raises(DataError, match=r"source='s3://b/x' needs another package: .*s3fs"):
        find("s3://b/x")
    with pytest.raises(DataError, match=r"validation='foo://b/x' cannot be listed: .*foo"):
        find("foo://b/x", "validation")
    with pytest.raises(DataError, match=r"holds no text \(1 files of unknown kind \(\.png\)\)"):
        find(f"{address}/*.png")
    with pytest.raises(DataError, match=r"missing\.txt: cannot be read"):
        find(f"{address}/missing.txt")
    with pytest.raises(DataError, match="it is empty"):
        find("memory://nothing-here")


@pytest.fixture
def refusing():
    """The address of a server that answers with the status that a path begins with."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(int(self.path.split("/")[1]))

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_why_a_server_does_not_give_a_file(refusing):
    pytest.importorskip("aiohttp")
    for status, reason in ((404, "Not Found"), (403, "Forbidden"), (500, "Internal Server Error")):
        address = f"{refusing}/{status}/a.jsonl"
        with pytest.raises(DataError, match=f"cannot be read: HTTP status {status} {reason}$"):
            find(address)
    with pytest.raises(DataError) as told:
        find(f"{refusing}/404/a.jsonl")
    assert str(told.value).count("http://") == 1
    with socket.socket() as nobody:  # bound and not listening: who connects is refused
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        for path in ("a.jsonl", "folder", "*.jsonl"):
            with pytest.raises(
                DataError, match=r"cannot be .*: Cannot connect to host 127\.0\.0\.1"
            ):
                find(f"{address}/{path}")


class Flaky:
    """A content whose connections break after some bytes."""

    def __init__(self, content: bytes, breaks: list[int]) -> None:
        self.content, self.breaks, self.asked = content, breaks, 0

    def open(self, position: int) -> io.BytesIO:
        left = self.breaks.pop() if self.breaks else len(self.content)
        outer = self

        class File(io.BytesIO):
            def read(self, size: int = -1) -> bytes:
                nonlocal left
                if left <= 0:
                    raise ConnectionError("broken")
                outer.asked += 1
                part = super().read(min(size, left))
                left -= len(part)
                return part

        file = File(self.content)
        file.seek(position)
        return file

    def failed(self, error: Exception) -> bool:
        return True


@settings(deadline=None)
@given(content=st.binary(max_size=400), breaks=st.lists(st.integers(1, 60), max_size=8))
def test_broken_connections_are_made_again(content, breaks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retried, "_PAUSE", 0.0)
        stream = io.BufferedReader(Retried(Flaky(content, list(breaks)), len(content)), 16)
        assert stream.read() == content
        for place in random.Random(1).choices(range(len(content) + 1), k=5):
            stream.seek(place)
            assert stream.read(10) == content[place : place + 10]


def test_a_connection_that_stays_broken(monkeypatch):
    monkeypatch.setattr(retried, "_PAUSE", 0.0)
    stream = Retried(Flaky(b"abcdef", [0] * 3 + [3]), 6)
    assert stream.read(3) == b"abc"
    assert stream.read(3) == b"def"  # the fifth try
    stream = Retried(Flaky(b"abcdef", [0] * 4 + [3]), 6)
    assert stream.read(3) == b"abc"
    with pytest.raises(OSError, match="after 5 tries at byte 3: broken"):
        stream.read(3)
    # A store that ends a file early, over and over.
    with pytest.raises(OSError, match="it ends after 6 of 9 bytes"):
        io.BufferedReader(Retried(Flaky(b"abcdef", []), 9)).read()
