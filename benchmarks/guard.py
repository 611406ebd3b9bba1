"""What it costs to make an update only where loss and gradients are finite.

    python benchmarks/guard.py --pin                              # width 64, 12 layers
    python benchmarks/guard.py --size 130M:32x1024 --compile      # on a GPU

Each optimizer's update without a guard, by `groundup.optim.guarded_step`, and by reading on the
host whether all is finite: alone, on gradients that stay the same, and within a training step
(forward, backward, clipping, update), where a GPU that is waited for falls idle. All work on one
model and one state; they take turns in random order. Given is the time over that of the update
without a guard, with a 95% interval.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timing
import torch
from models import Size
from timing import Round
from torch import Tensor, nn

from groundup.model import Transformer
from groundup.optim import all_finite, create, guarded_step
from groundup.optim.guard import waits
from groundup.train.parallel.start import pick_device
from groundup.train.setup import compute_precision

Step = Callable[[torch.optim.Optimizer, Tensor, Tensor], None]


def plain(optimizer: torch.optim.Optimizer, loss: Tensor, norm: Tensor) -> None:
    optimizer.step()


def guarded(optimizer: torch.optim.Optimizer, loss: Tensor, norm: Tensor) -> None:
    guarded_step(optimizer, all_finite(loss, norm))


def read(optimizer: torch.optim.Optimizer, loss: Tensor, norm: Tensor) -> None:
    if all_finite(loss, norm):
        optimizer.step()


STEPS: dict[str, Step] = {
    "without": plain,
    "the same again": plain,
    "guarded": guarded,
    "read on the host": read,
}
BASE = "without"


class Training:
    """A model, its batch and its optimizer, whose rate is so small that weights stay."""

    def __init__(self, size: Size, optimizer: str, args: argparse.Namespace) -> None:
        device = pick_device(args.device)
        config = size.config(args.layers)
        torch.manual_seed(0)
        with device:
            self.model = Transformer(config)
        if args.compile:
            for block in self.model.layers:
                block.compile()
        self.rows = size.batch_of(config, device)
        self.precision = "bf16" if device.type == "cuda" else "float32"
        self.optimizer = create(optimizer, self.model, lr=1e-9)
        for _ in range(3):
            self.train(plain)
        self.loss, self.norm = self.backward()

    def backward(self) -> tuple[Tensor, Tensor]:
        with compute_precision(self.precision, self.rows.device):
            loss = self.model(self.rows[:, :-1], self.rows[:, 1:]).total / self.rows[:, 1:].numel()
        loss.backward()
        return loss.detach(), nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)

    def train(self, step: Step) -> None:
        self.optimizer.zero_grad()
        step(self.optimizer, *self.backward())

    def update(self, step: Step) -> None:
        step(self.optimizer, self.loss, self.norm)


def measure(training: Training, what: str, args: argparse.Namespace) -> dict[str, Any]:
    call = getattr(training, what)
    clock = timing.clock_of(training.rows.device)
    with timing.quiet():
        found = timing.collect(
            {name: partial(call, step) for name, step in STEPS.items()},
            clock,
            seconds=args.seconds,
            enough=lambda rounds: _resolved(rounds, args.precision),
            least=args.least,
        )
    return {
        "timed": what,
        "rounds": len(found),
        "seconds": {name: timing.seconds_of(found, BASE, k) for k, name in enumerate(clock.names)},
        "ratio": {
            step: {
                c: timing.ratio(found, step, BASE, k).to_json() for k, c in enumerate(clock.names)
            }
            for step in STEPS
        },
    }


def _resolved(rounds: Sequence[Round], precision: float) -> bool:
    return all(timing.ratio(rounds, arm, BASE).half_width <= precision for arm in rounds[0])


def show(result: dict[str, Any]) -> None:
    took = " / ".join(f"{1e3 * s:.2f} ms {c}" for c, s in result["seconds"].items())
    way = "waits" if result["waits"] else "does not wait"
    print(
        f"\n{result['size']}  {result['optimizer']} ({way} when guarded)  "
        f"{result['timed']}: {took}, {result['rounds']} rounds"
    )
    for step, clocks in result["ratio"].items():
        cells = (f"{c} {timing.Estimate(**r).percent():<28}" for c, r in clocks.items())
        print(f"  {step:<18}{''.join(cells)}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--size", nargs="+", type=Size.parse, default=[Size("tiny", 8, 128)],
        metavar="PRESET:BATCHxLENGTH", help="default: tiny:8x128")  # fmt: skip
    add("--layers", type=int, help="default: the preset's")
    add("--optimizer", nargs="+", default=["adamw", "lionar"], help="default: adamw lionar")
    add("--compile", action="store_true", help="the blocks of the model")
    add("--precision", type=float, default=0.5, metavar="PERCENT",
        help="stop when every interval is within ± this (default 0.5)")  # fmt: skip
    add("--seconds", type=float, default=60, help="at most, per setting (default 60)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--threads", type=int, default=1, help="of torch, on a CPU (default 1)")
    add("--pin", action="store_true", help="keep the process on as many cores as threads")
    add("--quick", action="store_true", help="a few steps of a small model: does it run?")
    add("--out", type=Path, help="a JSON file for the numbers")
    args = parser.parse_args()
    if args.quick:
        args.size, args.layers, args.seconds = [Size("tiny", 2, 8)], 1, 0.2
    args.least = 2 if args.quick else 8
    args.precision /= 100
    return args


def main() -> None:
    args = parse()
    device = pick_device(args.device)
    setting: dict[str, Any] = {k: v for k, v in vars(args).items() if k not in ("out", "size")}
    if device.type == "cpu":
        torch.set_num_threads(args.threads)
        if args.pin:
            setting["cores"] = timing.pin(args.threads)
        setting["keeps_freed_memory"] = timing.keep_freed_memory()
    print(f"{timing.hardware(device)}, torch {torch.__version__}")
    results: list[dict[str, Any]] = []
    for size in args.size:
        for optimizer in args.optimizer:
            training = Training(size, optimizer, args)
            about = {
                "size": str(size),
                "optimizer": optimizer,
                "waits": waits(training.optimizer),
            }
            for what in ("update", "train"):
                results.append(about | measure(training, what, args))
                show(results[-1])
            if args.out:  # after each, so that an interruption leaves what there is
                found = {"setting": setting, **timing.circumstances(device), "results": results}
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
