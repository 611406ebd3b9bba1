"""`groundup plan`: its numbers against others' arithmetic, what it says, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.cli import main

RECIPES = sorted(path.stem for path in (Path(__file__).parents[3] / "recipes").glob("*.toml"))
GIB = 2**30
# Not sharded, as the shipped recipe is.
WHOLE = ["c4-7b", "--parallel.mode", "auto"]


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_shipped_recipe_has_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    for name in RECIPES:
        assert main(["plan", name]) == 0, name
        said = capsys.readouterr().out
        assert "parameters" in said
        assert ("It fits" in said) != ("It does not fit" in said)
        assert "a measured update" in said


def test_7b_needs_to_be_sharded(capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(capsys, *WHOLE, "--gpus", "8")
    assert not found["fits"]
    # Weights, gradients and two moments in float32 of 6.74 · 10⁹ parameters.
    kinds = found["memory"]["update"]
    standing = kinds["weights"] + kinds["gradients"] + kinds["optimizer state"]
    assert standing == pytest.approx(16 * 6.738e9, rel=0.001)
    fitting = [option for option in found["options"] if option["micro_batch"]]
    assert fitting
    assert all("fsdp" in option["name"] for option in fitting)
    assert all(option["memory"] <= 80 * GIB for option in fitting)


def test_the_option_that_is_said_to_fit_does(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--parallel.mode", "fsdp", "--train.recompute", "full"]
    of = [*WHOLE, "--gpus", "8"]
    options = {o["name"]: o for o in plan(capsys, *of)["options"]}
    option = options["parallel.mode=fsdp, train.recompute=full"]
    largest = option["micro_batch"]
    found = plan(capsys, *of, *flags, "--train.micro-batch", str(largest))
    assert found["fits"]
    assert found["memory_peak"] == option["memory"]
    if largest < 64:  # of 512 sequences on 8 GPUs
        more = plan(capsys, *of, *flags, "--train.micro-batch", str(2 * largest))
        assert not more["fits"]


def test_measuring_is_given_up_only_where_nothing_fits_with_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    of = [*WHOLE, "--gpus", "8"]
    assert not any("measure" in option["name"] for option in plan(capsys, *of)["options"])
    less = [*of, "--memory", "34"]
    options = {o["name"]: o for o in plan(capsys, *less)["options"]}
    silent = {name for name in options if "measure.every=0" in name}
    assert not any(options[name]["micro_batch"] for name in options.keys() - silent)
    name = "parallel.mode=fsdp, gather and reduce=bf16, train.recompute=full, measure.every=0"
    assert options[name]["micro_batch"]
    flags = ["--parallel.mode=fsdp", "--parallel.gather=bf16", "--parallel.reduce=bf16"]
    flags += ["--train.recompute=full", "--measure.every=0"]
    flags.append(f"--train.micro-batch={options[name]['micro_batch']}")
    found = plan(capsys, *less, *flags)
    assert found["fits"]
    assert not plan(capsys, *less, *flags, "--measure.every=100")["fits"]


def test_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *WHOLE, "--gpus", "8", "--train.micro-batch", "2"]) == 0
    said = capsys.readouterr().out
    assert "at the measured update, with micro_batch=2, 84.4 GiB too much" in said
    (row,) = (line for line in said.splitlines() if line.startswith("as it is"))
    assert row.split() == ["as", "it", "is", "not", "even", "1", "163.7"]
    assert all(line == line.rstrip() for line in said.splitlines())
    assert main(["plan", "quickstart", "--peak", "1", "--steps", "1"]) == 0
    said = capsys.readouterr().out
    assert " in 1 update of 1536;" in said
    assert " 1 forward, 1 GPU (" in said
    # 12 sequences of 128 tokens, 5.59e6 FLOPs each, at 40% of 1 TFLOP/s.
    assert "0.0 seconds, 0.0 GPU-seconds, at 40% of 1e+12 FLOP/s" in said
    assert main(["plan", "quickstart", "--peak", "0.001", "--steps", "10000"]) == 0
    assert f"{1536e4 * 5.589504e6 / 4e8 / 3600:.1f} hours" in capsys.readouterr().out
    assert main(["plan", "quickstart", "--peak", "0.1", "--steps", "10000"]) == 0
    minutes = f"{1536e4 * 5.589504e6 / 4e10 / 60:.1f}"
    assert f"{minutes} minutes, {minutes} GPU-minutes" in capsys.readouterr().out


def test_it_says_what_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, planned in (([], "the recipe itself"), (["--variant", "lns"], "variant lns")):
        assert main(["plan", "c4-130m", *flags]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"c4-130m: {planned} (14 variants: --variant list)\n")
        assert "(110M without the input embedding):" in said
    assert main(["plan", "c4-130m", "--model.tied", "true"]) == 0
    said = capsys.readouterr().out
    assert "(110M without the input embedding; the head is the same matrix)" in said


def test_layers_that_are_skipped_cost_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Layer l of 12 is left out of the first 30·(l − 1) of 750 updates."""
    flags = ["--residual.schedule", "cascade", "--residual.S", "30", "--residual.T", "60"]
    flags += ["--residual.fraction", "None"]
    whole = plan(capsys, "quickstart", *flags)
    found = plan(capsys, "quickstart", *flags, "--residual.dormant", "skip")
    layer = 6 * (4 * 64 * 64 + 3 * 64 * 176) + 12 * 64 * 128
    assert whole["flops"] - found["flops"] == 12 * 128 * 30 * sum(range(12)) * layer


