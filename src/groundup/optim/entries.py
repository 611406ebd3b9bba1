"""The table of optimizers: where each is found, its settings for pretraining, what to know of it.

Settings are those of the source where it has some for Transformers. Where it has none they are
AdamW's (β = (0.9, 0.95), λ = 0.1), so that a comparison with AdamW changes the method alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Decay = Literal["decoupled", "L2", "angle", "none", "unknown"]


@dataclass(frozen=True)
class Entry:
    """What is known of one optimizer.

    Attributes:
        name: what it is called here.
        where: ``"package.module:Class"``.
        description: in one line.
        source: the paper.
        defaults: settings for pretraining; `create` starts from them.
        decay: how weight decay acts. ``"decoupled"``: w ← w·(1 − η·λ) beside the update; ``"L2"``:
            λ·w is added to the gradient; ``"angle"``: it decides by how much rows turn;
            ``"none"``: there is none.
        warmup: whether it needs a warmup of the learning rate, and why.
        matrices_only: its method is for hidden matrices; the class updates all else by AdamW.
        modes: it has ``train()`` and ``eval()``, to be called as the model's are.
        fused: whether torch's fused kernels are taken where all parameters allow it: ``"plain"`` of
            ordinary tensors only, ``"sharded"`` of those of FSDP2 (DTensor) too.
        sharded: it can update parameters that FSDP2 shards.
        through_kwargs: options that its class takes through ``**kwargs`` and does use.
        prepare: called with a new optimizer.
        remark: what else to know.
    """

    name: str
    where: str
    description: str
    source: str
    defaults: Mapping[str, Any]
    decay: Decay
    warmup: str
    matrices_only: bool = False
    modes: bool = False
    fused: Literal["no", "plain", "sharded"] = "no"
    sharded: bool = True
    through_kwargs: tuple[str, ...] = ()
    prepare: Callable[[torch.optim.Optimizer], None] | None = field(default=None, repr=False)
    remark: str = ""

    @property
    def betas(self) -> bool:
        """Whether it takes a pair β₁, β₂."""
        return "betas" in self.defaults


def _momentum_of_zeros(optimizer: torch.optim.Optimizer) -> None:
    """A momentum of zero becomes the first gradient, as a missing one does: torch's fused kernel
    fails where some parameters have one and others, whose first gradient comes later, do not."""
    import torch

    def fill(*_: Any) -> None:
        for group in optimizer.param_groups:
            if group["fused"] and group["momentum"] and not group["dampening"]:
                for p in group["params"]:
                    if p.grad is not None and optimizer.state[p].get("momentum_buffer") is None:
                        momentum = torch.zeros_like(p, requires_grad=False)
                        optimizer.state[p]["momentum_buffer"] = momentum

    optimizer.register_step_pre_hook(fill)


def _state_in_tensors(optimizer: torch.optim.Optimizer) -> None:
    """After each update, empty state is dropped and numbers become tensors.

    torch.distributed.checkpoint refuses None in a flat state dict, and loads by shape.
    """

    import torch  # the table is also read where there is nothing to train

    def tidy(*_: Any) -> None:
        for state in optimizer.state.values():
            for key, value in list(state.items()):
                if value is None:
                    del state[key]
                elif isinstance(value, float):
                    state[key] = torch.tensor(value)

    optimizer.register_step_post_hook(tidy)


_ADAM = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}

ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="adamw",
        where="groundup.optim.adamw:AdamW",
        description="torch.optim.AdamW (decoupled weight decay), with a choice of bias correction",
        source="Loshchilov & Hutter 2019, arXiv:1711.05101",
        defaults=_ADAM,
        decay="decoupled",
        warmup="needed: the first updates are of full size whatever the gradient",
        fused="sharded",
        remark="β, ε and λ are those of arXiv:2603.05369",
    ),
    Entry(
        name="adam",
        where="torch.optim:Adam",
        description="running mean of the gradient over the root of that of its square",
        source="Kingma & Ba 2015, arXiv:1412.6980",
        defaults=_ADAM | {"weight_decay": 0.0},
        decay="L2",
        warmup="needed, as by adamw",
        fused="sharded",
        remark="with λ > 0 a weight without gradient moves by the full rate (λ·w is normalized as "
        "a gradient is): not with residual warmup",
    ),
    Entry(
        name="sgd",
        where="torch.optim:SGD",
        description="stochastic gradient descent with momentum",
        source="Sutskever et al. 2013; settings of Goyal et al. 2017, arXiv:1706.02677",
        defaults={"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
        decay="L2",
        warmup="needed for large batches (gradual warmup); the rate is another for every model",
        fused="plain",
        remark="the settings are for images; Transformers want another rate for every size",
        prepare=_momentum_of_zeros,
    ),
    Entry(
        name="nadam",
        where="torch.optim:NAdam",
        description="Adam with Nesterov momentum",
        source="Dozat 2016 (ICLR workshop)",
        defaults=_ADAM | {"decoupled_weight_decay": True},
        decay="decoupled",
        warmup="needed, as by adamw (its momentum itself rises: momentum_decay)",
    ),
    Entry(
        name="radam",
        where="torch.optim:RAdam",
        description="Adam, rectified for the small sample that its second moment is at first",
        source="Liu et al. 2020, arXiv:1908.03265",
        defaults=_ADAM | {"decoupled_weight_decay": True},
        decay="decoupled",
        warmup="built in, about as a linear one over 2/(1 − β₂) updates (arXiv:1910.04209): 40 at "
        "β₂ = 0.95, where the usual lengths are longer",
        remark="while ρ_n ≤ 5 (the first 5 updates) it takes steps of η·m̂, not normalized",
    ),
    Entry(
        name="adafactor",
        where="torch.optim:Adafactor",
        description="second moment from row and column means: little memory; steps relative to ‖w‖",
        source="Shazeer & Stern 2018, arXiv:1804.04235; the rate of T5, arXiv:1910.10683",
        defaults={"lr": 1e-2, "weight_decay": 0.0},
        decay="decoupled",
        warmup="less: steps are relative to ‖w‖, clipped in RMS, and η ≤ 1/√n",
        sharded=False,
        remark="the rate is relative: a tensor moves by min(η, 1/√n) of its own RMS",
    ),
    Entry(
        name="adagrad",
        where="torch.optim:Adagrad",
        description="gradient over the root of the sum of all its squares",
        source="Duchi et al. 2011, JMLR 12",
        defaults={"lr": 1e-2, "weight_decay": 0.0},
        decay="L2",
        warmup="needed: the first update is of full size in every weight",
    ),
    Entry(
        name="muon",
        where="groundup.optim.muon:Muon",
        description="orthogonalized momentum for hidden matrices, AdamW for all else, in one",
        source="Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982",
        defaults=_ADAM | {"momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"},
        decay="decoupled",
        warmup="less for the matrices (each update has the same norm); AdamW's part needs it",
        fused="sharded",
        matrices_only=True,
        remark='one rate for both parts, that of AdamW; with adjust_lr_fn="original" give lr=0.02 '
        "and adamw_lr",
    ),
    Entry(
        name="lion",
        where="pytorch_optimizer:Lion",
        description="sign of an interpolation of momentum and gradient",
        source="Chen et al. 2023, arXiv:2302.06675",
        defaults={"lr": 1e-4, "betas": (0.95, 0.98), "weight_decay": 1.0},
        decay="decoupled",
        warmup="needed: every update has the same size",
        through_kwargs=("adanorm", "adanorm_r", "cautious", "use_gc"),
        remark="a tenth of AdamW's rate and ten times its λ (the paper: 3 to 10)",
    ),
    Entry(
        name="liona",
        where="groundup.optim.lion:LionA",
        description="Lion with one β, scaled to the size of AdamW's updates",
        source="Kosson et al. 2024, arXiv:2410.23922",
        defaults={"lr": 1e-3, "beta": 0.9, "weight_decay": 0.1},
        decay="decoupled",
        warmup="needed: bounding the norm of the update is not enough",
    ),
    Entry(
        name="lionar",
        where="groundup.optim.lion:LionAR",
        description="LionA that turns each row of a matrix by a fixed angle and keeps its norm",
        source="Kosson et al. 2024, arXiv:2410.23922",
        defaults={"lr": 1e-3, "beta": 0.9, "weight_decay": 0.1},
        decay="angle",
        warmup="less; none with β = 0.98, Nesterov momentum and inverse bias correction",
        remark="float32 weights, or master_weights",
    ),
    Entry(
        name="rotational-adamw",
        where="groundup.optim.rotational:RotationalAdamW",
        description="AdamW that turns each row of a matrix by its equilibrium angle",
        source="Kosson et al. 2024, arXiv:2305.17212",
        defaults=_ADAM,
        decay="angle",
        warmup="less: rows turn by the angle of the equilibrium from the first update on",
        remark="float32 weights, or master_weights",
    ),
    Entry(
        name="rotational-sgd",
        where="groundup.optim.rotational:RotationalSGD",
        description="SGD that turns each row of a matrix by its equilibrium angle",
        source="Kosson et al. 2024, arXiv:2305.17212",
        defaults={"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        decay="angle",
        warmup="less: rows turn by the angle of the equilibrium from the first update on",
        remark="float32 weights, or master_weights; the settings are for images",
    ),
    Entry(
        name="lamb",
        where="pytorch_optimizer:Lamb",
        description="Adam whose update of a tensor is scaled to its weights' norm (trust ratio)",
        source="You et al. 2020, arXiv:1904.00962",
        defaults={
            "lr": 6e-4,
            "betas": (0.9, 0.999),
            "eps": 1e-6,
            "weight_decay": 0.01,
            "adam_debias": True,
        },
        decay="decoupled",
        warmup="needed, with large batches (the paper's: 1/320 of the updates at 512, 1/5 at 32k)",
        sharded=False,
        through_kwargs=("adam_debias", "adanorm", "adanorm_r"),
        prepare=_state_in_tensors,
        remark="without adam_debias the class divides the rate by 1 − β₁ⁿ, after the trust ratio "
        "has set the step's size: ten times the rate at first. The paper's decay inside the trust "
        "ratio (weight_decouple=False) shrinks a tensor without gradient by η an update: not with "
        "residual warmup",
    ),
    Entry(
        name="nero",
        where="pytorch_optimizer:Nero",
        description="rows kept at norm 1 and mean 0; gradients divided by their running row norm",
        source="Liu et al. 2021, arXiv:2102.07227",
        defaults={"lr": 0.01, "beta": 0.999},
        decay="none",
        warmup="not needed, by the paper: rows turn by a bounded angle",
        prepare=_state_in_tensors,
        remark="the first update projects the rows of every matrix, embeddings too, to norm 1 and "
        "mean 0, whatever they were (constraints=False does not)",
    ),
    Entry(
        name="schedule-free-adamw",
        where="pytorch_optimizer:ScheduleFreeAdamW",
        description="AdamW at a point between the iterate and its average, in place of a decay",
        source="Defazio et al. 2024, arXiv:2405.15682",
        defaults={"lr": 2.5e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1},
        decay="decoupled",
        warmup="needed (a schedule's, or its own warmup_steps); no decay of the rate after it",
        modes=True,
        remark="evaluate and export in eval(), train in train(): they exchange the weights",
    ),
    Entry(
        name="stable-adamw",
        where="pytorch_optimizer:StableAdamW",
        description="AdamW whose rate for a tensor is divided by the RMS of g/√v if above 1",
        source="Wortsman et al. 2023, arXiv:2304.13013",
        defaults=_ADAM,
        decay="decoupled",
        warmup="needed: it guards against a stale second moment, not against the first updates",
        sharded=False,
        prepare=_state_in_tensors,
    ),
)
