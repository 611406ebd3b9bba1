"""A large source is read by one at a time, and what has been read is remembered on the way."""

from __future__ import annotations

import os
import threading
import time

import pytest

from groundup.data import prepare, texts
from groundup.data.corpus import measuring
from tests.data.conftest import make_documents, write_jsonl
from tests.data.prepared import config, contents


@pytest.fixture
def many(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(6):
        path = write_jsonl(folder / f"{number}.jsonl", make_documents(30, seed=number))
        os.utime(path, ns=(1, 1))
    return folder


def test_one_reads_and_the_others_wait(many, tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "_MUCH", 1)
    read = []
    original = measuring._read

    def slow(place, file):
        read.append(file.path)
        time.sleep(0.05)
        return original(place, file)

    monkeypatch.setattr(measuring, "_read", slow)
    waits, results = [], []

    def work() -> None:
        def tell(phase, done, total):
            waits.append(phase)

        results.append(prepare(config(many, tmp_path / "out"), progress=tell, workers=1))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read) == sorted(path.name for path in many.iterdir())
    assert "wait" in waits
    assert len({str(contents(prepared.folder)) for prepared in results}) == 1
    assert not list((tmp_path / "out").glob(".reading-*"))


def test_a_reading_that_was_stopped_goes_on(many, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "_SAVE", 0.0)
    read = []
    original = measuring._read

    def stop(place, file):
        read.append(file.path)
        if file.path == "4.jsonl":
            raise KeyboardInterrupt
        return original(place, file)

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "_read", stop)
        patch.setattr(measuring.Remembered.save, "__defaults__", (0.0,))
        with pytest.raises(KeyboardInterrupt):
            prepare(config(many, tmp_path / "out"), workers=1)
    first = len(read)
    monkeypatch.setattr(measuring, "_read", lambda p, f: (read.append(f.path), original(p, f))[1])
    prepare(config(many, tmp_path / "out"), workers=1)
    assert "0.jsonl" not in read[first:]
    assert {"4.jsonl", "5.jsonl"} <= set(read[first:])
