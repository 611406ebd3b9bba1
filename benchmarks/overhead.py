"""What residual warmup costs: time of a training step with it over without, in one process.

    python benchmarks/overhead.py                   # our model, width 64, 6, 12 and 24 layers
    python benchmarks/overhead.py --model hf gpt2 --layers 12
    python benchmarks/overhead.py --size 130M:32x1024 --layers 12           # on a GPU
    python benchmarks/overhead.py --ways            # other ways to scale a branch

A step is forward, backward and AdamW's update. Copies of one model take turns, step by step, in
random order: one without warmup, one without as the control (what the method cannot see), and one
in each state of the warmup: `warming` (every α below 1), `half` (half of the layers at 1),
`finished`. Given is the time of each over the first, with a 95% interval; on a CPU twice, in
processor time of this process (which other programs disturb least) and in wall time. It goes on
until the intervals are narrower than ± --precision, or --seconds are over for a setting.

Beside it: the bytes that a forward keeps for its backward, on a GPU also the peak of a step, and
what one advance of α takes on the host.

For the narrowest intervals: a machine that does nothing else, and --pin. Of several threads the
idle ones wait in a loop, which counts as processor time: hence one is the default here.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import timing
import torch
import ways
from models import (
    KINDS,
    STATES,
    NotHere,
    Size,
    Step,
    Trained,
    build,
    kept_for_backward,
    peak_of_step,
)
from timing import Round

from groundup.train.parallel.start import pick_device

BASE, CONTROL = "without", "control"


def measure_setting(
    original: Trained, rows: torch.Tensor, compiled: bool, args: argparse.Namespace
) -> dict[str, Any]:
    """One row of results: a model, eager or compiled, in every state."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    states = {BASE: None, CONTROL: None} | {state: state for state in args.states}
    clock = timing.clock_of(rows.device)
    draw = random.Random(0)
    found: list[Round] = []
    recompiled = 0
    for number in range(args.builds):
        # Fresh copies, so that no arm keeps a lucky place in memory.
        steps: dict[str, Step] = {}
        for name in draw.sample(list(states), len(states)):
            steps[name] = Step(original, rows, args.dtype, states[name], compiled)
        for step in steps.values():
            for _ in range(3):
                step()
        before = _graphs()
        with timing.quiet():
            found += timing.collect(
                steps,
                clock,
                seconds=args.seconds / args.builds,
                enough=lambda rounds: _resolved(rounds, args.precision * math.sqrt(args.builds)),
                least=args.least,
                seed=number,
            )
        graphs = _graphs()
        recompiled += graphs - before
        if number == args.builds - 1:
            memory = {name: _memory(step) for name, step in steps.items()}
            advance = _advance_seconds(steps[args.states[0]])
        del steps, step
        gc.collect()
    return {
        "mode": "compiled" if compiled else "eager",
        "rounds": len(found),
        "graphs": graphs,
        "graphs_made_while_timed": recompiled,
        "seconds_per_step": {
            name: timing.seconds_of(found, BASE, k) for k, name in enumerate(clock.names)
        },
        "seconds_per_advance_on_host": advance,
        "arms": {
            arm: {
                "ratio": {
                    name: timing.ratio(found, arm, BASE, k).to_json()
                    for k, name in enumerate(clock.names)
                }
                if arm != BASE
                else {},
                **memory[arm],
            }
            for arm in states
        },
    }


def _resolved(rounds: Sequence[Round], half_width: float) -> bool:
    return all(
        timing.ratio(rounds, arm, BASE).half_width <= half_width for arm in rounds[0] if arm != BASE
    )


