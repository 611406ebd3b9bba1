"""The page in a real Chromium: no errors, no requests, tables sort and filter, values show."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import pytest

from groundup.report import read_runs, write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

EVIL = ("<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "<!--\u2028a&amp;b")


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for path in map(shutil.which, names) if path), None)
    with playwright.sync_playwright() as session:
        if found is None and not Path(session.chromium.executable_path).exists():
            pytest.skip(
                "there is no Chromium: install chromium, or run `playwright install chromium`"
            )
        opened = session.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """A page of the browser, with all that it said and asked for."""

    def __init__(self, page, path):
        self.page, self.path = page, path
        self.problems, self.requests = [], []
        page.on("console", lambda message: self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())

    def check(self):
        assert self.problems == []
        assert [url for url in self.requests if not url.startswith("data:image/png")] == [
            self.path.as_uri()
        ]

    def column(self, heading):
        """The shown cells of a column of the runs, top to bottom."""
        return self.page.evaluate(
            """heading => {
                 const table = document.querySelector("table.runs");
                 const at = [...table.tHead.rows[0].cells]
                   .findIndex(cell => cell.textContent === heading);
                 return [...table.tBodies[0].rows].filter(row => !row.hidden)
                   .map(row => row.cells[at].firstChild.textContent);
               }""",
            heading,
        )

    def headings(self):
        return self.page.locator("table.runs thead th").all_text_contents()

    def heading(self, name):
        exact = re.compile(f"^{re.escape(name)}$")
        return self.page.locator("table.runs thead th").filter(has_text=exact)

    def sort(self, name):
        self.heading(name).get_by_role("button").click()
        return self.heading(name).get_attribute("aria-sort")


@pytest.fixture
def show(browser, tmp_path):
    context = browser.new_context(viewport={"width": 1300, "height": 1000})

    def opened(folders, **options):
        path = write_report(folders, tmp_path / "page.html", **options)
        return Opened(context.new_page(), path)

    yield opened
    context.close()


@pytest.fixture
def study(tmp_path, write_run, rows):
    """Two seeds of three variants; one diverged, one stopped."""
    losses = {"baseline": (3.5, 3.6), "linear": (3.4, 3.64), "equal": (10.5, 3.55)}
    folders = [
        write_run(
            tmp_path / variant / f"seed-{seed}",
            variant,
            seed=seed,
            schedule="none" if variant == "baseline" else variant,
            length=f"T = {5 if variant == 'linear' else 10}",
            eval_loss=loss,
        )
        for variant, both in losses.items()
        for seed, loss in enumerate(both)
    ]
    metrics = rows(40)
    metrics[-1] |= {"loss": None}
    folders.append(
        write_run(tmp_path / "d", "reverse", metrics=metrics, planned=100, summary=False)
    )
    folders.append(
        write_run(tmp_path / "s", "stopped", metrics=rows(30), planned=100, summary=False)
    )
    return folders


def as_number(text):
    """A cell as a reader takes it; None for a dash."""
    if text == "–":
        return None
    found = re.fullmatch(r"([+−]?)([\d,.]+)%?(?: s)?", text)
    if text.endswith("s") and "min" in text:
        minutes, seconds = re.findall(r"\d+", text)
        return 60 * int(minutes) + int(seconds)
    return float(found[2].replace(",", "")) * (-1 if found[1] == "−" else 1) if found else text


def test_every_heading_sorts_both_ways(show, study):
    opened = show(study)
    headings = opened.headings()
    assert headings[:3] == ["variant", "residual.schedule", "residual.T"]
    assert "gap to baseline" in headings
    for name in headings:
        before = opened.column(name)
        for direction in ("ascending", "descending"):
            assert opened.sort(name) == direction
            cells = [as_number(cell) for cell in opened.column(name)]
            assert sorted(opened.column(name)) == sorted(before)
            known = [cell for cell in cells if cell is not None]
            assert cells == known + [None] * (len(cells) - len(known)), name
            numbers = [cell for cell in known if isinstance(cell, float | int)]
            texts = [cell.lower() for cell in known if isinstance(cell, str)]
            assert not (numbers and texts), name
            rising = numbers or texts
            assert rising == sorted(rising, reverse=direction == "descending"), name
    gaps = [cell for cell in opened.column("gap to baseline") if cell.startswith("−")]
    assert gaps
    opened.check()


def test_numbers_sort_as_numbers(show, study):
    opened = show(study)
    opened.sort("evaluation loss")
    assert opened.column("evaluation loss")[-2:] == ["10.5000", "–"]
    assert opened.column("variant")[-1] == "reverse"
    opened.sort("evaluation loss")
    assert opened.column("evaluation loss")[0] == "10.5000"
    assert opened.column("evaluation loss")[-1] == "–"


def test_keyboard_sorts(show, study):
    opened = show(study)
    opened.heading("seed").get_by_role("button").focus()
    opened.page.keyboard.press("Enter")
    assert opened.heading("seed").get_attribute("aria-sort") == "ascending"
    opened.page.keyboard.press("Space")
    assert opened.heading("seed").get_attribute("aria-sort") == "descending"
    assert opened.column("seed")[0] == "1"
    opened.page.keyboard.press("Tab")
    opened.page.keyboard.press("Enter")
    assert opened.heading("seed").get_attribute("aria-sort") is None


def test_filters_hide_rows(show, study):
    opened = show(study)
    bar = opened.page.locator(".filter")
    assert bar.locator("output").text_content() == "8 runs"
    bar.get_by_role("searchbox").fill("lin seed-1")
    assert opened.column("variant") == ["linear", "baseline"] or opened.column("variant") == [
        "baseline",
        "linear",
    ]
    assert bar.locator("output").text_content() == "2 of 8 runs"
    bar.get_by_role("searchbox").fill("")
    bar.get_by_label("status").select_option("diverged")
    assert opened.column("variant") == ["reverse"]
    bar.get_by_label("status").select_option("")
    bar.get_by_label("residual.schedule").select_option("equal")
    bar.get_by_label("seed").select_option("1")
    assert opened.column("folder") == ["equal/seed-1"]
    opened.sort("evaluation loss")
    assert opened.column("folder") == ["equal/seed-1"]
    opened.check()


def test_statuses(show, study):
    opened = show(study)
    states = dict(zip(opened.column("variant"), opened.column("status"), strict=True))
    assert states == {
        "baseline": "finished",
        "linear": "finished",
        "equal": "finished",
        "reverse": "diverged",
        "stopped": "stopped",
    }


def in_window(page, name, axes, x, y):
    """The place in the window of a place in the figure's viewBox."""
    svg = page.locator(f"figure.{name} svg")
    svg.scroll_into_view_if_needed()
    page.wait_for_timeout(100)  # scrolling takes the values away
    return svg.evaluate(
        """(svg, [x, y]) => {
             const place = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
             return [place.x, place.y];
           }""",
        [x, y],
    )


