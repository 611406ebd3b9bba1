"""The section: its numbers by hand, and that it says what is missing."""

from __future__ import annotations

import dataclasses
import math

import pytest

from groundup.experiment.studies import Claim
from groundup.experiment.studies.shown import Column, Grid, Value
from groundup.report.studies.figures import pictures
from groundup.report.studies.findings import About, ArmFindings, Findings, Tried
from groundup.report.studies.section import section

from .made import made_arm, made_findings, made_run, with_arms

OLD, NEW = (4.0, 4.1, 3.9), (3.9, 4.01, 3.79)


def told(found: Findings) -> str:
    return section(found, pictures(found))


def row(text: str, arm: str) -> dict[str, str]:
    """The cells of an arm in the first table, by heading."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    head = lines[0]
    (cells,) = (line for line in lines[1:] if line[0] == f"`{arm}`")
    return dict(zip(head, cells, strict=False))


def test_numbers_by_hand() -> None:
    text = told(made_findings(NEW, OLD))
    assert text.startswith("## New against old (cpu)\n\nIs new better than old?\n")
    assert row(text, "new") == {
        "arm": "`new`",
        "peak rate": "**0.002** of 0.001, 0.002, 0.004",
        "held-out loss": "3.9000 ± 0.1100 (3)",
        "perplexity": f"{math.exp(3.9):.2f}",
        "against": "`old`",
        # 4.302653 · 0.01 / √3
        "paired difference": "−0.1000 (−0.1248 to −0.0752)",
        "seeds that agree": "3 of 3",
        "gradient spikes": "1.25%",
    }
    assert row(text, "old")["against"] == row(text, "old")["paired difference"].strip() == ""
    assert (
        "| `new` < `old` | somewhere, 1 < 2 | **agrees** | −0.1000 (−0.1248 to −0.0752) |" in text
    )
    assert "\n\n**1 agrees**, of what was published or expected.\n\n" in text
    assert "\n\nOf 1 interval at 95%, 0.05 are expected" in text
    assert "standard deviations from the mean of the 10 before" in text
    assert "![Paired differences in held-out loss, with intervals; a dot" in text
    assert "](results/placement-cpu.png)" in text


def test_what_was_run() -> None:
    text = told(made_findings(NEW, OLD))
    for words in (
        "Model: 6 and 12 layers × 64, 12,345 to 67,890 parameters.",
        "Training: 100 updates of 8 × 128 tokens, in float32.",
        "Text: the built-in corpus, Python's own source; a part of it held out.",
        "Each arm was trained at 3 peak rates with a seed that is not reported, and with 3 seeds",
        "On a small machine; groundup 0.1.0: 12 runs, 1 h 30 min added up.",
        "groundup reproduce placement --scale cpu  ",
        "groundup reproduce placement --scale cpu --data.source TEXT --data.validation HELD_OUT",
    ):
        assert words in text, words
    assert "Not complete" not in text


def test_how_weights_begin() -> None:
    plain = made_findings(NEW, OLD)

    def of(**known: tuple[float, ...]) -> str:
        settings = {**plain.about.settings, **{f"model.{k}_std": v for k, v in known.items()}}
        return told(
            made_findings(NEW, OLD, about=dataclasses.replace(plain.about, settings=settings))
        )

    assert "67,890 parameters; initial standard deviation 0.02. Training" in of(init=(0.02,))
    both = of(init=(0.02, 0.07), embedding=(0.16,))
    assert "initial standard deviation 0.02 and 0.07, of embeddings 0.16. Training" in both


def test_own_text() -> None:
    about = About(
        text={"source": "english", "validation": "held-out.jsonl.gz", "data": "english-2048-ab"}
        | {"tokens": {"train": 78_711_171, "validation": 1234}}
        | {"documents": {"train": 63_927, "validation": 2}},
        settings={"train.steps": (1,), "train.batch": (1,), "train.eval_tokens": (65536,)}
        | {"data.length": (1,), "data.vocab_size": (2048,), "train.precision": ("bf16",)},
    )
    text = told(made_findings(NEW, OLD, about=about))
    assert (
        "Text: `english` (78.7M tokens in 63,927 documents); held out: `held-out.jsonl.gz` "
        "(1234 tokens in 2 documents), evaluated on 65,536 tokens of it; a vocabulary of 2048; "
        "prepared as `english-2048-ab`."
    ) in text
    assert "HELD_OUT  # on this text" in text


def test_partial_results_are_told_as_such() -> None:
    waiting = ArmFindings("new", made_arm("", ()).tuned[:1], None, ())
    found = made_findings(waiting, made_arm("old", OLD[:1], planned=3))
    found = dataclasses.replace(found, about=dataclasses.replace(found.about, ended=5, planned=12))
    text = told(found)
    assert "**Not complete**: 5 of 12 runs have ended; arms without a reported run: `new`." in text
    assert row(text, "old")["held-out loss"] == "4.0000 (1)"
    assert row(text, "new")["held-out loss"] == row(text, "new")["paired difference"] == "–"
    assert "**not run**: no reported run of `new` has ended" in text
    assert "results/placement-cpu.png" not in text


def test_nothing_yet() -> None:
    found = dataclasses.replace(made_findings(None, None), about=About(planned=12))
    text = told(found)
    assert "**Not complete**: 0 of 12 runs have ended" in text
    assert "No run has ended yet." in text


def test_every_interval_counts_once_whether_claimed_or_not_and_either_way_round() -> None:
    more = made_arm("newer", [4.1, 4.2, 4.0])
    baselines = {"new": "old", "newer": "old"}
    claims = [Claim("new", "old", "a"), Claim("new", "newer", "b"), Claim("old", "newer", "c")]
    found = with_arms(made_findings(NEW, OLD, baselines=baselines, claims=tuple(claims)), more)
    assert "\n\nOf 3 intervals at 95%, 0.15 are expected" in told(found)
    found = with_arms(made_findings(NEW, OLD, baselines=baselines, claims=()), more)
    assert "\n\nOf 2 intervals at 95%, 0.10 are expected" in told(found)


def test_what_stopped_early_has_no_share_in_spikes_and_speed() -> None:
    stub = {"spikes": {"grad_norm": (50.0, 3, 7)}, "tokens_per_second": 9.0}
    runs = (*made_arm("new", NEW).runs, made_run(4, None, **stub))
    new = dataclasses.replace(made_arm("new", NEW), runs=runs)
    text = told(made_findings(new, [*OLD, 4.0], speed=True))
    assert row(text, "new")["gradient spikes"] == "1.25%"
    assert row(text, "new")["speed"] == "100%"
    assert "from the mean of the 10 before" in text


def test_edges_and_what_diverged() -> None:
    new = made_arm("new", (3.9, None, 3.79), {1e-3: 4.2, 2e-3: 4.1, 4e-3: None})
    old = made_arm("old", OLD, {1e-3: 4.3, 2e-3: 4.0})
    text = told(made_findings(new, old))
    assert row(text, "old")["peak rate"] == "**0.002** (edge) of 0.001, 0.002"
    assert "of them for `old`; a better one may lie beyond." in text
    assert row(text, "new")["held-out loss"] == "3.8450 ± 0.0778 (2, 1 diverged)"
    assert "`new`, seed 2: the loss was not finite." in text
    assert "`new`, rate 0.004: it diverged." in text
    hopeless = made_arm("new", (), {1e-3: None, 2e-3: None}, peak=None)
    text = told(made_findings(hopeless, OLD))
    assert row(text, "new")["peak rate"] == "of 0.001, 0.002 none"
    assert row(text, "new")["held-out loss"] == "diverged"


def test_a_rate_for_which_there_was_no_choice() -> None:
    text = told(made_findings(made_arm("new", NEW, {}), made_arm("old", OLD, {})))
    assert "peak rate |" not in text
    assert "Reported: 3 seeds an arm, at the rates of the recipe." in text


def test_columns_of_a_study() -> None:
    runs = tuple(made_run(s, 3.9, numbers={"right": 0.9 + s / 100}) for s in (1, 2))
    fast = tuple(made_run(s, 4.0, tokens_per_second=1250.0) for s in (1, 2))
    found = made_findings(
        ArmFindings("new", (), 1e-3, fast),
        ArmFindings("old", (), 1e-3, runs),
        columns=(Column("accuracy, %", "right", 1, 100),),
        value=Value("test error", "", perplexity=False),
        speed=True,
    )
    text = told(found)
    assert row(text, "old")["accuracy, %"] == "91.5 ± 0.7"
    assert row(text, "new")["accuracy, %"] == "–"
    assert (row(text, "new")["speed"], row(text, "old")["speed"]) == ("125%", "–")
    assert "perplexity |" not in text
    assert row(text, "new")["test error"] == "4.0000 ± 0.0000 (2)"


def test_arms_of_which_nothing_is_known_are_no_rows() -> None:
    waiting = ArmFindings("new", (Tried(1e-3, None, False),), None, ())
    text = told(made_findings(waiting, OLD))
    assert "| `new` |" not in text
    assert row(text, "old")
    tried = ArmFindings("new", (Tried(1e-3, 4.2, True), Tried(2e-3, None, False)), None, ())
    assert row(told(made_findings(tried, OLD)), "new")["held-out loss"] == "–"


def test_a_grid() -> None:
    cells = {"a": {"x": "new", "y": "old"}, "b": {"y": "old", "z": "gone"}}
    text = told(made_findings(NEW, OLD, grids=(Grid("Loss", "row \\ column", cells),)))
    assert (
        "Loss.\n\n| row \\ column | x | y | z |\n| --- | --- | --- | --- |\n"
        "| a | **3.9000 ± 0.1100 (3)** | 4.0000 ± 0.1000 (3) | – |\n"
        "| b | – | **4.0000 ± 0.1000 (3)** | – |\n"
    ) in text
    other = Grid("Not at this scale", "", {"a": {"x": "gone"}})
    assert "Not at this scale" not in told(made_findings(NEW, OLD, grids=(other,)))


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_the_text_survives_a_round_trip_of_the_findings(scale: str) -> None:
    found = made_findings(NEW, OLD, scale)
    again = Findings.from_json(found.to_json(), found.study)
    assert told(again) == told(found)
    assert again == found
