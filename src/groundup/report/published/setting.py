"""The published settings of arXiv:2603.05369, and how a recipe differs from them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from groundup.model.config import ModelConfig
from groundup.model.presets import PRESETS
from groundup.optim.table import info
from groundup.report.published.table import tables
from groundup.schedules.published import PUBLISHED, Setting
from groundup.train.recipe import Recipe
from groundup.train.settings import OptimizerConfig, RateConfig

_METHODS = {
    ("pre", "normal"): "Pre-LN",
    ("pre", "ds"): "Pre-LN (DS-Init)",
    ("pre", "scaled"): "Pre-LN (Scaled Init)",
    ("sandwich", "normal"): "Sandwich-LN",
    ("lns", "normal"): "LayerNorm Scaling",
    ("post", "normal"): "Post-LN",
    ("deepnorm", "deepnorm"): "DeepNorm",
}
_SIZES = ("130M", "350M", "1.3B")
# Where it is not Pre-LN's.
_DEEPNORM_PEAKS = {"130M": 1.5e-3, "1.3B": 3e-4}
_EVALUATED = 10_000_000


@dataclass(frozen=True)
class Entry:
    """A published number and what it was made with.

    Attributes:
        batch: sequences of an update, and `length` their tokens; None where only the tokens of an
            update are known.
        rate: None where the paper does not state it.
    """

    perplexity: float
    without: float | None
    source: str
    what: str
    steps: int
    tokens: int
    batch: int | None = None
    length: int | None = None
    rate: RateConfig | None = None


def entry(recipe: Recipe) -> Entry | None:
    """The entry with the recipe's model, placement, initialization and residual warmup; of several
    the one with as many updates."""
    size = _size(recipe)
    name = method(recipe.model)
    if size is None or name is None:
        return None
    found = [*_main(recipe, size, name), *_ablation(recipe, size, name)]
    return min(found, key=lambda entry: entry.steps != recipe.train.steps, default=None)


def method(model: ModelConfig) -> str | None:
    """What the tables call the model's placement of norms and its initialization; None if they have
    no such model."""
    return _METHODS.get((model.placement, model.init))


def _size(recipe: Recipe) -> str | None:
    """The size whose model this is, but for what the tables compare."""
    model = recipe.model
    if model.key_value_heads == model.heads:
        model = replace(model, kv_heads=None)
    own = {name: getattr(model, name) for name in ("placement", "init", "embedding_std")}
    return next((size for size in _SIZES if replace(PRESETS[size], **own) == model), None)


def _warmup(recipe: Recipe) -> tuple[str, float]:
    """The residual schedule, and the update from which every α is 1."""
    schedule = recipe.residual.resolve(recipe.train.steps)
    return schedule.name, schedule.end(recipe.model.layers)


def _main(recipe: Recipe, size: str, method: str) -> Iterator[Entry]:
    """Table 2: none, or linear with T = 1000."""
    table = tables()["perplexity_c4"]
    name, end = _warmup(recipe)
    warmed = name == "linear" and math.isclose(end, 1000 * recipe.model.layers)
    if not warmed and name != "none":
        return
    without = table.number(size, method=method, prores="no")
    perplexity = table.number(size, method=method, prores="yes") if warmed else without
    if perplexity is None:
        return
    late = recipe.model.placement in ("post", "deepnorm")
    stated = _stated(f"{size} {'Post' if late else 'Pre'}-LN")
    peak = stated.peak
    if method == "DeepNorm":
        peak = _DEEPNORM_PEAKS.get(size, _stated(f"{size} Pre-LN").peak)
    assert peak is not None
    yield Entry(
        perplexity=perplexity,
        without=without if warmed else None,
        source="arXiv:2603.05369, Table 2",
        what=f"{method}, {size}, {'linear with T = 1000' if warmed else 'no residual warmup'}",
        steps=int(stated.length),
        tokens=512 * 1024,
        batch=512,
        length=1024,
        rate=RateConfig(peak=peak, warmup=int(stated.warmup), decay=0.1),
    )


def _ablation(recipe: Recipe, size: str, method: str) -> Iterator[Entry]:
    """Table 6: many schedules at 350M, 6B tokens in 60k updates."""
    if size != "350M":
        return
    table = tables()["schedule_ablation"]
    name, end = _warmup(recipe)
    length = str(round(end)) if 0 < end < math.inf else ""
    perplexity = table.number(method, schedule=name, warmup=length)
    if perplexity is None:
        return
    shown = "no residual warmup" if name == "none" else f"{name} {length}".strip()
    yield Entry(
        perplexity=perplexity,
        without=None if name == "none" else table.number(method, schedule="none"),
        source="arXiv:2603.05369, Table 6",
        what=f"{method}, {size}, {shown}",
        steps=60_000,
        tokens=100_000,
    )


def _stated(name: str) -> Setting:
    return next(setting for setting in PUBLISHED if setting.name == name)


def differences(recipe: Recipe, entry: Entry) -> list[str]:
    """What decides the number, is stated, and is not the recipe's."""
    return [*_run(recipe, entry), *_rate(recipe, entry), *_optimizer(recipe), *_data(recipe)]


