"""The multiplication itself: the last module of a branch becomes one whose output is times α.

α is a plain attribute of that module: a 0-dim float32 tensor that is filled in place. It is no
buffer, because a buffer is cast by ``.to(torch.bfloat16)``, wiped by ``to_empty`` and broadcast by
DDP; it is no Python float, because a changing float recompiles.

The module's class is exchanged (`groundup.residual.derived`) rather than a forward hook given:
`torch.compile` does not guard on hooks, and would go on using a graph that it made of an unscaled
model of the same architecture. It does guard on classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from groundup.residual.derived import Derived, derive, exchange, give_back

_ALPHA = "residual_alpha"
_TRACED = "residual_traced"
_HELD = "residual_held"


class Traced:
    """Whether `torch.compile` has traced a branch of a model; shared by all its branches.

    `note` is called while it traces, and nothing of it stays in the graph. An assignment would be a
    side effect of the graph, which activation checkpointing refuses.
    """

    def __init__(self) -> None:
        self.seen = False
        self.note = self._make_note()

    def _make_note(self) -> Callable[[], None]:
        def note() -> None:
            self.seen = True

        # torch.compiler.assume_constant_result(note), which would import the compiler.
        note._dynamo_marked_constant = True  # type: ignore[attr-defined]
        return note

    def __getstate__(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]
        self.note = self._make_note()


class _Scaled(Derived):
    """A module whose output is multiplied by α."""

    # A copy is scaled by the same tensor: an average of the weights is warmed up along.
    _derived_shares = (_ALPHA, _TRACED)

    @staticmethod
    def _derived_methods(base: type[nn.Module]) -> dict[str, Any]:
        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return _times_alpha(self, base.__call__(self, *args, **kwargs))

        return {"__call__": call}


def install(module: nn.Module, alpha: torch.Tensor, traced: Traced) -> None:
    """Scale the outputs of `module` by `alpha`."""
    bind(module, alpha)
    setattr(module, _TRACED, traced)
    if not isinstance(module, _Scaled):
        exchange(module, derive(_Scaled, type(module)))


def bind(module: nn.Module, alpha: torch.Tensor) -> None:
    """Let another tensor scale `module`."""
    setattr(module, _ALPHA, alpha)


def alpha_of(module: nn.Module) -> torch.Tensor | None:
    """The α that scales this module's output, if one does."""
    return module.__dict__.get(_ALPHA) if isinstance(module, _Scaled) else None


def stock_class(module: nn.Module) -> type[nn.Module]:
    """The class of `module` without the scaling."""
    return module._derived_from if isinstance(module, _Scaled) else type(module)


def remove(module: nn.Module) -> bool:
    """Take the scaling off `module`; whether there was one.

    A class that another library has derived from the scaled one (FSDP2, applied to this very
    module) is left as it is: without an α it multiplies by nothing.
    """
    if alpha_of(module) is None:
        return False
    assert isinstance(module, _Scaled)
    give_back(module)
    del module.__dict__[_ALPHA], module.__dict__[_TRACED]
    return True


def hold(module: nn.Module, attributes: Mapping[str, Any]) -> None:
    """Keep attributes of `module` at these values until `release`."""
    if _HELD not in module.__dict__:
        setattr(module, _HELD, {name: getattr(module, name) for name in attributes})
    for name, value in attributes.items():
        setattr(module, name, value)


def release(module: nn.Module) -> None:
    """Give what was held its own values back."""
    for name, value in module.__dict__.pop(_HELD, {}).items():
        setattr(module, name, value)


def capturing() -> bool:
    """Whether a CUDA graph is being captured."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def _times_alpha(module: nn.Module, output: Any) -> Any:
    """α times the output of the branch, in the output's dtype."""
    if isinstance(module, nn.MultiheadAttention):  # the output, and the attention weights
        return _times_alpha_itself(module, output[0]), *output[1:]
    return _times_alpha_itself(module, output)


def _times_alpha_itself(module: nn.Module, output: Any) -> torch.Tensor:
    if not isinstance(output, torch.Tensor):
        raise TypeError(
            f"a residual branch must end in a module that returns a tensor; this "
            f"{type(module).__name__} returns a {type(output).__name__}: name a module inside it "
            "in branches=[…]"
        )
    if _ALPHA not in module.__dict__:  # taken off, but of a derived class
        return output
    alpha = module.residual_alpha
    assert isinstance(alpha, torch.Tensor)
    if torch.compiler.is_compiling():
        module.residual_traced.note()  # type: ignore[union-attr, operator]
    # A 0-dim tensor on the CPU multiplies one of any device (weights that are offloaded). Another
    # device: the model was moved since α was last written; right at once, re-bound at the next.
    if alpha.device != output.device:
        if alpha.device.type != "cpu":
            alpha = alpha.to(output.device)
        elif not torch.compiler.is_compiling() and capturing():
            raise RuntimeError(
                "α is still on the CPU, so that a CUDA graph would hold its value and not read it: "
                "the model was moved after attach. Say warmup.at(step) before capturing"
            )
    return output * alpha
