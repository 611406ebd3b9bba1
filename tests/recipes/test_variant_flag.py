"""One row of a table is one command: `--variant`; some of them are another: compare's `--only`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.cli import main

TEXT = """
name = "two"
variants = [
  { name = "a", residual.schedule = "none" },
  { name = "b", model.layers = 3 },
  { name = "c", rate.peak = 1e-4 },
]
[model]
layers = 2
width = 16
heads = 2
[data]
vocab_size = 300
length = 16
[residual]
schedule = "linear"
T = 2
[train]
steps = 3
batch = 4
compile = false
precision = "float32"
[measure]
every = 0
"""


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe's file, in a folder of its own with some text; and that is where we are."""
    monkeypatch.chdir(tmp_path)
    words = [f"{n} is a number, and {n * n} is its square.\n" for n in range(400)]
    (tmp_path / "text").mkdir()
    for n in range(40):
        (tmp_path / "text" / f"{n}.txt").write_text("".join(words[10 * n : 10 * n + 10]))
    path = tmp_path / "two.toml"
    path.write_text(TEXT.replace("[data]", '[data]\nsource = "text"\nvalidation_fraction = 0.2'))
    return path


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("flags", [["--variant", "b"], ["--variant=b"]])
def test_plan(flags: list[str], two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, other = plan(capsys, "two.toml"), plan(capsys, "two.toml", *flags)
    layer = 4 * 16 * 16 + 3 * 16 * 48 + 2 * 16
    assert other["parameters"] - own["parameters"] == layer
    # A flag changes the variant, wherever it stands.
    changed = plan(capsys, "two.toml", "--model.layers", "5", *flags)
    assert changed["parameters"] - own["parameters"] == 3 * layer


def test_a_point_of_a_sweep(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two.write_text(two.read_text() + "[sweep]\nmodel.layers = [4, 6]\n")
    small = plan(capsys, "two.toml", "--variant", "b.layers-4")["parameters"]
    large = plan(capsys, "two.toml", "--variant", "b.layers-6")["parameters"]
    assert large > small
    assert main(["plan", "two.toml", "--variant", "b"]) == 2
    assert "variant='b' is unknown: valid are a.layers-4, a.layers-6, b" in capsys.readouterr().err


def test_a_sweep_without_variants_is_of_the_recipe(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = two.read_text()
    two.write_text(text[: text.index("variants")] + text[text.index("[model]") :])
    # Without a sweep there are the two that compare trains.
    assert main(["plan", "two.toml", "--variant", "baseline"]) == 0
    two.write_text(two.read_text() + "[sweep]\nmodel.layers = [4, 6]\n")
    assert main(["plan", "two.toml", "--variant", "layers-6"]) == 0
    capsys.readouterr()
    assert main(["plan", "two.toml", "--variant", "baseline"]) == 2
    assert "valid are layers-4, layers-6" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["train"], ["plan"], ["schedule", "table"]])
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--variant", "d"], "variant='d' is unknown: valid are a, b, c"),
        (["--variant"], "variant='' is unknown"),
        (["--variant", "a", "--variant", "b"], "name one"),
    ],
)
def test_what_is_no_variant_is_refused(
    command: list[str],
    flags: list[str],
    said: str,
    two: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*command, "two.toml", *flags]) == 2
    assert said in capsys.readouterr().err
    assert not Path("runs").exists()


def test_schedule_shows_the_one(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "table", "two.toml", "--variant", "c", "--csv", "-"]) == 0
    header, first, *_ = capsys.readouterr().out.splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert float(row["rate"]) == 1e-4


def test_compare_takes_over_what_train_has_trained(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "two.toml", "--variant", "b"]) == 0
    folder = Path("runs/two/b/seed-0")
    before = (folder / "summary.json").stat().st_mtime_ns
    assert main(["compare", "two.toml", "--only", "a", "b"]) == 0
    assert sorted(path.name for path in Path("runs/two").iterdir()) == ["a", "b", "report.html"]
    assert (folder / "summary.json").stat().st_mtime_ns == before
    assert len((folder / "starts.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("only", "said"),
    [
        (["a"], "groundup train RECIPE --variant a"),
        (["b", "b"], "a comparison needs two"),
        (["a", "d"], "only='d' is unknown: valid are a, b, c"),
    ],
)
def test_what_cannot_be_compared(
    only: list[str], said: str, two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "two.toml", "--only", *only]) == 2
    assert said in capsys.readouterr().err
    assert not Path("runs").exists()
