"""From run folders to findings: what is chosen, what is refused, what is left out."""

from __future__ import annotations

import hashlib
import json
import math
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from groundup.experiment.studies import Setting, Study
from groundup.experiment.studies.arms import of_recipe
from groundup.experiment.studies.shown import Column, Course, Layers, Value
from groundup.experiment.studies.trials import Trial, reported, tuning
from groundup.report.studies import gather, pictures, section
from groundup.report.studies.findings import Findings

NAMES = {"old": "pre-ln", "new": "pre-ln-prores"}
TINY = {"train": {"steps": 40}, "model": {"layers": 2, "width": 16, "heads": 2}}
ARMS = of_recipe("studies/placement", NAMES)(TINY)


def made(**changes) -> Study:
    setting = Setting(lambda change: dict(ARMS), (0.5, 1.0, 2.0), seeds=2)
    told = {"settings": {"cpu": setting}, "baselines": {"new": "old"}} | changes
    return Study("placement", "Title", "Question?", **told)


STUDY = made()
SETTING = STUDY.setting("cpu")
LOSSES = {2e-3: 4.2, 4e-3: 4.1, 8e-3: 4.3}


def train(write_run, trial: Trial, loss: float | None, text: str = "", **more) -> None:
    """What a run of this loss leaves; None: it diverged."""
    trial.write()
    summary = more.pop("summary", loss is not None)
    write_run(trial.folder, seed=trial.seed, steps=40, eval_loss=loss, summary=summary, **more)
    recipe = trial.file.read_text().replace('source = "python"', f'source = "{text or "python"}"')
    (trial.folder / "recipe.toml").write_text(recipe)
    tokenizer = trial.folder / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text(text)
    if loss is None:
        trial.stop(f"{trial.folder}: loss or gradient norm are not finite")


def tune(write_run, out: Path, name: str, losses=LOSSES, **more) -> None:
    for trial in tuning(name, ARMS[name], SETTING, out):
        if trial.peak in losses:
            train(write_run, trial, losses[trial.peak], **more)


def report(write_run, out: Path, name: str, peak: float, losses, **more) -> None:
    trials = reported(name, ARMS[name], peak, SETTING, out)
    for trial, loss in zip(trials, losses, strict=False):
        train(write_run, trial, loss, **more)


def test_nothing_yet(tmp_path: Path) -> None:
    found = gather(STUDY, "cpu", tmp_path)
    assert [arm.name for arm in found.arms] == ["old", "new"]
    assert (found.about.ended, found.about.planned) == (0, 10)
    assert all(not one.ended for arm in found.arms for one in arm.tuned)
    with pytest.raises(ValueError, match="scale"):
        gather(STUDY, "gpu", tmp_path)


def test_partial(tmp_path: Path, write_run) -> None:
    tune(write_run, tmp_path, "old")
    tune(write_run, tmp_path, "new", {2e-3: 4.0})
    report(write_run, tmp_path, "old", 4e-3, [4.15])
    old, new = gather(STUDY, "cpu", tmp_path).arms
    assert (old.peak, old.at_edge, [one.value for one in old.tuned]) == (
        4e-3,
        False,
        [4.2, 4.1, 4.3],
    )
    assert [(r.seed, r.value, r.status) for r in old.runs] == [
        (1, 4.15, "finished"),
        (2, None, "not ended"),
    ]
    assert (new.peak, new.runs) == (None, ())
    assert [(one.value, one.ended) for one in new.tuned] == [
        (4.0, True),
        (None, False),
        (None, False),
    ]
    about = gather(STUDY, "cpu", tmp_path).about
    assert (about.ended, about.planned) == (5, 10)
    assert about.wall_seconds == pytest.approx(4 * 60 + 61)
    assert about.settings["train.steps"] == (40,)
    assert (about.parameters, about.hardware) == ((4321,), ("a small machine",))