def test_hours_and_disk(capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(capsys, "c4-1.3b", "--gpus", "8", "--peak", "500", "--utilization", "0.5")
    tokens = 100_000 * 512 * 1024
    inner = 1_364_297_728 - 32000 * 2048
    assert found["parameters"] == 1_364_297_728
    flops = (6 * inner + 12 * 24 * 2048 * 1024) * tokens
    assert found["tokens"] == tokens
    assert found["flops"] == flops
    assert found["gpu_hours"] == pytest.approx(flops / 250e12 / 3600)
    assert found["hours"] == pytest.approx(found["gpu_hours"] / 8)
    assert found["checkpoint"] == pytest.approx(12 * found["parameters"], rel=1e-4)
    assert found["token_file"] == 2 * tokens


def test_checkpoints_that_stay(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--steps", "1000", "--train.checkpoint-every", "100", "--train.keep", "3"]
    assert plan(capsys, "quickstart", *flags)["checkpoints"] == 3
    # 800, 900, 1000, and 400 besides 800.
    assert plan(capsys, "quickstart", *flags, "--train.keep-every", "400")["checkpoints"] == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["c4-130m", "--gpus", "7"], "train.batch=512"),
        (["c4-130m", "--gpus", "16"], "train.micro_batch=64"),
        (["c4-130m", "--gpus", "0"], "gpus=0"),
        (["c4-130m", "--gpu", "H300"], "gpu='H300'"),
        (["c4-130m", "--memory", "-1"], "memory=-1"),
        (["c4-130m", "--utilization", "1.5"], "utilization=1.5"),
        (["quickstart", "--data.tokenizer", "some/tokenizer.json"], "--model.vocab-size"),
        (["c4-130m", "--gpus", "8", "--parallel.mode", "fsdp", "--parallel.replicas", "3"],
         "parallel.replicas=3"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_more_gpus_where_nothing_else_helps(capsys: pytest.CaptureFixture[str]) -> None:
    small = [*WHOLE, "--memory", "24"]
    *others, last = plan(capsys, *small, "--gpus", "2")["options"]
    assert not any(option["micro_batch"] for option in others)
    gpus = int(last["name"].split(" GPUs, ")[0])
    assert last["micro_batch"]
    assert "parallel.mode=fsdp" in last["name"]
    # The fewest of those that are tried: with half of them, nothing fits.
    half = plan(capsys, *small, "--gpus", str(gpus // 2))["options"]
    assert not any(o["micro_batch"] for o in half if " GPUs" not in o["name"])
