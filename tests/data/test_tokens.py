from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data import TokenFile, TokenFileError, TokenWriter
from groundup.data.tokens import REGION


def write(path, documents, vocab_size=1000, eos_id=0):
    with TokenWriter(path, vocab_size=vocab_size, eos_id=eos_id, tokenizer="f" * 64) as writer:
        for document in documents:
            writer.add(np.array(document, dtype=np.int64))
    return path


@given(
    documents=st.lists(st.lists(st.integers(0, 69_999), max_size=30), max_size=8),
    large=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_round_trip(tmp_path_factory, documents, large):
    path = tmp_path_factory.mktemp("tokens") / "x.gtok"
    size = 70_000 if large else 65_536
    documents = [[t % size for t in document] for document in documents]
    write(path, documents, size, 7)
    file = TokenFile.open(path)
    joined = [t for document in documents for t in (*document, 7)]
    assert file.tokens.tolist() == joined
    assert file.tokens.dtype == (np.uint32 if large else np.uint16)
    assert (file.header.tokens, file.header.documents) == (len(joined), len(documents))
    assert (file.header.vocab_size, file.header.eos_id) == (size, 7)
    assert file.header.tokenizer == "f" * 64
    file.verify()


def test_layout_is_what_the_docstring_says(tmp_path):
    path = write(tmp_path / "x.gtok", [[1, 2], [515]])
    content = path.read_bytes()
    assert content[:8] == b"GUTOKENS"
    assert int.from_bytes(content[8:12], "little") == 1
    length = int.from_bytes(content[12:16], "little")
    assert content[16:48] == hashlib.sha256(content[:16] + content[48:4096]).digest()
    header = json.loads(content[48 : 48 + length])
    assert header["dtype"] == "uint16"
    assert header["sha256"] == hashlib.sha256(content[4096:]).hexdigest()
    assert content[4096:] == b"\1\0\2\0\0\0\3\2\0\0"


def test_tokens_are_memory_mapped_and_read_only(tmp_path):
    file = TokenFile.open(write(tmp_path / "x.gtok", [[1, 2, 3]]))
    assert isinstance(file.tokens.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        file.tokens[0] = 5


def test_truncation_at_any_byte_is_found_on_opening(tmp_path):
    path = write(tmp_path / "x.gtok", [[1, 2, 3], [4, 5]])
    content = path.read_bytes()
    damaged = tmp_path / "y.gtok"
    for size in (*range(70), *range(70, REGION, 97), *range(REGION, len(content))):
        damaged.write_bytes(content[:size])
        with pytest.raises(TokenFileError, match="truncated|not a token file") as error:
            TokenFile.open(damaged)
        assert str(damaged) in str(error.value)
    damaged.write_bytes(content + b"\0")
    with pytest.raises(TokenFileError, match="longer"):
        TokenFile.open(damaged)


def test_any_changed_header_byte_is_found_on_opening(tmp_path):
    path = write(tmp_path / "x.gtok", [[1, 2, 3], [4, 5]])
    content = bytearray(path.read_bytes())
    damaged = tmp_path / "y.gtok"
    generator = np.random.default_rng(0)
    for place in (*range(500), *range(500, REGION, 13), REGION - 1):
        flip = 1 << int(generator.integers(8))
        content[place] ^= flip
        damaged.write_bytes(content)
        with pytest.raises(TokenFileError):
            TokenFile.open(damaged)
        content[place] ^= flip


def test_any_changed_payload_byte_is_found_by_verify(tmp_path):
    path = write(tmp_path / "x.gtok", [[1, 2, 3], [4, 5]])
    content = bytearray(path.read_bytes())
    for place in range(REGION, len(content)):
        content[place] ^= 0x10
        path.write_bytes(content)
        with pytest.raises(TokenFileError, match="damaged"):
            TokenFile.open(path).verify()
        content[place] ^= 0x10
    path.write_bytes(content)
    TokenFile.open(path).verify()


def test_a_later_version_is_named(tmp_path):
    path = write(tmp_path / "x.gtok", [[1]])
    content = bytearray(path.read_bytes())
    content[8] = 9
    content[16:48] = hashlib.sha256(content[:16] + content[48:4096]).digest()
    path.write_bytes(content)
    with pytest.raises(TokenFileError, match="version 9"):
        TokenFile.open(path)


def test_what_is_no_token_file(tmp_path):
    with pytest.raises(TokenFileError, match="cannot be read"):
        TokenFile.open(tmp_path / "missing")
    with pytest.raises(TokenFileError, match="cannot be read"):
        TokenFile.open(tmp_path)
    (tmp_path / "text").write_text("hello" * 2000)
    with pytest.raises(TokenFileError, match="not a token file"):
        TokenFile.open(tmp_path / "text")


@pytest.mark.parametrize("bad", [[-1], [1000], [3, 70_000], [2**40]])
def test_a_token_outside_the_vocabulary_is_refused_and_leaves_nothing(tmp_path, bad):
    with pytest.raises(ValueError, match=r"0\.\.999"):
        write(tmp_path / "x.gtok", [[1], bad])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_writer_keeps_the_older_file(tmp_path):
    path = write(tmp_path / "x.gtok", [[1, 2]])
    before = path.read_bytes()
    writer = TokenWriter(path, vocab_size=1000, eos_id=0, tokenizer="")

    def fail() -> None:
        with writer:
            writer.add(np.array([5]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_not_there_before_it_is_whole(tmp_path):
    path = tmp_path / "x.gtok"
    with TokenWriter(path, vocab_size=10, eos_id=0, tokenizer="") as writer:
        writer.add(np.array([5]))
        assert not path.exists()
    assert path.exists()
    with pytest.raises(ValueError, match="not open"):
        writer.add(np.array([5]))


def test_bad_writer_arguments(tmp_path):
    for arguments, name in (
        ({"vocab_size": 0, "eos_id": 0}, "vocab_size"),
        ({"vocab_size": 10, "eos_id": 10}, "eos_id"),
    ):
        with pytest.raises(ValueError, match=name):
            TokenWriter(tmp_path / "x", tokenizer="", **arguments)
    with TokenWriter(tmp_path / "x", vocab_size=10, eos_id=0, tokenizer="") as writer:
        for ids in (np.zeros((2, 2), int), np.array([1.0])):
            with pytest.raises(ValueError, match="ids"):
                writer.add(ids)
        writer.add(np.array([]))
    assert TokenFile.open(tmp_path / "x").tokens.tolist() == [0]
