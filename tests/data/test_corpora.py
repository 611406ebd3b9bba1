from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from groundup.data import DataError, corpora
from groundup.data.compression import open_stream
from groundup.data.corpora import documents, find, measure, shards, split_value

COMPRESSORS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(source: str | Path, field: str = "text") -> tuple[list[str], Counter[str]]:
    listing = find(str(source))
    skipped: Counter[str] = Counter(listing.skipped)
    cut = shards(listing, measure(listing, {}), field)
    return [text for shard in cut for text in documents(shard, skipped)], skipped


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


TEXTS = ["one\ntwo", "with \u2028 and \x85 and \r inside", "", "東京 🙂", "last"]


@pytest.mark.parametrize("suffix", ["", *COMPRESSORS])
def test_jsonl_in_every_compression(tmp_path, suffix):
    content = lines(TEXTS)
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(COMPRESSORS[suffix](content) if suffix else content)
    texts, skipped = read(path)
    assert texts == [text for text in TEXTS if text]
    assert skipped == {"empty documents": 1}


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
    assert len(texts) == pytest.approx(len(content) / corpora.SECTION, abs=5)
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
    whole = corpora.Shard(str(tmp_path), "text", measures.files, 0, -1, measures.length)
    assert list(documents(whole, Counter())) == texts
    for step in (997, 10_000, 65_536):
        found = []
        for start in range(0, measures.length, step):
            stop = min(start + step, measures.length)
            shard = corpora.Shard(str(tmp_path), "text", measures.files, start, stop, stop - start)
            assert corpora.Shard.from_json(json.loads(json.dumps(shard.to_json()))) == shard
            found += documents(shard, Counter())
            if suffix and start > 20 * step:
                break
        assert found == texts[: len(found)]
        assert suffix or len(found) == len(texts)


def test_a_folder_counts_what_it_leaves_out(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("b")
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "image.png").write_bytes(b"png")
    (tmp_path / "table.parquet").write_bytes(b"p")
    (tmp_path / "README").write_text("no suffix")
    (tmp_path / ".hidden.txt").write_text("h")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("g")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / corpora.LOCK_NAME).touch()
    (tmp_path / "done" / "prepared.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    texts, skipped = read(tmp_path)
    assert texts == ["a", "b"]
    assert skipped == {
        "files of unknown kind (.png)": 1,
        "files of unknown kind (.parquet)": 1,
        "files of unknown kind (no suffix)": 1,
        "hidden files": 1,
        "hidden folders": 1,
        "folders of prepared tokens": 1,
        "linked folders": 1,
    }


def test_nothing_to_read(tmp_path):
    with pytest.raises(DataError, match=r"source=.*missing.*no such file.*'python'"):
        find(str(tmp_path / "missing"))
    with pytest.raises(DataError, match="holds no text.*empty"):
        find(str(tmp_path))
    (tmp_path / "x.png").write_bytes(b"1")
    with pytest.raises(DataError, match=r"holds no text.*1 files of unknown kind \(\.png\)"):
        find(str(tmp_path))
    with pytest.raises(DataError, match=r"unknown kind; valid are \.txt"):
        find(str(tmp_path / "x.png"))


def test_a_file_that_changes_meanwhile_is_an_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    listing = find(str(path))
    cut = shards(listing, measure(listing, {}), "text")
    path.write_text("afterwards")
    with pytest.raises(DataError, match=r"a\.txt: the file has changed"):
        list(documents(cut[0], Counter()))


def test_measures_are_remembered_and_notice_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("hello")
    cache: dict[str, list] = {}
    first = measure(find(str(path)), cache)
    assert first.length == 5
    with monkeypatch.context() as patch:
        patch.setattr(corpora, "_read_once", None)
        assert measure(find(str(path)), cache) == first
    path.write_text("HELLO")
    os.utime(path, ns=(1, 1))
    assert measure(find(str(path)), cache).fingerprint != first.fingerprint


def test_the_split_depends_on_the_text_alone():
    assert split_value("hello") == 17914281281443716555
    values = [split_value(f"document {i}") / 2**64 for i in range(5000)]
    for fraction in (0.02, 0.3):
        share = sum(value < fraction for value in values) / 5000
        assert share == pytest.approx(fraction, abs=4 * (fraction / 5000) ** 0.5)


def test_builtin_corpus_is_python_source():
    listing = find("python")
    assert listing.name.startswith("python3.")
    paths = [file.path for file in listing.files]
    assert paths == sorted(paths)
    assert {"argparse.py", "json/decoder.py", "asyncio/tasks.py"} <= set(paths)
    unwanted = {"site-packages", "__pycache__", "test", "tests", "idlelib", "encodings"}
    assert not any(unwanted & set(path.split("/")) for path in paths)
    assert find("python") == listing


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
        files.append(corpora._stamp(tmp_path, name, "python"))
    shard = corpora.Shard(str(tmp_path), "text", tuple(files), 0, -1, 0)
    skipped: Counter[str] = Counter()
    assert list(documents(shard, skipped)) == ["# coding: latin-1\nx = 'é'\n", "x = 1\n"]
    assert skipped == {"undecodable Python files": 2}
