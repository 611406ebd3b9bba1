"""groundup plan RECIPE"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from groundup.commands._options import (
    RecipeFlags,
    parse,
    recipe_named,
    variant_named,
    variants_of,
)
from groundup.report.words import count, number, seconds
from groundup.train.cost import Device, Estimate, Moment, estimate
from groundup.train.cost.estimate import CHINCHILLA


@dataclass(frozen=True)
class Plan:
    """What a run will take, before anyone pays: parameters, tokens, FLOPs, hours, memory of each
    GPU by kind and moment, checkpoints; whether it fits, and what would. Nothing is trained, and
    neither a GPU nor the data need be there. See docs/plan.md for how it is computed.

    Of a recipe with variants or a sweep it is the recipe itself, or the one that --variant names.
    Any field of it can be changed by its flag; --steps and --batch are short for --train.steps and
    --train.batch.
    """

    recipe: RecipeFlags
    gpus: int = 1
    """GPUs, one process each, of all machines together."""

    memory: float = 80.0
    """Memory of each, GiB."""

    gpu: str = "H100"
    """Which: H200, H100, A100, L40S, RTX 4090. For its peak in bf16."""

    peak: float | None = None
    """TFLOP/s of each, of matrix products in the precision of the run, instead of the GPU's."""

    utilization: float = 0.4
    """The share of the peak that the model's FLOPs come to."""

    json: bool = False
    """The numbers as JSON, in bytes, FLOPs and hours."""


def main(arguments: list[str]) -> int:
    file, rest = recipe_named(arguments)
    recipe, rest = variant_named(file, rest)
    several = len(variants_of(file))
    options = parse(Plan(recipe), "plan RECIPE", rest)
    peak = None if options.peak is None else options.peak * 1e12
    device = Device(options.gpus, options.memory, options.gpu, peak, options.utilization)
    found = estimate(options.recipe, device)
    if options.json:
        print(json.dumps(as_plain(found), indent=2))
        return 0
    console = Console(highlight=False)
    # A table that is cut cannot be read: rather let the terminal wrap it.
    wide = Console(file=console.file, width=max(console.width, 150), highlight=False)
    with wide.capture() as page:
        if several > 1:
            planned = options.recipe
            own = f"variant {planned.variant}" if planned.variant else "the recipe itself"
            wide.print(f"{planned.name}: {own} ({several} variants: --variant list)\n")
        wide.print(_numbers(found))
        if found.recipe.model.vocab_size != options.recipe.model.vocab_size:
            wide.print(
                "The vocabulary is data.vocab_size; a trained tokenizer may have fewer tokens."
            )
        if found.recipe.model.hf_config:
            wide.print(_AS_A_LLAMA)
        wide.print()
        wide.print(_moments(found.memory.moments))
        wide.print("\n" + verdict(found))
        if len(found.worth_telling) > 1 or found.worth_telling[0].fits:
            wide.print()
            wide.print(_options(found))
    # The tables fill their last column with blanks.
    print("\n".join(line.rstrip() for line in page.get().splitlines()))
    return 0


_AS_A_LLAMA = (
    "Activations are those of a Llama of these sizes: what other layers keep (biases, dropout, "
    "more experts) is not in them. Parameters are counted."
)


def verdict(found: Estimate) -> str:
    """Whether it fits, in a sentence."""
    peak, memory = found.memory.peak, found.device.bytes
    most = max(peak.kinds, key=lambda kind: peak.kinds[kind])
    there = (
        f"{_gib(peak.total)} of {_gib(memory)} GiB on each GPU at the {_at(peak)}, "
        f"with micro_batch={found.micro_batch}"
    )
    if found.fits:
        return f"It fits: {there}, {_gib(memory - peak.total)} GiB to spare."
    said = f"It does not fit: {there}, {_gib(peak.total - memory)} GiB too much; most are {most}."
    return said if any(option.fits for option in found.options) else f"{said} Nor does any other."


def _at(moment: Moment) -> str:
    return moment.name.removeprefix("a ")


def _numbers(found: Estimate) -> Table:
    recipe, device = found.recipe, found.device
    model = recipe.model
    table = _table("", "", numbers=0)
    kinds = ", ".join(f"{kind} {_short(n)}" for kind, n in found.parameters.items() if n)
    whole, inner = model.parameters(), model.parameters(embedding=False)
    without = "without the input embedding" + ("; the head is the same matrix" * model.tied)
    table.add_row("parameters", f"{_short(whole)} ({_short(inner)} {without}): {kinds}")
    table.add_row(
        "tokens",
        f"{_short(found.tokens)} in {_some(recipe.train.steps, 'update')} of "
        f"{count(recipe.tokens_per_step)}; "
        f"{number(found.tokens_per_parameter, 1)} a parameter (Chinchilla: {CHINCHILLA})",
    )
    table.add_row("FLOPs", f"{found.flops:.3g}, {found.flops / found.tokens:.3g} a token")
    table.add_row("time", _time(found))
    table.add_row(
        "an update",
        f"{_some(recipe.train.batch, 'sequence')}: {found.micro_batch} in a forward, "
        f"{_some(recipe.train.batch // device.gpus // found.micro_batch, 'forward')}, "
        f"{_some(device.gpus, 'GPU')} ({_spread(found)})",
    )
    each = seconds(found.checkpoint_seconds)
    table.add_row(
        "checkpoints",
        f"{_gb(found.checkpoint)} each, {each} at 1 GB/s; {found.checkpoints} at the end: "
        f"{_gb(found.checkpoints * found.checkpoint)}",
    )
    table.add_row("token file", f"{_gb(found.token_file)}, if no token comes twice")
    if found.memory.on_host:
        table.add_row("on the CPU", f"{_gib(found.memory.on_host)} GiB for each process")
    return table


