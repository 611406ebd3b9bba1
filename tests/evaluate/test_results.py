"""The file of results: merged, never half written, never lost."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import pytest

from groundup.evaluate import results

HEAD = {"step": 7, "tokens": 70, "versions": {"groundup": "0"}}


def test_its_place() -> None:
    run = Path("run")
    assert results.path_of(run, 12) == run / "evaluations" / "step-00000012.json"
    assert results.path_of(run, None) == run / "evaluations" / "model.json"


def test_results_are_merged_by_name(tmp_path: Path) -> None:
    path = results.path_of(tmp_path, 7)
    assert results.read(path) == {"results": {}}
    old = {"what": "text", "source": "a.txt", "perplexity": 3.0}
    new = {"what": "text", "source": "a.txt", "perplexity": 2.0}
    task = {"what": "task", "acc": 0.5}
    results.add(path, {**HEAD, "tokens": 1}, {"a": old, "piqa": task})
    whole = results.add(path, HEAD, {"a": new})
    assert whole == {**HEAD, "results": {"a": new, "piqa": task}}
    assert json.loads(path.read_text()) == whole == results.read(path)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_one_name_of_two_origins_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "evaluations" / "step-00000007.json"
    sources = [("text", "one/a.txt"), ("text", "two/a.txt"), ("wikitext", "one/a.txt")]
    for _ in range(2):
        for what, source in sources:
            results.add(path, HEAD, {"a": {"what": what, "source": source}})
    found = results.read(path)["results"]
    assert {name: (r["what"], r["source"]) for name, r in found.items()} == dict(
        zip(["a", "a-2", "a-3"], sources, strict=True)
    )


FULL = {
    "name": "piqa", "what": "task", "source": None, "file": "piqa.jsonl", "form": None,
    "limit": None, "shots": 0, "stride": None, "stream": None, "length": 128,
    "precision": "float32", "acc": 0.5, "n": 1838,
}  # fmt: skip
OTHERS = {
    "name": "boolq", "what": "text", "source": "a.txt", "file": "other.jsonl", "form": "converted",
    "limit": 5, "shots": 3, "stride": 64, "stream": True, "length": 64, "precision": "bf16",
}  # fmt: skip


@pytest.mark.parametrize("field", sorted(OTHERS))
def test_only_the_very_same_evaluation_is_replaced(tmp_path: Path, field: str) -> None:
    path = results.path_of(tmp_path, 7)
    results.add(path, HEAD, {"piqa": FULL})
    other = {**FULL, field: OTHERS[field], "acc": 0.25}
    results.add(path, HEAD, {other["name"]: other})
    again = {**FULL, "acc": 0.75, "n": 1838}
    found = results.add(path, HEAD, {"piqa": again})["results"]
    assert found == {"piqa": again, "boolq" if field == "name" else "piqa-2": other}
    assert results.add(path, HEAD, {other["name"]: other})["results"] == found


def test_results_of_a_version_that_stored_no_name_are_replaced(tmp_path: Path) -> None:
    old = [{"what": "text", "source": source, "limit": None} for source in ("a/x.txt", "b/x.txt")]
    results.write(path := tmp_path / "old.json", {"results": {"x": old[0], "x-2": old[1]}})
    new = [{**result, "name": "x", "perplexity": 3.0} for result in old]
    for result in reversed(new):
        found = results.add(path, HEAD, {"x": result})["results"]
    assert found == {"x": new[0], "x-2": new[1]}


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    results.write(path, {"a": [math.nan, {"b": -math.inf}], "c": (1.5, 2, True, None, "x")})
    assert json.loads(path.read_text()) == {
        "a": [None, {"b": None}],
        "c": [1.5, 2, True, None, "x"],
    }


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"results": 3}', '{"results": {"a": 1}}', "{"]
)
def test_what_is_damaged_stays(tmp_path: Path, content: str) -> None:
    path = results.path_of(tmp_path, 7)
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ValueError, match=r"step-00000007\.json does not hold results.*move it"):
        results.add(path, HEAD, {"a": {"what": "text"}})
    assert path.read_text() == content


def test_several_at_once_lose_nothing(tmp_path: Path) -> None:
    path = results.path_of(tmp_path, 7)
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait(timeout=20)
        for part in range(3):
            results.add(path, HEAD, {f"{number}-{part}": {"what": "text"}})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(results.read(path)["results"]) == 24
