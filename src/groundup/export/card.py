"""The model card of an exported run, from what the run says of itself; and its recipe."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from groundup.evaluate import results
from groundup.model.transformer import Transformer
from groundup.report import evaluations
from groundup.train import records, toml
from groundup.train.recipe import Recipe
from groundup.train.summary import versions
from groundup.train.trained import Trained

if TYPE_CHECKING:
    from groundup.export.folder import Exported

Rows = Sequence[Sequence[str]]


def recipe(trained: Trained) -> str:
    """The run's recipe as TOML, with the names of files in the place of their absolute paths."""
    import tomli_w

    return tomli_w.dumps(_named(toml.plain(trained.recipe)))


def text(trained: Trained, exported: Exported, model: Any) -> str:
    """README.md. Licence and intended use are left to whoever publishes it."""
    run, warmup = trained.recipe, trained.recipe.residual.schedule
    tags = ["groundup", model.config.model_type]
    tags += [] if warmup == "none" else ["residual-warmup"]
    title = " ".join(dict.fromkeys(word for word in (run.name, run.variant) if word))
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags:
{chr(10).join(f"- {tag}" for tag in dict.fromkeys(tags))}
---

# {title}

A language model of {exported.parameters:,} parameters, trained with groundup for \
{trained.step:,} of {run.train.steps:,} updates. {_class(exported)}

## How to load it

```python
{chr(10).join(loading(exported, exported.folder.name))}
```

Documents were separated by `{trained.tokenizer.eos}`, so that it stood before each one: to begin \
a document, begin with that token. The tokenizer adds none. Sequences were {run.data.length} \
tokens long; what the model does beyond that was not trained.{_apart(run)}

## Model

{_table(_model(trained, model))}

## Training

{_table(_training(trained))}

## Data

{_table(_data(run))}

## Results

{_results(trained)}

## How it was written

{_table(_written(trained, exported))}

