"""Every row of the paper's tables has its run, with the numbers of its setup written out here.

arXiv:2603.05369, Sections 4.1 to 4.3, Appendices A and C.
"""

from __future__ import annotations

import csv
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import pytest

from groundup.report.published import setting
from groundup.train.recipe import Recipe
from groundup.train.settings import OptimizerConfig
from tests.recipes.shipped import FOLDER, file, runs

# Width, feed-forward, layers, heads.
SIZES = {
    "130M": (768, 2048, 12, 12),
    "350M": (1024, 2736, 24, 16),
    "1.3B": (2048, 5632, 24, 32),
}
# Slug, placement, initialization, peak rates by size, whether its warmup is a tenth of the run.
USUAL = {"130M": 2e-3, "350M": 1e-3, "1.3B": 6e-4}
METHODS = {
    "Pre-LN": ("pre-ln", "pre", "normal", USUAL, False),
    "Pre-LN (DS-Init)": ("pre-ln-ds", "pre", "ds", USUAL, False),
    "Pre-LN (Scaled Init)": ("pre-ln-scaled", "pre", "scaled", USUAL, False),
    "Sandwich-LN": ("sandwich-ln", "sandwich", "normal", USUAL, False),
    "LayerNorm Scaling": ("lns", "lns", "normal", USUAL, False),
    "Post-LN": ("post-ln", "post", "normal", {"130M": 1e-3, "350M": 5e-4, "1.3B": 3e-4}, True),
    "DeepNorm": (
        "deepnorm",
        "deepnorm",
        "deepnorm",
        {"130M": 1.5e-3, "350M": 1e-3, "1.3B": 3e-4},
        True,
    ),
}


