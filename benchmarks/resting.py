"""What a training step costs while layers wait for their turn and are skipped.

    python benchmarks/resting.py                       # 12 layers of width 64
    python benchmarks/resting.py --size 71M:8x256 --compile

A step is forward, backward, update and the warmup's own bookkeeping, with `cascade` and
`dormant="skip"`, at moments when so many of the layers are awake; against a model without residual
warmup, in rounds (see timing.py). A second such model is the control. From these, by straight lines
between them, the time of whole runs: S updates from one layer's start to the next, as a share of a
run's updates.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
from models import Size, build
from torch import Tensor, nn

import groundup as gu
from groundup.train.parallel.start import pick_device
from groundup.train.setup import compute_precision

BASE, CONTROL = "without warmup", "control"
_S = 10**6  # updates between two layers' starts: none wakes while it is measured
SHARES = (0.012, 0.03, 0.06)
"""S as a share of the run's updates, for the runs that are worked out."""


def awake(layers: int) -> list[int]:
    """How many layers are awake where it is measured."""
    return sorted({1, layers // 4, layers // 2, 3 * layers // 4, layers} - {0})


def training(
    model: nn.Module, loss: Any, rows: Tensor, args: argparse.Namespace, layers: int | None
) -> Callable[[], None]:
    """A step of a copy of `model` with so many layers awake; None: without residual warmup."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, fused=True)
    if args.compile:
        for block in model.layers:
            block.compile()
    if layers is not None:
        warmup = gu.attach(model, gu.depth.cascade(T=_S, S=_S), dormant="skip")
        warmup.follow(optimizer).at(_S * (layers - 1) + 1)
        assert warmup.dormant().count(False) == layers

    def step() -> None:
        with compute_precision(args.dtype, rows.device):
            value = loss(model, rows)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def of_a_run(ratios: dict[int, float], share: float, layers: int) -> float:
    """Time of a whole run over the baseline's, from that of a step with so many layers awake."""
    at = np.linspace(0, 1, 10_000, endpoint=False)  # of the run
    now = np.minimum(1 + np.floor(at / share), layers)
    return float(np.interp(now, list(ratios), list(ratios.values())).mean())


def measure(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    config = args.size.config(args.layers, args.vocab_size)
    with device:
        original = build("ours", config, args.size.length, device)
    rows = args.size.batch_of(config, device)
    moments: dict[str, int | None] = {BASE: None, CONTROL: None}
    moments |= {f"{n} of {config.layers} awake": n for n in awake(config.layers)}
    arms = {
        name: training(original.model, original.loss, rows, args, layers)
        for name, layers in moments.items()
    }
    for step in arms.values():
        for _ in range(2):
            step()
    clock = timing.clock_of(device)
    with timing.quiet():
        found = timing.collect(
            arms,
            clock,
            seconds=args.seconds,
            enough=lambda rounds: _resolved(rounds, args.precision),
            least=args.least,
        )
    result = {
        "size": str(args.size),
        "layers": config.layers,
        "rounds": len(found),
        "seconds": {name: timing.seconds_of(found, BASE, k) for k, name in enumerate(clock.names)},
        "ratio": {
            arm: {
                name: timing.ratio(found, arm, BASE, k).to_json()
                for k, name in enumerate(clock.names)
            }
            for arm in arms
            if arm != BASE
        },
    }
    first = clock.names[0]
    ratios = {n: result["ratio"][arm][first]["value"] for arm, n in moments.items() if n}
    result["run"] = {str(share): of_a_run(ratios, share, config.layers) for share in SHARES}
    return result


def _resolved(rounds: Sequence[timing.Round], precision: float) -> bool:
    return all(timing.ratio(rounds, arm, BASE).half_width <= precision for arm in rounds[0])


def show(result: dict[str, Any]) -> None:
    took = " / ".join(f"{1e3 * s:.2f} ms {c}" for c, s in result["seconds"].items())
    print(f"\n{result['size']}, {result['layers']} layers: {took}, {result['rounds']} rounds")
    for arm, clocks in result["ratio"].items():
        cells = (f"{c} {timing.Estimate(**r).percent():<30}" for c, r in clocks.items())
        print(f"  {arm:<20}{''.join(cells)}")
    for share, ratio in result["run"].items():
        print(f"  a run with S = {100 * float(share):g}% of it: {1 / ratio:.3f} times as fast")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--size", type=Size.parse, default=Size("tiny", 16, 128), metavar="PRESET:BATCHxLENGTH",
        help="default: tiny:16x128")  # fmt: skip
    add("--layers", type=int, help="default: 12")
    add("--vocab-size", type=int, default=2048)
    add("--compile", action="store_true", help="the blocks of the model")
    add("--dtype", choices=("float32", "bf16"), help="default: bf16 on a GPU, else float32")
    add("--precision", type=float, default=1.0, metavar="PERCENT",
        help="stop when every interval is within ± this (default 1)")  # fmt: skip
    add("--seconds", type=float, default=60, help="at most (default 60)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--threads", type=int, default=1, help="of torch, on a CPU (default 1)")
    add("--quick", action="store_true", help="a few steps of a small model: does it run?")
    add("--out", type=Path, help="a JSON file for the numbers")
    args = parser.parse_args()
    args.layers = args.layers or 12
    if args.quick:
        args.size, args.layers, args.seconds = replace(args.size, batch=1, length=8), 3, 0.2
    args.least = 2 if args.quick else 8
    args.precision /= 100
    return args


def main() -> None:
    args = parse()
    device = pick_device(args.device)
    args.dtype = args.dtype or ("bf16" if device.type == "cuda" else "float32")
    if device.type == "cpu":
        torch.set_num_threads(args.threads)
        timing.keep_freed_memory()
    print(f"{timing.hardware(device)}, torch {torch.__version__}, {args.dtype}")
    setting = {k: str(v) for k, v in vars(args).items() if k != "out"}
    result = measure(args, device)
    show(result)
    if args.out:
        found = {"setting": setting, **timing.circumstances(device), "results": [result]}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
