"""What `groundup eval` has found, on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.report import evaluations
from groundup.report.evaluations import Entry
from groundup.report.page import render
from groundup.report.published import benchmarks
from groundup.report.published.benchmarks import Column
from groundup.report.runs import read_runs
from tests.report.conftest import make_run

PIQA = {"what": "task", "acc": 0.5, "acc_norm": 0.625, "acc_stderr": 0.01, "n": 1838, "shots": 0}
WIKI = {
    "what": "wikitext", "perplexity": 30.0, "word_perplexity": 99.5, "stream": False,
    "documents": 62, "unk": 0,
}  # fmt: skip
LAMBADA = {"what": "lambada", "acc": 0.25, "perplexity": 7.8123e8, "passages": 5153}


def _evaluated(run: Path, step: int, results: dict[str, Any]) -> None:
    folder = run / evaluations.FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:08d}.json"
    path.write_text(json.dumps({"step": step, "results": results}))


def test_a_row_for_each_number_and_a_column_for_each_model() -> None:
    beside = Column("theirs", {"piqa/acc_norm": 0.7334, "wikitext/word_perplexity": 23.67})
    alone = Column("of nothing", {"race/acc": 0.3})
    first = Entry("a", {"piqa": PIQA}, [beside, alone])
    found = evaluations.table([first, Entry("b", {"wiki.test": WIKI})])
    assert found.headings == ["a", "b", "theirs"]
    assert found.rows == [
        ("piqa", "accuracy", ["0.5000 ± 0.0100", "–", "–"]),
        ("piqa", "accuracy, normalized", ["0.6250", "–", "0.7334"]),
        ("wiki.test", "perplexity", ["–", "30.00", "–"]),
        ("wiki.test", "word perplexity", ["–", "99.50", "23.67"]),
    ]


NOT_COMPARABLE = {
    "a stream": {"w": {**WIKI, "stream": True}},
    "some pages": {"w": {**WIKI, "documents": 61}},
    "not raw": {"w": {**WIKI, "unk": 1}},
    "of a version that counted no <unk>": {"w": {k: v for k, v in WIKI.items() if k != "unk"}},
    "text": {"wikitext": {**WIKI, "what": "text"}},
    "some passages": {"l": {**LAMBADA, "passages": 5152}},
    "some rows": {"piqa": {**PIQA, "n": 1837}},
    "the first rows": {"piqa": {**PIQA, "limit": 1838}},
    "with examples": {"piqa": {**PIQA, "shots": 5}},
    "another task": {"piqa-x": PIQA},
}
PUBLISHED = Column(
    "theirs", {"wikitext/word_perplexity": 23.67, "lambada/acc": 0.5, "piqa/acc_norm": 0.75}
)


@pytest.mark.parametrize("case", sorted(NOT_COMPARABLE))
def test_published_numbers_stand_beside_what_they_compare_with_only(case: str) -> None:
    other = evaluations.table([Entry("a", NOT_COMPARABLE[case], [PUBLISHED])])
    assert other.headings == ["a"]
    assert other.note == ""
    whole = {"w": WIKI, "l": LAMBADA, "piqa": PIQA}
    same = evaluations.table([Entry("a", whole, [PUBLISHED])])
    assert same.headings == ["a", "theirs"]
    assert "arXiv:2603.05369" in same.note
    assert [cells[1] for *_, cells in same.rows if cells[1] != "–"] == ["23.67", "0.5000", "0.7500"]


def test_numbers_that_are_too_large_to_read() -> None:
    found = evaluations.table([Entry("a", {"l": LAMBADA, "w": {**WIKI, "perplexity": 999999.0}})])
    cells = [cell for *_, (cell,) in found.rows]
    assert cells == ["7.8e+08", "0.2500", "999,999.00", "99.50"]


def test_one_name_of_two_kinds_is_two_rows() -> None:
    plain = {**WIKI, "what": "text", "bits_per_byte": 2.0}
    found = evaluations.table([Entry("a", {"my": LAMBADA}), Entry("b", {"my": plain})])
    assert [(name, metric, cells) for name, metric, cells in found.rows] == [
        ("my, lambada", "perplexity", ["7.8e+08", "–"]),
        ("my, lambada", "accuracy", ["0.2500", "–"]),
        ("my, text", "perplexity", ["–", "30.00"]),
        ("my, text", "word perplexity", ["–", "99.50"]),
        ("my, text", "bits per byte", ["–", "2.0000"]),
    ]


DIFFERENT = {
    "limit": (None, 5, "my", "my (first 5)"),
    "length": (16, 8, "my (length 16)", "my (length 8)"),
    "precision": ("float32", "bf16", "my (float32)", "my (bf16)"),
    "stride": (None, 4, "my", "my (stride 4)"),
    "stream": (False, True, "my", "my (stream)"),
    "shots": (0, 5, "my (shots 0)", "my (shots 5)"),
    "form": (None, "converted", "my", "my (converted)"),
    "file": ("my_a.jsonl", "my_b.jsonl", "my (my_a.jsonl)", "my (my_b.jsonl)"),
    "source": ("/d/a/my.txt", "/d/b/my.txt", "my (a/my.txt)", "my (b/my.txt)"),
}


@pytest.mark.parametrize("field", sorted(DIFFERENT))
def test_what_differs_between_models_is_two_rows_and_said(field: str) -> None:
    first, second, label, other = DIFFERENT[field]
    result = {"what": "text", "bits_per_byte": 1.5, "name": "my"}
    entries = [
        Entry("a", {"my": {**result, field: first}}),
        Entry("b", {"my": {**result, field: second}, "my-2": {**result, field: first}}),
    ]
    assert evaluations.table(entries).rows == [
        (label, "bits per byte", ["1.5000", "1.5000"]),
        (other, "bits per byte", ["–", "1.5000"]),
    ]


def test_results_without_a_name_are_of_their_key() -> None:
    old = {"my": LAMBADA, "my-2": {**WIKI, "what": "text"}, "gpt-2": {**WIKI, "limit": 3}}
    new = {"my": {**WIKI, "what": "text", "name": "my"}}
    rows = evaluations.table([Entry("a", old), Entry("b", new)]).rows
    assert ("my, text", "perplexity", ["30.00", "30.00"]) in rows
    assert ("gpt-2 (first 3)", "perplexity", ["30.00", "–"]) in rows


def test_the_average_is_of_whole_tasks() -> None:
    tasks = {
        key.split("/")[0]: {
            "what": "task", "n": benchmarks.ROWS[key.split("/")[0]], "shots": 0, "acc": 0.5,
            "acc_norm": 0.5,
        }
        for key in benchmarks.TABLE_3.values()
    }  # fmt: skip
    tasks["race"]["acc"] = 0.25
    assert evaluations.table([Entry("a", tasks)]).rows[-1] == (
        "average", "of the ten", ["0.4750"]
    )  # fmt: skip
    tasks["race"]["limit"] = 5
    assert evaluations.table([Entry("a", tasks)]).rows[-1][0] != "average"


def test_the_page_shows_the_newest(tmp_path: Path) -> None:
    run = make_run(tmp_path / "baseline")
    assert "<h2>Evaluations</h2>" not in render(read_runs([run]))
    _evaluated(run, 50, {"piqa": {**PIQA, "acc": 0.1234}})
    _evaluated(run, 100, {"piqa": PIQA, "<b>": {**WIKI, "perplexity": None}})
    page = render(read_runs([run]))
    assert "<h2>Evaluations</h2>" in page
    assert "step 100" in page
    assert "0.6250" in page
    assert "0.1234" not in page
    assert "&lt;b&gt;" in page


def test_the_page_of_runs_with_different_results(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name) for name in ("baseline", "linear")]
    for run, result in zip(runs, [LAMBADA, {**WIKI, "what": "text"}], strict=True):
        _evaluated(run, 100, {"my": result})
    page = render(read_runs(runs))
    assert "my, lambada" in page
    assert "my, text" in page


def test_a_damaged_file_is_passed_over(tmp_path: Path) -> None:
    run = make_run(tmp_path / "baseline")
    _evaluated(run, 50, {"piqa": PIQA})
    (run / evaluations.FOLDER / "step-00000100.json").write_text('{"results": {"piqa": 3}}')
    found = evaluations.newest(run)
    assert found is not None
    assert found["step"] == 50
