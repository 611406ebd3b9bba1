"""One extra forward that leaves no trace, to see what goes on inside of a model.

It runs eagerly (hooks inside compiled blocks do not run), without gradients, in evaluation mode, so
that dropout neither hides a small change nor draws; random state, modes and buffers are afterwards
what they were. What a module keeps anywhere else, such as a count of its calls in a plain
attribute, does change.
"""

from __future__ import annotations

import random
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from groundup.measure.activations import RELU_NAMES, RELUS, dead_units
from groundup.optim.rows import stored_in_out


@dataclass
class Probe:
    """What to call the model with."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    autocast: Mapping[str, torch.dtype] = field(default_factory=dict)

    @staticmethod
    def of(inputs: Any) -> Probe:
        """From what a user gives: a tensor, a list of positional inputs or a dict of named ones."""
        if isinstance(inputs, Mapping):
            return Probe((), dict(inputs))
        return Probe((inputs,) if isinstance(inputs, Tensor) else tuple(inputs))


class LastInputs:
    """Keeps what the model was last called with in training, while `wanted` says so.

    A call inside of a compiled graph is not seen.
    """

    def __init__(self, model: nn.Module, wanted: Callable[[], bool]) -> None:
        self.probe: Probe | None = None
        self._wanted = wanted
        self._types = {p.device.type for p in model.parameters()}
        # A copy or a pickle of the model must not carry the observer along.
        hook = _Passing(weakref.WeakMethod(self._before))
        self._hook = model.register_forward_pre_hook(hook, with_kwargs=True)

    def remove(self) -> None:
        self._hook.remove()

    def _before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling() or not self._wanted() or not torch.is_grad_enabled():
            return
        autocast = {
            kind: torch.get_autocast_dtype(kind)
            for kind in self._types
            if torch.is_autocast_enabled(kind)
        }
        self.probe = Probe(args, kwargs, autocast)


class _Passing:
    """A hook that passes on to a method, as long as that is there; a copy passes on to nothing."""

    def __init__(self, target: Callable[[], Any]) -> None:
        self._target = target

    def __call__(self, *args: Any) -> None:
        if (method := self._target()) is not None:
            method(*args)

    def __reduce__(self) -> Any:
        return _Passing, (_nothing,)


def _nothing() -> None:
    return None


def is_linear(module: nn.Module) -> bool:
    """nn.Linear, or the Conv1D of transformers (GPT-2), whose weight is [in, out]."""
    return isinstance(module, nn.Linear) or stored_in_out(module)


def is_relu(module: nn.Module) -> bool:
    return isinstance(module, RELUS) or type(module).__name__ in RELU_NAMES


class Sight(Protocol):
    """Something that looks on while a model runs; what it saw before is forgotten."""

    def watching(self) -> AbstractContextManager[Any]: ...


def until_left(handles: Iterable[RemovableHandle]) -> ExitStack:
    """A context that removes hooks at its end."""
    stack = ExitStack()
    for handle in handles:
        stack.callback(handle.remove)
    return stack


class Inputs:
    """Some rows of what went into linear modules: `rows[name]`, at most [count, in]."""

    def __init__(self, modules: Mapping[str, nn.Module], count: int) -> None:
        self.rows: dict[str, Tensor] = {}
        self._modules = modules
        self._count = count

    def watching(self) -> ExitStack:
        self.rows.clear()
        return until_left(
            module.register_forward_pre_hook(_showing(partial(self._take, name)))
            for name, module in self._modules.items()
        )

    def _take(self, name: str, x: Tensor) -> None:
        if name in self.rows:  # a module that is called several times: the first
            return
        self.rows[name] = some_rows(x, self._count)


def some_rows(x: Tensor, count: int) -> Tensor:
    """At most `count` of the tokens of x [..., d], detached: [n, d]."""
    rows = x.detach().flatten(0, -2) if x.ndim > 1 else x.detach()[None]
    # Evenly spaced: a draw would move the random state.
    where = torch.linspace(
        0, len(rows) - 1, min(count, len(rows)), device=x.device, dtype=torch.float64
    )
    return rows[where.round().long()]


class Dead:
    """Counts of dead units and of all units of ReLU modules: `counts[name]`, [2] each."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.counts: dict[str, Tensor] = {}
        self._modules = modules

    def watching(self) -> ExitStack:
        self.counts.clear()
        return until_left(
            module.register_forward_pre_hook(_showing(partial(self._count, name)))
            for name, module in self._modules.items()
        )

    def _count(self, name: str, x: Tensor) -> None:
        dead = dead_units(x)
        count = torch.stack([dead.sum(), torch.full_like(dead.sum(), dead.numel())]).double()
        # A module may serve several places: what all of them hold is added up.
        self.counts[name] = self.counts[name] + count if name in self.counts else count


def run(model: nn.Module, probe: Probe, sights: Sequence[Sight]) -> Any:
    """Call `model` with `probe` while `sights` look on; what the model returns."""
    buffers = [
        (module, name, b, b.clone())
        for module in model.modules()
        for name, b in module._buffers.items()
        if b is not None and not b.is_meta
    ]
    modes = [(module, module.training) for module in model.modules()]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with ExitStack() as during:
        for sight in sights:
            during.enter_context(sight.watching())
        during.enter_context(torch.no_grad())
        during.callback(_restore, buffers, modes)
        during.callback(random.setstate, random.getstate())
        during.callback(np.random.set_state, np.random.get_state())
        during.callback(reshard, model)
        during.enter_context(torch.random.fork_rng(devices=devices))
        during.enter_context(eagerly())
        for kind, dtype in probe.autocast.items():
            during.enter_context(torch.autocast(kind, dtype=dtype))
        for module, _ in modes:
            module.training = False
        return model(*probe.args, **probe.kwargs)


def eagerly() -> AbstractContextManager[Any]:
    """Within, nothing that is compiled runs as such."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled where nobody imported it
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _showing(take: Callable[[Tensor], None]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
        if args:
            take(args[0])

    return hook


def reshard(model: nn.Module) -> None:
    """Shard what FSDP2 left gathered for a backward that does not come: the next forward would take
    it as it is, without the update between."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    for module in model.modules() if fsdp is not None else ():
        if isinstance(module, fsdp.FSDPModule):
            module.reshard()


def _restore(
    buffers: list[tuple[nn.Module, str, Tensor, Tensor]], modes: list[tuple[nn.Module, bool]]
) -> None:
    for module, mode in modes:
        module.training = mode
    for module, name, buffer, kept in buffers:
        module._buffers[name] = buffer  # the forward may have put another in its place
        if not torch.equal(buffer, kept):
            buffer.copy_(kept)
