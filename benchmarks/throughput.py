#!/usr/bin/env python
"""Speed of training: groundup against other trainers, on the same work.

    python benchmarks/throughput.py --size 71M:4x256 --layers 4 --arms ours hf ours+compiled

Each arm is a whole program (see peers/) in a process of its own, which trains the same model on the
same tokens, its own loop and all. They take turns, one at a time: an arm makes some updates and
waits (see timing.py for rounds and intervals). Where its model is ours under other names, it begins
with our weights, and the loss of its first update is compared: the proof that the work is the same.

An arm is PEER[+OPTION…]: ours, hf, nanogpt, litgpt, torchtitan, prores (what is not installed
with --peer NAME=FOLDER), options compiled, warmup, measuring, and again for a control. An arm that
cannot be run is left out, and it is said why.

tokens/s      median over the rounds and, after ±, half of the distance between the quartiles
times ours    tokens/s over those of ours with the same options, in rounds, with a 95% interval;
              below 1 it is slower than ours. Where its model is another one, by FLOPs instead of
              tokens.
of product    model FLOPs (6·N + 12·layers·width·length a token) per second over those of a large
              matrix product in the same rounds, precision and threads
memory        largest resident set of the process, with its libraries (CPU); most allocated (GPU)
first         seconds from before the first import to the end of the first update, in a fresh
              process without anything compiled before; the machine is its own then
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
from models import Size
from peers import NotHere, Task, module_of
from peers.process import Process, Reported
from peers.product import Product
from peers.profile import OTHER, check_groups

from groundup.data import DataConfig, open_data, prepare_all
from groundup.model import ModelConfig, Transformer
from groundup.train.setup import PEAKS

ARMS = ("ours", "hf", "ours+compiled", "hf+compiled")
PRODUCT = "matrix product"
_TURN = {"cpu": 0.3, "cuda": 1.0}  # seconds
_ROWS = 64  # updates' tokens that are kept for the peers; then they come again


def shared(size: Size, config: ModelConfig, args: argparse.Namespace, folder: Path) -> DataConfig:
    """Write the tokens and the weights that all have; what ours reads."""
    prepared_in = str(args.data or folder / "data")
    data = DataConfig(
        source=args.text,
        validation_fraction=0.2,
        vocab_size=min(config.vocab_size or 2048, 2048),
        length=size.length,
        folder=prepared_in,
    )
    prepared = prepare_all(data)
    batches = open_data(data, prepared, size.batch, 0, _ROWS).batches
    rows = np.stack([batches.rows(n, 0, size.batch) for n in range(_ROWS)])
    np.save(folder / "rows.npy", rows)
    rows.astype("<u2").tofile(folder / "tokens.bin")
    torch.save(Transformer(config).state_dict(), folder / "weights.pt")
    return data


def given(config: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not as they are by themselves."""
    values = ((field, getattr(config, field.name)) for field in fields(config))
    return {field.name: value for field, value in values if value and value != field.default}


def base_of(arm: str, arms: Iterable[str]) -> str | None:
    """What of ours an arm is set against: with the same options where that is there."""
    peer, *options = arm.split("+")
    same = "+".join(("ours", *(option for option in options if option != "again")))
    plain = "ours+compiled" if "compiled" in options else "ours"
    choices = (plain,) if peer == "ours" else (same, plain)
    return next((choice for choice in choices if choice in arms), None)


def start(
    names: Iterable[str], common: Task, args: argparse.Namespace
) -> tuple[dict[str, Process], dict[str, str]]:
    """The arms that can be run, each after a few updates; and the others, with why."""
    arms: dict[str, Process] = {}
    left_out: dict[str, str] = {}
    for name in names:
        own = {"path": args.peer.get(name.split("+")[0]), "folder": f"{common.folder}/{name}"}
        try:
            process = Process(replace(common, arm=name, **own), args.threads)
            process.turn(2)
        except NotHere as why:
            if name.split("+")[0] == "ours":
                raise SystemExit(f"{name}: {why}") from None
            left_out[name] = str(why)
        else:
            arms[name] = process
    if not arms:
        raise SystemExit("\n".join(f"left out: {name}: {why}" for name, why in left_out.items()))
    return arms, left_out


def set_turns(arms: dict[str, Process], args: argparse.Namespace) -> int:
    """Decide how many updates a turn has, the same for all, and how many before are not timed:
    the others had the caches, or the memory of the GPU."""
    updates = args.updates
    if updates is None:
        said = next(iter(arms.values())).turn(2)
        updates = min(100, math.ceil(2 * _TURN[args.device] / said[args.clock]))
    for process in arms.values():
        process.updates, process.settle = updates, int(args.device == "cuda" or updates > 2)
    return updates


