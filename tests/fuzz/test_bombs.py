"""Small files that ask for much: memory stays bounded, and errors name the file."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from groundup._json import parse, seal, unseal
from groundup.data import TokenFile
from groundup.data.corpus import lines as lines_module
from groundup.data.corpus.compression import open_stream
from groundup.data.corpus.jsonl import read_jsonl
from groundup.data.errors import DataError, TokenFileError
from groundup.train.recipe_file import read

MB = 1 << 20


def zstd_zeros(size: int) -> bytes:
    """A frame of blocks that each say "128 KiB of zeros" in four bytes."""
    header = b"\x28\xb5\x2f\xfd" + b"\x00\x38"  # a window of 128 KiB, no size, no checksum
    block = struct.pack("<I", (1 << 17) << 3 | 1 << 1)[:3] + b"\0"
    last = struct.pack("<I", 1)[:3]
    return header + block * (size >> 17) + last


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
def test_a_small_archive_of_much_is_read_in_pieces(suffix: str, tmp_path: Path) -> None:
    size = 400 * MB if suffix == "zst" else 32 * MB
    pack: dict[str, Callable[[], bytes]] = {
        "gz": lambda: gzip.compress(bytes(size), 1),
        "bz2": lambda: bz2.compress(bytes(size), 1),
        "xz": lambda: lzma.compress(bytes(size), preset=0),
        "zst": lambda: zstd_zeros(size),
    }
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(pack[suffix]())
    assert path.stat().st_size < size / 500 or suffix == "gz"
    found, before = 0, peak()
    with open_stream(path) as stream:
        while chunk := stream.read(MB):
            found += len(chunk)
    assert found == size
    assert peak() - before < 300 * MB


def test_a_line_larger_than_the_memory_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lines_module, "_LONGEST", 1000)
    path = tmp_path / "a.jsonl.gz"
    short = json.dumps({"text": "x" * 900}).encode() + b"\n"
    path.write_bytes(gzip.compress(short + b" " * 2000))
    found = read_jsonl(path, 0, -1, "text")
    assert next(found) == "x" * 900
    with pytest.raises(DataError, match=rf"a\.jsonl\.gz: the line at byte {len(short)} has more"):
        next(found)


@pytest.mark.parametrize("suffix", ["bz2", "xz", "zst"])
@pytest.mark.parametrize("behind", [b"garbage", b"\0\0\0", "cut", "flipped"])
def test_damage_behind_the_first_stream_is_an_error(suffix, behind, tmp_path: Path) -> None:
    """Python's own readers of bz2 and xz end there without a word."""
    pack = {"bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.ZstdCompressor().compress}
    first, second = pack[suffix](b"first\n"), pack[suffix](b"second\n" * 9)
    flipped = bytes([second[0] ^ 1]) + second[1:]
    more = {"cut": second[:-3], "flipped": flipped}.get(behind, behind)
    path = tmp_path / f"a.txt.{suffix}"
    path.write_bytes(first + second)
    with open_stream(path) as stream:
        assert stream.read() == b"first\n" + b"second\n" * 9
    path.write_bytes(first + more)
    with pytest.raises(DataError, match=rf"a\.txt\.{suffix}: the file is damaged"):
        _read(path)


def _read(path: Path) -> bytes:
    with open_stream(path) as stream:
        return stream.read()


def test_padding_of_xz_is_no_damage(tmp_path: Path) -> None:
    """Section 2.2 of the format: zeros, a multiple of four."""
    path = tmp_path / "a.txt.xz"
    padding = bytes(8192 + 4)
    path.write_bytes(lzma.compress(b"one") + padding + lzma.compress(b"two") + padding)
    with open_stream(path) as stream:
        assert stream.read() == b"onetwo"


def test_deep_nesting_is_a_value_error(tmp_path: Path) -> None:
    deep = "[" * 100_000
    with pytest.raises(ValueError, match="nested too deep"):
        parse(deep)
    (path := tmp_path / "deep.toml").write_text(f"x = {deep}")
    with pytest.raises(ValueError, match=r"deep\.toml is not valid TOML"):
        read(path)
    (lines := tmp_path / "a.jsonl").write_text(f'{{"text": {deep}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: not a JSON value"):
        list(read_jsonl(lines, 0, -1, "text"))


def test_a_token_file_that_declares_more_than_there_is(tmp_path: Path) -> None:
    from hashlib import sha256

    path = tmp_path / "a.gtok"
    header = {"dtype": "uint16", "vocab_size": 300, "tokenizer": "", "eos_id": 1,
              "tokens": 1 << 60, "documents": 1, "sha256": "0" * 64}  # fmt: skip
    text = json.dumps(header).encode()
    body, numbers = text.ljust(4048, b"\0"), struct.pack("<II", 1, len(text))
    checksum = sha256(b"GUTOKENS" + numbers + body).digest()
    path.write_bytes(b"GUTOKENS" + numbers + checksum + body)
    with pytest.raises(TokenFileError, match=r"a\.gtok: the file is truncated: 4096 bytes"):
        TokenFile.open(path)


def test_a_seal_holds() -> None:
    values = {"a": [1, 2.5, None, {"b": "é"}], "c": 0}
    sealed = seal(values)
    assert unseal(sealed) == values
    assert unseal(seal({})) == {}
    changed = 0
    for place in range(len(sealed) - 1):
        for bit in range(8):
            hurt = bytearray(sealed)
            hurt[place] ^= 1 << bit
            try:
                assert unseal(bytes(hurt)) == values  # a blank that became another
            except ValueError:
                changed += 1
    assert changed > 0.95 * 8 * len(sealed)
