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
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from groundup.residual.branches import Branch
from groundup.residual.derived import Derived, derive, exchange, give_back
from groundup.residual.names import stock_name
from groundup.residual.proof import BranchError
from groundup.residual.scale import capturing
from groundup.residual.scaling import Scaling

_REST = "residual_rest"


class Rest:
    """Whether a layer rests now, and what it gives then: known once it is proven.

    Attributes:
        now: whether it is dormant.
        gives: a function of what it is called with.
        alone: whether that needs nothing of the layer, its weights included.
    """

    def __init__(self) -> None:
        self.now = False
        self.gives: Callable[..., Any] | None = None
        self.alone = False


class _Resting(Derived):
    """A layer that is not run while it rests."""

    _derived_shares = (_REST,)

    @staticmethod
    def _derived_methods(base: type[nn.Module]) -> dict[str, Any]:
        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            rest: Any = self.residual_rest
            # Without hooks, what shards weights (FSDP2) gathers none for it. Not where somebody
            # else listens: transformers collects hidden states so.
            if torch.compiler.is_compiling() or not _rests(rest) or not rest.alone:
                return base.__call__(self, *args, **kwargs)
            if _is_listened_to(self):
                return base.__call__(self, *args, **kwargs)
            return rest.gives(*args, **kwargs)

        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            rest: Any = self.residual_rest
            if not _rests(rest):
                return base.forward(self, *args, **kwargs)
            return rest.gives(*args, **kwargs)

        return {"__call__": call, "forward": forward}


def _rests(rest: Any) -> bool:
    if not rest.now or rest.gives is None or not torch.is_grad_enabled():
        return False
    if not torch.compiler.is_compiling() and capturing():
        raise RuntimeError(
            "a CUDA graph of a model with dormant layers would leave them out for good: capture "
            "it when all are awake, or attach with dormant='run'"
        )
    return True


def _is_listened_to(layer: nn.Module) -> bool:
    """Whether it has hooks besides those of FSDP2 (known by name: its import takes long)."""
    hooks = chain(
        layer._forward_hooks.values(),
        layer._forward_pre_hooks.values(),
        layer._backward_hooks.values(),
        layer._backward_pre_hooks.values(),
    )
    return any(type(getattr(hook, "__self__", None)).__name__ != "FSDPState" for hook in hooks)


class Resting:
    """The layers of a model that rest while a schedule declares them dormant.

    A layer with post-norms on the residual stream changes the stream also at α = 0. It says what it
    computes without its branches in a method `silent`, called as its `forward` is (None: it gives
    its input); `groundup.model` does.

    Args:
        model: the model that the branches are part of.
        branches: what is scaled.
        places: for each branch the place of its layer among all layers.
        scaling: what writes their α.
    """

    def __init__(
        self,
        model: nn.Module,
        branches: Sequence[Branch],
        places: Sequence[int],
        scaling: Scaling,
    ) -> None:
        self._scaling = scaling
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
            layer.__dict__[_REST] = (
                Rest()
            )  # not by setattr, which wrappers of torch.compile pass on
            exchange(layer, derive(_Resting, type(layer)))

    def write(self, dormant: Sequence[bool]) -> None:
        """Say which layers are dormant, by place."""
        for layer, place in self._layers.values():
            _rest_of(layer).now = dormant[place]

    @contextlib.contextmanager
    def proving(self) -> Iterator[None]:
        """Within, every α is 0 and layers train; one forward without gradients shows what each
        gives then, and so may give while it rests.

        Raises:
            BranchError: at the end, naming a layer that does something to the stream, or that is
                not called.
        """
        seen: dict[str, str] = {}
        modules = {m: m.training for layer, _ in self._layers.values() for m in layer.modules()}
        with self._scaling.at_zero(), contextlib.ExitStack() as during:
            for module, training in modules.items():
                during.callback(setattr, module, "training", training)
                module.training = True  # dropout on the stream is not the identity
            for name, (layer, _) in self._layers.items():
                during.enter_context(_Look(name, layer, seen))
            yield
        for name in self._layers:
            if why := seen.get(name, "it is not called (a mere container), or not in this forward"):
                raise BranchError(
                    f"{name} cannot rest while it is dormant: {why}. Attach with dormant='run', or "
                    "give the layer a method silent() that computes what it does without its "
                    "branches"
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
    if isinstance(layer, _Resting):
        layer.__dict__[_REST] = Rest()
        if give_back(layer):
            del layer.__dict__[_REST]


def _rest_of(layer: nn.Module) -> Rest:
    rest = layer.__dict__[_REST]
    assert isinstance(rest, Rest)
    return rest


class _Look:
    """Within, sees a layer's call: in `seen` why it cannot rest, or "" if it can."""

    def __init__(self, name: str, layer: nn.Module, seen: dict[str, str]) -> None:
        self._name, self._layer, self._seen = name, layer, seen
        self._before: Any = None

    def __enter__(self) -> None:
        # What shards weights gathers them before, and gives them back after; silent() needs them.
        # What gives the stream back has to, whatever hooks of others make of it.
        silent = getattr(self._layer, "silent", None) is not None
        self._hooks = (
            self._layer.register_forward_pre_hook(self._begin, with_kwargs=True),
            self._layer.register_forward_hook(self._end, with_kwargs=True, prepend=silent),
        )

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A copy: a layer may write into what it is given.
        stream = _stream(args, kwargs)
        self._before = stream.clone() if isinstance(stream, Tensor) else stream

    def _end(self, layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        rest, silent = _rest_of(layer), getattr(layer, "silent", None)
        if silent is not None:
            given = silent(self._before, *args[1:], **kwargs)
            near = torch.allclose(given, output, rtol=1e-4, atol=1e-6, equal_nan=True)
            why = "" if near else "silent() gives something else than the layer does at α = 0"
            rest.gives = silent if near else None
        else:
            why, others = _identity(self._before, output)
            rest.gives, rest.alone = (None if why else _Stream(others)), True
        self._seen[self._name] = why


def _identity(before: Any, output: Any) -> tuple[str, int | None]:
    """Why a layer does more than to give back what it is given, if it does; and how many None come
    with that, if it returns a tuple."""
    after, *others = output if isinstance(output, tuple) else (output,)
    if not isinstance(after, Tensor) or not isinstance(before, Tensor):
        return f"it returns a {type(output).__name__} of a {type(before).__name__}", None
    if any(other is not None for other in others):
        return f"it returns {len(others)} more than the residual stream", None
    if not torch.isfinite(before).all():
        return "what it is given is not finite", None
    if after.shape != before.shape or not torch.equal(after, before):
        return "at α = 0 it does not give what it is given", None
    return "", len(others) if isinstance(output, tuple) else None


def _stream(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs.get("hidden_states")


class _Stream:
    """What a layer is given, as it returns it: alone, or in a tuple with so many None."""

    def __init__(self, others: int | None) -> None:
        self.others = others

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        stream = _stream(args, kwargs)
        return stream if self.others is None else (stream, *(None,) * self.others)