def rounds(
    arms: dict[str, Process], left_out: dict[str, str], product: Product, args: argparse.Namespace
) -> list[timing.Round]:
    """Rounds of all arms; where one ends on the way, it is moved to `left_out`, and they begin
    again."""
    while True:
        all_arms = {PRODUCT: product, **arms}
        try:
            return timing.collect(
                all_arms,
                Reported(all_arms),
                seconds=args.seconds,
                least=args.rounds,
                enough=lambda found: enough(found, arms, args.precision),
            )
        except NotHere as why:
            gone = next(arm for arm, process in arms.items() if process.ended)
            left_out[gone] = str(why)
            del arms[gone]


def measure(size: Size, dtype: str, args: argparse.Namespace) -> dict[str, Any]:
    config = size.config(args.layers, args.vocab_size)
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="throughput-")))
        data = shared(size, config, args, folder)
        common = Task(
            arm="",
            path=None,
            folder=str(folder),
            shared=str(folder),
            model=given(config),
            data=given(data),
            batch=size.batch,
            length=size.length,
            precision=dtype,
            device=args.device,
        )
        if args.profile:
            check_groups(common)
        arms, left_out = start(args.arms, common, args)
        for process in arms.values():
            held.callback(process.close)
        updates = set_turns(arms, args)
        product = Product(args.device, dtype)
        found = rounds(arms, left_out, product, args)
        profiles = {
            arm: arms[arm].turn(args.profiled, profile=True) for arm in args.profile if arm in arms
        }
    clock = Reported.names.index(args.clock)
    fastest = product.flops / timing.seconds_of(found, PRODUCT, clock)
    tokens = size.batch * size.length * updates
    rows = {arm: row(arm, process, found, tokens, args.clock) for arm, process in arms.items()}
    compare(rows, found, fastest, published_peak(args.device))
    for arm, said in profiles.items():
        rows[arm]["profile"] = {"seconds": said["wall"], "parts": said["parts"]}
    return {
        "size": str(size),
        "model": given(config) | {"layers": config.layers, "vocab_size": config.vocab_size},
        "precision": dtype,
        "parameters": config.parameters(),
        "flops_per_token": config.flops_per_token(size.length),
        "rounds": len(found),
        "updates_per_turn": updates,
        "product_flops_per_second": fastest,
        "arms": rows,
        "left_out": left_out,
    }


def enough(found: list[timing.Round], arms: dict[str, Process], precision: float) -> bool:
    pairs = [(arm, base_of(arm, arms)) for arm in arms]
    return all(
        100 * timing.ratio(found, arm, base).half_width < precision for arm, base in pairs if base
    )


def row(
    arm: str, process: Process, found: list[timing.Round], tokens: int, clock: str
) -> dict[str, Any]:
    """What is known of one arm by itself; `tokens` of a turn."""
    rates = {
        name: np.quantile(tokens / np.array([one[arm][k] for one in found]), [0.25, 0.5, 0.75])
        for k, name in enumerate(Reported.names)
    }
    low, middle, high = rates[clock]
    seconds = sum(one[arm][Reported.names.index(clock)] for one in found)
    return {
        "about": module_of(arm).ABOUT,
        "tokens_per_second": {name: float(rate[1]) for name, rate in rates.items()},
        "spread": float(high - low) / 2 / float(middle),
        "tokens_per_second_of_all": tokens * len(found) / seconds,
        "flops_per_token": process.first["flops_per_token"],
        "flops_per_second": float(middle) * process.first["flops_per_token"],
        "first_loss": process.first["loss"],
        "first_update_seconds": {name: process.first[name] for name in Reported.names},
        "memory_bytes": process.memory,
        "updates": process.made,
    }


def compare(
    rows: dict[str, dict[str, Any]],
    found: list[timing.Round],
    fastest: float,
    peak: float | None,
) -> None:
    """Add to each row what it is beside ours, the product of matrices and the published peak."""
    for arm, its in rows.items():
        its["of_product"] = its["flops_per_second"] / fastest
        if peak is not None:
            its["of_peak"] = its["flops_per_second"] / peak
        base = base_of(arm, rows)
        if base is None:
            continue
        ours = rows[base]
        work = its["flops_per_token"] / ours["flops_per_token"]
        its["against"] = base
        its["times_ours"] = {
            name: scaled(timing.ratio(found, base, arm, k), work)
            for k, name in enumerate(Reported.names)
        }
        if work == 1 and ("warmup" in arm) == ("warmup" in base):  # else α = 0 in one of them
            its["first_loss_less_ours"] = its["first_loss"] - ours["first_loss"]


def scaled(estimate: timing.Estimate, factor: float) -> dict[str, float]:
    return {name: value * factor for name, value in estimate.to_json().items()}


def published_peak(device: str) -> float | None:
    """FLOP/s in bf16."""
    if device != "cuda":
        return None
    name = torch.cuda.get_device_name()
    return next((peak for key, peak in PEAKS.items() if key in name), None)


# ---------------------------------------------------------------------- what is said


