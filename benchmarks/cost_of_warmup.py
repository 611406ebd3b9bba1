"""What residual warmup costs: step time with it over step time without, in one process.

    python benchmarks/cost_of_warmup.py [--preset tiny] [--batch 16] [--length 128] [--rounds 15]

Two copies of one model train in alternation, a few steps of one, a few of the other, order swapped
every round; each round gives one ratio, and the median over rounds is printed with its quartiles.
Four settings: eager while warming, eager when finished, compiled while warming, compiled when
finished. A fifth line compares two models that are both without warmup: what the method cannot see.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from pathlib import Path

import torch

import groundup as gu
from groundup.model import Transformer, preset
from groundup.train.setup import compute_precision, hardware, pick_device


class Arm:
    """A model, its optimizer and, if it has one, its warmup."""

    def __init__(
        self, model: Transformer, schedule: gu.schedules.DepthSchedule | None, compiled: bool
    ):
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        self.warmup = gu.attach(model, schedule) if schedule else None
        self.step = 0
        if compiled:
            for block in model.layers:
                block.compile()

    def run(self, steps: int, rows: torch.Tensor, precision: str) -> float:
        """Seconds per step."""
        synchronize(rows.device)
        began = time.perf_counter()
        for _ in range(steps):
            if self.warmup is not None:
                self.warmup.at(self.step)
            with compute_precision(precision, rows.device):
                losses = self.model(rows[:, :-1], rows[:, 1:])
            (losses.total / rows[:, 1:].numel()).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1
        synchronize(rows.device)
        return (time.perf_counter() - began) / steps


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def ratios(
    a: Arm, b: Arm, args: argparse.Namespace, rows: torch.Tensor
) -> tuple[list[float], float]:
    """b's time over a's, one number a round, and a's median seconds per step."""
    for arm in (a, b):
        arm.run(args.steps + 3, rows, args.precision)
    found, base = [], []
    for number in range(args.rounds):
        first, second = (a, b) if number % 2 == 0 else (b, a)
        times = {id(arm): arm.run(args.steps, rows, args.precision) for arm in (first, second)}
        found.append(times[id(b)] / times[id(a)])
        base.append(times[id(a)])
    return found, statistics.median(base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3, help="steps of one arm at a time")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default=None, choices=("bf16", "float32"))
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    args = parser.parse_args()
    device = pick_device(args.device)
    args.precision = args.precision or ("bf16" if device.type == "cuda" else "float32")
    config = preset(args.preset, vocab_size=args.vocab_size)
    rows = torch.randint(0, args.vocab_size, (args.batch, args.length + 1), device=device)
    original = Transformer(config).to(device)

    slow, done = gu.depth.linear(total=10**6), gu.depth.linear(total=1)
    results = {}
    for name, schedule, compiled in (
        ("nothing, eager", None, False),
        ("warming, eager", slow, False),
        ("finished, eager", done, False),
        ("nothing, compiled", None, True),
        ("warming, compiled", slow, True),
        ("finished, compiled", done, True),
    ):
        torch._dynamo.reset()
        a = Arm(copy.deepcopy(original), None, compiled)
        b = Arm(copy.deepcopy(original), schedule, compiled)
        found, seconds = ratios(a, b, args, rows)
        low, middle, high = statistics.quantiles(found, n=4)
        results[name] = {"ratio": middle, "quartiles": [low, high], "baseline_seconds": seconds}
        print(
            f"{name:<20} {middle:.3f}  (quartiles {low:.3f} to {high:.3f}; "
            f"{seconds * 1e3:.1f} ms a step without)",
            flush=True,
        )
    if args.out:
        setting = {k: str(v) for k, v in vars(args).items() if k != "out"}
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        text = json.dumps(
            {"setting": setting, "hardware": hardware(device), "versions": versions} | results,
            indent=2,
        )
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