The whole recipe is in `groundup_recipe.toml`.
"""


def loading(exported: Exported, place: str) -> list[str]:
    """The lines of Python that load it."""
    ours = [] if exported.stock else ["import groundup.hf  # registers the class"]
    return [
        *ours,
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        f'model = AutoModelForCausalLM.from_pretrained("{place}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{place}")',
    ]


def folding(alphas: Sequence[float]) -> str:
    """What was multiplied into the weights, in words."""
    if all(alpha == 1.0 for alpha in alphas):
        return "α is 1 in every layer"
    return (
        f"α, from {alphas[0]:.3g} in the first layer to {alphas[-1]:.3g} in the last, is "
        "multiplied into the weights"
    )


def _apart(run: Recipe) -> str:
    if run.data.documents == "together":
        return ""
    return (
        " In training a token attended to its own document alone; here it attends to all before "
        "it, so give the model one document at a time."
    )


def _class(exported: Exported) -> str:
    if exported.stock:
        return f"It is a `{exported.architecture}`: transformers loads it, without other code."
    return (
        f"It is a `{exported.architecture}`: transformers has no class that is equal to it, so the "
        "package groundup must be installed; no code is loaded from this folder."
    )


# ---------------------------------------------------------------------- tables


def _model(trained: Trained, model: Any) -> Rows:
    config = trained.recipe.model
    if not isinstance(trained.model, Transformer):
        return [("class", type(model).__name__)]
    norm = {False: "none", True: "over each head", "width": "over all heads together"}
    gains = "none" if config.gain == "none" else f"{config.gain}, multiplied into the weights"
    return [
        ("layers, width", f"{config.layers}, {config.width}"),
        ("heads", f"{config.heads} for queries, {config.key_value_heads} for keys and values"),
        ("feed-forward", f"SwiGLU, {config.feed_forward_width}"),
        ("placement of norms", config.placement),
        ("norm of queries and keys", norm[config.qk_norm]),
        ("gains of branches", gains),
        ("embedding and head", "tied" if config.tied else "untied"),
        ("positions", f"rotary, base {config.rope_theta:g}"),
        ("initialization", f"{config.init}, standard deviation {config.init_std:g}"),
    ]


def _training(trained: Trained) -> Rows:
    run = trained.recipe
    train, rate = run.train, run.rate
    decay = "" if run.optimizer.weight_decay is None else f", decay {run.optimizer.weight_decay:g}"
    start = run.model.weights
    return [
        ("starts from", "scratch" if start is None else f"the weights of {_path(start)}"),
        ("residual warmup", _warmup(run)),
        ("optimizer", f"{run.optimizer.name}{decay}, gradients clipped at {run.optimizer.clip:g}"),
        ("learning rate", f"{rate.peak:g} at its peak; warmup {_length(rate.warmup)}, "
         f"{rate.warmup_shape}; decay {_length(rate.decay)}, {rate.shape}"),
        ("batch", f"{train.batch} sequences of {run.data.length} tokens"),
        ("updates", f"{trained.step:,} of {train.steps:,}"),
        ("tokens", f"{trained.step * run.tokens_per_step:,}"),
        ("precision", f"{train.precision}, master weights float32"),
        ("seed", str(train.seed)),
    ]  # fmt: skip


def _length(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,} updates" if isinstance(value, int) else f"{value:.3g} of the run"


def _warmup(run: Recipe) -> str:
    schedule = run.residual.resolve(run.train.steps)
    if schedule.name == "none":
        return "none"
    end = schedule.end(run.model.layers)
    if math.isinf(end):
        return f"{schedule.name}: fixed factors"
    return f"{schedule.name}, every layer at 1 after {end:,.0f} updates (arXiv:2603.05369)"


def _data(run: Recipe) -> Rows:
    rows = [
        (f"source {part.name}", _source(part.source)) for part in run.data.mixture
    ] or [("source", _source(run.data.source))]  # fmt: skip
    if run.data.validation is not None:
        rows.append(("held out", _path(run.data.validation)))
    trained_here = run.data.tokenizer == "train"
    rows.append(
        ("tokenizer", "trained on the source" if trained_here else _path(run.data.tokenizer))
    )
    rows.append(("vocabulary", f"{run.model.vocab_size:,}"))
    return rows


def _source(value: str) -> str:
    return "the source code that ships with Python" if value == "python" else _path(value)


def _written(trained: Trained, exported: Exported) -> Rows:
    from groundup.model.library import transformers

    used = versions() | {"transformers": transformers().__version__}
    return [
        ("residual factors", f"{folding(trained.alphas)} (after {trained.step:,} updates)"),
        ("weights", exported.dtype),
        ("largest difference of a logit", f"{exported.difference:.2g}, of logits up to "
         f"{exported.largest:.3g}, between this folder and the run's own model in float32 on "
         f"{exported.tokens} random tokens"),
        ("versions", ", ".join(f"{name} {version}" for name, version in used.items())),
    ]  # fmt: skip


def _table(rows: Rows) -> str:
    head, *rest = [("", ""), *rows]
    lines = [head, ("---",) * len(head), *rest]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


# ---------------------------------------------------------------------- results


def _results(trained: Trained) -> str:
    rows = [*_held_out(trained), *_evaluated(trained)]
    if not rows:
        return "None were recorded."
    return "\n".join(
        ["| on | metric | value |", "| --- | --- | ---: |"]
        + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    )


def _held_out(trained: Trained) -> Iterator[tuple[str, str, str]]:
    """The last evaluation in training up to the exported step."""
    path = trained.folder / "metrics.jsonl"
    if not path.is_file():
        return
    last: tuple[int, float] | None = None
    for line in records.lines(path):
        if line["step"] < trained.step and line.get("eval_loss") is not None:
            last = line["step"] + 1, line["eval_loss"]
    if last is None:
        return
    step, loss = last
    when = "" if step == trained.step else f", after {step:,} updates"
    yield f"held-out text, in training{when}", "loss, nats per token", f"{loss:.4f}"
    if loss < 700:
        yield f"held-out text, in training{when}", "perplexity", f"{math.exp(loss):.2f}"


def _evaluated(trained: Trained) -> Iterator[tuple[str, str, str]]:
    """What `groundup eval` found at the exported step: its numbers that are not counts."""
    found = evaluations.read(results.path_of(trained.folder, trained.step))["results"]
    shown = evaluations.table([evaluations.Entry("value", found)])
    yield from ((name, metric, value) for name, metric, (value,) in shown.rows)


# ---------------------------------------------------------------------- paths


def _named(value: Any) -> Any:
    """The same with names in the place of absolute paths."""
    if isinstance(value, Mapping):
        return {key: _named(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_named(one) for one in value]
    return _path(value) if isinstance(value, str) else value


def _path(value: str) -> str:
    """The last name of an absolute path, and of a pattern the folder that it is in."""
    if not value.startswith(("/", "~")):
        return value
    parts = [part for part in value.split("/") if part]
    wild = next((i for i, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts))
    return "/".join(parts[max(wild - 1, 0) :]) or value
