"""Preparing from what is not a file here, in processes of its own."""

from __future__ import annotations

import gzip
import http.server
import io
import threading
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groundup.data import DataConfig, DataError, describe, prepare, train
from tests.data.conftest import SENTENCE, make_documents, write_jsonl
from tests.data.prepared import contents, decoded


class Whole(http.server.SimpleHTTPRequestHandler):
    """Sends files whole, whatever part is asked for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Ranges(Whole):
    """Sends the part that is asked for; breaks the first connection for each of one file."""

    broken: set[str] = set()

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        path = Path(self.directory) / self.path.lstrip("/")
        if asked is None or not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()
        first, last = asked.removeprefix("bytes=").split("-")
        part = content[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/*")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if path.suffix == ".gz" and self.path + asked not in self.broken:
            self.broken.add(self.path + asked)
            part = part[: len(part) // 2]
            self.close_connection = True
        self.wfile.write(part)


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client: object) -> None:
        """A client that has gone."""


@pytest.fixture
def served(tmp_path):
    folder = tmp_path / "served"
    (folder / "sub").mkdir(parents=True)
    write_jsonl(folder / "lines.jsonl", make_documents(5000, seed=1))
    text = "\n".join(make_documents(200, seed=2))
    (folder / "sub" / "text.txt.gz").write_bytes(gzip.compress(text.encode()))
    table = pa.table({"text": make_documents(400, seed=3)})
    pq.write_table(table, folder / "sub" / "table.parquet", row_group_size=50)
    return folder


@pytest.mark.parametrize("handler", [Whole, Ranges])
def test_over_http_it_is_the_same_as_from_a_folder(served, tmp_path, handler):
    train([SENTENCE], 300).save(tmp_path / "tokenizer.json")
    settings = {"tokenizer": str(tmp_path), "validation_fraction": 0.1}
    here = prepare(DataConfig(str(served), folder=str(tmp_path / "here"), **settings), workers=1)
    server = Quiet(("127.0.0.1", 0), partial(handler, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        there = DataConfig(address, folder=str(tmp_path / "there"), **settings)
        prepared = prepare(there, workers=2)
        assert prepare(there, workers=1).folder == prepared.folder
    finally:
        server.shutdown()
        server.server_close()
    for side in ("train", "validation"):
        assert getattr(prepared, side).read_bytes() == getattr(here, side).read_bytes()
    assert prepared.report["sources"][0] == {
        **here.report["sources"][0],
        "name": prepared.report["sources"][0]["name"],
        "origin": address,
    }
    assert address in describe(prepared.folder)


def test_a_data_set_in_processes_of_their_own(served, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    from groundup.data.corpus.dataset import _opened

    _opened.cache_clear()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    files = [served / "lines.jsonl", served / "more.jsonl"]
    write_jsonl(files[1], make_documents(300, seed=4))
    train([SENTENCE], 300).save(tmp_path / "tokenizer.json")
    source = "dataset:json?" + "&".join(f"data_files={path}" for path in files)
    settings = DataConfig(source, tokenizer=str(tmp_path), folder=str(tmp_path / "out"))
    prepared = prepare(settings, workers=2)
    texts = decoded(prepared.train, prepared.tokenizer)
    texts += decoded(prepared.validation, prepared.tokenizer)
    assert sorted(texts) == sorted(make_documents(5000, seed=1) + make_documents(300, seed=4))
    assert prepared.folder.name.startswith("json-300-")
    assert source in describe(prepared.folder)
    assert contents(prepare(settings).folder) == contents(prepared.folder)


def test_a_parquet_source_that_is_damaged_names_file_and_place(served, tmp_path):
    buffer = io.BytesIO()
    table = pa.table({"text": make_documents(3000, seed=3)})
    pq.write_table(table, buffer, row_group_size=500, write_page_checksum=True)
    content = bytearray(buffer.getvalue())
    content[len(content) // 2] ^= 1
    (served / "sub" / "table.parquet").write_bytes(content)
    train([SENTENCE], 300).save(tmp_path / "tokenizer.json")
    settings = DataConfig(
        str(served / "sub"), tokenizer=str(tmp_path), folder=str(tmp_path / "out")
    )
    for workers in (1, 2):
        with pytest.raises(DataError, match=r"table\.parquet, row group [234], row \d+ of it"):
            prepare(settings, workers=workers)
