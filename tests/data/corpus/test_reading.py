from __future__ import annotations

import gzip
import json
import random
from collections import Counter

import pytest

from groundup.data import DataError
from groundup.data.corpus.cutting import SECTION, Shard, shards
from groundup.data.corpus.files import stamp
from groundup.data.corpus.measuring import measure
from groundup.data.corpus.reading import documents
from groundup.data.corpus.sources import find
from tests.data.corpus.reader import COMPRESSORS, lines, read

TEXTS = ["one\ntwo", "with \u2028 and \x85 and \r inside", "", "東京 🙂", "last"]


@pytest.mark.parametrize("suffix", ["", *COMPRESSORS])
def test_jsonl_in_every_compression(tmp_path, suffix):
    content = lines(TEXTS)
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(COMPRESSORS[suffix](content) if suffix else content)
    texts, skipped = read(path)
    assert texts == [text for text in TEXTS if text]
    assert skipped == {"empty documents": 1}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"text": "a"', "not a JSON value"),
        (b"[1, 2]", "a JSON list"),
        (b'"text"', "a JSON str"),
        (b'{"body": "a", "n": 1}', "no text_field 'text'.*'body', 'n'"),
        (b"{}", "no text_field 'text'.*none"),
        (b'{"text": null}', "text_field 'text' is NoneType"),
        (b'{"text": ["a"]}', "text_field 'text' is list"),
        (b'{"text": "\\ud800"}', "surrogate"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "not a JSON value"),
        (b'{"text": ' + b"1" * 5000 + b"}", "not a JSON value"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_bad_line_is_named(tmp_path, line, what, suffix):
    content = b'{"text": "first"}\n\n' + line + b'\n{"text": "after"}\n'
    path = tmp_path / f"bad.jsonl{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataError, match=rf"bad\.jsonl{suffix}, line 3: .*{what}"):
        read(path)


def test_the_line_number_counts_from_the_file_not_the_shard(tmp_path):
    path = tmp_path / "bad.jsonl"
    good = lines(["x" * 50_000] * 30)
    path.write_bytes(good + b"oops\n")
    listing = find(str(path))
    cut = shards(listing, measure(listing, {}), "text")
    assert len(cut) > 3
    with pytest.raises(DataError, match="line 31"):
        list(documents(cut[-1], Counter()))


def test_another_field(tmp_path):
    (tmp_path / "x.ndjson").write_text('{"body": "hello"}')
    assert read(tmp_path / "x.ndjson", "body")[0] == ["hello"]


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "there"}\n')
    assert read(tmp_path)[0] == ["hello", "there"]


def test_text_files_are_kept_to_the_byte(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\rthree\n\n\x00 end")
    assert read(tmp_path)[0] == ["one\r\ntwo\rthree\n\n\x00 end"]


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(DataError, match=r"a\.txt: not UTF-8: .* at byte 3"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_long_text_is_cut_at_line_ends_without_loss(tmp_path, suffix):
    source = random.Random(1)
    long = "".join("é" * source.randint(0, 3000) + "\n" for _ in range(1500)) + "no newline"
    content = long.encode()
    path = tmp_path / f"long.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix](content) if suffix else content)
    texts, _ = read(path)
    assert "".join(texts) == long
    assert len(texts) == pytest.approx(len(content) / SECTION, abs=5)
    assert all(text.endswith("\n") for text in texts[:-1])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_cutting_into_shards_never_changes_documents(tmp_path, suffix, monkeypatch):
    source = random.Random(2)
    texts = [f"{i} " + "x" * int(source.paretovariate(0.7) * 50) for i in range(2000)]
    texts = [text[:200_000] for text in texts]
    content = lines(texts)
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    listing = find(str(path))
    measures = measure(listing, {})
    whole = Shard(str(tmp_path), "text", measures.files, 0, -1, measures.length)
    assert list(documents(whole, Counter())) == texts
    for step in (997, 10_000, 65_536):
        found = []
        for start in range(0, measures.length, step):
            stop = min(start + step, measures.length)
            shard = Shard(str(tmp_path), "text", measures.files, start, stop, stop - start)
            assert Shard.from_json(json.loads(json.dumps(shard.to_json()))) == shard
            found += documents(shard, Counter())
            if suffix and start > 20 * step:
                break
        assert found == texts[: len(found)]
        assert suffix or len(found) == len(texts)


def test_a_file_that_changes_meanwhile_is_an_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    listing = find(str(path))
    cut = shards(listing, measure(listing, {}), "text")
    path.write_text("afterwards")
    with pytest.raises(DataError, match=r"a\.txt: the file has changed"):
        list(documents(cut[0], Counter()))


def test_python_files_are_decoded_as_they_declare(tmp_path):
    contents = {
        "a.py": "# coding: latin-1\nx = 'é'\n".encode("latin-1"),
        "b.py": b"# coding: no-such-codec\n",
        "c.py": b"x = '\xff'\n",
        "d.py": b"\xef\xbb\xbfx = 1\n",
    }
    files = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        files.append(stamp(tmp_path, name, "python"))
    shard = Shard(str(tmp_path), "text", tuple(files), 0, -1, 0)
    skipped: Counter[str] = Counter()
    assert list(documents(shard, skipped)) == ["# coding: latin-1\nx = 'é'\n", "x = 1\n"]
    assert skipped == {"undecodable Python files": 2}