def hover_data(page, name):
    return json.loads(page.locator(f"figure.{name} script.hover").text_content())


def share(axis, value):
    low, high, log = axis
    if log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def test_lines_say_their_values(show, study):
    opened = show(study)
    page = opened.page
    (axes,) = hover_data(page, "rate")
    left, top, width, height = axes["box"]
    step = 60
    x = left + share(axes["x"], step) * width
    page.mouse.move(*in_window(page, "rate", axes, x, top + height / 2))
    tip = page.locator(".tip")
    assert tip.is_visible()
    assert tip.locator("b").text_content() == "updates 60"
    run = read_runs(study[:1])[0]
    (at,) = (run.steps == step).nonzero()[0]
    shown = [float(text) for text in tip.locator("td:nth-child(3)").all_text_contents()]
    assert run.series["rate"][at] in shown
    assert shown == sorted(shown, reverse=True)
    # The crosshair stands where the axis has that update.
    assert float(page.locator("figure.rate .cross").get_attribute("x1")) == pytest.approx(x, abs=1)
    page.mouse.move(2, 2)
    assert not tip.is_visible()
    opened.check()


def test_heat_maps_say_update_layer_and_value(show, study):
    opened = show(study)
    page = opened.page
    axes = hover_data(page, "alpha")[0]
    left, top, width, height = axes["box"]
    at = len(axes["heat"]["steps"]) // 3
    step, layer = axes["heat"]["steps"][at], 2
    x = left + share(axes["x"], step) * width
    y = top + (1 - share(axes["y"], layer)) * height
    page.mouse.move(*in_window(page, "alpha", axes, x, y))
    tip = page.locator(".tip")
    assert tip.locator("td:nth-child(2)").text_content() == "layer 2"
    value = float(tip.locator("td:nth-child(3)").text_content())
    # linear, T = 5: min(t/(T·l), 1)
    assert value == pytest.approx(min(step / (5 * layer), 1), abs=1e-3)
    opened.check()


