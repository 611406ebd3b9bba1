"""What `groundup eval` has found, on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from groundup.report import evaluations
from groundup.report.evaluations import Entry
from groundup.report.page import render
from groundup.report.published.benchmarks import Column
from groundup.report.runs import read_runs
from tests.report.conftest import make_run

PIQA = {"what": "task", "acc": 0.5, "acc_norm": 0.625, "acc_stderr": 0.01, "n": 100}
WIKI = {"what": "wikitext", "perplexity": 30.0, "word_perplexity": 99.5, "stream": False}


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
        ("piqa", "accuracy", ["0.5000", "–", "–"]),
        ("piqa", "accuracy, normalized", ["0.6250", "–", "0.7334"]),
        ("wiki.test", "perplexity", ["–", "30.00", "–"]),
        ("wiki.test", "word perplexity", ["–", "99.50", "23.67"]),
    ]


def test_a_stream_of_wikitext_has_no_published_counterpart() -> None:
    beside = Column("theirs", {"wikitext/word_perplexity": 23.67})
    found = evaluations.table([Entry("a", {"w": {**WIKI, "stream": True}}, [beside])])
    assert found.headings == ["a"]


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


def test_a_damaged_file_is_passed_over(tmp_path: Path) -> None:
    run = make_run(tmp_path / "baseline")
    _evaluated(run, 50, {"piqa": PIQA})
    (run / evaluations.FOLDER / "step-00000100.json").write_text('{"results": {"piqa": 3}}')
    found = evaluations.newest(run)
    assert found is not None
    assert found["step"] == 50
