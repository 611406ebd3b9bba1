"""The page: sections between markers, whatever else it says stays, and nothing is half-written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.experiment.studies.shown import Course
from groundup.report.studies.figures import Picture
from groundup.report.studies.findings import Findings
from groundup.report.studies.page import put, read, written

from .made import made_findings

OLD, NEW = (4.0, 4.1, 3.9), (3.9, 4.01, 3.79)
EMPTY = "<!-- groundup reproduce -->\n<!-- end -->\n"
CPU, GPU = (made_findings(NEW, OLD, scale) for scale in ("cpu", "gpu"))
prose = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=40)
prose = prose.filter(lambda text: "<!--" not in text)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read from files is of the made-up study; figures are drawn in another test."""
    monkeypatch.setattr(Picture, "png", lambda self: f"PNG of {self.file}".encode())
    monkeypatch.setattr("groundup.report.studies.findings.named", lambda name: CPU.study)


@given(before=prose, between=prose, after=prose)
def test_other_text_stays(before: str, between: str, after: str) -> None:
    page = f"{before}\n{EMPTY}{between}"
    one = written(page, [CPU])
    assert one.startswith(f"{before}\n<!-- groundup reproduce -->\n| study |")
    assert one.endswith(f"<!-- end -->\n{between}")
    # A second time nothing changes; without the blocks it is what it was.
    one += f"\n{after}"
    assert written(one, [CPU]) == one
    again = written(one, [GPU, CPU])
    assert written(again, [CPU, GPU]) == again
    blocks = r"(?s)<!-- groundup reproduce( \S+ --scale \w+)? -->\n.*?<!-- end -->(\n\n)?"
    rest = re.sub(blocks, "", again)
    for text in (before, between, after):
        assert text in rest


def test_sections_stand_in_the_order_of_studies_and_scales() -> None:
    once = written(EMPTY, [GPU])
    both = written(once, [GPU, CPU])
    assert both == written(EMPTY, [CPU, GPU])
    places = [
        both.index(f"<!-- groundup reproduce placement --scale {s} -->") for s in ("cpu", "gpu")
    ]
    assert places == sorted(places)
    assert both.count("## New against old") == 2
    summary = both[: both.index("<!-- end -->")]
    assert "[New against old](#new-against-old-cpu) | cpu | 12 of 12 | 1 agrees |" in summary
    # A section that somebody has moved stays where it is.
    sections = both.split("\n\n<!-- groundup")
    moved = "\n\n<!-- groundup".join([sections[0], sections[2].rstrip("\n"), sections[1] + "\n"])
    assert written(moved, [CPU, GPU]) == moved


@pytest.mark.parametrize(
    ("page", "what"),
    [
        ("# Results\n", "no markers"),
        ("<!-- groundup reproduce -->\n", "<!-- end --> is missing"),
        ("<!-- end -->\n", "line 1 .*without its counterpart"),
        (f"{EMPTY}<!-- end -->\n", "line 3 .*without its counterpart"),
        (f"{EMPTY}{EMPTY}", "second section 'groundup reproduce'"),
        (
            "<!-- groundup reproduce -->\n<!-- groundup reproduce placement --scale cpu -->\n"
            "<!-- end -->\n",
            "line 2 .*without its counterpart",
        ),
        ("<!-- groundup reproduce placement --scale cpu -->\n<!-- end -->\n", "no markers"),
        (
            f"{EMPTY}<!-- groundup reproduce depth --scale gpu -->\n<!-- end -->\n",
            "depth.*not in res",
        ),
    ],
)
def test_damaged_pages_are_refused_and_nothing_is_written(
    page: str, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "results.md"
    path.write_text(page)
    with pytest.raises(ValueError, match=what):
        put(path, CPU)
    assert path.read_text() == page
    assert list(tmp_path.iterdir()) == [path]


def test_put_writes_the_page_its_numbers_and_its_figures(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.md"
    put(path, made_findings(NEW, OLD, figures=(Course("loss", "t", "loss", ("old", "new")),)))
    assert (path.parent / "results" / "placement-cpu-loss.png").exists()
    put(path, CPU)
    files = {file.name: file.read_bytes() for file in (path.parent / "results").iterdir()}
    assert files.keys() == {"placement-cpu.json", "placement-cpu.png", "placement-cpu-rates.png"}
    assert Findings.from_json(files["placement-cpu.json"].decode()) == CPU
    assert set(re.findall(r"\(results/(.*?)\)", path.read_text())) == {
        n for n in files if "png" in n
    }
    # The other section stays, from its file.
    put(path, GPU)
    put(path, CPU)
    assert path.read_text() == written(f"# Results\n\n{EMPTY}", read(path.parent / "results"))
    assert len(read(path.parent / "results")) == 2
    assert all((path.parent / "results" / n).read_bytes() == c for n, c in files.items())


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 2}', "5", '{"format": 1, "study": 3}']
)
def test_damaged_findings_are_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "placement-cpu.json").write_text(content)
    with pytest.raises(ValueError, match="placement-cpu.json: "):
        read(tmp_path)


def test_findings_of_another_study_are_refused() -> None:
    text = json.dumps(json.loads(CPU.to_json()) | {"study": "depth"})
    with pytest.raises(ValueError, match="'depth'"):
        Findings.from_json(text, CPU.study)
