from __future__ import annotations

import json
import random

import pytest

from groundup.data import Batches, DataError, TokenFile, prepare
from groundup.data.split import split_value
from tests.data.prepared import RESULTS, config, contents, decoded


def test_the_split_depends_on_the_text_alone():
    assert split_value("hello") == 17914281281443716555
    values = [split_value(f"document {i}") / 2**64 for i in range(5000)]
    for fraction in (0.02, 0.3):
        share = sum(value < fraction for value in values) / 5000
        assert share == pytest.approx(fraction, abs=4 * (fraction / 5000) ** 0.5)


def test_every_document_is_on_exactly_one_side_in_order(corpus, tmp_path):
    prepared = prepare(config(corpus, tmp_path / "out", validation_fraction=0.1), workers=1)
    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    held = [split_value(text) < 0.1 * 2**64 for text in texts]
    assert decoded(prepared.train, prepared.tokenizer) == [
        text for text, out in zip(texts, held, strict=True) if not out
    ]
    assert decoded(prepared.validation, prepared.tokenizer) == [
        text for text, out in zip(texts, held, strict=True) if out
    ]
    assert prepared.report["documents"] == {"train": 600 - sum(held), "validation": sum(held)}
    assert set(contents(prepared.folder)) == RESULTS
    TokenFile.open(prepared.train).verify()
    Batches(TokenFile.open(prepared.train).tokens, 128, 4, 0).batch(0)


def test_the_split_does_not_depend_on_order_or_names(corpus, tmp_path):
    first = prepare(config(corpus, tmp_path / "one"), workers=1)
    lines = corpus.read_text().splitlines()
    random.Random(5).shuffle(lines)
    other = tmp_path / "other"
    other.mkdir()
    (other / "z.jsonl").write_text("\n".join(lines[:200]))
    (other / "a.jsonl").write_text("\n".join(lines[200:]))
    second = prepare(config(other, tmp_path / "two"), workers=1)
    for side in ("train", "validation"):
        documents = [
            sorted(decoded(getattr(prepared, side), prepared.tokenizer))
            for prepared in (first, second)
        ]
        assert documents[0] == documents[1]


def test_the_tokenizer_sees_only_training_text(tmp_path):
    texts = [f"number {i}" for i in range(400)]
    held = [text for text in texts if split_value(text) < 0.1 * 2**64]
    marked = [text for text in texts if text not in held]
    # Give every held-out document a word that would surely become a token.
    source = tmp_path / "in.jsonl"
    held_marked = []
    number = 0
    while len(held_marked) < 40:
        text = f"{number} " + "zqxzqxzqx " * 50
        number += 1
        if split_value(text) < 0.1 * 2**64:
            held_marked.append(text)
    source.write_text("\n".join(json.dumps({"text": t}) for t in marked + held_marked))
    prepared = prepare(config(source, tmp_path / "out", validation_fraction=0.1), workers=1)
    assert prepared.report["documents"]["validation"] == 40
    assert "zqx" not in json.loads(prepared.tokenizer.read_text())["model"]["vocab"]


def test_held_out_files(corpus, tmp_path):
    held = corpus.with_name("held.txt")
    held.write_text("only this is held out, with <|endoftext|> in it")
    prepared = prepare(config(corpus.parent, tmp_path / "out", validation=str(held)), workers=1)
    assert decoded(prepared.validation, prepared.tokenizer) == [held.read_text()]
    assert prepared.report["documents"] == {"train": 600, "validation": 1}
    assert prepared.report["skipped"] == {"files that are the validation text": 1}
    with pytest.raises(DataError, match="no file that is not in validation"):
        prepare(config(held, tmp_path / "out", validation=str(held)), workers=1)


def test_a_split_with_an_empty_side_says_what_to_do(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps({"text": f"text {i}"}) for i in range(5)))
    smallest = min(split_value(f"text {i}") for i in range(5)) / 2**64
    assert smallest > 0.0001
    with pytest.raises(DataError, match="set it to") as error:
        prepare(config(source, tmp_path / "out", validation_fraction=0.0001), workers=1)
    advice = float(str(error.value).split("set it to ")[1].split()[0])
    prepared = prepare(config(source, tmp_path / "out", validation_fraction=advice), workers=1)
    assert prepared.report["documents"]["validation"] == 1
    with pytest.raises(DataError, match="leaves none to train on"):
        prepare(config(source, tmp_path / "out", validation_fraction=0.99999), workers=1)
    (tmp_path / "one.txt").write_text("alone")
    with pytest.raises(DataError, match="name a held-out file"):
        prepare(config(tmp_path / "one.txt", tmp_path / "out"), workers=1)
    (tmp_path / "none.txt").write_text("")
    with pytest.raises(DataError, match="empty"):
        prepare(config(tmp_path / "none.txt", tmp_path / "out"), workers=1)
