"""Modules that behave otherwise in one thing: their class is exchanged for a subclass of itself.

One for every class, rather than a hook or an instance's own method: `torch.compile` guards on
classes, not on hooks. Parameter names, `isinstance` and what the module prints stay the same.
"""

from __future__ import annotations

import copy
import types
from typing import Any, ClassVar

from torch import nn


class Derived:
    """What such subclasses have in common; each is made by `derive` from a mixin of this class."""

    # Names that no module has of its own: these stand before its attributes.
    _derived_from: ClassVar[type[nn.Module]]
    _derived_by: ClassVar[type[Derived]]
    _derived_shares: ClassVar[tuple[str, ...]] = ()  # attributes, with a deepcopy

    @staticmethod
    def _derived_methods(base: type[nn.Module]) -> dict[str, Any]:
        """What the subclass of `base` has of its own."""
        raise NotImplementedError

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # Its class, not the one that was made here: a parametrization derives another from that.
        twin = memo[id(self)] = object.__new__(type(self))
        for name, value in self.__dict__.items():
            twin.__dict__[name] = (
                value if name in self._derived_shares else copy.deepcopy(value, memo)
            )
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class was made here, so that pickle does not find it by its name.
        return _restore, (self._derived_by, self._derived_from), self.__getstate__()


_MADE: dict[tuple[type[Derived], type[nn.Module]], type[nn.Module]] = {}


def derive(mixin: type[Derived], base: type[nn.Module]) -> type[nn.Module]:
    """The subclass of `base` that `mixin` makes of it; always the same one, for torch.compile."""
    if (mixin, base) not in _MADE:
        names = {"_derived_from": base, "_derived_by": mixin, "__module__": base.__module__}
        names |= mixin._derived_methods(base)
        _MADE[mixin, base] = types.new_class(
            base.__name__, (mixin, base), exec_body=lambda namespace: namespace.update(names)
        )
    return _MADE[mixin, base]


def exchange(module: nn.Module, kind: type[nn.Module]) -> None:
    """Make `module` one of `kind`, which is derived from its class or the class it came with."""
    object.__setattr__(module, "__class__", kind)  # wrappers of torch.compile pass others on


def give_back(module: nn.Module) -> bool:
    """Give `module` its own class back; whether it could be.

    A class that another library has derived from the made one (FSDP2, applied to this very module)
    is left as it is.
    """
    assert isinstance(module, Derived)
    if type(module) is not _MADE[module._derived_by, module._derived_from]:
        return False
    exchange(module, module._derived_from)
    return True


def _restore(mixin: type[Derived], base: type[nn.Module]) -> nn.Module:
    kind = derive(mixin, base)
    return kind.__new__(kind)
