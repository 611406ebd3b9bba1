from __future__ import annotations

import json
import types
from collections import Counter
from pathlib import Path

import pytest

from groundup.data import DataError
from groundup.data.corpus import dataset as module
from groundup.data.corpus.cutting import shards
from groundup.data.corpus.dataset import Dataset
from groundup.data.corpus.measuring import measure
from groundup.data.corpus.reading import documents
from groundup.data.corpus.sources import find
from tests.data.conftest import write_jsonl
from tests.data.corpus.reader import read

datasets = pytest.importorskip("datasets")

TEXTS = [f"document {i}" for i in range(40)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Nothing is written to the user's own cache, nor remembered from another test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    module._opened.cache_clear()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A data set of three files, which are its shards."""
    path = tmp_path / "named"
    path.mkdir()
    for number in range(3):
        write_jsonl(path / f"train-{number}.jsonl", TEXTS[number * 10 : number * 10 + 10])
    write_jsonl(path / "test-0.jsonl", TEXTS[30:])
    return path


def test_a_data_set_by_its_name(folder):
    found = find(f"dataset:{folder}")
    assert [file.path for file in found.files] == [f"0000{i}-of-00003" for i in range(3)]
    assert found.name == "named"
    assert read(f"dataset:{folder}?split=train")[0] == TEXTS[:30]
    assert read(f"dataset:{folder}?split=test")[0] == TEXTS[30:]
    files = "&".join(f"data_files={folder}/train-{i}.jsonl" for i in (2, 0))
    assert read(f"dataset:json?{files}")[0] == TEXTS[20:30] + TEXTS[:10]


def test_another_content_is_another_fingerprint(folder):
    first = measure(find(f"dataset:{folder}"), {}).fingerprint
    module._opened.cache_clear()
    assert measure(find(f"dataset:{folder}"), {}).fingerprint == first
    write_jsonl(folder / "train-1.jsonl", TEXTS[:3])
    listing = find(f"dataset:{folder}")
    (shard, *_) = shards(listing, measure(listing, {}), "text")
    module._opened.cache_clear()
    assert measure(find(f"dataset:{folder}"), {}).fingerprint != first
    with pytest.raises(DataError, match="has changed since"):
        list(documents(shard, Counter()))


def test_what_save_to_disk_leaves(tmp_path):
    rows = datasets.Dataset.from_dict({"n": list(range(40)), "text": [*TEXTS[:39], None]})
    rows.save_to_disk(tmp_path / "plain", num_shards=3)
    texts, skipped = read(f"dataset:{tmp_path / 'plain'}")
    assert texts == TEXTS[:39]
    assert skipped == {"null documents": 1}
    datasets.DatasetDict(train=rows, dev=rows.select(range(5))).save_to_disk(tmp_path / "both")
    assert read(f"dataset:{tmp_path / 'both'}?split=dev")[0] == TEXTS[:5]
    (file,) = measure(find(f"dataset:{tmp_path / 'plain'}"), {}).files
    assert (file.pieces, file.length > 0) == (40, True)
    place = Dataset(f"dataset:{tmp_path / 'plain'}") / file.path
    cut = [
        text for i in range(0, 40, 7) for text in place.texts(i, min(i + 7, 40), "text", skipped)
    ]
    assert cut == TEXTS[:39]
    with pytest.raises(DataError, match=r"no split 'test'; valid are \['dev', 'train'\]"):
        find(f"dataset:{tmp_path / 'both'}?split=test")
    with pytest.raises(DataError, match="split would be ignored"):
        find(f"dataset:{tmp_path / 'plain'}?split=train")
    with pytest.raises(DataError, match="config would be ignored"):
        find(f"dataset:{tmp_path / 'both'}?config=en")


@pytest.mark.parametrize("splits", [False, True])
def test_a_saved_folder_that_is_named_without_saying_so(tmp_path, splits):
    rows = datasets.Dataset.from_dict({"text": TEXTS})
    saved = datasets.DatasetDict(train=rows) if splits else rows
    saved.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="save_to_disk has written") as told:
        find(str(tmp_path / "saved"), "validation")
    address = f"dataset:{tmp_path / 'saved'}"
    assert f"validation='{address}'" in str(told.value)
    assert read(address)[0] == TEXTS
    (tmp_path / "state.json").write_text('{"text": "a folder of logs"}')
    assert read(tmp_path / "state.json")[0] == read(tmp_path / "*.json")[0] == ["a folder of logs"]


def test_columns_that_are_not_there_or_hold_no_text(folder, tmp_path):
    with pytest.raises(DataError, match="no text_field 'body'; the columns: 'id', 'text'"):
        read(f"dataset:{folder}", "body")
    with pytest.raises(DataError, match="row 1: text_field 'id' is int"):
        read(f"dataset:{folder}", "id")
    (folder / "train-1.jsonl").write_text('{"id": 1, "text": "fine"}\n{"id": 2, "te')
    module._opened.cache_clear()
    with pytest.raises(DataError, match="shard 00001-of-00003, after row 0: cannot be read"):
        read(f"dataset:{folder}")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("dataset:", "name a data set"),
        ("dataset:x?split", "after the . must come name=value"),
        ("dataset:x?splits=train", "'splits' is not valid: valid are config, split"),
        ("dataset:x?split=a&split=b", "split is given twice"),
        ("dataset:json?data_files=/nowhere/x.jsonl", "cannot be opened: .*nowhere"),
    ],
)
def test_what_is_no_data_set(source, what):
    with pytest.raises(DataError, match=rf"validation='dataset:.*{what}"):
        find(source, "validation")


def test_a_data_set_of_the_hub_is_pinned_to_its_revision(monkeypatch):
    """The hub is far: a builder as `datasets` makes it of a data set that lies there."""
    asked = []
    commits = iter(["a" * 40, "b" * 40])
    rows = datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset(num_shards=4)

    def load_dataset_builder(name, config, data_files=None, revision=None):
        asked.append((name, config, data_files, revision))
        commit = revision or next(commits)
        files = datasets.data_files.DataFilesList(
            [f"hf://datasets/org/name@{commit}/en/{i}.json.gz" for i in range(4)],
            origin_metadata=[("org/name", commit)] * 4,
        )
        return types.SimpleNamespace(
            name="json",
            hash="not of the revision",
            repo_id="org/name",
            config=types.SimpleNamespace(name=config, data_files={"train": files}),
            as_streaming_dataset=lambda split: rows,
        )

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    found = find("dataset:org/name?config=en")
    pinned = f"dataset:org/name?config=en&revision={'a' * 40}"
    assert found.origin == pinned
    first = measure(found, {})
    listing = found
    assert [t for s in shards(listing, first, "text") for t in documents(s, Counter())] == TEXTS
    assert asked == [("org/name", "en", None, None), ("org/name", "en", None, "a" * 40)]
    # Named with its revision it is the same; and another once the hub has moved on.
    assert measure(find(pinned), {}) == first
    module._opened.cache_clear()
    assert measure(find("dataset:org/name?config=en"), {}).fingerprint != first.fingerprint
    assert json.loads(json.dumps(shards(listing, first, "text")[0].to_json()))["root"] == pinned
