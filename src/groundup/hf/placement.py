"""Where a layer normalizes: DESIGN's table once more, over norms with the names of transformers.

`groundup.model.placement` has the sources; LNS is not here, since folding makes it Pre-LN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

Map = Callable[[Tensor], Tensor]


class Placement(NamedTuple):
    """A row of the table.

    Attributes:
        before: whether a branch has a norm of its own before it.
        after: whether it has one after it.
        ends_in_norm: whether that one comes before the addition, and so ends the branch.
        add: (x, F, before, after, k) → what leaves the branch: x the stream [B, T, width], F the
            branch, k = (2L)^¼.
    """

    before: bool
    after: bool
    ends_in_norm: bool
    add: Callable[[Tensor, Map, Map, Map, float], Tensor]


PLACEMENTS: dict[str, Placement] = {
    "pre": Placement(True, False, False, lambda x, F, before, after, k: x + F(before(x))),
    "post": Placement(False, True, False, lambda x, F, before, after, k: after(x + F(x))),
    "sandwich": Placement(True, True, True, lambda x, F, before, after, k: x + after(F(before(x)))),
    "deepnorm": Placement(False, True, False, lambda x, F, before, after, k: after(k * x + F(x))),
    "output": Placement(False, True, True, lambda x, F, before, after, k: x + after(F(x))),
}
"""`GroundupConfig.placement` → its row."""
