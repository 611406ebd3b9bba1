"""Layers that rest: what a schedule declares dormant is neither run forward nor backward.

A dormant layer has α = 0 and will have it for a while, so that it gives what it is given: it need
not be called to know that. Its weights get no gradient, which is another thing than a gradient of
zero: no optimizer touches them, no weight decay shrinks them, and their moments begin on their
first update.

Layers rest only where gradients are recorded. Evaluations, measurements and generation run them, at
α = 0, and see the same function.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from groundup.residual.branches import Branch
from groundup.residual.derived import Derived, derive, exchange, give_back
from groundup.residual.names import stock_name
from groundup.residual.proof import BranchError
from groundup.residual.scale import capturing

_REST = "residual_rest"


class Rest:
    """Whether a layer rests now. `gives` is what it returns then, known once it is proven: a
    function of what it is called with."""

    def __init__(self) -> None:
        self.now = False
        self.gives: Callable[..., Any] | None = None


class _Resting(Derived):
    """A layer that is not run while it rests."""

    _derived_shares = (_REST,)

    @staticmethod
    def _derived_methods(base: type[nn.Module]) -> dict[str, Any]:
        # Before all hooks: what shards weights (FSDP2) gathers none for it.
        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            rest = self.residual_rest
            if not _rests(rest):
                return base.__call__(self, *args, **kwargs)
            return rest.gives(*args, **kwargs)  # type: ignore[union-attr, operator]

        return {"__call__": call}


class _Silenced(Derived):
    """A layer that computes only what it does without its branches while it rests."""

    _derived_shares = (_REST,)

    @staticmethod
    def _derived_methods(base: type[nn.Module]) -> dict[str, Any]:
        # In place of the forward: its weights are gathered, as the norms on the stream need them.
        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if not _rests(self.residual_rest):
                return base.forward(self, *args, **kwargs)
            return self.silent(*args, **kwargs)  # type: ignore[operator]

        return {"forward": forward}


def _rests(rest: Any) -> bool:
    if not rest.now or rest.gives is None or not torch.is_grad_enabled():
        return False
    if not torch.compiler.is_compiling() and capturing():
        raise RuntimeError(
            "a CUDA graph of a model with dormant layers would leave them out for good: capture "
            "it when all are awake, or attach with dormant='run'"
        )
    return True


class Resting:
    """The layers of a model that rest while a schedule declares them dormant.

    A layer with post-norms on the residual stream changes the stream also at α = 0. It says what it
    computes without its branches in a method `silent`, called as its `forward` is (None: it gives
    its input); `groundup.model` does.

    Args:
        model: the model that the branches are part of.
        branches: what is scaled.
        places: for each branch the place of its layer among all layers.
    """

    def __init__(self, model: nn.Module, branches: Sequence[Branch], places: Sequence[int]) -> None:
        whole: dict[str, nn.Module] = {}
        for name, module in model.named_modules():
            whole.setdefault(stock_name(name), module)  # a wrapper before what it wraps
        names = {id(module): stock_name(name) for name, module in model.named_modules()}
        self._layers: dict[str, tuple[nn.Module, int]] = {}
        for branch, place in zip(branches, places, strict=True):
            name, inner = names[id(branch.block)], branch.block
            outer = inner if getattr(inner, "silent", None) is not None else whole[name]
            self._layers[name] = outer, place
        for layer, _ in self._layers.values():
            kind = _Resting if getattr(layer, "silent", None) is None else _Silenced
            layer.__dict__[_REST] = (
                Rest()
            )  # not by setattr, which wrappers of torch.compile pass on
            exchange(layer, derive(kind, type(layer)))

    def write(self, dormant: Sequence[bool]) -> None:
        """Say which layers are dormant, by place."""
        for layer, place in self._layers.values():
            _rest_of(layer).now = dormant[place]

    @contextlib.contextmanager
    def proving(self) -> Iterator[None]:
        """Within, one forward at α = 0 without gradients shows what resting layers give.

        Raises:
            BranchError: at the end, naming a layer that does something to the stream at α = 0.
        """
        wrong: dict[str, str] = {}
        with contextlib.ExitStack() as hooks:
            for name, (layer, _) in self._layers.items():
                see = partial(_see, name, wrong)
                # silent() needs weights that others give back after the forward; what gives the
                # stream back has to, whatever others make of it.
                first = isinstance(layer, _Silenced)
                hook = layer.register_forward_hook(see, with_kwargs=True, prepend=first)
                hooks.callback(hook.remove)
            yield
        for name, why in wrong.items():
            raise BranchError(
                f"{name} cannot rest while it is dormant: {why}. Attach with dormant='run', or "
                "give the layer a method silent() that computes what it does without its branches"
            )

    def part(self) -> None:
        """Share no longer with the model that this one is a copy of."""
        for layer, _ in self._layers.values():
            layer.__dict__[_REST] = copy.copy(_rest_of(layer))

    def remove(self) -> None:
        """Layers never rest again."""
        self.write([False] * (1 + max(place for _, place in self._layers.values())))
        for layer, _ in self._layers.values():
            wake(layer)


def wake(layer: nn.Module) -> None:
    """Let a layer never rest again, if it is one that may."""
    if isinstance(layer, _Resting | _Silenced):
        layer.__dict__[_REST] = Rest()
        if give_back(layer):
            del layer.__dict__[_REST]


def _rest_of(layer: nn.Module) -> Rest:
    rest = layer.__dict__[_REST]
    assert isinstance(rest, Rest)
    return rest


def _see(
    name: str,
    wrong: dict[str, str],
    layer: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> None:
    silent = getattr(layer, "silent", None)
    if silent is not None:
        if not torch.allclose(silent(*args, **kwargs), output, rtol=1e-4, atol=1e-6):
            wrong[name] = "silent() gives something else than the layer does at α = 0"
            return
        _rest_of(layer).gives = silent
        return
    stream = _stream(args, kwargs)
    first, *others = output if isinstance(output, tuple) else (output,)
    if not isinstance(first, Tensor) or not isinstance(stream, Tensor):
        wrong[name] = f"it returns a {type(output).__name__} of a {type(stream).__name__}"
    elif any(other is not None for other in others):
        wrong[name] = f"it returns {len(others)} more than the residual stream"
    elif first.shape != stream.shape or not torch.equal(first, stream):
        wrong[name] = "at α = 0 it does not give what it is given"
    else:
        _rest_of(layer).gives = _Stream(len(others) if isinstance(output, tuple) else None)


def _stream(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs.get("hidden_states")


class _Stream:
    """What a layer is given, as it returns it: alone, or in a tuple with so many None."""

    def __init__(self, others: int | None) -> None:
        self.others = others

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        stream = _stream(args, kwargs)
        return stream if self.others is None else (stream, *(None,) * self.others)
