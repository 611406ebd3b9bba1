"""What a training step costs as a model grows: time, memory, and what compiling it takes.

    python benchmarks/scaling.py                    # on a CPU: some four minutes, one thread
    python benchmarks/scaling.py --device cuda      # 71M and around it, bf16, compiled
    python benchmarks/scaling.py --only depth compiling --figure scaling.png

Depth, width, length and vocabulary are each varied alone around a base. A step is forward, backward
and AdamW's update (`models.Step`, without residual warmup: overhead.py measures that). The sizes of
an axis take turns, so that what changes slowly meets all alike, and what they grow by is fitted
round by round: a line (a fixed part, and so much for each layer or token of the vocabulary) or a
power (width). A longer sequence has fewer beside it: the tokens of a step stay the same.

Memory is that of weights and optimizer ("held") and the most that a step has beside it: on a GPU
measured (`torch.cuda.max_memory_allocated`), on a CPU the gradients and what the forward keeps for
the backward, which is short of the peak by what kernels take meanwhile.

`compiling` is the first step of a compiled model. Every block must be the same graph: what it
takes must not grow with the depth, apart from running the step itself, which is taken off. Cold:
nothing is there, and the kernels' own compiler runs; else the kernels are there from before, and
it is torch's part alone: tracing, lowering, checking the guards of each block.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timing
import torch
from drawing import draw
from laws import LAWS
from models import Size, Step, build, kept_for_backward, peak_of_step

from groundup.model import ModelConfig
from groundup.train.parallel.start import pick_device


@dataclass(frozen=True)
class Place:
    """One size: a model and the batches that it is trained with."""

    config: ModelConfig
    batch: int
    length: int

    def step(self, args: argparse.Namespace, compiled: bool, state: str | None = None) -> Step:
        original = build("ours", self.config, self.length, args.on)
        size = Size("", self.batch, self.length)
        return Step(original, size.batch_of(self.config, args.on), args.dtype, state, compiled)


def wider(place: Place, width: int) -> Place:
    """Heads of the same size, as many as fit; a feed-forward part of 8/3."""
    heads = width // place.config.head_dim
    return replace(place, config=replace(place.config, width=width, heads=heads, feed_forward=None))


def longer(place: Place, length: int) -> Place:
    """As many tokens."""
    return replace(place, length=length, batch=max(1, place.batch * place.length // length))


@dataclass(frozen=True)
class Axis:
    """What is varied, how it changes a place, and the law that its times should follow."""

    what: str
    at: Callable[[Place, int], Place]
    law: str


AXES = {
    "depth": Axis("layer", lambda p, n: replace(p, config=replace(p.config, layers=n)), "line"),
    "width": Axis("width", wider, "power"),
    "length": Axis("position", longer, "line"),
    "vocabulary": Axis(
        "token of the vocabulary",
        lambda p, n: replace(p, config=replace(p.config, vocab_size=n)),
        "line",
    ),
}
COMPILING = "compiling"


@dataclass(frozen=True)
class Plan:
    """What is measured where nothing is said."""

    base: str
    vocab_size: int
    values: dict[str, tuple[int, ...]]
    compiled: bool
    dtype: str


PLANS = {
    "cpu": Plan(
        "tiny:2x128",
        2048,
        {
            "depth": (12, 24, 48, 72, 96, 120),
            "width": (64, 128, 256, 512),
            "length": (32, 64, 128, 256),
            "vocabulary": (1024, 2048, 8192, 32768),
            "compiling": (12, 48, 120),
        },
        False,
        "float32",
    ),
    "cuda": Plan(
        "71M:32x1024",
        32000,
        {
            "depth": (12, 24, 48, 72, 96, 120),
            "width": (256, 512, 1024, 2048),
            "length": (512, 1024, 2048, 4096, 8192),
            "vocabulary": (8192, 32000, 65536, 131072),
            "compiling": (12, 24, 48, 72, 96, 120),
        },
        True,
        "bf16",
    ),
}


# ---------------------------------------------------------------------- a step


def measure_axis(name: str, base: Place, values: Sequence[int], args: Any) -> dict[str, Any]:
    """Times and memory at each value of an axis, and the fit."""
    axis, clock = AXES[name], timing.clock_of(args.on)
    torch._dynamo.reset()
    steps: dict[str, Step] = {}
    points, left_out = [], {}
    for value in values:
        place = axis.at(base, value)
        try:
            step = place.step(args, args.compile)
            for _ in range(3):
                step()
            points.append(_point(value, place, step))
            steps[str(value)] = step
        except torch.OutOfMemoryError as error:
            left_out[str(value)] = str(error).partition("\n")[0]
        step = None
        gc.collect()
    measured = [point["value"] for point in points]
    with timing.quiet():
        found = timing.collect(
            steps, clock, seconds=args.seconds, enough=_resolved(args.precision), least=args.least
        )
    for point in points:
        for k, kind in enumerate(clock.names):
            times = [one[str(point["value"])][k] for one in found]
            point["seconds"][kind] = timing.estimate(times).to_json()
    law = LAWS[axis.law]
    fits = {}
    if len(measured) > 1:
        fits = {kind: law.fit(measured, found, k) for k, kind in enumerate(clock.names)}
    return {
        "axis": name,
        "what": axis.what,
        "rounds": len(found),
        "points": points,
        "left_out": left_out,
        "fit": fits,
    }


def _resolved(half_width: float) -> Callable[[Sequence[timing.Round]], bool]:
    """Whether each arm's time is known to ± this share of it."""

    def enough(found: Sequence[timing.Round]) -> bool:
        each = (timing.estimate([one[arm][0] for one in found]) for arm in found[0])
        return all(one.half_width <= half_width * one.value for one in each)

    return enough


