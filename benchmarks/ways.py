"""Ways to scale a residual branch that ends in a Linear, each alone: `overhead.py --ways`.

Timed is residual + α·(x·Wᵀ), forward and backward, eager, for the two branches of a layer of each
`--size`; the extra time over residual + x·Wᵀ, in microseconds, is then taken for all branches of
the model and given as a share of one of its training steps. Where compute is bf16, the weights and
the residual stream are float32, as under autocast.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import timing
import torch
import torch.nn.functional as F
from models import Size, Step, build, kept_for_backward
from torch import Tensor

ALPHA = 0.5  # a power of two: every way must give the same numbers, nearly


def none(x: Tensor, weight: Tensor, residual: Tensor, alpha: Tensor) -> Tensor:
    return residual + F.linear(x, weight.to(x.dtype))


def output(x: Tensor, weight: Tensor, residual: Tensor, alpha: Tensor) -> Tensor:
    """What groundup does."""
    return residual + F.linear(x, weight.to(x.dtype)) * alpha


def in_place(x: Tensor, weight: Tensor, residual: Tensor, alpha: Tensor) -> Tensor:
    return residual + F.linear(x, weight.to(x.dtype)).mul_(alpha)


def weight(x: Tensor, weight: Tensor, residual: Tensor, alpha: Tensor) -> Tensor:
    return residual + F.linear(x, (weight * alpha).to(x.dtype))


class _Recomputed(torch.autograd.Function):
    """x·(α·W)ᵀ that does not keep α·W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, alpha)
        return F.linear(x, weight * alpha)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, alpha = ctx.saved_tensors
        return gradient @ (weight * alpha), (gradient.T @ x).mul_(alpha), None


def weight_again(x: Tensor, weight: Tensor, residual: Tensor, alpha: Tensor) -> Tensor:
    return residual + _Recomputed.apply(x, weight.to(x.dtype), alpha)