def rows(table: str) -> list[dict[str, str]]:
    text = (files("groundup.report.published") / f"prores_{table}.csv").read_text("utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def check_model(recipe: Recipe, size: str, method: str) -> None:
    model = recipe.model
    _, placement, init, _, _ = METHODS[method]
    assert (model.width, model.feed_forward, model.layers, model.heads) == SIZES[size]
    assert (model.placement, model.init) == (placement, init)
    assert (model.vocab_size, model.kv_heads, model.tied, model.qk_norm) == (
        32_000,
        None,
        False,
        False,
    )
    assert (model.init_std, model.embedding_std, model.norm_eps) == (0.02, None, 1e-5)
    assert (model.rope_theta, model.z_loss) == (10_000, 0.0)


def check_optimizer(recipe: Recipe) -> None:
    stated = OptimizerConfig("adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip=1.0)
    assert recipe.optimizer == stated
    assert recipe.rate.weight_decay == "coupled"
    assert recipe.rate.layers.schedule == "none"


def check_rate(recipe: Recipe, peak: float, warmup: int, steps: int) -> None:
    """A linear warmup, a hold, and over the last tenth a linear decay to zero."""
    assert recipe.train.steps == steps
    assert recipe.rate.peak == peak
    factor, decay = recipe.factor(), steps // 10
    for step in (0, 1, warmup // 2, warmup - 1):
        assert factor(step) == pytest.approx((step + 1) / warmup)
    assert factor(warmup) == factor(steps - decay - 1) == 1.0
    assert factor(steps - decay // 2) == pytest.approx(0.5, abs=1.5 / decay)
    assert factor(steps - 1) == pytest.approx(1 / decay)


def check_batches(recipe: Recipe) -> None:
    assert (recipe.train.batch, recipe.data.length) == (512, 1024)
    assert recipe.train.eval_tokens == 10_000_000
    assert "llama-2" in recipe.data.tokenizer


def check_row(recipe: Recipe, size: str, method: str, prores: str) -> None:
    check_model(recipe, size, method)
    check_optimizer(recipe)
    check_batches(recipe)
    _, _, _, peaks, long = METHODS[method]
    check_rate(recipe, peaks[size], 10_000 if long else 2000, 100_000)
    schedule, layers = recipe.residual.resolve(100_000), recipe.model.layers
    for t in (0, 1, 999, 1000, 7777, 11_999, 23_999, 24_000, 99_999):
        linear = [min(t / (1000 * l), 1.0) for l in range(1, layers + 1)]
        assert schedule(t, layers) == pytest.approx(linear if prores == "yes" else [1.0] * layers)


def row_name(method: str, prores: str) -> str:
    return METHODS[method][0] + ("-prores" if prores == "yes" else "")


ALL = [(method, prores) for method in METHODS for prores in ("no", "yes")]


@pytest.mark.parametrize("size", sorted(SIZES))
def test_table_2(size: str) -> None:
    table = rows("perplexity_c4")
    assert [(row["method"], row["prores"]) for row in table] == ALL
    found = runs(f"c4-{size.lower()}")
    assert list(found) == [row_name(*row) for row in ALL]
    for row in table:
        recipe = found[row_name(row["method"], row["prores"])]
        check_row(recipe, size, row["method"], row["prores"])
        assert "c4" in recipe.data.source
        # The report lays exactly this number beside such a run, and finds no difference.
        entry = setting.entry(recipe)
        assert entry is not None
        assert entry.perplexity == float(row[size])
        assert entry.source.endswith("Table 2")
        assert setting.differences(recipe, entry) == []


@pytest.mark.parametrize("table", ["out_of_distribution", "zero_shot_1p3b"])
def test_tables_3_and_4_are_evaluations_of_the_largest(table: str) -> None:
    assert [(row["method"], row["prores"]) for row in rows(table)] == ALL


def test_table_7() -> None:
    found = runs("climbmix")
    table = rows("climbmix")
    assert [(row["method"], row["prores"]) for row in table] == [
        ("Pre-LN", "no"),
        ("Pre-LN", "yes"),
    ]
    for size in SIZES:
        assert size in table[0]
        for row in table:
            name = size.lower() + ("-prores" if row["prores"] == "yes" else "")
            check_row(found[name], size, "Pre-LN", row["prores"])
            assert "climbmix" in found[name].data.source
    assert len(found) == 6


@dataclass(frozen=True)
class Schedule:
    """α(t, l) at L = 24, T being the warmup of the table, in a layer's share of it."""

    name: str
    alpha: Callable[[float, int, float], float]
    shares: int = 24


def clip(x: float) -> float:
    return max(0.0, min(1.0, x))


def stage(t: float, l: int, T: float, start: float) -> float:
    return clip((t - T * (l - 1)) / T) * (1 - start) + start


SCHEDULES = {
    "none": Schedule("", lambda t, l, T: 1.0),
    "linear": Schedule("linear", lambda t, l, T: clip(t / (T * l))),
    "linear-sqrt": Schedule("linear-sqrt", lambda t, l, T: math.sqrt(clip(t / (T * l)))),
    "linear-square": Schedule("linear-square", lambda t, l, T: clip(t / (T * l)) ** 2),
    "equal": Schedule("equal", lambda t, l, T: clip(t / T), 1),
    "reverse": Schedule("reverse", lambda t, l, T: clip(t / (T * (25 - l)))),
    "stagewise-0": Schedule("stagewise-0", lambda t, l, T: stage(t, l, T, 0.0)),
    "stagewise-L": Schedule("stagewise-L", lambda t, l, T: stage(t, l, T, 1 / 24)),
    "stagewise-sqrt-l": Schedule(
        "stagewise-sqrt-layer", lambda t, l, T: stage(t, l, T, 1 / math.sqrt(l))
    ),
    "fix-L": Schedule("fix-L", lambda t, l, T: 1 / 24),
    "fix-sqrt-L": Schedule("fix-sqrt-L", lambda t, l, T: 1 / math.sqrt(24)),
    "fix-sqrt-l": Schedule("fix-sqrt-layer", lambda t, l, T: 1 / math.sqrt(l)),
}


def check_cell(recipe: Recipe, method: str, schedule: str, warmup: str) -> None:
    check_model(recipe, "350M", method)
    check_optimizer(recipe)
    _, _, _, peaks, long = METHODS[method]
    # Not stated for this table: the rates of Table 2, its warmups as updates and as a share.
    check_rate(recipe, peaks["350M"], 6000 if long else 2000, 60_000)
    # 6B tokens in 60 000 updates.
    assert recipe.train.steps * recipe.tokens_per_step == pytest.approx(6e9, rel=0.02)
    alpha, shares = SCHEDULES[schedule].alpha, SCHEDULES[schedule].shares
    length = float(warmup or math.nan)
    at = recipe.residual.resolve(60_000)
    for t in (0, 1, 500, 1000, 2999, 6000, 11_999, 12_000, 23_000, 24_000, 48_000, 59_999):
        expected = [alpha(t, l, length / shares) for l in range(1, 25)]
        assert at(t, 24) == pytest.approx(expected, abs=1e-12), t
    if warmup:
        assert min(at(int(warmup), 24)) == 1.0 > min(at(int(warmup) - 1, 24))


def test_table_6() -> None:
    found = runs("c4-350m-schedules")
    seen = {"deepnorm", "lns"}
    table = rows("schedule_ablation")
    assert len(table) == 21
    cells = [(row, method) for row in table for method in ("Pre-LN", "Post-LN", "Sandwich-LN")]
    for row, method in cells:
        schedule, warmup = row["schedule"], row["warmup"]
        length = f"{int(warmup) // 1000}k" if warmup else ""
        name = "-".join(filter(None, [METHODS[method][0], SCHEDULES[schedule].name, length]))
        seen.add(name)
        recipe = found[name]
        check_cell(recipe, method, schedule, warmup)
        entry = setting.entry(recipe)
        assert entry is not None
        printed = row[method]
        assert entry.perplexity == (math.inf if printed == "diverged" else float(printed))
        assert entry.source.endswith("Table 6")
        assert setting.differences(recipe, entry) == [
            "the paper states neither the rates of this table nor the shape of its batches"
        ]
    # Two baselines stand in the table's caption.
    check_cell(found["deepnorm"], "DeepNorm", "none", "")
    check_cell(found["lns"], "LayerNorm Scaling", "none", "")
    assert set(found) == seen
    assert len(found) == 65


# What the paper states, and so what a complete recipe says, default or not.
STATED = {
    "model": ("preset", "placement", "init", "init_std"),
    "data": ("source", "tokenizer", "length"),
    "residual": ("schedule",),
    "optimizer": ("name", "betas", "eps", "weight_decay", "clip"),
    "rate": ("peak", "warmup", "warmup_shape", "decay", "shape", "floor"),
    "train": ("steps", "batch", "eval_tokens"),
}


@pytest.mark.parametrize(
    "name",
    ["c4-1.3b", "c4-130m", "c4-350m", "c4-350m-schedules", "c4-71m-depth", "c4-7b", "climbmix"],
)
def test_what_is_stated_stands_in_the_file(name: str) -> None:
    tables = tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))
    for table, keys in STATED.items():
        assert set(keys) <= tables[table].keys(), table
    # Both ways to start the embedding, the second by a flag: 0.02·√width.
    assert "--model.embedding-std" in (FOLDER / f"{name}.toml").read_text("utf-8")


@pytest.mark.parametrize("name", ["c4-1.3b", "c4-130m", "c4-350m", "c4-7b", "c4-71m-depth"])
def test_the_other_start_of_the_embedding_is_the_programs(name: str) -> None:
    text = (FOLDER / f"{name}.toml").read_text("utf-8")
    said = float(text.split("--model.embedding-std ")[1].split()[0].rstrip("."))
    assert said == pytest.approx(0.02 * math.sqrt(file(name).recipe.model.width), rel=1e-3)
