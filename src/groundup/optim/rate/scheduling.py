"""The schedule of an optimizer's rate, from what is asked for."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from groundup._following import innermost
from groundup.optim.rate.change import OnChange
from groundup.optim.rate.plan import Factors, plan
from groundup.optim.rate.scheduler import RateSchedule
from groundup.schedules import DepthSchedule, Factor
from groundup.schedules.length import Length


def schedule(
    optimizer: torch.optim.Optimizer,
    factor: Factors,
    *,
    steps: int | None = None,
    tokens_per_step: int | None = None,
    weight_decay: str | Factor = "coupled",
    layers: DepthSchedule | None = None,
    depth: int | None = None,
    others: Mapping[str, Factor] | None = None,
    follow: bool = False,
    on_change: OnChange = "blend",
    blend: Length | None = None,
    last_epoch: int = -1,
) -> RateSchedule:
    """Multiply the rate of each group of `optimizer` by a factor: a torch `LRScheduler`.

    The rate of update n = step + 1 is ``peak · factor(step)``, the peak being the group's own lr
    when the schedule is made (as in torch: its "initial_lr", where it has one). A rate in a tensor
    is filled in place, so that a compiled ``optimizer.step`` stays one graph. (Python numbers that
    change, and the count that `follow` keeps, make torch compile it a second time, and no more.)

    >>> import groundup as gu
    >>> model = torch.nn.Linear(4, 1)
    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    >>> warmup = gu.factor.linear(100) >> gu.factor.hold() >> gu.factor.decay("linear", 0.1)
    >>> schedule = gu.rate.schedule(optimizer, warmup, steps=10_000)
    >>> for batch in torch.ones(2, 8, 4):
    ...     model(batch).square().mean().backward()
    ...     optimizer.step()
    ...     schedule.step()  # with follow=True above, this line is not needed
    ...     optimizer.zero_grad()
    >>> schedule
    <RateSchedule of AdamW: step 2 of 10000, lr 3e-05>

    **Weight decay** of an optimizer that decays by w ← w·(1 − lr·λ), with ω = lr/peak:

    ===============  ===========  ====================================================
    ``coupled``      λ            torch's own: the decay of an update is peak·λ·ω
    ``independent``  λ/ω          it is peak·λ, whatever the rate; where ω = 0, nothing
                                  is decayed and λ stays
    ``squared``      λ·ω          it is peak·λ·ω²
    a factor f       λ·f(step)    it is peak·λ·ω·f
    ===============  ===========  ====================================================

    **Resuming.** ``schedule.state_dict()`` and the optimizer's are loaded in any order, after the
    schedule was made. With unchanged arguments the run goes on exactly. Where the peak, the length
    or the form has changed, each value goes from what the saved schedule would have given to what
    this one gives, (1 − w)·old + w·new, w rising from 0 to 1 over `blend` updates. A warning says
    so, and the state that is saved from then on contains it.

    **In others' loops.** ``Trainer(optimizers=(optimizer, schedule))`` of Hugging Face,
    ``accelerator.prepare`` and Lightning (with ``"interval": "step"``, or with `follow`) take it
    as any scheduler. In `SequentialLR` it works without `follow`; in `ChainedScheduler` it works no
    better than `LambdaLR` does, because it does not build on the rate of the scheduler before:
    join factors by ``>>`` and ``*`` instead.

    Args:
        optimizer: of torch or a subclass; also one that Accelerate or Lightning has wrapped.
        factor: of `groundup.factor`: one, a list with one for each group, or a dict by the groups'
            "name".
        steps: updates of the whole run, for lengths that are fractions, or open.
        tokens_per_step: tokens of an update, for lengths in tokens.
        weight_decay: see above.
        layers: a schedule of `groundup.depth` that multiplies the rate as well: α(l, n) for groups
            with a "layer" l = 1, 2, … (``gu.optim.groups(model, by_layer=True)``).
        depth: number of layers; left out, the largest "layer" of a group.
        others: factors for other numbers in the groups: ``{"beta2": f, "momentum": g, "eps": h}``;
            the value is that of the group times the factor.
        follow: advance with every ``optimizer.step()`` that is carried out, and keep the step in
            the optimizer's groups too. Then `step` does nothing, however often a trainer calls it,
            and an update that a gradient scaler skips does not count. An optimizer that carries a
            step already (its state was loaded) sets that of the schedule.
        on_change: after loading a schedule that differs from this one: ``"blend"`` as above,
            ``"jump"`` to this one at once, with a warning, or ``"refuse"``.
        blend: how long that takes, as int or a fraction of the run; left out, as long as the new
            warmup, but at least 1% of the run and at most a tenth of what remains.
        last_epoch: as in torch: `last_epoch` + 1 updates have been made.

    Raises:
        ValueError: for what is not valid or does not fit the groups: a length without what it
            needs, an unknown hyperparameter, layers without groups that have one, weight decay
            other than ``coupled`` for an optimizer that adds λ·w to the gradient.
        RuntimeError: if another schedule follows the optimizer.
    """
    found = innermost(
        optimizer, "With any other, set its rate to peak * factor(step) before each update"
    )
    planned = plan(
        found.param_groups,
        factor,
        steps=steps,
        tokens_per_step=tokens_per_step,
        weight_decay=weight_decay,
        layers=layers,
        depth=depth,
        others=others,
    )
    return RateSchedule(
        found,
        planned,
        tokens_per_step=tokens_per_step,
        follow=follow,
        on_change=on_change,
        blend=blend,
        last_epoch=last_epoch,
    )
