"""What a recipe says about training in several processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from groundup._check import count, positive

Mode = Literal["auto", "ddp", "fsdp"]
Dtype = Literal["float32", "bf16"]


@dataclass(frozen=True)
class ParallelConfig:
    """How a model is spread over the processes that torchrun starts; without torchrun there is one.

    None of it changes what is computed, but for rounding and for `gather` and `reduce` in bf16.
    """

    mode: Mode = "auto"
    """"ddp": every process holds the whole model; "fsdp": weights, gradients and optimizer state
    are sharded over the processes (FSDP2); "auto": ddp where there are several processes."""

    replicas: int = 1
    """fsdp: copies of the model, each sharded over size/replicas processes (HSDP)."""

    reshard: bool = True
    """fsdp: free the gathered weights of a layer after its forward, and gather them again for its
    backward; false is faster and keeps them all."""

    gather: Dtype = "float32"
    """fsdp: what weights are gathered in; bf16 halves what is sent, and the residual stream is bf16
    then too."""

    reduce: Dtype = "float32"
    """fsdp: what gradients are summed in over the processes."""

    offload: bool = False
    """fsdp: keep weights, gradients and optimizer state in the memory of the CPU."""

    timeout: float = 600.0
    """Seconds without a completed update after which a run of several processes is given up, with
    the name of the process that hangs: more than an evaluation or a checkpoint takes."""

    def __post_init__(self) -> None:
        count("replicas", self.replicas)
        positive("timeout", self.timeout)
        if self.mode == "fsdp":
            return
        default = ParallelConfig(mode="fsdp")
        for name in ("replicas", "reshard", "gather", "reduce", "offload"):
            if (value := getattr(self, name)) != getattr(default, name):
                raise ValueError(
                    f"{name}={value!r} would be ignored by mode={self.mode!r}: it needs mode='fsdp'"
                )

    def check(self, size: int, precision: str) -> None:
        """Refuse what does not go together with so many processes, or with train.precision.

        Raises:
            ValueError: naming the field.
        """
        if size % self.replicas:
            raise ValueError(
                f"parallel.replicas={self.replicas} is not valid: it must divide the number of "
                f"processes, which is {size}"
            )
        if precision == "float32" and "bf16" in (self.gather, self.reduce):
            raise ValueError(
                f"parallel.gather={self.gather!r}, parallel.reduce={self.reduce!r} is not valid "
                "with train.precision='float32': both must be 'float32'"
            )
