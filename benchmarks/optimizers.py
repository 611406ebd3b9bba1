"""What an update costs: our optimizers against torch's AdamW and pytorch_optimizer's Lion.

    python benchmarks/optimizers.py --out benchmarks/results/cpu/optimizers.json
    python benchmarks/optimizers.py --size 130M --device cuda        # on a GPU
    python benchmarks/optimizers.py --size 71M --layers 2 --mode compiled

Timed is ``optimizer.step()`` alone, on the parameters of a model and on gradients that stay the
same. All optimizers of a setting are in one process, work on the same parameters with state of
their own, and take turns in random order. Given is the time of each over that of the first, with a
95% interval, and its state in bytes per parameter. The first is torch's AdamW, fused.

A compiled step is what ``torch.compile(optimizer.step)`` makes of it; the fused AdamW is not
compiled then, as torch does not.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timing
import torch
from timing import Round
from torch import Tensor, nn

from groundup.model import Transformer, preset
from groundup.optim.adamw import AdamW
from groundup.optim.lion import LionA, LionAR
from groundup.train.parallel.start import pick_device

Params = list[nn.Parameter]
Make = Callable[[Params], torch.optim.Optimizer]
BASE, CONTROL = "torch AdamW fused", "the same again"


def arms(compiled: bool) -> dict[str, Make]:
    """Name → optimizer. The rates are small, so that weights stay what they are."""
    base: Make = partial(torch.optim.AdamW, lr=1e-7, weight_decay=0.1, fused=True)
    both = {BASE: base, CONTROL: base}
    ours: dict[str, Make] = {
        "AdamW inverse": partial(AdamW, lr=1e-7, weight_decay=0.1, bias_correction="inverse"),
        "LionA": partial(LionA, lr=1e-7),
        "LionA nesterov, inverse": partial(
            LionA, lr=1e-7, nesterov=True, bias_correction="inverse"
        ),
        "LionAR": partial(LionAR, lr=1e-7),
    }
    if compiled:
        return both | {"torch AdamW": partial(torch.optim.AdamW, lr=1e-7, weight_decay=0.1)} | ours
    for name, settings in (("foreach", {"foreach": True}), ("single", {"foreach": False})):
        both[f"torch AdamW {name}"] = partial(
            torch.optim.AdamW, lr=1e-7, weight_decay=0.1, **settings
        )
        ours[f"LionA {name}"] = partial(LionA, lr=1e-7, **settings)
    ours.pop("LionA")
    for name in ("usual", "inverse"):
        ours[f"AdamW {name} fused"] = partial(
            AdamW, lr=1e-7, weight_decay=0.1, fused=True, bias_correction=name
        )
    return both | _lion() | ours


def _lion() -> dict[str, Make]:
    if importlib.util.find_spec("pytorch_optimizer") is None:
        print("left out: pytorch_optimizer is not installed")
        return {}
    from pytorch_optimizer import Lion

    return {
        f"pytorch_optimizer Lion {name}": partial(Lion, lr=1e-7, weight_decay=0.1, foreach=foreach)
        for name, foreach in (("foreach", True), ("single", False))
    }


def parameters(size: str, layers: int, device: torch.device) -> Params:
    vocab_size = preset(size).vocab_size or 2048
    model = Transformer(preset(size, vocab_size=vocab_size, layers=layers))
    draw = torch.Generator().manual_seed(0)
    params = list(model.to(device).parameters())
    for p in params:
        if p.ndim > 1:
            nn.init.normal_(p, 0.0, 0.02)
        p.grad = torch.randn(p.shape, generator=draw).to(device)
    return params


def measure(params: Params, compiled: bool, args: argparse.Namespace) -> dict[str, Any]:
    torch._dynamo.reset()
    optimizers = {name: make(params) for name, make in arms(compiled).items()}
    steps: dict[str, Callable[[], object]] = {
        name: torch.compile(o.step) if compiled and name not in (BASE, CONTROL) else o.step
        for name, o in optimizers.items()
    }
    for step in steps.values():
        for _ in range(3):
            step()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    clock = timing.clock_of(params[0].device, lead=0.05)
    with timing.quiet():
        found = timing.collect(
            steps,
            clock,
            seconds=args.seconds,
            enough=lambda rounds: _resolved(rounds, args.precision),
            least=args.least,
        )
    after = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    numel = sum(p.numel() for p in params)
    return {
        "mode": "compiled" if compiled else "eager",
        "rounds": len(found),
        "graphs_made_while_timed": after - before,
        "seconds_per_step": {
            name: timing.seconds_of(found, BASE, k) for k, name in enumerate(clock.names)
        },
        "arms": {
            name: {
                "ratio": {
                    c: timing.ratio(found, name, BASE, k).to_json()
                    for k, c in enumerate(clock.names)
                },
                "state_bytes_per_parameter": _state_bytes(optimizers[name]) / numel,
            }
            for name in steps
        },
    }


def _resolved(rounds: Sequence[Round], precision: float) -> bool:
    return all(timing.ratio(rounds, arm, BASE).half_width <= precision for arm in rounds[0])


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    values = (v for state in optimizer.state.values() for v in state.values())
    return sum(v.numel() * v.element_size() for v in values if isinstance(v, Tensor))


def show(result: dict[str, Any]) -> None:
    clocks = list(result["seconds_per_step"])
    step = " / ".join(f"{1e3 * s:.2f} ms {c}" for c, s in result["seconds_per_step"].items())
    print(
        f"\n{result['size']}  {result['layers']} layers  {result['tensors']} tensors, "
        f"{result['parameters'] / 1e6:.1f}M parameters  {result['mode']}: {BASE} {step}, "
        f"{result['rounds']} rounds"
    )
    if result["graphs_made_while_timed"]:
        print("  NOT VALID: something was compiled while it was timed")
    print(f"  {'':<32}" + "".join(f"{f'{c} time':<26}" for c in clocks) + "state, bytes/parameter")
    for arm, numbers in result["arms"].items():
        ratios = (timing.Estimate(**numbers["ratio"][c]) for c in clocks)
        cells = "".join(f"{f'×{r.value:.2f} ({r.low:.2f} to {r.high:.2f})':<26}" for r in ratios)
        print(f"  {arm:<32}{cells}{numbers['state_bytes_per_parameter']:.2f}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--size", nargs="+", default=["tiny", "71M"], metavar="PRESET", help="default: tiny 71M")
    add("--layers", type=int, help="default: the preset's; compiled 2, as that takes minutes")
    add("--mode", nargs="+", choices=("eager", "compiled"), help="default: both")
    add("--precision", type=float, default=2.0, metavar="PERCENT",
        help="stop when every interval is within ± this (default 2)")  # fmt: skip
    add("--seconds", type=float, default=60, help="at most, per setting (default 60)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--threads", type=int, default=1, help="of torch, on a CPU (default 1)")
    add("--pin", action="store_true", help="keep the process on as many cores as threads")
    add("--quick", action="store_true", help="a few eager steps of a small model: does it run?")
    add("--out", type=Path, help="a JSON file for the numbers")
    args = parser.parse_args()
    if args.quick:
        args.size, args.layers, args.seconds, args.mode = ["tiny"], 1, 0.5, args.mode or ["eager"]
    args.mode = args.mode or ["eager", "compiled"]
    args.least = 2 if args.quick else 4
    args.precision /= 100
    return args


def main() -> None:
    args = parse()
    device = pick_device(args.device)
    setting: dict[str, Any] = {k: v for k, v in vars(args).items() if k != "out"}
    if device.type == "cpu":
        torch.set_num_threads(args.threads)
        if args.pin:
            setting["cores"] = timing.pin(args.threads)
        setting["keeps_freed_memory"] = timing.keep_freed_memory()
    print(f"{timing.hardware(device)}, torch {torch.__version__}, float32")
    results: list[dict[str, Any]] = []
    for size in args.size:
        for mode in args.mode:
            layers = args.layers or (2 if mode == "compiled" else preset(size).layers)
            params = parameters(size, layers, device)
            about = {
                "size": size,
                "layers": layers,
                "tensors": len(params),
                "parameters": sum(p.numel() for p in params),
            }
            results.append(about | measure(params, mode == "compiled", args))
            show(results[-1])
            if args.out:  # after each, so that an interruption leaves what there is
                found = {"setting": setting, **timing.circumstances(device), "results": results}
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
