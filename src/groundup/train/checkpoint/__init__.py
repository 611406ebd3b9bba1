"""Checkpoints: tensors by PyTorch's distributed checkpoint (DCP), everything else JSON.

    checkpoints/step-00000200/    .metadata, __0_0.distcp, __1_0.distcp, … (DCP), state.json,
                                  manifest.json (size and SHA-256 of all the others)

A checkpoint is written beside its place and renamed when it is whole, so a half-written one is
never taken. Loading executes no code: DCP's own metadata, the only pickle there is, passes an
unpickler that knows DCP's data classes and nothing else.
"""

from groundup.train.checkpoint.checkpoints import Checkpoints
from groundup.train.checkpoint.errors import CheckpointError, Damaged, Unreadable
from groundup.train.checkpoint.places import remove, states, steps_in
from groundup.train.checkpoint.reading import load

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Damaged",
    "Unreadable",
    "load",
    "remove",
    "states",
    "steps_in",
]