def _graphs() -> int:
    """How many graphs `torch.compile` has made."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def _memory(step: Step) -> dict[str, int]:
    parameters = list(step.model.parameters())
    found = {"kept_for_backward_bytes": kept_for_backward(step.forward, parameters)}
    if parameters[0].is_cuda:
        found["peak_of_step_bytes"] = peak_of_step(step)
    return found


def _advance_seconds(step: Step, times: int = 200) -> float:
    """Processor time of what the warmup does after an update."""
    assert step.warmup is not None
    began, updates = time.process_time(), step.warmup.updates
    for number in range(times):
        step.warmup.at(updates + number)
    return (time.process_time() - began) / times


# ---------------------------------------------------------------------- what is said


def show_setting(result: dict[str, Any]) -> None:
    clocks = list(result["seconds_per_step"])
    step = " / ".join(f"{1e3 * s:.1f} ms {c}" for c, s in result["seconds_per_step"].items())
    graphs = f", {result['graphs']} graphs" if result["graphs"] else ""
    print(
        f"\n{result['model']}  {result['size']}  {result['layers']} layers  {result['mode']}: "
        f"{step} a step without, {result['rounds']} rounds{graphs}; one advance of α "
        f"{1e6 * result['seconds_per_advance_on_host']:.0f} µs on the host"
    )
    if result["graphs_made_while_timed"]:
        print("  NOT VALID: something was compiled while it was timed")
    peak = "  peak of a step" if "peak_of_step_bytes" in result["arms"][BASE] else ""
    heads = "".join(f"{f'{clock} time':<34}" for clock in clocks)
    print(f"  {'':<10}{heads}kept for backward{peak}")
    for arm, numbers in result["arms"].items():
        cells = "".join(
            f"{timing.Estimate(**numbers['ratio'][c]).percent() if numbers['ratio'] else '1':<34}"
            for c in clocks
        )
        kept = f"{numbers['kept_for_backward_bytes'] / 2**20:.2f} MiB"
        most = f"{numbers['peak_of_step_bytes'] / 2**20:.2f} MiB" if peak else ""
        print(f"  {arm:<10}{cells}{kept:<17}  {most}".rstrip(), flush=True)


def _size(text: str) -> Size:
    try:
        return Size.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not valid: PRESET:BATCHxLENGTH, such as tiny:8x128 ({error})"
        ) from None


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--ways", action="store_true", help="compare ways to scale one branch, see ways.py")
    add("--model", nargs="+", choices=KINDS, default=["ours"], help="hf is a stock Llama")
    add("--size", nargs="+", type=_size, metavar="PRESET:BATCHxLENGTH",
        help="default: tiny:8x128; with --ways also 130M:1x512")  # fmt: skip
    add("--layers", nargs="+", type=int, help="depths; default: 6 12 24; with --ways the preset's")
    add("--vocab-size", type=int, help="default: the preset's, or 2048")
    add("--mode", nargs="+", choices=("eager", "compiled"), help="default: both")
    add("--states", nargs="+", choices=STATES, default=list(STATES))
    add("--precision", type=float, default=0.3, metavar="PERCENT",
        help="stop when every interval is within ± this (default 0.3)")  # fmt: skip
    add("--seconds", type=float, default=60, help="at most, per setting (default 60)")
    add("--builds", type=int, default=5, help="fresh copies so often in a setting (default 5)")
    add("--dtype", choices=("bf16", "float32"), help="default: bf16 on a GPU, float32 on a CPU")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--threads", type=int, default=1, help="of torch, on a CPU (default 1)")
    add("--pin", action="store_true", help="keep the process on as many cores as threads")
    add("--default-malloc", action="store_true",
        help="CPU: malloc hands freed memory back, as it does by itself; much noisier")  # fmt: skip
    add("--quick", action="store_true", help="a few steps of a small model, eager: does it run?")
    add("--out", type=Path, help="a JSON file for the numbers")
    args = parser.parse_args()
    if args.quick:
        args.size, args.layers = [Size("tiny", 1, 16)], [2]
        args.seconds, args.builds, args.vocab_size = 1.0, 1, 256
    args.size = args.size or [Size.parse("tiny:8x128")] + [Size("130M", 1, 512)] * args.ways
    args.layers = args.layers or ([None] if args.ways else [6, 12, 24])
    args.mode = args.mode or ["eager", "compiled"][: 1 if args.quick else 2]
    args.least = 2 if args.quick else 4
    args.precision /= 100
    return args


def main() -> None:
    args = parse()
    device = pick_device(args.device)
    args.dtype = args.dtype or ("bf16" if device.type == "cuda" else "float32")
    setting = {
        key: [str(v) for v in value] if isinstance(value, list) else str(value)
        for key, value in vars(args).items()
        if key != "out"
    }
    if device.type == "cpu":
        torch.set_num_threads(args.threads)
    if args.pin and device.type == "cpu":
        setting["cores"] = timing.pin(args.threads)
    if device.type == "cpu" and not args.default_malloc:
        setting["keeps_freed_memory"] = timing.keep_freed_memory()
    print(f"{timing.hardware(device)}, torch {torch.__version__}, {args.dtype}")

    results: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    work = ways.measure(args, device) if args.ways else _measure_all(args, device, left_out)
    for result in work:
        (ways.show if args.ways else show_setting)(result)
        results.append(result)
        if args.out:  # after each, so that an interruption leaves what there is
            found = {"setting": setting, **timing.circumstances(device), "left_out": left_out}
            args.out.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(found | {"results": results}, indent=1)
            args.out.write_text(text + "\n", encoding="utf-8")


def _measure_all(
    args: argparse.Namespace, device: torch.device, left_out: dict[str, str]
) -> Iterator[dict[str, Any]]:
    for kind, size, layers in itertools.product(args.model, args.size, args.layers):
        config = size.config(layers, args.vocab_size)
        try:
            original = build(kind, config, size.length, device)
        except NotHere as why:
            left_out[kind] = str(why)
            print(f"\nleft out: {why}")
            continue
        rows = size.batch_of(config, device)
        for mode in args.mode:
            result = {"model": kind, "size": str(size), "layers": config.layers}
            yield result | measure_setting(original, rows, mode == "compiled", args)


if __name__ == "__main__":
    main()
