"""Planned memory (`groundup plan`) against measured, at the fullest moment of an update.

    python benchmarks/memory.py                                  # small models, on a CPU
    python benchmarks/memory.py --device cuda                    # 71M to 350M

On a GPU by ``torch.cuda.max_memory_allocated`` of the second update; the context of CUDA is not in
it, and not in the plan beside it. On a CPU by counting the storages that live (`LiveBytes`), which
sees neither inside of kernels nor compiled code.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timing
import torch
from models import Size

from groundup.data import DataConfig
from groundup.train import MeasureConfig, OptimizerConfig, Recipe, TrainConfig
from groundup.train.cost import LiveBytes, Memory
from groundup.train.cost.memory import Sizes
from groundup.train.parallel.start import pick_device
from groundup.train.setup import build_model, build_optimizer, compute_precision
from groundup.train.world import ALONE


@dataclass(frozen=True)
class Case:
    """A size with its micro-batch, and how it is trained."""

    size: Size
    precision: str
    recompute: str = "none"
    forwards: int = 1
    compile: bool = False
    optimizer: str = "adamw"
    placement: Any = "pre"

    def recipe(self, device: torch.device, layers: int | None, vocab_size: int | None) -> Recipe:
        model = replace(self.size.config(layers, vocab_size), placement=self.placement)
        return Recipe(
            model=model,
            data=DataConfig(length=self.size.length),
            optimizer=OptimizerConfig(name=self.optimizer),
            measure=MeasureConfig(every=0),
            train=TrainConfig(
                batch=self.forwards * self.size.batch,
                micro_batch=self.size.batch,
                precision=self.precision,  # type: ignore[arg-type]
                recompute=self.recompute,  # type: ignore[arg-type]
                compile=self.compile,
                device=device.type,
            ),
        )

    @property
    def words(self) -> str:
        said = [self.precision, "compiled" if self.compile else "eager"]
        said += [f"recompute={self.recompute}"] * (self.recompute != "none")
        said += [f"{self.forwards} forwards"] * (self.forwards > 1)
        said += [self.optimizer] * (self.optimizer != "adamw")
        said += [self.placement] * (self.placement != "pre")
        return ", ".join(said)


def small() -> Iterator[Case]:
    size = Size("tiny", 8, 128)
    for precision in ("float32", "bf16"):
        for recompute in ("none", "ops", "full"):
            yield Case(size, precision, recompute)
        yield Case(size, precision, forwards=2)
        yield Case(size, precision, placement="post")
        yield Case(size, precision, placement="sandwich")
    yield Case(size, "float32", optimizer="lion")
    yield Case(size, "float32", optimizer="lionar")
    yield Case(Size("tiny", 1, 512), "bf16")
    yield Case(Size("71M", 1, 64), "bf16")
    yield Case(Size("71M", 1, 64), "bf16", "full")


def large() -> Iterator[Case]:
    for size in (Size("71M", 16, 1024), Size("130M", 16, 1024), Size("350M", 8, 1024)):
        for compiled in (False, True):
            for recompute in ("none", "ops", "full"):
                yield Case(size, "bf16", recompute, compile=compiled)
        yield Case(size, "bf16", forwards=2, compile=True)
        yield Case(size, "float32")
        yield Case(size, "bf16", optimizer="lionar", compile=True)


def measured(recipe: Recipe, device: torch.device) -> int:
    """Bytes at the fullest moment of the second update."""
    with _METERS[device.type]() as (restart, peak):
        model, _ = build_model(recipe, ALONE, device)
        optimizer = build_optimizer(model, recipe)
        shape = (recipe.train.batch, recipe.data.length + 1)
        rows = torch.randint(recipe.model.vocab_size or 0, shape)
        for _ in range(2):
            restart()
            for part in rows.split(recipe.train.micro_batch or len(rows)):
                part = part.to(device)
                with compute_precision(recipe.train.precision, device):
                    losses = model(part[:, :-1], part[:, 1:])
                (losses.total / part.numel()).backward()
                del losses
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return peak()


Meter = tuple[Callable[[], None], Callable[[], int]]
"""Starts to look for the peak anew; gives it."""


@contextmanager
def _on_host() -> Iterator[Meter]:
    with LiveBytes() as live:
        yield live.restart, lambda: live.peak


@contextmanager
def _on_gpu() -> Iterator[Meter]:
    gc.collect()
    before = torch.cuda.memory_allocated()
    yield torch.cuda.reset_peak_memory_stats, lambda: torch.cuda.max_memory_allocated() - before
    torch.compiler.reset()


_METERS = {"cpu": _on_host, "cuda": _on_gpu}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cpu", choices=("auto", "cpu", "cuda"))
    add("--layers", type=int, help="default: the preset's")
    add("--vocab-size", type=int, help="default: the preset's, or 2048")
    add("--quick", action="store_true", help="only the first two")
    add("--out", type=Path, help="a JSON file for the numbers")
    args = parser.parse_args()
    device = pick_device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    print(f"{timing.hardware(device)}, torch {torch.__version__}")
    cases = list({"cpu": small, "cuda": large}[device.type]())[: 2 if args.quick else None]
    results = []
    for case in cases:
        recipe = case.recipe(device, args.layers, args.vocab_size)
        sizes = Sizes.of(recipe)
        fused = device.type == "cuda"
        memory = Memory(recipe, 1, sizes, fused_norms=fused, context=0, device=device.type)
        found, plan = measured(recipe, device), memory.peak
        print(
            f"  {case.size!s:<14} {case.words:<36} planned {plan.total / 2**20:9.1f} MiB, measured "
            f"{found / 2**20:9.1f}: {100 * (plan.total / found - 1):+5.1f}% ({plan.name})",
            flush=True,
        )
        results.append(
            {
                "size": str(case.size),
                "layers": recipe.model.layers,
                "vocab_size": recipe.model.vocab_size,
                "case": case.words,
                "planned": plan.total,
                "by_kind": dict(plan.kinds),
                "moment": plan.name,
                "measured": found,
            }
        )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(timing.circumstances(device) | {"results": results}, indent=1)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
