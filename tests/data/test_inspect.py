from __future__ import annotations

import json

import pytest

from groundup.data import TokenFile, TokenFileError, describe, load, prepare, train
from tests.data.prepared import config


def test_describe(corpus, tmp_path):
    text = corpus.read_text()
    corpus.write_text(json.dumps({"text": "first \x1b[31m line\nsecond"}) + "\n" + text)
    prepared = prepare(config(corpus, tmp_path / "out"), workers=1)
    shown = describe(prepared.train)
    header = TokenFile.open(prepared.train).header
    assert f"{header.tokens:,} (uint16" in shown
    assert f"documents          {header.documents:,}" in shown
    assert header.tokenizer in shown
    assert "verified" in shown
    assert "first \\x1b[31m line\n    second" in shown  # escape sequences do not reach a terminal
    folder = describe(prepared.folder, sample=5)
    assert "train.gtok" in folder
    assert "validation.gtok" in folder
    assert "from text" in folder
    assert "sample" not in describe(prepared.train, sample=0)
    for sample in (-1, 1.5):
        with pytest.raises(ValueError, match="sample"):
            describe(prepared.train, sample=sample)
    prepared.tokenizer.unlink()
    assert "no tokenizer.json" in describe(prepared.train)
    train(["other"], 260).save(prepared.tokenizer)
    assert "is another" in describe(prepared.train)
    content = bytearray(prepared.train.read_bytes())
    content[-1] ^= 1
    prepared.train.write_bytes(content)
    with pytest.raises(TokenFileError, match="damaged"):
        describe(prepared.train)
    with pytest.raises(TokenFileError, match="no token file"):
        describe(corpus.parent)
    with pytest.raises(TokenFileError, match="cannot be read"):
        describe(tmp_path / "missing")


def test_a_vocabulary_smaller_than_asked_is_shown(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps({"text": f"ab {i}"}) for i in range(20)))
    prepared = prepare(
        config(source, tmp_path / "out", vocab_size=5000, validation_fraction=0.3), workers=1
    )
    size = load(prepared.tokenizer).vocab_size
    assert size == prepared.report["vocab_size"] < 300
    assert f"{size}, though 5,000 were asked" in describe(prepared.folder)