class _Product(torch.autograd.Function):
    """α·(x·Wᵀ) by the factor that a matrix product takes along."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, alpha: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.alpha = alpha
        return _times(x, weight.T, alpha)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        return _times(gradient, weight, ctx.alpha), _times(gradient.T, x, ctx.alpha), None


def _times(a: Tensor, b: Tensor, alpha: float) -> Tensor:
    out = a.new_empty(a.shape[0], b.shape[1])
    return torch.addmm(out, a, b, beta=0, alpha=alpha, out=out)


def product(x: Tensor, weight: Tensor, residual: Tensor, alpha: Tensor) -> Tensor:
    return residual + _Product.apply(x, weight.to(x.dtype), ALPHA)


def addition(x: Tensor, weight: Tensor, residual: Tensor, alpha: Tensor) -> Tensor:
    return torch.add(residual, F.linear(x, weight.to(x.dtype)), alpha=ALPHA)


def addcmul(x: Tensor, weight: Tensor, residual: Tensor, alpha: Tensor) -> Tensor:
    return torch.addcmul(residual, F.linear(x, weight.to(x.dtype)), alpha)


Way = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
WAYS: dict[str, Way] = {
    "none": none,
    "none again": none,
    "output × α": output,
    "output × α, in place": in_place,
    "weight × α": weight,
    "weight × α, recomputed": weight_again,
    "product's own factor": product,
    "addition's own factor": addition,
    "addcmul with the addition": addcmul,
}
"""α is a tensor but for the two with a factor of their own, which take Python floats."""


class Branch:
    """The end of a branch, forward and backward, scaled one way. All ways share their inputs."""

    def __init__(self, tokens: int, inputs: int, outputs: int, dtype: torch.dtype, device: Any):
        def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.randn(*shape, device=device).to(dtype).requires_grad_()

        torch.manual_seed(0)
        self.inputs = (
            draw(tokens, inputs, dtype=dtype),
            draw(outputs, inputs),
            draw(tokens, outputs),
        )
        self.gradient = torch.randn(tokens, outputs, device=device)
        self.alpha = torch.tensor(ALPHA, device=device)

    def forward(self, way: Way) -> Tensor:
        return way(*self.inputs, self.alpha)

    def gradients(self, way: Way) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.forward(way), self.inputs, self.gradient)

    def refusal(self, way: Way) -> str:
        """Why a way cannot be used here; empty if it computes the same."""
        try:
            found, wanted = (self.forward(w) for w in (way, output))
            pairs = [
                (found, wanted),
                *zip(self.gradients(way), self.gradients(output), strict=True),
            ]
        except RuntimeError as error:
            return str(error).splitlines()[0]
        tolerance = 1e-4 if self.inputs[0].dtype == torch.float32 else 3e-2
        wrong = any((a - b).abs().max() > tolerance * b.abs().max() for a, b in pairs)
        return "computes something else" if wrong else ""


def measure(args: argparse.Namespace, device: torch.device) -> Iterator[dict[str, Any]]:
    for size, layers in itertools.product(args.size, args.layers):
        yield _measure_model(size, layers, args, device)


def _measure_model(
    size: Size, layers: int | None, args: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    config = size.config(layers, args.vocab_size)
    step = _seconds_of_step(size, layers, args, device)
    tokens = size.batch * size.length
    shapes = {
        "attention": (tokens, config.width, config.width),
        "feed-forward": (tokens, config.feed_forward_width, config.width),
    }
    branches = {
        name: _measure_branch(shape, step, config.layers, args, device)
        for name, shape in shapes.items()
    }
    shares = {}
    for way in WAYS:
        found = [branch["ways"].get(way) for branch in branches.values()]
        if way != "none" and all(found):
            extra = [timing.Estimate(**numbers["extra_seconds"]) for numbers in found]
            shares[way] = {
                "value": sum(e.value for e in extra) * config.layers / step,
                "plus_minus": math.hypot(*(e.half_width for e in extra)) * config.layers / step,
            }
    return {
        "size": str(size),
        "layers": config.layers,
        "dtype": args.dtype,
        "clock": timing.clock_of(device).names[0],
        "seconds_per_step": step,
        "branches": branches,
        "share_of_step": shares,
    }


def _seconds_of_step(
    size: Size, layers: int | None, args: argparse.Namespace, device: torch.device
) -> float:
    """Of the whole model, eager, without warmup."""
    config = size.config(layers, args.vocab_size)
    original = build("ours", config, size.length, device)
    step = Step(original, size.batch_of(config, device), args.dtype, None, compiled=False)
    clock = timing.clock_of(device)
    step()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 or (len(times) < 20 and time.perf_counter() - began < 10):
        before = clock.stamp()
        step()
        times.append(clock.between(before, clock.stamp())[0])
    return statistics.median(times)


def _measure_branch(
    shape: tuple[int, int, int],
    step: float,
    layers: int,
    args: argparse.Namespace,
    device: torch.device,
) -> dict[str, Any]:
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    branch = Branch(*shape, dtype, device)
    refused = {name: why for name, way in WAYS.items() if (why := branch.refusal(way))}
    refused = {name: why for name, why in refused.items() if not name.startswith("none")}
    arms = {
        name: (lambda way=way: branch.gradients(way))
        for name, way in WAYS.items()
        if name not in refused
    }
    kept = {
        name: kept_for_backward(lambda way=WAYS[name]: branch.forward(way), [branch.inputs[1]])
        for name in arms
    }
    for _ in range(5):
        for arm in arms.values():
            arm()
    clock = timing.clock_of(device, lead=_seconds_to_launch(arms))
    # A branch's share of the precision that is asked of the whole step.
    half_width = args.precision / 3 * step / (2 * layers)
    with timing.quiet():
        found = timing.collect(
            arms,
            clock,
            seconds=args.seconds / 2,
            enough=lambda rounds: all(
                timing.difference(rounds, arm, "none").half_width <= half_width
                for arm in arms
                if arm != "none"
            ),
            least=args.least,
        )
    return {
        "shape": dict(zip(("tokens", "inputs", "outputs"), shape, strict=True)),
        "rounds": len(found),
        "seconds": timing.seconds_of(found, "none"),
        "refused": refused,
        "ways": {
            arm: {
                "extra_seconds": timing.difference(found, arm, "none").to_json(),
                "extra_bytes_kept": kept[arm] - kept["none"],
            }
            for arm in arms
        },
    }


def _seconds_to_launch(arms: timing.Arms) -> float:
    """How long the host takes for a round, with a margin; it counts on a GPU only."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    for arm in [*arms.values(), *arms.values()]:
        arm()
    taken = time.perf_counter() - began
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1.5 * taken


def show(result: dict[str, Any]) -> None:
    print(
        f"\n{result['size']}  {result['layers']} layers  {result['dtype']}: a step takes "
        f"{1e3 * result['seconds_per_step']:.1f} ms; {result['clock']} time"
    )
    heads = []
    for name, branch in result["branches"].items():
        shape = "×".join(str(number) for number in branch["shape"].values())
        heads.append(f"{name} {shape}, {1e6 * branch['seconds']:.0f} µs".ljust(50))
        for way, why in branch["refused"].items():
            print(f"  {way}: not possible here ({why})")
    print(f"  {'':<27}{''.join(heads)}of a step")
    for way in WAYS:
        if way not in result["share_of_step"]:
            continue
        cells = []
        for branch in result["branches"].values():
            numbers = branch["ways"][way]
            extra = timing.Estimate(**numbers["extra_seconds"])
            low, middle, high = (1e6 * x for x in (extra.low, extra.value, extra.high))
            kept = f", keeps {numbers['extra_bytes_kept'] / 2**20:+.2f} MiB"
            text = f"{middle:+.1f} µs ({low:+.1f} to {high:+.1f})"
            cells.append((text + (kept if numbers["extra_bytes_kept"] >= 1024 else "")).ljust(50))
        share = result["share_of_step"][way]
        percent = f"{100 * share['value']:+.2f}% (± {100 * share['plus_minus']:.2f})"
        print(f"  {way:<27}{''.join(cells)}{percent}", flush=True)