def test_speed_is_that_of_all_updates(tmp_path: Path, write_run) -> None:
    """A quarter of them took a tenth: the median would not know."""
    tune(write_run, tmp_path, "old")
    report(write_run, tmp_path, "old", 4e-3, [4.15])
    folder = tmp_path / "old.peak-0.004" / "seed-1"
    seconds = [0.05 if step < 10 else 0.5 for step in range(40)]
    lines = [{"step": i, "seconds": s, "tokens_per_second": 1.0} for i, s in enumerate(seconds)]
    (folder / "timing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokens = json.loads((folder / "summary.json").read_bytes())["tokens"]
    (run, _) = gather(STUDY, "cpu", tmp_path).arms[0].runs
    assert run.tokens_per_second == pytest.approx(tokens / (10 * 0.05 + 30 * 0.5), rel=1e-5)


def test_a_rate_at_the_edge_and_rates_that_diverge(tmp_path: Path, write_run) -> None:
    tune(write_run, tmp_path, "old", {2e-3: 4.2, 4e-3: 4.1, 8e-3: 4.0})
    tune(write_run, tmp_path, "new", dict.fromkeys(LOSSES))
    old, new = gather(STUDY, "cpu", tmp_path).arms
    assert (old.peak, old.at_edge) == (8e-3, True)
    assert (new.peak, new.hopeless, new.at_edge) == (None, True, False)
    assert new.tuned[0].why == "seed-0: loss or gradient norm are not finite"
    # The hopeless one has no reported runs to come.
    assert gather(STUDY, "cpu", tmp_path).about.planned == 3 + 2 + 3


def test_what_a_run_tells(tmp_path: Path, write_run, rows) -> None:
    measured = [{"step": s, "stream_norm/layers": [1.0, 2.0 + s], "phi": 0.5} for s in range(300)]
    tune(write_run, tmp_path, "old")
    summary = {"extra": 0.25, "spike_score": {"loss": {"percent": 2, "window": 9, "scored": 30}}}
    report(
        write_run, tmp_path, "old", 4e-3, [4.1234567, None], summary=summary, measurements=measured
    )
    names = ("loss", "stream_norm/layers", "metrics/rate", "metrics/not-there", "similarity/mlp")
    shown = tuple(Course("b", "B", name, ("old",)) for name in names)
    study = made(figures=shown, columns=(Column("Extra", "extra"),))
    run, lost = gather(study, "cpu", tmp_path).arms[0].runs
    assert run.value == 4.12346
    assert run.evaluations[-1][0] == 40
    assert len(run.losses) == 40
    assert run.losses[3] == pytest.approx(rows(40, seed=1)[3]["loss"], rel=1e-5)
    assert run.spikes["loss"] == (2, 30, 9)
    assert run.numbers == {"extra": 0.25}
    assert run.measured.keys() == {"stream_norm/layers", "metrics/rate"}
    rates = run.measured["metrics/rate"]
    assert rates.steps == tuple(range(40))
    assert rates.values == pytest.approx([row["rate"] for row in rows(40)], rel=1e-5)
    steps = run.measured["stream_norm/layers"].steps
    assert len(steps) <= 12
    assert (steps[0], steps[-1]) == (0, 299)
    assert run.measured["stream_norm/layers"].values[-1] == (1.0, 301.0)
    assert (lost.value, lost.status) == (None, "diverged")


def test_the_row_at_half_of_a_run_is_kept(tmp_path: Path, write_run) -> None:
    """Few rows by layer are: 12, most of them early."""
    measured = [{"step": s, "norm/layers": [1.0, 2.0]} for s in range(41)]
    tune(write_run, tmp_path, "old")
    report(write_run, tmp_path, "old", 4e-3, [4.0], measurements=measured)
    kept = []
    for at in (0.5, 0.7):
        figures = (Layers("n", "t", "norm/layers", ("old",), at),)
        run = gather(made(figures=figures), "cpu", tmp_path).arms[0].runs[0]
        kept.append(run.measured["norm/layers"].steps)
    assert [[step in steps for step in (20, 28)] for steps in kept] == [
        [True, False],
        [False, True],
    ]


def test_training_loss_is_averaged_over_equal_parts(tmp_path: Path, write_run) -> None:
    metrics = [{"step": s, "loss": None if s < 4 else float(s), "tokens": s} for s in range(400)]
    tune(write_run, tmp_path, "old")
    report(write_run, tmp_path, "old", 4e-3, [4.0], metrics=metrics)
    losses = gather(STUDY, "cpu", tmp_path).arms[0].runs[0].losses
    assert len(losses) == 100
    assert losses[:3] == (None, 5.5, 9.5)


def test_another_recipe_is_refused_with_the_field(tmp_path: Path, write_run) -> None:
    tune(write_run, tmp_path, "old")
    recipe = tmp_path / "old.peak-0.004" / "seed-0" / "recipe.toml"
    text = recipe.read_text()
    recipe.write_text(text.replace("steps = 40", "steps = 41"))
    with pytest.raises(ValueError, match=r"old.peak-0.004/seed-0 .*train.steps=41 there, 40 in"):
        gather(STUDY, "cpu", tmp_path)
    # What came into recipes later stands at what it is unless given; where it ran is no difference.
    assert 'dormant = "run"\n' in text
    changed = text.replace('dormant = "run"\n', "").replace('device = "auto"', 'device = "cpu"')
    recipe.write_text(changed)
    assert gather(STUDY, "cpu", tmp_path).about.ended == 3


@pytest.mark.parametrize("of", ["recipe", "tokenizer", "data"])
def test_another_text_is_refused_with_the_field(tmp_path: Path, write_run, of: str) -> None:
    tune(write_run, tmp_path, "old", text="/some/where/english")
    for peak, name in ((2e-3, "a"), (4e-3, "a")):
        state = tmp_path / f"old.peak-{peak:g}" / "seed-0" / "checkpoints" / "step-1" / "state.json"
        state.parent.mkdir(parents=True)
        state.write_text(json.dumps({"data": name}))
    assert gather(STUDY, "cpu", tmp_path).about.text["data"] == "a"
    folder = tmp_path / "old.peak-0.004" / "seed-0"
    if of == "recipe":
        recipe = folder / "recipe.toml"
        recipe.write_text(recipe.read_text().replace("/some/where/english", "python"))
    elif of == "tokenizer":
        (folder / "tokenizer" / "tokenizer.json").write_text("other")
    else:
        state.write_text(json.dumps({"data": "b"}))
    field = {"recipe": "source='python'"}.get(of, f"{of}=")
    with pytest.raises(ValueError, match=rf"old.peak-0.004/seed-0 .*another text, {field}"):
        gather(STUDY, "cpu", tmp_path)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("python", "python"),
        ("english/train", "english/train"),
        ("/home/me/english", "english"),
        ("../mine/english", "english"),
        ("~/english", "english"),
        ("s3://bucket/english", "english"),
        ("dataset:owner/name?split=train", "dataset:owner/name?split=train"),
    ],
)
def test_the_text_as_it_was_named_but_for_where_it_lies(
    told: str, said: str, tmp_path: Path, write_run
) -> None:
    tune(write_run, tmp_path, "old", text=told)
    assert gather(STUDY, "cpu", tmp_path).about.text["source"] == said


