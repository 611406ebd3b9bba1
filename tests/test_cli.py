"""The command line as a user types it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import groundup
from groundup.cli import COMMANDS, main
from groundup.commands._options import parse, recipe_named
from groundup.commands.train import Train
from groundup.train import ResidualConfig, recipe_file


def test_help_lists_every_command(capsys) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(command in said for command in COMMANDS)


@pytest.mark.parametrize("command", ["train", "compare", "report", "data"])
def test_each_command_explains_itself(command: str, capsys) -> None:
    try:
        code = main([command, "--help"])
    except SystemExit as stop:
        code = stop.code
    assert code == 0
    assert f"groundup {command}" in capsys.readouterr().out


def test_flags_are_documented_by_the_fields(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["train", "quickstart", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for flag in ("--train.steps", "--model.placement", "--residual.schedule", "--rate.peak"):
        assert flag in said
    assert "Optimizer updates" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "command='trian' is unknown: did you mean 'train'"),
        (["train"], "say which recipe"),
        (["train", "quickstrat"], "did you mean 'quickstart'"),
        (["compare", "--seeds", "1", "1"], "each seed once"),
        (["compare", "--seeds", "1", "--train.seed", "3"], "say only --seeds"),
        (["compare", "--variant", "x"], "compare names the variants itself"),
        (["compare", "quickstart-post-ln", "--residual.T", "5"], "would be ignored"),
        (["data", "prepair"], "did you mean 'prepare'"),
        (["data", "inspect", "nowhere.gtok"], "nowhere.gtok"),
        (["report", "nowhere"], "nowhere"),
        (["report"], "say which runs"),
    ],
)
def test_bad_input_is_said_in_one_line(arguments: list[str], message: str, capsys) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.step", "3"], "--train.steps"),
        (["--train.steps", "many"], "--train.steps"),
        (["--residual.schedule", "liner"], "did you mean 'linear'"),
        (["--residual.T", "-3"], "T=-3.0 is not valid"),
    ],
)
def test_bad_flags_are_refused(arguments: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "quickstart", *arguments])
    assert stop.value.code == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--residual.T", "30"], ResidualConfig("linear", T=30.0)),
        (["--residual.total=90"], ResidualConfig("linear", total=90.0)),
        (["--residual.schedule", "none"], ResidualConfig("none")),
        (["--residual.schedule=fix-L"], ResidualConfig("fix-L")),
        (["--residual.schedule", "equal"], ResidualConfig("equal", fraction=0.24)),
    ],
)
def test_a_length_given_replaces_the_recipes(arguments: list[str], expected) -> None:
    named, rest = recipe_named(["quickstart", *arguments])
    recipe = named.recipe
    recipe = dataclasses.replace(recipe, residual=ResidualConfig("linear", fraction=0.24))
    assert parse(Train(recipe), "train", rest).recipe.residual == expected


def test_a_held_out_text_given_replaces_the_recipes_share_of_the_source(capsys) -> None:
    named, rest = recipe_named(["studies/placement", "--data.validation", "held-out.jsonl"])
    assert named.recipe.data.validation_fraction == 0.05
    data = parse(Train(named.recipe), "train", rest).recipe.data
    assert data == dataclasses.replace(
        named.recipe.data, validation="held-out.jsonl", validation_fraction=0.02
    )
    none = parse(Train(named.recipe), "train", ["--data.validation", "None"]).recipe.data
    assert none == named.recipe.data
    both = [*rest, "--data.validation-fraction", "0.1"]
    with pytest.raises(SystemExit):
        parse(Train(named.recipe), "train", both)
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "validation_fraction=0.1 would be ignored" in said


@pytest.mark.parametrize("command", [["plan"], ["schedule", "table"], ["train"]])
def test_the_variants_of_a_recipe(command: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command, "quickstart-post-ln", "--variant", "list"])
    assert left.value.code == 0
    file = recipe_file.read(recipe_file.find("quickstart-post-ln"))
    names = [change["name"] for change in file.changes]
    assert len(names) > 1
    assert capsys.readouterr().out.splitlines() == names


def test_a_variant_that_is_looked_at_is_named(capsys) -> None:
    assert main(["schedule", "table", "c4-130m", "--variant", "lns"]) == 0
    assert capsys.readouterr().out.startswith("c4-130m, variant lns: ")


def test_version_and_module() -> None:
    command = [sys.executable, "-m", "groundup", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"groundup {groundup.__version__}"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 141),  # breaks when it is flushed, at the end
        (["nonsense"], 2),  # what is said to stderr is read
    ],
)
def test_nobody_reads_what_is_printed(arguments: list[str], code: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "groundup", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    alone = subprocess.run(command, stdout=writing, stderr=writing, check=False)
    os.close(writing)
    assert done.returncode == code
    assert ("nonsense" in done.stderr) if code == 2 else done.stderr == ""
    assert alone.returncode == 141


def test_a_broken_pipe_of_something_else_is_told(monkeypatch, capsys) -> None:
    def broken(arguments: list[str]) -> int:
        raise BrokenPipeError(32, "Broken pipe to a tracker")

    monkeypatch.setattr("groundup.commands.schedule.main", broken)
    assert main(["schedule"]) == 2
    assert "Broken pipe to a tracker" in capsys.readouterr().err


def test_import_is_light() -> None:
    code = (
        "import sys, groundup; groundup.depth.linear(T=1); "
        "print([m for m in ('torch', 'matplotlib', 'transformers', 'datasets', 'tyro', 'rich', "
        "'tokenizers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_data_prepare_and_inspect(tmp_path: Path, capsys) -> None:
    text = tmp_path / "text"
    text.mkdir()
    for i in range(20):
        (text / f"{i}.txt").write_text(f"document {i}: the quick brown fox jumps. " * 40)
    folder = str(tmp_path / "data")
    flags = ["--source", str(text), "--vocab-size", "300", "--folder", folder]
    assert main(["data", "prepare", *flags, "--validation-fraction", "0.3"]) == 0
    (prepared,) = [p for p in Path(folder).iterdir() if p.is_dir()]
    capsys.readouterr()
    assert main(["data", "inspect", str(prepared / "train.gtok"), "--sample", "30"]) == 0
    said = capsys.readouterr().out
    assert "quick brown" in said
    assert "300" in said
    held = ["--validation", str(text / "0.txt"), "--length", "16"]
    assert main(["data", "prepare", "studies/placement", *flags, *held]) == 0


@pytest.mark.parametrize("value", ["true", "True"])
def test_truth_is_written_either_way(value: str) -> None:
    from groundup.commands._options import parse
    from groundup.commands.train import Train
    from groundup.train import Recipe

    options = parse(
        Train(Recipe()), "train RECIPE", ["--train.compile", "false", "--model.tied", value]
    )
    assert (options.recipe.train.compile, options.recipe.model.tied) == (False, True)
    options = parse(Train(Recipe()), "train RECIPE", [f"--model.tied={value}", "--change-rate"])
    assert options.recipe.model.tied
    assert options.change_rate
    assert parse(Train(Recipe()), "train RECIPE", ["--change-rate", value]).change_rate


@pytest.mark.parametrize(("said", "value"), [("width", "width"), ("true", True), ("False", False)])
def test_a_field_that_is_a_truth_or_a_word(said: str, value: object) -> None:
    from groundup.commands._options import parse
    from groundup.commands.train import Train
    from groundup.train import Recipe, toml

    found = parse(Train(Recipe()), "train RECIPE", ["--model.qk-norm", said]).recipe
    assert found.model.qk_norm is value or found.model.qk_norm == "width" == value
    assert toml.build(tomllib.loads(toml.dumps(found))) == found


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not Linux")
def test_a_full_disk_is_said_in_one_line() -> None:
    command = [sys.executable, "-m", "groundup", "--version"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "groundup: [Errno 28] No space left on device\n"
