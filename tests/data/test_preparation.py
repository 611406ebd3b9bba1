from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from groundup.data import (
    DataConfig,
    DataError,
    TokenFile,
    TokenFileError,
    load,
    preparation,
    prepare,
    show_progress,
    train,
)
from groundup.data.corpus import sources
from groundup.data.corpus.files import Listing
from groundup.data.corpus.sources import find
from tests.data.prepared import config, contents, decoded


def test_one_and_two_workers_give_the_same_bytes(big_corpus, tmp_path):
    one = prepare(config(big_corpus, tmp_path / "one"), workers=1)
    two = prepare(config(big_corpus, tmp_path / "two"), workers=2)
    three = prepare(config(big_corpus, tmp_path / "three"), workers=3)
    assert one.folder.name == two.folder.name == three.folder.name
    assert contents(one.folder) == contents(two.folder) == contents(three.folder)
    assert one.report["tokens"]["train"] > 100_000


def test_a_second_call_returns_at_once(corpus, tmp_path, monkeypatch):
    first = prepare(config(corpus, tmp_path / "out"), workers=1)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    monkeypatch.setattr(preparation, "encode", None)
    # The sequence length is a matter of reading, not of the files.
    again = prepare(config(corpus, tmp_path / "out", length=64), workers=1)
    assert again == first
    assert before == {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}


def test_what_matters_gets_another_folder(corpus, tmp_path):
    out = tmp_path / "out"
    folders = [prepare(config(corpus, out), workers=1).folder]
    folders.append(prepare(config(corpus, out, vocab_size=310), workers=1).folder)
    folders.append(prepare(config(corpus, out, validation_fraction=0.1), workers=1).folder)
    train(["hello"], 260).save(tmp_path / "tokenizer.json")
    given = DataConfig(str(corpus), tokenizer=str(tmp_path), folder=str(out))
    folders.append(prepare(given, workers=1).folder)
    text = corpus.read_text()
    corpus.write_text(text.replace("fox", "cat", 1))  # the same size
    folders.append(prepare(config(corpus, out), workers=1).folder)
    assert len(set(folders)) == 5
    corpus.write_text(text)
    assert prepare(config(corpus, out), workers=1).folder == folders[0]


def test_a_given_tokenizer_is_used_and_copied(corpus, tmp_path):
    tokenizer = train(["the quick brown fox"], 270)
    (tmp_path / "tok").mkdir()
    tokenizer.save(tmp_path / "tok" / "tokenizer.json")
    prepared = prepare(
        DataConfig(str(corpus), tokenizer=str(tmp_path / "tok"), folder=str(tmp_path / "out")),
        workers=1,
    )
    assert load(prepared.tokenizer).hash == tokenizer.hash
    assert TokenFile.open(prepared.train).header.tokenizer == tokenizer.hash


def test_a_literal_end_of_text_makes_no_document(tmp_path):
    source = tmp_path / "in.jsonl"
    texts = [f"{i} before <|endoftext|> after" for i in range(200)]
    source.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    prepared = prepare(config(source, tmp_path / "out", validation_fraction=0.2), workers=1)
    sides = [decoded(p, prepared.tokenizer) for p in (prepared.train, prepared.validation)]
    assert sorted(sides[0] + sides[1]) == sorted(texts)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_line_stops_everything_and_can_be_mended(big_corpus, tmp_path, workers):
    bad = big_corpus / "zz.jsonl"
    bad.write_text('{"text": "fine"}\n{"text": 3}\n')
    train(["hello"], 300).save(tmp_path / "tokenizer.json")
    settings = DataConfig(str(big_corpus), tokenizer=str(tmp_path), folder=str(tmp_path / "out"))
    with pytest.raises(DataError, match=r"zz\.jsonl, line 2: text_field 'text' is int"):
        prepare(settings, workers=workers)
    assert not list((tmp_path / "out").glob("*/train.gtok"))
    bad.write_text('{"text": "fine"}\n{"text": "3"}\n')
    assert prepare(settings, workers=workers).report["documents"]["train"] > 1000


def test_a_bad_line_met_while_training_the_tokenizer(tmp_path):
    (tmp_path / "zz.jsonl").write_text('{"text": "fine"}\n{"text": 3}\n')
    with pytest.raises(DataError, match=r"zz\.jsonl, line 2"):
        prepare(config(tmp_path / "zz.jsonl", tmp_path / "out"), workers=1)


def test_errors_come_before_work(corpus, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="tokenizer="):
        prepare(DataConfig(str(corpus), tokenizer="nothing-here", folder=str(out)))
    with pytest.raises(ValueError, match="source="):
        prepare(DataConfig("nothing-here", folder=str(out)))
    with pytest.raises(ValueError, match="validation="):
        prepare(DataConfig(str(corpus), validation="nothing-here", folder=str(out)))
    for workers in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="workers"):
            prepare(config(corpus, out), workers=workers)
    assert not out.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder="):
        prepare(config(corpus, tmp_path / "file" / "out"))


def test_a_damaged_result_is_named(corpus, tmp_path):
    prepared = prepare(config(corpus, tmp_path / "out"), workers=1)
    whole = prepared.train.read_bytes()
    prepared.train.write_bytes(whole[:-1])
    with pytest.raises(TokenFileError, match=r"train\.gtok.*truncated.*delete this folder"):
        prepare(config(corpus, tmp_path / "out"), workers=1)
    prepared.train.unlink()  # but a missing file is made again
    prepare(config(corpus, tmp_path / "out"), workers=1)
    assert prepared.train.read_bytes() == whole


def test_the_current_folder_is_not_imported_from(big_corpus, tmp_path, monkeypatch):
    (big_corpus / "json.py").write_text("raise SystemExit('code from the data was run')")
    (big_corpus / "numpy.py").write_text("raise SystemExit('code from the data was run')")
    monkeypatch.chdir(big_corpus)
    prepared = prepare(config(Path("."), tmp_path / "out"), workers=2)
    assert prepared.folder.name.startswith("big-300-")


def test_progress_display(corpus, tmp_path, capsys):
    with show_progress() as show:
        show("wait", 0, 1)
        prepare(config(corpus, tmp_path / "out"), progress=show, workers=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "encoding" in captured.err
    assert "100%" in captured.err
    assert "waiting" not in captured.err


def test_a_part_of_the_builtin_corpus(tmp_path, monkeypatch):
    full = find("python")
    wanted = ("json/", "logging/", "asyncio/")
    files = tuple(file for file in full.files if file.path.startswith(wanted))
    part = Listing(full.name, full.root, files, {})
    monkeypatch.setattr(sources, "builtin", lambda: part)
    settings = DataConfig(folder=str(tmp_path), vocab_size=400, validation_fraction=0.1)
    prepared = prepare(settings, workers=2)
    assert prepared.folder.name.startswith(f"{full.name}-400-")
    documents = decoded(prepared.train, prepared.tokenizer)
    documents += decoded(prepared.validation, prepared.tokenizer)
    texts = [(full.root / file.path).read_text(encoding="utf-8") for file in files]
    assert sorted(documents) == sorted(text for text in texts if text)
    assert os.listdir(tmp_path)
