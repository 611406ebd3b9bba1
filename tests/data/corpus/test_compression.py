from __future__ import annotations

import os
import random

import pytest

from groundup.data import DataError
from groundup.data.corpus.compression import open_stream
from groundup.data.corpus.measuring import measure
from groundup.data.corpus.sources import find
from tests.data.corpus.reader import COMPRESSORS, lines, read


@pytest.mark.parametrize("suffix", list(COMPRESSORS))
def test_several_archives_in_one_file_are_all_read(tmp_path, suffix):
    path = tmp_path / f"x.jsonl{suffix}"
    compress = COMPRESSORS[suffix]
    path.write_bytes(compress(lines(["a", "b"])) + compress(lines(["c"])))
    assert read(path)[0] == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", list(COMPRESSORS))
def test_a_truncated_archive_is_an_error_before_any_work(tmp_path, suffix):
    path = tmp_path / f"x.jsonl{suffix}"
    noise = random.Random(0)
    texts = [f"{noise.random()}" for _ in range(3000)]
    whole = COMPRESSORS[suffix](lines(texts))
    for size in (0, 1, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        listing = find(str(path))
        with pytest.raises(DataError, match=r"x\.jsonl.*(damaged|truncated)"):
            measure(listing, {})
    middle = bytearray(whole)
    middle[len(whole) // 2] ^= 0xFF
    path.write_bytes(b"this is no archive at all")
    with pytest.raises(DataError, match=r"x\.jsonl"):
        measure(find(str(path)), {})


def test_zstandard_frames_of_any_size_and_skippable_ones(tmp_path):
    path = tmp_path / "x.txt.zst"
    pieces = [os.urandom(n) for n in (0, 1, 200_000, 3_000_000)]
    skippable = (0x184D2A50).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"hello"
    path.write_bytes(skippable.join(COMPRESSORS[".zst"](piece) for piece in pieces))
    with open_stream(path) as stream:
        assert stream.read() == b"".join(pieces)