def _time(found: Estimate) -> str:
    device = found.device
    if found.hours is None or found.gpu_hours is None:
        return "not known: the GPU's peak is that of bf16; say that of float32 with --peak"
    of = f"{device.name}'s {device.peak_of(found.recipe.train.precision) or 0:.3g} FLOP/s"
    if device.peak is not None:
        of = f"{device.peak:.3g} FLOP/s"
    return (
        f"{_lasting(found.hours)}, {_lasting(found.gpu_hours, 'GPU-')}, at "
        f"{number(100 * device.utilization, 0)}% of {of}"
    )


def _spread(found: Estimate) -> str:
    parallel = found.recipe.parallel
    if found.device.gpus == 1 and parallel.mode != "fsdp":
        return "one process"
    mode = {"auto": "ddp"}.get(parallel.mode, parallel.mode)
    return mode if parallel.replicas == 1 else f"{mode}, {parallel.replicas} replicas"


def _moments(moments: Iterable[Moment]) -> Table:
    """Kinds down, moments across, GiB."""
    moments = list(moments)
    table = _table("GiB on each GPU", *(moment.name for moment in moments))
    for kind in dict.fromkeys(kind for moment in moments for kind in moment.kinds):
        sizes = (moment.kinds.get(kind) for moment in moments)
        table.add_row(kind, *("" if size is None else _gib(size) for size in sizes))
    table.add_row("together", *(_gib(moment.total) for moment in moments), style="bold")
    return table


def _options(found: Estimate) -> Table:
    table = _table("what fits", "largest micro_batch", "GiB")
    for option in found.worth_telling:
        largest = "not even 1" if option.micro_batch is None else str(option.micro_batch)
        table.add_row(option.name, largest, _gib(option.peak))
    return table


def _table(first: str, *others: str, numbers: int | None = None) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, show_header=bool(first))
    table.add_column(first, no_wrap=True)
    for heading in others:
        right = numbers is None
        table.add_column(heading, justify="right" if right else "left", no_wrap=right)
    return table


def as_plain(found: Estimate) -> dict[str, Any]:
    """All numbers: bytes, FLOPs, hours, seconds."""
    model, device = found.recipe.model, found.device
    return {
        "parameters": model.parameters(),
        "parameters_without_embedding": model.parameters(embedding=False),
        "parameters_by_kind": found.parameters,
        "tokens_per_update": found.recipe.tokens_per_step,
        "tokens": found.tokens,
        "tokens_per_parameter": found.tokens_per_parameter,
        "flops_per_token": found.flops_per_token,
        "flops": found.flops,
        "gpus": device.gpus,
        "utilization": device.utilization,
        "peak_flops_per_second": device.peak_of(found.recipe.train.precision),
        "hours": found.hours,
        "gpu_hours": found.gpu_hours,
        "micro_batch": found.micro_batch,
        "memory": {moment.name: dict(moment.kinds) for moment in found.memory.moments},
        "memory_peak": found.memory.peak.total,
        "memory_there": device.bytes,
        "memory_on_host": found.memory.on_host,
        "fits": found.fits,
        "options": [
            {"name": o.name, "micro_batch": o.micro_batch, "memory": o.peak} for o in found.options
        ],
        "checkpoint": found.checkpoint,
        "checkpoints": found.checkpoints,
        "checkpoint_seconds": found.checkpoint_seconds,
        "token_file": found.token_file,
    }


def _some(n: int, noun: str) -> str:
    return f"{count(n)} {noun}{'' if n == 1 else 's'}"


def _lasting(hours: float, of: str = "") -> str:
    """In the largest unit of which it is at least 1."""
    for unit, each in (("hours", 1), ("minutes", 60)):
        if hours * each >= 1:
            return f"{number(hours * each, 1)} {of}{unit}"
    return f"{number(hours * 3600, 1)} {of}seconds"


def _gib(size: int) -> str:
    digits = 1 if size >= 2**30 else 2 if size >= 2**27 else 3
    return number(size / 2**30, digits)


def _gb(size: int) -> str:
    return f"{size / 1e9:,.3g} GB" if size < 1e12 else f"{size / 1e12:,.3g} TB"


def _short(value: int) -> str:
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)
