from __future__ import annotations

import json
import random
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data import DataError, TokenFileError, prepare
from groundup.data.identities import Identities, check_identities, document_id, repeats
from groundup.data.split import split_value
from tests.data.prepared import config, contents, decoded


def test_an_id_depends_on_the_text_alone():
    assert document_id("hello") == "79b896912c6eb0260b8c93915093469c"
    expected = blake2b("naïve".encode(), digest_size=16, person=b"groundup-text").hexdigest()
    assert document_id("naïve") == expected


@settings(deadline=None, max_examples=60)
@given(
    files=st.lists(st.lists(st.integers(0, 25), max_size=40), max_size=6),
    memory=st.sampled_from([100, 1000, 1 << 20]),
)
def test_repeats_are_those_of_a_set(tmp_path_factory, files, memory):
    folder = tmp_path_factory.mktemp("ids")
    paths = []
    for number, texts in enumerate(files):
        ids = Identities()
        for text in texts:
            ids.add(f"document {text}")
        paths.append(folder / f"{number}.ids")
        ids.write(paths[-1])
    found = repeats(paths, memory)
    seen: set[int] = set()
    for number, texts in enumerate(files):
        expected = []
        for text in texts:
            expected.append(text in seen)
            seen.add(text)
        assert found.of(number).tolist() == expected
        assert found.counts[number] == sum(expected)


def test_memory_is_bounded(tmp_path):
    """Of 400 000 ids in one file and in forty, no range is larger than asked for."""
    rows = np.random.default_rng(0).bytes(16 * 400_000)
    ids = Identities()
    ids._bytes += rows
    ids.write(tmp_path / "all")
    sizes = []
    original = np.concatenate

    def record(arrays, *rest):
        sizes.append(sum(map(len, arrays)))
        return original(arrays, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "concatenate", record)
        found = repeats([tmp_path / "all", tmp_path / "all"], memory=1 << 20)
    assert found.counts.tolist() == [0, 400_000]
    assert max(sizes) < 1.2 * (1 << 20) / 80


def test_damaged_ids_are_noticed(tmp_path):
    ids = Identities()
    ids.add("a")
    digest = ids.write(tmp_path / "x.ids")
    check_identities(tmp_path / "x.ids", digest)
    content = bytearray((tmp_path / "x.ids").read_bytes())
    content[3] ^= 1
    (tmp_path / "x.ids").write_bytes(content)
    with pytest.raises(TokenFileError, match=r"x\.ids: the ids are damaged"):
        check_identities(tmp_path / "x.ids", digest)


def test_exact_duplicates_are_left_out(tmp_path):
    source = random.Random(8)
    texts = [f"{source.randint(0, 700)} " + "word " * 110 for _ in range(2000)]
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):  # in several shards
        lines = [json.dumps({"text": text}) for text in texts[number * 500 : number * 500 + 500]]
        (folder / f"{number}.jsonl").write_text("\n".join(lines))
    settings = {"deduplicate": True, "validation_fraction": 0.1}
    prepared = prepare(config(folder, tmp_path / "one", **settings), workers=1)
    unique = list(dict.fromkeys(texts))  # the first of each stays, in order
    held = [split_value(text) < 0.1 * 2**64 for text in unique]
    sides = {
        "train": [text for text, out in zip(unique, held, strict=True) if not out],
        "validation": [text for text, out in zip(unique, held, strict=True) if out],
    }
    for side, expected in sides.items():
        assert decoded(getattr(prepared, side), prepared.tokenizer) == expected
    assert prepared.report["skipped"] == {"duplicate documents": 2000 - len(unique)}
    assert prepared.report["documents"] == {side: len(t) for side, t in sides.items()}
    two = prepare(config(folder, tmp_path / "two", **settings), workers=2)
    assert contents(two.folder) == contents(prepared.folder)


def test_what_is_held_out_is_not_trained_on(tmp_path):
    for name, numbers in {"in.jsonl": [1, 2, 3, 2, 4], "held.jsonl": [3, 5, 5]}.items():
        lines = [json.dumps({"text": f"text {number}"}) for number in numbers]
        (tmp_path / name).write_text("\n".join(lines))
    settings = {"validation": str(tmp_path / "held.jsonl"), "deduplicate": True}
    prepared = prepare(config(tmp_path / "in.jsonl", tmp_path / "out", **settings), workers=1)
    assert decoded(prepared.train, prepared.tokenizer) == ["text 1", "text 2", "text 4"]
    assert decoded(prepared.validation, prepared.tokenizer) == ["text 3", "text 5"]
    (tmp_path / "in.jsonl").write_text('{"text": "text 5"}')
    with pytest.raises(DataError, match="source=.*no document"):
        prepare(config(tmp_path / "in.jsonl", tmp_path / "out", **settings), workers=1)