def _run(recipe: Recipe, entry: Entry) -> Iterator[str]:
    steps, batch, length = recipe.train.steps, recipe.train.batch, recipe.data.length
    if steps != entry.steps:
        yield f"{steps:,} updates; published {entry.steps:,}"
    if entry.batch is None:
        if not math.isclose(recipe.tokens_per_step, entry.tokens, rel_tol=0.05):
            yield f"{recipe.tokens_per_step:,} tokens an update; published about {entry.tokens:,}"
    elif (batch, length) != (entry.batch, entry.length):
        yield f"{batch:,} × {length:,} tokens an update; published {entry.batch} × {entry.length}"
    if recipe.model.embedding_std is not None:
        yield f"embedding_std {recipe.model.embedding_std:g}; published like the other weights"


def _rate(recipe: Recipe, entry: Entry) -> Iterator[str]:
    if entry.rate is None:
        yield "the paper states neither the rates of this table nor the shape of its batches"
        return
    if not math.isclose(recipe.rate.peak, entry.rate.peak):
        yield f"peak rate {recipe.rate.peak:g}; published {entry.rate.peak:g}"
    if recipe.train.steps == entry.steps and not _same_course(recipe, entry.rate):
        yield (
            "another course of the rate; published are a linear warmup over "
            f"{entry.rate.warmup:,} updates and a linear decay to 0 over the last tenth"
        )
    if recipe.rate.layers.schedule != "none":
        yield "its layers have rates of their own"


def _same_course(recipe: Recipe, published: RateConfig) -> bool:
    own = recipe.factor()
    theirs = published.factor(None).resolve(recipe.train.steps, recipe.tokens_per_step)
    points = range(0, recipe.train.steps, max(1, recipe.train.steps // 1000))
    return all(math.isclose(own(step), theirs(step), abs_tol=1e-6) for step in points)


def _optimizer(recipe: Recipe) -> Iterator[str]:
    own, theirs = recipe.optimizer, OptimizerConfig()
    if info(own.name) != info(theirs.name):
        yield f"optimizer {own.name}; published {theirs.name}"
        return
    a, b, unset = _settings(own), _settings(theirs), "by default"
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            yield f"{name} {a.get(name, unset)}; published {b.get(name, unset)}"
    if recipe.rate.weight_decay != "coupled":
        yield f"weight decay is {recipe.rate.weight_decay}; published coupled to the rate"


def _settings(config: OptimizerConfig) -> dict[str, Any]:
    """All of an optimizer's settings; the defaults of OptimizerConfig are the paper's."""
    given = {"clip": config.clip, "rrc": config.rrc}
    if config.weight_decay is not None:
        given["weight_decay"] = config.weight_decay
    return {**info(config.name).defaults, **config.arguments(), **given}


def _data(recipe: Recipe) -> Iterator[str]:
    if re.search(r"llama[-_ ]?2", recipe.data.tokenizer.lower()) is None:
        yield f"tokenizer {recipe.data.tokenizer}; published that of Llama 2"
    if 0 < recipe.train.eval_tokens < _EVALUATED:
        yield f"evaluated on {recipe.train.eval_tokens:,} tokens; published {_EVALUATED:,}"