def _point(value: int, place: Place, step: Step) -> dict[str, Any]:
    parameters = list(step.model.parameters())
    state = [
        tensor
        for one in step.optimizer.state.values()
        for tensor in one.values()
        if isinstance(tensor, torch.Tensor)
    ]
    weights = sum(p.nbytes for p in parameters)
    kept = kept_for_backward(step.forward, parameters)
    beside = peak_of_step(step) if parameters[0].is_cuda else weights + kept
    tokens = place.batch * place.length
    return {
        "value": value,
        "parameters": sum(p.numel() for p in parameters),
        "batch": place.batch,
        "length": place.length,
        "tokens": tokens,
        "flops": tokens * place.config.flops_per_token(place.length),
        "seconds": {},
        "held_bytes": weights + sum(tensor.nbytes for tensor in state),
        "kept_for_backward_bytes": kept,
        "beside_bytes": beside,
    }


# ---------------------------------------------------------------------- compiling


def measure_compiling(base: Place, depths: Sequence[int], args: Any) -> dict[str, Any]:
    """The first step of a compiled model against its depth, without and with residual warmup."""
    found: list[dict[str, Any]] = []
    ends = (depths[0], depths[-1]) if len(depths) > 1 else depths
    _first_step(AXES["depth"].at(base, 1), None, args)  # what compiles is imported, once
    for state in (None, "warming"):
        for layers in depths:
            place = AXES["depth"].at(base, layers)
            one: dict[str, Any] = {"layers": layers, "warmup": state is not None}
            if args.cold and layers in ends and state is None:
                with _nothing_there():
                    one["cold"] = _first_step(place, state, args)
            _first_step(place, state, args)  # so that the kernels are there
            one |= {"seconds": _first_step(place, state, args)}
            one["graphs"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            found.append(one)
    return {"axis": COMPILING, "points": found}


def _first_step(place: Place, state: str | None, args: Any) -> dict[str, float]:
    """Processor and wall seconds of it over a later one."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    step = place.step(args, True, state)
    # Another process would find the graphs made by the one before, and this one too.
    with torch._inductor.config.patch(fx_graph_cache=False), _without_autograd_cache():
        first = _timed(step, args.on)
    _timed(step, args.on)
    again = _timed(step, args.on)
    return {kind: first[kind] - again[kind] for kind in first}


def _timed(step: Callable[[], None], device: torch.device) -> dict[str, float]:
    before = time.process_time(), time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return {"cpu": time.process_time() - before[0], "wall": time.perf_counter() - before[1]}


def _without_autograd_cache() -> contextlib.AbstractContextManager[Any]:
    import torch._functorch.config

    return torch._functorch.config.patch(enable_autograd_cache=False)


def _nothing_there() -> contextlib.AbstractContextManager[Any]:
    """Empty caches of kernels."""
    import torch._inductor.utils

    return torch._inductor.utils.fresh_cache()


# ---------------------------------------------------------------------- what is said


def show(result: dict[str, Any]) -> None:
    print(f"\n{result['axis']}")
    (_show_compiling if result["axis"] == COMPILING else _show_axis)(result)


def _show_axis(result: dict[str, Any]) -> None:
    kinds = list(result["points"][0]["seconds"]) if result["points"] else []
    heads = "".join(f"{f'{kind} time of a step':<28}" for kind in kinds)
    print(f"  {result['axis']:<12}batch      parameters  {heads}GFLOP/s      held    beside MiB")
    for point in result["points"]:
        cells = "".join(_cell(point["seconds"][kind]) for kind in kinds)
        rate = point["flops"] / point["seconds"][kinds[0]]["value"] / 1e9
        shape = f"{point['batch']}x{point['length']}"
        print(
            f"  {point['value']:<12}{shape:<10}{point['parameters'] / 1e6:>9.2f}M  {cells}"
            f"{rate:>8.1f}{point['held_bytes'] / 2**20:>10.1f}"
            f"{point['beside_bytes'] / 2**20:>11.1f}"
        )
    for value, why in result["left_out"].items():
        print(f"  {value}: left out, {why}")
    for kind, fit in result["fit"].items():
        print(f"  {kind}: {LAWS[fit['law']].words(fit, result['what'])}", flush=True)


def _cell(one: dict[str, float]) -> str:
    value, spread = 1e3 * one["value"], 1e3 * (one["high"] - one["low"]) / 2
    return f"{f'{value:.1f} ± {spread:.1f} ms':<28}"


def _show_compiling(result: dict[str, Any]) -> None:
    print("  layers  warmup  graphs  torch's part (cpu, wall)  cold (wall)")
    for one in result["points"]:
        cold = f"{one['cold']['wall']:.1f} s" if "cold" in one else ""
        took = f"{one['seconds']['cpu']:.2f} s, {one['seconds']['wall']:.2f} s"
        said = "yes" if one["warmup"] else "no"
        print(
            f"  {one['layers']:<8}{said:<8}{one['graphs']:<8}{took:<26}{cold}".rstrip(), flush=True
        )


# ---------------------------------------------------------------------- the program


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=(*AXES, COMPILING), default=[*AXES, COMPILING])
    add("--base", type=Size.parse, metavar="PRESET:BATCHxLENGTH")
    add("--vocab-size", type=int, help="of the base")
    for name in (*AXES, COMPILING):
        add(f"--{name}", nargs="+", type=int, metavar="N",
            help="depths" if name == COMPILING else "the values of this axis")  # fmt: skip
    add("--compile", action=argparse.BooleanOptionalAction, default=None,
        help="the steps of the axes; default: on a GPU")  # fmt: skip
    add("--cold", action=argparse.BooleanOptionalAction, default=True,
        help="compile the smallest and largest depth once with no kernels there, too")  # fmt: skip
    add("--precision", type=float, default=0.5, metavar="PERCENT",
        help="stop when every time is within ± this (default 0.5)")  # fmt: skip
    add("--seconds", type=float, default=30, help="at most, per axis (default 30)")
    add("--dtype", choices=("bf16", "float32"), help="default: bf16 on a GPU, float32 on a CPU")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--threads", type=int, default=1, help="of torch, on a CPU (default 1)")
    add("--quick", action="store_true", help="small depths, a second an axis: does it run?")
    add("--out", type=Path, help="a JSON file for the numbers")
    add("--figure", type=Path, help="a PNG of them")
    args = parser.parse_args()
    args.least = 2 if args.quick else 4
    args.precision /= 100
    args.on = pick_device(args.device)
    plan = PLANS[args.on.type]
    args.base = args.base or Size.parse("tiny:4x16" if args.quick else plan.base)
    args.vocab_size = args.vocab_size or (256 if args.quick else plan.vocab_size)
    args.compile = plan.compiled and not args.quick if args.compile is None else args.compile
    args.dtype = args.dtype or plan.dtype
    if args.quick:
        args.seconds, args.cold = 1.0, False
    for name in (*AXES, COMPILING):
        quick = (2, 3) if name in ("depth", COMPILING) else (32, 64)
        default = quick if args.quick else plan.values[name]
        setattr(args, name, sorted(set(getattr(args, name) or default)))
    return args


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    config = args.base.config(vocab_size=args.vocab_size)
    base = Place(config, args.base.batch, args.base.length)
    for name in AXES:
        if name in args.only:
            yield measure_axis(name, base, getattr(args, name), args)
    if COMPILING in args.only:
        yield measure_compiling(base, args.compiling, args)


def main() -> None:
    args = parse()
    # Sizes are compiled each for itself; what would be compiled for several would be slower.
    torch._dynamo.config.automatic_dynamic_shapes = False
    setting = {key: str(value) for key, value in vars(args).items() if key not in ("out", "figure")}
    if args.on.type == "cpu":
        torch.set_num_threads(args.threads)
        setting["keeps_freed_memory"] = str(timing.keep_freed_memory())
    print(f"{timing.hardware(args.on)}, torch {torch.__version__}, {args.dtype}, base {args.base}")
    results: list[dict[str, Any]] = []
    for result in measure(args):
        show(result)
        results.append(result)
        if args.out:  # after each, so that an interruption leaves what there is
            found = {"setting": setting, **timing.circumstances(args.on), "results": results}
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.figure:
        draw(results, [*AXES, COMPILING], args.figure)


if __name__ == "__main__":
    main()