def test_names_and_sizes_of_the_text_and_nothing_of_the_machine(tmp_path: Path, write_run) -> None:
    out = tmp_path / "runs"
    tune(write_run, out, "old", {2e-3: 4.2, 4e-3: 4.1, 8e-3: None}, text=f"{tmp_path}/deep/english")
    report(write_run, out, "old", 4e-3, [None, 4.0], text=f"{tmp_path}/deep/english")
    prepared = tmp_path / "data" / "english-2048"
    prepared.mkdir(parents=True)
    found = gather(STUDY, "cpu", out, tmp_path / "data")
    digest = found.about.text["tokenizer"]
    assert found.about.text == {"source": "english", "tokenizer": digest}
    whole = hashlib.sha256(f"{tmp_path}/deep/english".encode()).hexdigest()
    assert digest == whole[: len(digest)]
    sizes = {
        "tokens": {"train": 1000, "validation": 50},
        "documents": {"train": 9, "validation": 2},
    }
    (prepared / "prepared.json").write_text(json.dumps(sizes | {"tokenizer": whole}))
    found = gather(STUDY, "cpu", out, tmp_path / "data")
    assert found.about.text["tokens"] == {"train": 1000, "validation": 50}
    # Another text may have the same tokenizer: then the folder's name decides, if it is known.
    other = tmp_path / "data" / "a-2048"
    other.mkdir()
    (other / "prepared.json").write_text(json.dumps({"tokens": {}, "tokenizer": whole}))
    assert "tokens" not in gather(STUDY, "cpu", out, tmp_path / "data").about.text
    state = out / "old.peak-0.004" / "seed-2" / "checkpoints" / "step-40" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"data": "english-2048"}))
    found = gather(STUDY, "cpu", out, tmp_path / "data")
    assert found.about.text["tokens"] == {"train": 1000, "validation": 50}
    text = found.to_json()
    for word in (str(tmp_path), tmp_path.name, socket.gethostname(), "deep"):
        assert word not in text, word


