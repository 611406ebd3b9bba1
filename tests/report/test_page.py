"""The page: self-contained, escaped, atomic, the same bytes for the same runs."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser

import pytest

from groundup.report import write_report
from groundup.report.page import beside, columns
from groundup.report.page.markup import json_block
from groundup.report.published import Published

EVIL = "<script>alert('x')</script> & \"$a_b$\" \x07"
VOID = {"meta", "br", "img", "link"}


class Reader(HTMLParser):
    """Collects tags, attributes and visible text, and checks that tags are balanced."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def report(folders, out, **options):
    return write_report(folders, out, **options).read_text(encoding="utf-8")


def test_page_holds_what_it_should(pair, tmp_path):
    text = " ".join(Reader(report(pair, tmp_path / "r.html")).text)
    for expected in (
        "With residual warmup (linear) the evaluation loss ends 0.080 lower",
        "3.550 ± 0.071",
        "−0.080 ± 0.028",
        "schedule",
        "a small machine",
        "torch 2.13.0",
        "groundup compare linear",
        "residual warmup ends",
        "rate decay begins",
        "the mean of the 10 before",
        "averaged over 3 updates",
        "4,321",
    ):
        assert expected in text, expected


def test_asks_the_network_for_nothing(pair, tmp_path):
    page = report(pair, tmp_path / "r.html")
    reader = Reader(page)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(reader.tags)
    for tag, name, value in reader.attributes:
        if name in {"src", "href", "xlink:href", "srcset", "action", "data", "poster"}:
            assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value)
    without = re.sub(r"base64,[^\"]*|'sha256-[^']*'|\"http://www.w3.org/2000/svg\"", "", page)
    assert not re.search(r"url\((?!#)|@import|https?:|//\w", without)


def test_only_the_pages_own_script_may_run(pair, tmp_path):
    page = report(pair, tmp_path / "r.html")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none';")
    (allowed,) = re.findall(r"'sha256-([^']*)'", policy)
    assert "unsafe" not in re.search(r"script-src ([^;]*)", policy)[1]
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    run = [text for kind, text in scripts if "application/json" not in kind]
    assert [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in run] == [
        allowed
    ]
    data = [text for kind, text in scripts if 'type="application/json"' in kind]
    assert len(data) == len(scripts) - 1 > 0
    for text in data:
        json.loads(text)


def test_ids_are_unique_and_references_hold(pair, tmp_path):
    reader = Reader(report(pair, tmp_path / "r.html"))
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 100
    for _, name, value in reader.attributes:
        for target in re.findall(r"url\(#([^)]*)\)", value):
            assert target in ids
        if name == "href" and value.startswith("#"):
            assert value[1:] in ids


def test_follows_light_and_dark(pair, tmp_path):
    page = report(pair, tmp_path / "r.html")
    body = page[page.index("<body>") :]
    assert "prefers-color-scheme: dark" in page
    assert not re.findall(r"#[0-9a-fA-F]{6}\b", re.sub(r'"(#|data:)[^"]*"|url\(#[^)]*\)', "", body))
    css = page[: page.index("</style>")]
    for variable in set(re.findall(r"var\((--[\w-]+)\)", page)):
        assert css.count(f"{variable}:") == 2, f"{variable} needs a light and a dark value"


def test_everything_is_escaped(tmp_path, write_run):
    folders = [
        write_run(
            tmp_path / "a",
            EVIL,
            name=EVIL,
            schedule="none",
            summary={
                "status": EVIL,
                "hardware": EVIL,
                "versions": {EVIL: EVIL},
                "command": EVIL,
                "tokens": EVIL,
            },
        ),
        write_run(tmp_path / "b", f"_{EVIL}", name="b"),
        write_run(
            tmp_path / "<script>alert(1)<x>", "linear", schedule="<b>bold</b>", summary=False
        ),
    ]
    page = report(folders, tmp_path / "r.html", title=EVIL, baseline=EVIL)
    assert "<script>alert" not in page.lower()
    assert "<b>bold" not in page
    assert "\x07" not in page
    reader = Reader(page)
    kinds = re.findall(r"<script([^>]*)>", page)
    assert set(kinds) == {"", ' type="application/json" class="hover"'}
    assert kinds.count("") == 1
    assert reader.tags.count("script") == len(kinds)
    assert "<script>alert('x')</script>" in " ".join(reader.text)


def test_json_cannot_leave_its_block():
    hostile = "</script><!-- ]]> \u2028\u2029 & é"
    block = json_block({"name": hostile}, "x")
    inner = re.fullmatch(r'<script type="application/json" class="x">(.*)</script>', block)[1]
    assert not set("<>&\u2028\u2029") & set(inner)
    assert inner.isascii()
    assert json.loads(inner) == {"name": hostile}


