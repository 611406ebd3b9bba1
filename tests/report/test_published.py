"""The packaged tables against numbers typed from the paper, and which of them belongs to a run."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from groundup.model import ModelConfig
from groundup.model.presets import preset
from groundup.report import published
from groundup.report.runs import Run
from groundup.train import OptimizerConfig, RateConfig, Recipe, ResidualConfig
from groundup.train.recipe_file import find, read
from groundup.train.toml import dumps

BASELINE = ResidualConfig()


def run_of(recipe: Recipe, updates: int | None = None) -> Run:
    steps = np.arange(recipe.train.steps if updates is None else updates)
    text = dumps(recipe)
    return Run(
        folder=Path("run"),
        variant="v",
        seed=0,
        recipe=tomllib.loads(text),
        recipe_text=text,
        steps=steps,
        series={},
        evals=(),
        seconds=np.array([]),
        throughput=np.array([]),
        summary={},
    )


def beside(recipe: Recipe, updates: int | None = None) -> published.Published:
    found = published.beside(run_of(recipe, updates))
    assert found is not None
    return found


def shipped(name: str) -> Recipe:
    return read(find(name)).recipe


def trained(recipe: Recipe, **fields) -> Recipe:
    return replace(recipe, train=replace(recipe.train, **fields))


def with_data(recipe: Recipe, **fields) -> Recipe:
    return replace(recipe, data=replace(recipe.data, **fields))


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("climbmix", 2, 5),
        ("out_of_distribution", 14, 4),
        ("perplexity_c4", 14, 5),
        ("schedule_ablation", 21, 5),
        ("zero_shot_1p3b", 14, 13),
    ],
)
def test_shapes(name, rows, columns) -> None:
    table = published.tables()[name]
    assert (len(table.rows), len(table.header)) == (rows, columns)
    assert all(len(row) == columns for row in table.rows)
    assert table.source.startswith("arXiv:2603.05369 Table ")


def test_there_are_no_others() -> None:
    assert len(published.tables()) == 5


def test_every_method_stands_with_and_without() -> None:
    paired = [table for table in published.tables().values() if "prores" in table.header]
    assert len(paired) == 4
    for table in paired:
        for without, with_ in zip(table.rows[::2], table.rows[1::2], strict=True):
            assert (without[0], without[1], with_[1]) == (with_[0], "no", "yes")


@pytest.mark.parametrize(
    ("table", "column", "where", "number"),
    [
        ("perplexity_c4", "130M", {"method": "Pre-LN", "prores": "yes"}, 14.30),
        ("perplexity_c4", "1.3B", {"method": "Post-LN", "prores": "no"}, 11.62),
        ("perplexity_c4", "350M", {"method": "DeepNorm", "prores": "yes"}, 11.97),
        ("schedule_ablation", "Post-LN", {"schedule": "linear-square"}, 14.84),
        ("schedule_ablation", "Pre-LN", {"schedule": "linear", "warmup": "12000"}, 14.41),
        ("schedule_ablation", "Post-LN", {"schedule": "equal", "warmup": "12000"}, math.inf),
        ("zero_shot_1p3b", "average", {"method": "Pre-LN", "prores": "yes"}, 45.00),
        ("out_of_distribution", "LAMBADA", {"method": "Post-LN", "prores": "yes"}, 22.91),
        ("climbmix", "350M", {"method": "Pre-LN", "prores": "no"}, 9.43),
        ("climbmix", "7B", {"method": "Pre-LN"}, None),
        ("climbmix", "350M", {"method": "Post-LN"}, None),
    ],
)
def test_numbers(table, column, where, number) -> None:
    assert published.tables()[table].number(column, **where) == number


def test_all_cells_are_numbers_or_say_that_it_diverged() -> None:
    for table in published.tables().values():
        first = 2 if table.header[1] in ("prores", "warmup") else 1
        for row in table.rows:
            for cell in row[first:]:
                assert cell == "diverged" or 1.0 < float(cell) < 100.0


@pytest.mark.parametrize(
    ("name", "perplexity", "without"),
    [
        ("c4-130m", 14.30, 14.67),
        ("c4-350m", 11.74, 12.36),
        ("c4-1.3b", 9.86, 10.32),
    ],
)
def test_the_shipped_recipes_are_the_published_settings(name, perplexity, without) -> None:
    recipe = shipped(name)
    found = beside(recipe)
    assert (found.perplexity, found.without) == (perplexity, without)
    assert found.differs == []
    assert found.exact
    assert found.source == "arXiv:2603.05369, Table 2"
    baseline = beside(replace(recipe, residual=BASELINE))
    assert (baseline.perplexity, baseline.without, baseline.exact) == (without, None, True)


@pytest.mark.parametrize("name", ["quickstart", "c4-71m-depth", "c4-7b"])
def test_recipes_that_are_in_no_table(name) -> None:
    assert published.beside(run_of(shipped(name))) is None


@pytest.mark.parametrize(
    ("placement", "init", "method", "perplexity"),
    [
        ("pre", "ds", "Pre-LN (DS-Init)", 14.29),
        ("pre", "scaled", "Pre-LN (Scaled Init)", 14.28),
        ("sandwich", "normal", "Sandwich-LN", 14.50),
        ("lns", "normal", "LayerNorm Scaling", 14.22),
    ],
)
def test_placements_and_initializations(placement, init, method, perplexity) -> None:
    recipe = shipped("c4-130m")
    recipe = replace(recipe, model=replace(recipe.model, placement=placement, init=init))
    found = beside(recipe)
    assert (found.perplexity, found.exact) == (perplexity, True)
    assert found.what == f"{method}, 130M, linear with T = 1000"


@pytest.mark.parametrize(("size", "peak"), [("130m", 1.5e-3), ("350m", 1e-3), ("1.3b", 3e-4)])
def test_deepnorm_has_its_own_rates_and_a_longer_warmup(size, peak) -> None:
    recipe = shipped(f"c4-{size}")
    deepnorm = replace(recipe.model, placement="deepnorm", init="deepnorm")
    recipe = replace(recipe, model=deepnorm, rate=RateConfig(peak=peak, warmup=0.1, decay=0.1))
    assert beside(recipe).exact
    (said,) = beside(replace(recipe, rate=replace(recipe.rate, warmup=2000))).differs
    assert "10,000 updates" in said


@pytest.mark.parametrize(
    "same",
    [
        ResidualConfig("linear", total=12_000),
        ResidualConfig("linear", fraction=0.12),
    ],
)
def test_lengths_said_in_other_ways_are_the_same(same) -> None:
    recipe = shipped("c4-130m")
    rate = replace(recipe.rate, warmup=0.02, decay="10k steps")
    model = replace(recipe.model, kv_heads=12)
    assert beside(replace(recipe, residual=same, rate=rate, model=model)).exact


@pytest.mark.parametrize(
    "residual",
    [
        ResidualConfig("linear", T=500),
        ResidualConfig("equal", T=1000),
        ResidualConfig("stagewise-L", T=1000),
        ResidualConfig("fix-L"),
    ],
)
def test_another_residual_warmup_has_no_counterpart(residual) -> None:
    assert published.beside(run_of(replace(shipped("c4-130m"), residual=residual))) is None


@pytest.mark.parametrize(
    "model",
    [
        preset("130M", layers=24),
        preset("130M", width=576),
        preset("130M", vocab_size=2048),
        preset("130M", tied=True),
        preset("130M", kv_heads=4),
        preset("130M", placement="output"),
        preset("130M", placement="post", init="ds"),
        preset("130M", placement="deepnorm"),
        ModelConfig(),
    ],
)
def test_another_model_has_none(model) -> None:
    assert published.beside(run_of(replace(shipped("c4-130m"), model=model))) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "python", "validation": None},
        {"source": "openwebtext/train"},
        {"source": "abc4/train"},
        {"validation": "wikitext/test"},
        {"tokenizer": "train", "vocab_size": 32_000},
    ],
)
def test_other_data_have_none(fields) -> None:
    assert published.beside(run_of(with_data(shipped("c4-130m"), **fields))) is None


def test_a_recipe_that_cannot_be_read_has_none() -> None:
    run = run_of(shipped("c4-130m"))
    run.recipe["model"]["colour"] = "blue"
    assert published.beside(run) is None
    assert published.beside(replace(run, recipe={})) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: trained(r, steps=5000), "5,000 updates; published 100,000"),
        (lambda r: trained(r, batch=64), "64 × 1,024 tokens an update; published 512 × 1024"),
        (lambda r: with_data(r, length=512), "512 × 512 tokens an update; published 512 × 1024"),
        (lambda r: replace(r, rate=replace(r.rate, peak=1e-3)), "peak rate 0.001; published 0.002"),
        (lambda r: replace(r, rate=replace(r.rate, shape="cosine")), "another course of the rate"),
        (lambda r: replace(r, rate=replace(r.rate, layers=r.residual)), "rates of their own"),
        (
            lambda r: replace(r, rate=replace(r.rate, weight_decay="independent")),
            "weight decay is independent",
        ),
        (
            lambda r: replace(r, optimizer=OptimizerConfig("lionar")),
            "optimizer lionar; published adamw",
        ),
        (
            lambda r: replace(r, optimizer=replace(r.optimizer, betas=(0.9, 0.99))),
            "betas (0.9, 0.99); published (0.9, 0.95)",
        ),
        (lambda r: replace(r, optimizer=replace(r.optimizer, clip=0.5)), "clip 0.5; published 1.0"),
        (lambda r: replace(r, model=replace(r.model, embedding_std=0.55)), "embedding_std 0.55"),
        (lambda r: with_data(r, tokenizer="gpt2/tokenizer.json"), "tokenizer gpt2/tokenizer.json"),
        (lambda r: trained(r, eval_tokens=65536), "evaluated on 65,536 tokens"),
    ],
)
def test_what_differs_is_said(change, said) -> None:
    found = beside(change(shipped("c4-130m")))
    assert not found.exact
    assert len(found.differs) == 1
    assert said in found.differs[0]
    assert found.perplexity == 14.30


def test_a_run_on_the_way_is_not_at_the_published_place() -> None:
    found = beside(shipped("c4-130m"), updates=5000)
    assert found.differs == ["it stands at update 5,000 of 100,000"]
    assert not found.exact


def ablation(schedule: str, length: float | None, placement: str = "pre") -> Recipe:
    recipe = shipped("c4-350m")
    recipe = replace(
        recipe,
        model=replace(recipe.model, placement=placement),
        residual=ResidualConfig(schedule, total=length),
    )
    return trained(recipe, steps=60_000, batch=96, micro_batch=None)


@pytest.mark.parametrize(
    ("schedule", "length", "placement", "perplexity", "without"),
    [
        ("none", None, "pre", 15.21, None),
        ("linear", 24_000, "pre", 14.43, 15.21),  # T = 1000: in Table 2, too
        ("linear", 48_000, "post", 15.18, 16.83),
        ("linear-square", 24_000, "post", 14.84, 16.83),
        ("equal", 1000, "sandwich", 14.76, 14.76),
        ("reverse", 12_000, "post", math.inf, 16.83),
        ("fix-sqrt-l", None, "sandwich", 14.82, 14.76),
    ],
)
def test_the_ablation_of_schedules(schedule, length, placement, perplexity, without) -> None:
    found = beside(ablation(schedule, length, placement))
    assert (found.perplexity, found.without) == (perplexity, without)
    assert found.source == "arXiv:2603.05369, Table 6"
    # 96 · 1024 is within a twentieth of the 6e9 / 60e3 tokens an update.
    assert found.differs == [
        "the paper states neither the rates of this table nor the shape of its batches"
    ]
    assert not found.exact


def test_a_schedule_of_the_ablation_alone_is_found_for_other_lengths_of_the_run() -> None:
    found = beside(trained(ablation("stagewise-L", 24_000), steps=100_000))
    assert found.perplexity == 15.35
    assert "100,000 updates; published 60,000" in found.differs


def test_of_two_tables_the_one_with_as_many_updates_counts() -> None:
    recipe = shipped("c4-350m")
    assert beside(recipe).source.endswith("Table 2")
    assert beside(trained(recipe, steps=5000)).source.endswith("Table 2")
    assert beside(trained(recipe, steps=60_000)).source.endswith("Table 6")