@dataclass(frozen=True)
class ImageArm:
    """Trained by a program of its own, which knows no recipes."""

    name: str
    epochs: int = 3
    suffix: str = ".json"
    value: str = "eval_loss"
    peak: float = 0.1

    def configuration(self, variant: str, peak: float, seed: int) -> str:
        told = {"arm": self.name, "epochs": self.epochs, "rate": peak, "seed": seed}
        return json.dumps(told | {"data": "digits"})

    def command(self, file: str, folder: str) -> list[str]:
        raise AssertionError("nothing is trained here")


def images(epochs: int = 3, **changes) -> Study:
    arms = {name: ImageArm(name, epochs) for name in ("leaky", "plain")}
    told = {"value": Value("test loss", "", perplexity=False), "settings": {}} | changes
    told["settings"] = {"cpu": Setting(lambda change: dict(arms), seeds=1)}
    return made(**told)


def test_runs_of_another_program(tmp_path: Path) -> None:
    setting = images().setting("cpu")
    for name, arm in images().arms("cpu").items():
        (trial,) = reported(name, arm, 0.1, setting, tmp_path)
        trial.write()
        trial.folder.mkdir()
        lines = [{"epoch": e, "step": 5 * e, "dead": 0.1 * e} for e in range(4)]
        (trial.folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        summary = {"status": "finished", "eval_loss": 0.5, "dead_share": 0.3, "parameters": 10}
        (trial.folder / "summary.json").write_text(json.dumps(summary))
    shown = {
        "columns": (Column("dead ReLUs, %", "dead_share", 0, 100),),
        "figures": (Course("dead", "dead ReLUs", "metrics/dead", ("leaky", "plain")),),
    }
    found = gather(images(**shown), "cpu", tmp_path)
    assert found.about.text == {"source": "digits"}
    assert found.about.settings == {"arm": ("leaky", "plain"), "epochs": (3,)}
    (run,) = found.arms[0].runs
    assert (run.value, run.losses, run.spikes) == (0.5, (), {})
    assert run.measured["metrics/dead"].steps == (0, 5, 10, 15)
    text = section(found, pictures(found))
    for words in (
        "Settings: arm leaky and plain; epochs 3. Data: `digits`. Reported: one seed an arm",
        "| `plain` | 0.5000 (1) |  |  |  | 30 |",
        "# on the data of its own",
        "![dead ReLUs](results/placement-cpu-dead.png)",
    ):
        assert words in text, text
    with pytest.raises(ValueError, match=r"leaky.peak-0.1/seed-1 .*epochs=3 there, 4 in the study"):
        gather(images(epochs=4), "cpu", tmp_path)


def test_json_gives_the_same_findings(tmp_path: Path, write_run) -> None:
    tune(write_run, tmp_path, "old")
    report(write_run, tmp_path, "old", 4e-3, [math.pi, 4.0])
    found = gather(STUDY, "cpu", tmp_path)
    again = Findings.from_json(found.to_json(), STUDY)
    assert again == found
    assert again.to_json() == found.to_json()
    assert found.arms[0].runs[0].value == 3.14159