def show(result: dict[str, Any], clock: str) -> None:
    print(
        f"\n{result['size']}, {result['model']['layers']} layers, vocabulary "
        f"{result['model']['vocab_size']}, {result['parameters'] / 1e6:.1f}M parameters, "
        f"{result['precision']}: {result['rounds']} rounds, {clock} time"
    )
    product = result["product_flops_per_second"]
    print(
        f"  matrix product {product / 1e9:.1f} GFLOP/s, {result['updates_per_turn']} updates a turn"
    )
    print(
        f"  {'':<24}{'tokens/s':>16}{'times ours':>24}{'of product':>12}{'of peak':>9}"
        f"{'memory':>10}{'first':>8}  first loss less ours"
    )
    for arm, its in result["arms"].items():
        rate = f"{its['tokens_per_second'][clock]:.0f} ±{100 * its['spread']:.1f}%"
        times = its.get("times_ours", {}).get(clock)
        said = f"{times['value']:.3f} ({times['low']:.3f}–{times['high']:.3f})" if times else ""
        peak = f"{100 * its['of_peak']:.1f}%" if "of_peak" in its else ""
        loss = its.get("first_loss_less_ours")
        print(
            f"  {arm:<24}{rate:>16}{said:>24}{100 * its['of_product']:>11.1f}%{peak:>9}"
            f"{its['memory_bytes'] / 2**20:>6.0f} MiB{its['first_update_seconds'][clock]:>6.1f} s"
            f"  {'not the same' if loss is None else f'{loss:+.1e}'}"
        )
    for arm, why in result["left_out"].items():
        print(f"  left out: {arm}: {why}")
    for arm, its in result["arms"].items():
        if "profile" in its:
            show_profile(arm, its["profile"])


def show_profile(arm: str, profile: dict[str, Any]) -> None:
    whole, parts = profile["seconds"], dict(profile["parts"])
    parts[OTHER] = parts.get(OTHER, 0.0) + whole - sum(parts.values())
    print(f"  where the time of {arm} goes ({whole:.3f} s, profiled)")
    for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"    {part:<36}{100 * seconds / whole:>6.1f}%")


def versions(args: argparse.Namespace) -> dict[str, str]:
    """Of what was compared: a version, or the name of the folder that was given."""
    found = {name: f"in {Path(path).name}" for name, path in args.peer.items()}
    for name in ("transformers", "accelerate", "litgpt", "lightning", "torchtitan"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def peer(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    module_of(name)
    if not Path(path).is_dir():
        raise ValueError(f"{text!r} is not valid: NAME=FOLDER")
    return name, str(Path(path).resolve())


def arm(text: str) -> str:
    module_of(text)
    return text


def run(args: argparse.Namespace) -> None:
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    print(f"{timing.hardware(device)}, torch {torch.__version__}")
    results = []
    for size in args.size:
        for dtype in args.dtype:
            results.append(measure(size, dtype, args))
            show(results[-1], args.clock)
    if args.out:
        about = timing.circumstances(device)
        about["versions"] |= versions(args)
        about["setting"] = {"threads": args.threads, "clock": args.clock, "text": args.text}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(about | {"results": results}, indent=1)
        args.out.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    sizes = [Size.parse("tiny:12x128")]
    add("--size", type=Size.parse, nargs="+", default=sizes, metavar="PRESET:BATCHxLENGTH")
    add("--layers", type=int, help="default: the preset's")
    add("--vocab-size", type=int, help="default: the preset's, or 2048")
    add("--dtype", nargs="+", choices=("bf16", "float32"), help="default: bf16 on a GPU")
    add("--arms", nargs="+", type=arm, default=list(ARMS), metavar="PEER[+OPTION]")
    add("--peer", nargs="+", type=peer, default=[], metavar="NAME=FOLDER")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--threads", type=int, default=1, help="of each program, on a CPU (default 1)")
    add("--clock", choices=Reported.names, help="default: cpu where there is one thread")
    add("--updates", type=int, help="of a turn; default: what takes 0.3 s on a CPU, 1 s on a GPU")
    add("--seconds", type=float, default=60, help="for the rounds of a size, at most")
    add("--rounds", type=int, default=3, help="at least")
    add("--precision", type=float, default=0.5, help="of ratios to stop at: half-width, in %%")
    add("--profile", nargs="*", default=[], metavar="ARM", help="say where an update's time goes")
    add("--profiled", type=int, default=5, help="updates that are profiled")
    add("--text", default="python", help="data.source of the tokens")
    add("--data", type=Path, help="folder of prepared data; default: prepared anew")
    add("--out", type=Path, help="a JSON file for the numbers")
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    on_cpu = args.device == "cpu"
    args.peer = dict(args.peer)
    args.dtype = args.dtype or ["float32" if on_cpu else "bf16"]
    args.clock = args.clock or ("cpu" if on_cpu and args.threads == 1 else "wall")
    try:
        run(args)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