def test_arrow_keys_move_the_crosshair(show, study):
    opened = show(study)
    svg = opened.page.locator("figure.rate svg")
    svg.focus()
    places = []
    for key in ("ArrowLeft", "ArrowLeft", "ArrowLeft"):
        opened.page.keyboard.press(key)
        places.append(float(opened.page.locator("figure.rate .cross").get_attribute("x1")))
    assert places[0] > places[-1]
    assert opened.page.locator(".tip").is_visible()
    opened.page.keyboard.press("Escape")
    assert not opened.page.locator(".tip").is_visible()
    opened.check()


def test_hostile_names_do_nothing(show, tmp_path, write_run):
    names = ["baseline", *EVIL]
    folders = [
        write_run(
            tmp_path / f"run-{i}",
            name,
            name=name,
            schedule="none" if i == 0 else "linear",
            summary={"command": name, "hardware": name, "versions": {name: name}},
        )
        for i, name in enumerate(names)
    ]
    for folder, name in zip(folders, names, strict=True):
        event = {"step": 3, "kind": name, "of": name, "value": 9, "mean": 1, "deviation": 1}
        event |= {"action": name, "documents": [{"number": 1, "starts": name}]}
        (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    opened = show(folders, title=EVIL[1])
    opened.page.wait_for_timeout(100)
    assert opened.page.title() == EVIL[1]
    assert opened.page.locator("img").count() == 0
    shown = [name.replace("\u2028", "\ufffd") for name in names]  # made visible
    assert sorted(opened.column("variant")) == sorted(shown)
    opened.page.locator(".filter").get_by_label("variant").select_option(EVIL[0])
    assert opened.column("variant") == [EVIL[0]]
    for name in ("loss", "rate", "alpha"):
        axes = hover_data(opened.page, name)[0]
        left, top, width, height = axes["box"]
        x, y = left + width * 0.5, top + height / 2
        opened.page.mouse.move(*in_window(opened.page, name, axes, x, y))
        assert opened.page.locator(".tip").is_visible()
    assert opened.page.locator("img").count() == 0
    opened.check()


def test_three_hundred_runs(show, tmp_path, write_run, rows):
    metrics = rows(20)
    folders = [
        write_run(
            tmp_path / f"v{i}" / f"seed-{seed}",
            f"v{i}",
            seed=seed,
            schedule="linear",
            length=f"T = {i + 1}",
            metrics=metrics,
            eval_loss=3 + i / 100,
        )
        for i in range(100)
        for seed in range(3)
    ]
    opened = show(folders)
    assert opened.path.stat().st_size < 5e6
    opened.sort("evaluation loss")
    opened.sort("evaluation loss")
    assert opened.column("variant")[:4] == ["v99", "v99", "v99", "v98"]
    opened.page.locator(".filter").get_by_role("searchbox").fill("v17/")
    assert opened.column("variant") == ["v17"] * 3
    opened.check()


def test_the_page_is_whole_without_scripts(browser, study, tmp_path):
    path = write_report(study, tmp_path / "page.html")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("table.runs tbody tr").count() == len(study)
    assert page.locator("table.runs button").count() == 0
    assert page.locator("figure svg").count() >= 3
    context.close()


@pytest.mark.parametrize("width", [380, 1300])
def test_nothing_but_tables_is_wider_than_the_window(browser, study, tmp_path, width):
    path = write_report(study, tmp_path / "page.html")
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
