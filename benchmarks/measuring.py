"""What measuring costs: time of an update that is measured over one that is not, in one process.

    python benchmarks/measuring.py --pin                          # width 64, 12 layers
    python benchmarks/measuring.py --pin --size 71M:8x512 --dtype bf16
    python benchmarks/measuring.py --size 130M:32x1024            # on a GPU

Each word of [measure] by itself, and what the trainer measures together at once. The arms are one
model and optimizer each, from the same state; they take turns, update by update, in random order.
Given is the time in updates without any measurement ("+0.8" is eight tenths of an update more) and
what that comes to over a run of --steps updates with the default interval of a recipe.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import timing
import torch
from models import Size

from groundup.model import Transformer, initialize
from groundup.train import MeasureConfig, Recipe, TrainConfig
from groundup.train.measuring import Measuring, interval
from groundup.train.parallel.start import pick_device
from groundup.train.settings import MEASUREMENTS
from groundup.train.setup import build_optimizer, compute_precision

NOTHING, CONTROL, ALL = "nothing", "control", "all at once"


class Update:
    """One update of a model of its own; with some words, one that is measured."""

    def __init__(self, model: Transformer, recipe: Recipe, rows: torch.Tensor) -> None:
        self.model, self.recipe, self.rows = copy.deepcopy(model), recipe, rows
        self.optimizer = build_optimizer(self.model, recipe)
        probe = rows[: recipe.measure.sequences]
        self.measuring = Measuring.of(
            recipe, self.model, self.optimizer, probe[:, :-1].clone(), probe[:, 1:].clone()
        )
        if recipe.train.compile:
            for block in self.model.layers:
                block.compile()

    def __call__(self) -> None:
        self.measuring.begin(0)  # a multiple of every interval
        inputs, targets = self.rows[:, :-1], self.rows[:, 1:]
        with compute_precision(self.recipe.train.precision, self.rows.device):
            losses = self.model(inputs, targets)
        (losses.total / targets.numel()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.measuring.end()


def measure(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    size: Size = args.size
    config = size.config(args.layers, args.vocab_size)
    train = TrainConfig(
        steps=args.steps,
        batch=size.batch,
        precision=args.dtype,
        compile=args.compile,
        device=device.type,
    )
    recipe = Recipe(model=config, train=train)
    model = Transformer(config).to(device)
    initialize(model, 0)
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(config.vocab_size, (size.batch, size.length + 1), generator=draw)
    rows = rows.to(device)
    words = [word for word in MEASUREMENTS if word != "positions"]
    wanted = {NOTHING: MeasureConfig(every=0), CONTROL: MeasureConfig(every=0)}
    wanted |= {word: MeasureConfig(what=(word,)) for word in words}
    often = tuple(word for word in words if interval(recipe, word) == recipe.measure.every)
    wanted[ALL] = MeasureConfig(what=often)
    arms: dict[str, Callable[[], None]] = {
        name: Update(model, replace(recipe, measure=config), rows)
        for name, config in wanted.items()
    }
    for update in arms.values():
        for _ in range(2):
            update()
    clock = timing.clock_of(device)
    with timing.quiet():
        found = timing.collect(
            arms, clock, seconds=args.seconds, enough=lambda rounds: len(rounds) >= args.rounds
        )
    costs = {
        name: {
            kind: timing.ratio(found, name, NOTHING, k).to_json()
            for k, kind in enumerate(clock.names)
        }
        for name in arms
        if name != NOTHING
    }
    seldom = [word for word in words if word not in often]
    first = clock.names[0]
    total = (costs[ALL][first]["value"] - 1) / recipe.measure.every
    total += sum((costs[w][first]["value"] - 1) / interval(recipe, w) for w in seldom)
    return {
        "size": str(size),
        "layers": config.layers,
        "mode": "compiled" if args.compile else "eager",
        "dtype": args.dtype,
        "rounds": len(found),
        "seconds_per_update": timing.seconds_of(found, NOTHING),
        "cost_in_updates": costs,
        "intervals": {word: interval(recipe, word) for word in words},
        "measured_at_once": list(often),
        "share_of_a_run": total,
    }


def show(result: dict[str, Any]) -> None:
    print(
        f"{result['size']}, {result['layers']} layers, {result['dtype']}, {result['mode']}: "
        f"{1e3 * result['seconds_per_update']:.1f} ms an update, {result['rounds']} rounds"
    )
    for name, costs in result["cost_in_updates"].items():
        every = result["intervals"].get(name, "")
        cells = "  ".join(
            f"{kind} {c['value'] - 1:+.2f} ({c['low'] - 1:+.2f} to {c['high'] - 1:+.2f})"
            for kind, c in costs.items()
        )
        print(f"  {name:<12} {every!s:>6}  {cells}")
    share = 100 * result["share_of_a_run"]
    print(f"  over the run: {share:.2f}% (at once: {', '.join(result['measured_at_once'])})")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--size", type=Size.parse, default=Size.parse("tiny:12x128"), metavar="PRESET:BATCHxLENGTH")
    add("--layers", type=int, help="default: the preset's, or 12")
    add("--vocab-size", type=int, help="default: the preset's, or 2048")
    add("--steps", type=int, default=1000, help="updates of the run that is spoken of")
    add("--rounds", type=int, default=40)
    add("--seconds", type=float, default=120, help="at most")
    add("--dtype", choices=("bf16", "float32"), help="default: bf16 on a GPU, float32 on a CPU")
    add("--compile", action="store_true")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--threads", type=int, default=1, help="of torch, on a CPU (default 1)")
    add("--pin", action="store_true", help="keep the process on as many cores as threads")
    add("--out", type=Path, help="a JSON file for the numbers")
    args = parser.parse_args()
    device = pick_device(args.device)
    args.dtype = args.dtype or ("bf16" if device.type == "cuda" else "float32")
    if args.layers is None and str(args.size).startswith("tiny"):
        args.layers = 12
    if device.type == "cpu":
        torch.set_num_threads(args.threads)
        timing.keep_freed_memory()
        if args.pin:
            timing.pin(args.threads)
    print(f"{timing.hardware(device)}, torch {torch.__version__}")
    result = measure(args, device)
    show(result)
    assert math.isfinite(result["share_of_a_run"])
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(timing.circumstances(device) | {"results": [result]}, indent=1)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
