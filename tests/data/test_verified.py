"""Tokens and tokenizer of a prepared folder are those that were written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from groundup.data import TokenFile, TokenFileError, prepare
from groundup.data.tokens import REGION
from tests.data.prepared import config


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def long_ago(*paths: Path) -> None:
    """A file written just now may change again within the clock's resolution: it is read again."""
    for path in paths:
        os.utime(path, (1e9, 1e9))


@pytest.mark.parametrize("name", ["train.gtok", "validation.gtok"])
@pytest.mark.parametrize("place", [REGION, -1])
def test_one_bit_of_the_tokens(corpus, tmp_path: Path, name: str, place: int) -> None:
    settings = config(corpus, tmp_path / "out")
    flip(prepare(settings, workers=1).folder / name, place)
    with pytest.raises(TokenFileError, match=rf"{name}: the tokens are damaged.*delete this fold"):
        prepare(settings, workers=1)


def test_one_number_of_the_tokenizer(corpus, tmp_path: Path) -> None:
    settings = config(corpus, tmp_path / "out")
    path = prepare(settings, workers=1).tokenizer
    table = json.loads(path.read_text(encoding="utf-8"))
    first, second = list(table["model"]["vocab"])[-2:]
    vocabulary = table["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(TokenFileError, match=r"tokenizer\.json was changed; delete this folder"):
        prepare(settings, workers=1)


def test_tokens_are_read_once(corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(corpus, tmp_path / "out")
    prepared = prepare(settings, workers=1)
    long_ago(prepared.train, prepared.validation)
    read: list[str] = []
    whole = TokenFile.verify

    def verify(self: TokenFile) -> None:
        read.append(self.path.name)
        whole(self)

    monkeypatch.setattr(TokenFile, "verify", verify)
    for _ in range(2):
        prepare(settings, workers=1)
    assert read == ["train.gtok", "validation.gtok"]
    os.utime(prepared.train, (1.1e9, 1.1e9))
    prepare(settings, workers=1)
    assert read == ["train.gtok", "validation.gtok", "train.gtok"]


def test_where_nothing_can_be_remembered_it_is_read_each_time(corpus, tmp_path: Path) -> None:
    settings = config(corpus, tmp_path / "out")
    prepared = prepare(settings, workers=1)
    long_ago(prepared.train, prepared.validation)
    (tmp_path / "out" / ".verified.json").unlink(missing_ok=True)
    (tmp_path / "out" / ".verified.json").mkdir()
    prepare(settings, workers=1)
    flip(prepared.train, -1)
    with pytest.raises(TokenFileError, match="damaged"):
        prepare(settings, workers=1)