def test_events_are_listed(tmp_path, write_run):
    event = {"step": 12, "kind": "spike", "of": "loss", "value": 9.0, "mean": 5.0}
    event |= {"deviation": 0.5, "action": "rewind", "to": 10, "batch": 12}
    event["documents"] = [{"number": 7, "starts": "<b>def f(x)"}] * 3
    event["documents"] += [{"number": 8, "starts": "never shown"}] * 2
    event["documents"][1] = {"number": 283, "starts": "The film", "part": "imdb"}
    event["documents"][2] = {"number": None, "starts": "A chapter", "part": "<i>"}
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", "linear", events=[event])]
    page = report(folders, tmp_path / "r.html")
    text = " ".join(Reader(page).text)
    for expected in ("1 event of the spike monitor", "rewind to 10", "7 “<b>def f(x)”", "and 2"):
        assert expected in text, expected
    assert "imdb 283 “The film”" in text
    assert "<i> “A chapter”" in text
    assert "<b>def" not in page
    quiet = report(folders[:1], tmp_path / "q.html")
    assert "spike monitor" not in quiet


def test_parts_of_mixtures_have_a_table(tmp_path, write_run, rows):
    folders = []
    for variant, parts in (("baseline", ("a", "b")), ("linear", ("b", "<c>")), ("equal", ())):
        metrics = rows(20)
        metrics[-1] |= {f"eval_loss/{part}": 4 + 0.5 * i for i, part in enumerate(parts)}
        mixture = {"data.mixture": [{"name": part} for part in parts]}
        folder = tmp_path / variant
        folders.append(write_run(folder, variant, metrics=metrics, settings=mixture))
    page = report(folders, tmp_path / "r.html")
    table = page[page.index("by part of the mixture") :].partition("</table>")[0]
    cells = re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", table)
    assert [cells[i : i + 4] for i in range(0, len(cells), 4)] == [
        ["run", "a", "b", "&lt;c&gt;"],
        ["baseline, seed 0", "4.0000", "4.5000", "–"],
        ["linear, seed 0", "–", "4.0000", "4.5000"],
    ]
    assert "of the mixture" not in report(folders[2:], tmp_path / "q.html")


def test_published_numbers_only_where_there_are_some(pair, tmp_path, monkeypatch):
    assert "Published numbers" not in report(pair, tmp_path / "r.html")
    entry = Published(14.30, 14.67, "arXiv:2603.05369, Table 2", "Pre-LN, 130M", False, ["<data>"])
    monkeypatch.setattr(beside, "beside", lambda run: entry if run.variant == "linear" else None)
    monkeypatch.setattr(columns, "published_for", beside.beside)
    page = report(pair, tmp_path / "r.html")
    text = " ".join(Reader(page).text)
    for expected in ("Published numbers", "published perplexity", "14.30", "14.67", "<data>"):
        assert expected in text, expected


def test_warnings_of_a_diverged_run(tmp_path, write_run, rows):
    metrics = rows(30)
    metrics[-1]["grad_norm"] = None
    gone = write_run(tmp_path / "l", "linear", metrics=metrics, planned=100, summary=False)
    text = " ".join(Reader(report([write_run(tmp_path / "b"), gone], tmp_path / "r.html")).text)
    assert "It diverged: loss or gradient norm are not finite at update 29 of 100" in text
    assert "still going on" not in text


def test_unfinished_runs_say_so(tmp_path, write_run, rows):
    base = write_run(tmp_path / "b")
    metrics = rows(40)
    metrics[20] |= {"loss": None, "grad_norm": None}
    warm = write_run(tmp_path / "l", "linear", metrics=metrics, planned=100, summary=False)
    with open(warm / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "loss": 3.')
    text = " ".join(Reader(report([base, warm], tmp_path / "r.html")).text)
    assert "The last line of metrics.jsonl is cut off" in text
    assert "up to update 40 of 100" in text
    assert "1 update had no finite loss" in text
    assert "is so far" in text


def test_single_run_and_missing_figures(tmp_path, write_run):
    text = " ".join(Reader(report([write_run(tmp_path / "a")], tmp_path / "r.html")).text)
    assert "ended at an evaluation loss of 3.500" in text
    assert "Not shown" in text
    assert "gap to baseline" not in text


def test_same_bytes(pair, tmp_path):
    first = write_report(pair, tmp_path / "1.html").read_bytes()
    assert write_report(pair, tmp_path / "2.html").read_bytes() == first


def test_written_whole_or_not_at_all(pair, tmp_path, monkeypatch):
    out = tmp_path / "deep" / "r.html"
    assert write_report(pair, out) == out
    before = out.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(pair, out, title="new")
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["r.html"]


def test_out_may_be_a_folder(pair, tmp_path):
    assert write_report(pair, tmp_path) == tmp_path / "report.html"


def test_errors_come_before_anything_is_written(pair, tmp_path):
    out = tmp_path / "r.html"
    with pytest.raises(ValueError, match="did you mean 'linear'"):
        write_report(pair, out, baseline="linaer")
    with pytest.raises(ValueError, match="not a run folder"):
        write_report([tmp_path], out)
    assert not out.exists()


def test_long_runs_make_a_small_page(tmp_path, write_run, rows):
    folders = [
        write_run(tmp_path / f"{v}{s}", v, seed=s, metrics=rows(20_000, seed=s, every=100))
        for v in ("baseline", "linear")
        for s in (0, 1)
    ]
    assert len(report(folders, tmp_path / "r.html")) < 600_000
