"""Learning-rate factors: pure functions of the step that are joined with ``>>``.

A factor multiplies the peak rate. `step` counts completed updates, so update number n = step + 1.
Warmups are functions of n (no update is wasted at rate 0); a decay over D updates starts at 1 and
ends at 1/D (no update is wasted at its end either).

>>> f = linear(2000) >> hold() >> decay("linear", 0.1)  # WSD: warmup, hold, decay
>>> f(0, steps=100_000), f(50_000, steps=100_000), f(99_999, steps=100_000)
(0.0005, 1.0, 0.0001)

Lengths: an int is updates, a float a fraction of the run, `Tokens` are tokens; one segment may
leave its length out and takes what the others leave. After the last its final value is kept.

The pictures show a run from its first update to its last, the peak at the top.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from groundup._check import positive, unknown
from groundup.schedules.chain import Blend, Chain, Factor, Product, blend, from_json
from groundup.schedules.length import Length, Tokens
from groundup.schedules.segments import (
    DECAYS,
    Constant,
    Cosine,
    Decay,
    Exponential,
    Hold,
    InverseSqrt,
    Linear,
    RAdam,
    Start,
    Steps,
    check_beta2,
)

__all__ = [
    "Blend", "Chain", "Factor", "Product", "Tokens", "blend", "by_name", "constant", "cosine",
    "decay", "exponential", "from_json", "gradual", "hold", "inverse_sqrt", "linear", "noam",
    "radam", "scaled_peak", "step_decay", "untuned_exponential", "untuned_length", "untuned_linear",
    "wsd",
]  # fmt: skip


def linear(length: Length, *, initial: float = 0.0, start: Start = "one") -> Chain:
    """Linear warmup over W = `length`: min(1, n/W), n = step + 1 (Goyal et al. 2017).

    `initial` is the factor it rises from: initial + (1 − initial)·n/W. With ``start="zero"``
    n = step as in older libraries, so that the first update has the factor `initial`.

    >>> [linear(4)(step) for step in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]

    ``linear(0.4) >> hold()``::

                     ▁▂▃▅▆▇█████████████████████████████
               ▁▃▄▅▆████████████████████████████████████
        ▁▂▃▄▆▇██████████████████████████████████████████
    """
    return Chain((Linear(length, start, initial),))


def gradual(length: Length, scale: float) -> Chain:
    """Gradual warmup (Goyal et al. 2017, arXiv:1706.02677, Section 2.2): linear from 1/`scale`.

    For a rate that the linear scaling rule made `scale` times as high (see `scaled_peak`): it
    begins with the rate of the small batch. The factor is 1/k + (1 − 1/k)·n/W.

    >>> gradual(5, scale=8)(4), round(gradual(5, scale=8)(0), 3)
    (1.0, 0.3)

    ``gradual(0.4, scale=4) >> hold()``::

                   ▁▂▃▄▅▅▆▇█████████████████████████████
           ▁▂▃▄▅▆▇██████████████████████████████████████
        ▆▇██████████████████████████████████████████████

    Raises:
        ValueError: for a `scale` below 1.
    """
    if not positive("scale", scale) >= 1.0:
        raise ValueError(f"scale={scale!r} is not valid: it must be at least 1")
    return linear(length, initial=1.0 / scale)


def constant(length: Length, value: float) -> Chain:
    """Constant warmup: `value` for n ≤ W, then 1 (He et al. 2016 for a ResNet of 110 layers).

    >>> [constant(2, 0.1)(step) for step in range(4)]
    [0.1, 0.1, 1.0, 1.0]

    ``constant(0.4, 0.3) >> hold()``::

                           █████████████████████████████
                           █████████████████████████████
        ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇█████████████████████████████
    """
    return Chain((Constant(length, value),))


def cosine(length: Length, *, initial: float = 0.0, start: Start = "one") -> Chain:
    """Cosine warmup: (1 − cos(π·min(1, n/W)))/2, without a kink at either end.

    `initial` and `start` as for `linear`.

    >>> [round(cosine(4)(step), 4) for step in range(5)]
    [0.1464, 0.5, 0.8536, 1.0, 1.0]

    ``cosine(0.4) >> hold()``::

                    ▂▃▅▆▇███████████████████████████████
                ▂▄▆█████████████████████████████████████
          ▁▂▃▅▆█████████████████████████████████████████
    """
    return Chain((Cosine(length, start, initial),))


def exponential(tau: Length, length: Length | None = None, *, start: Start = "one") -> Chain:
    """Exponential warmup: 1 − exp(−n/τ) (Ma & Yarats 2021, arXiv:1910.04209).

    It never quite reaches 1. `length` is how long it lasts before the next segment begins, from the
    level that it has reached; None: without end, or what the others leave.

    >>> [round(exponential(2)(step), 4) for step in (0, 1, 9)]
    [0.3935, 0.6321, 0.9933]

    ``exponential(0.1)``::

              ▂▃▄▅▅▆▆▇▇▇▇▇▇█████████████████████████████
          ▂▄▇███████████████████████████████████████████
        ▃▇██████████████████████████████████████████████
    """
    return Chain((Exponential(length, start, tau),))


def noam(warmup: Length, width: int | None = None, *, start: Start = "one") -> Factor:
    """Inverse square root with warmup (Vaswani et al. 2017, Section 5.3): min(n/W, √(W/n)).

    This is normalized to a peak of 1. With `width` d it is the paper's own value,
    d^-½ · min(n^-½, n·W^-3/2), the rate itself, to be given to an optimizer with lr = 1 (for a
    `warmup` in updates only).

    >>> [round(noam(4)(step), 4) for step in (0, 3, 15)]
    [0.25, 1.0, 0.5]
    >>> round(noam(4000, width=512)(3999), 6)
    0.000699

    ``noam(0.1)``::

           ▂▇▆▅▃▂▁
          ▅████████▇▇▆▆▅▅▅▄▄▄▃▃▃▃▂▂▂▂▂▂▁▁▁▁▁▁▁
        ▃███████████████████████████████████████████████
    """
    curve = linear(warmup, start=start) >> inverse_sqrt(warmup, start=start)
    if width is None:
        return curve
    if not isinstance(warmup, int):
        raise ValueError(f"warmup={warmup} is not valid together with width: give it in updates")
    return curve * (1.0 / math.sqrt(positive("width", width) * warmup))


def untuned_length(beta2: float) -> int:
    """2/(1 − β₂), rounded: the warmup that Adam's second moment asks for (arXiv:1910.04209).

    >>> untuned_length(0.999), untuned_length(0.95)
    (2000, 40)

    Raises:
        ValueError: for a β₂ outside (0, 1).
    """
    return round(2.0 / (1.0 - check_beta2(beta2)))


def untuned_linear(beta2: float = 0.999, *, start: Start = "one") -> Chain:
    """Untuned linear warmup (Ma & Yarats 2021, arXiv:1910.04209): linear with W = 2/(1 − β₂).

    Rounded, where a truncation would lose an update at β₂ = 0.999.

    >>> untuned_linear(0.95)(0), untuned_linear(0.95)(39)
    (0.025, 1.0)

    ``untuned_linear(0.95) >> hold()`` in a run of 100 updates::

                     ▁▃▄▅▆▇█████████████████████████████
               ▂▃▄▅▆████████████████████████████████████
        ▁▂▄▅▆▇██████████████████████████████████████████
    """
    return linear(untuned_length(beta2), start=start)


def untuned_exponential(
    beta2: float = 0.999, length: Length | None = None, *, start: Start = "one"
) -> Chain:
    """Untuned exponential warmup (Ma & Yarats 2021, arXiv:1910.04209): 1 − exp(−(1 − β₂)·n).

    >>> round(untuned_exponential(0.95)(19), 4)
    0.6321

    ``untuned_exponential(0.95)`` in a run of 100 updates::

                   ▁▂▂▃▄▄▄▅▅▅▆▆▆▆▇▇▇▇▇▇▇▇▇██████████████
            ▂▃▄▅▆▇██████████████████████████████████████
        ▂▄▆█████████████████████████████████████████████
    """
    return Chain((Exponential(length, start, None, beta2),))


def radam(beta2: float = 0.999, length: Length | None = None, *, start: Start = "one") -> Chain:
    """RAdam-equivalent warmup: Adam's rectification term (Liu et al. 2020, arXiv:1908.03265)

        rₙ = √((ρₙ−4)(ρₙ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρₙ)),   ρₙ = ρ∞ − 2nβ₂ⁿ/(1−β₂ⁿ),   ρ∞ = 2/(1−β₂) − 1,

    shifted so that the first update has the first rₙ that is above 0 (at most 5 updates on for
    β₂ > 0.8), as the package pytorch_warmup does. `torch.optim.RAdam` itself takes unrectified
    steps while ρₙ ≤ 5. It approaches 1 and never quite reaches it; `length` as for `exponential`.

    >>> [round(radam(0.95)(step), 4) for step in (0, 9, 99)]
    [0.1181, 0.459, 0.9848]

    ``radam(0.95)`` in a run of 100 updates::

                   ▁▂▂▃▃▃▄▄▄▅▅▅▅▆▆▆▆▆▇▇▇▇▇▇▇▇▇██████████
           ▂▃▄▅▆▇███████████████████████████████████████
        ▄▇██████████████████████████████████████████████

    Raises:
        ValueError: for a β₂ of at most 0.6, where ρₙ never exceeds 4.
    """
    return Chain((RAdam(length, start, beta2),))


def hold(length: Length | None = None) -> Chain:
    """The value reached so far, for `length` updates (None: what the other segments leave).

    >>> (constant(2, 0.5) >> hold(3) >> decay("linear", 2))(5)
    1.0

    ``hold()``::

        ████████████████████████████████████████████████
        ████████████████████████████████████████████████
        ████████████████████████████████████████████████
    """
    return Chain((Hold(length),))


def decay(shape: str, length: Length | None = None, floor: float = 0.0) -> Chain:
    """A decay over D = `length` updates to `floor`, u = k/D with k = 0…D−1 updates of it done:

    ===============  ==============================  ==================================
    ``linear``       1 − u                           ends at 1/D
    ``cosine``       (1 + cos πu)/2                  Loshchilov & Hutter 2017
    ``sqrt``         1 − √u                          Hägele et al. 2024 ("1-sqrt")
    ``exponential``  `floor` to the power u          the same share with every update
    ===============  ==============================  ==================================

    The factor is floor + (1 − floor)·shape(u), that of ``exponential`` the power itself, and so it
    needs a floor above 0. `length` None takes what the others leave. A constant "decay" is `hold`;
    decays without an end are `inverse_sqrt` and `step_decay`.

    >>> [decay("linear", 4)(step) for step in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]

    ``decay("linear")``::

        █▇▇▆▆▅▅▄▄▃▃▂▂▁▁
        █████████████████▇▇▆▆▅▅▄▄▃▃▂▂▁▁
        █████████████████████████████████▇▇▆▆▅▅▄▄▃▃▂▂▁▁

    ``decay("cosine", floor=0.1)``::

        █████▇▇▇▆▆▆▅▅▄▃▃▂▂▁
        █████████████████████▇▆▆▅▄▃▃▂▁▁
        ████████████████████████████████▇▇▆▆▅▅▄▄▄▃▃▃▃▃▂▂

    ``decay("sqrt")``::

        ▆▄▃▂▁
        ██████▇▇▆▅▅▄▄▃▃▂▂▂▁▁
        ███████████████████████▇▇▇▆▆▆▅▅▅▄▄▄▃▃▃▃▂▂▂▁▁▁▁

    ``decay("exponential", floor=0.01)``::

        ▇▅▃▁
        █████▆▅▄▃▂▁
        ████████████▇▇▆▅▅▄▄▄▃▃▃▃▂▂▂▂▂▁▁▁▁▁▁▁▁▁▁▁
    """
    if shape not in DECAYS:
        raise unknown("shape", shape, DECAYS)
    return Chain((Decay(length, shape, floor),))


def inverse_sqrt(timescale: Length, length: Length | None = None, *, start: Start = "one") -> Chain:
    """Inverse square root decay: √(s/(s + n)), n counted from its own beginning, s = `timescale`.

    After a warmup of s updates this is √(s/n) with n counted from the run's beginning: `noam`. Zhai
    et al. 2022 (arXiv:2106.04560) use it with a timescale of its own, and a cooldown at the end.

    >>> [round(inverse_sqrt(3)(step), 4) for step in (0, 8)]
    [0.866, 0.5]

    ``inverse_sqrt(0.1)``::

        ▇▅▃▂▁
        ███████▇▆▆▆▅▅▄▄▄▃▃▃▃▂▂▂▂▂▂▁▁▁▁▁▁▁▁
        █████████████████████████████████████████████▇▇▇
    """
    return Chain((InverseSqrt(length, start, timescale),))


def step_decay(
    gamma: float = 0.1,
    *,
    every: Length | None = None,
    at: Sequence[Length] = (),
    length: Length | None = None,
) -> Chain:
    """Step decay: times γ after each `every` updates, or at the moments `at` (He et al. 2016).

    γ^⌊k/every⌋, or γ to the number of moments ≤ k, k counted from the segment's own beginning.

    >>> [step_decay(0.5, every=2)(step) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    >>> step_decay(0.1, at=(0.5, 0.75))(60, steps=100)
    0.1

    ``step_decay(0.5, every=0.25)``::

        ████████████
        ████████████▄▄▄▄▄▄▄▄▄▄▄▄
        ████████████████████████▆▆▆▆▆▆▆▆▆▆▆▆▃▃▃▃▃▃▃▃▃▃▃▃

    Raises:
        ValueError: unless exactly one of `every` and `at` is given.
    """
    return Chain((Steps(length, gamma, every, tuple(at)),))


def wsd(warmup: Length, decay_length: Length, shape: str = "linear", floor: float = 0.0) -> Chain:
    """Warmup, stable, decay (Hu et al. 2024, arXiv:2404.06395; the trapezoid): linear, hold, decay.

    >>> [wsd(10, 0.2)(step, steps=100) for step in (0, 50, 99)]
    [0.1, 1.0, 0.05]

    ``wsd(0.1, 0.2)``::

           ▂▇██████████████████████████████████▅▃
          ▅███████████████████████████████████████▆▃▁
        ▃████████████████████████████████████████████▆▄▁
    """
    return linear(warmup) >> hold() >> decay(shape, decay_length, floor)


def scaled_peak(peak: float, batch: float, base_batch: float, rule: str = "linear") -> float:
    """The peak rate for another batch size: peak·k, or peak·√k, with k = `batch`/`base_batch`.

    ``linear`` is the linear scaling rule for SGD (Goyal et al. 2017, arXiv:1706.02677), to be used
    with `gradual` and scale = k; ``sqrt`` the one for adaptive optimizers (Malladi et al. 2022,
    arXiv:2205.10287, who scale Adam's 1 − β and ε along). Sequences or tokens, the same for both.

    >>> scaled_peak(0.1, batch=8192, base_batch=256)
    3.2
    """
    ratio = positive("batch", batch) / positive("base_batch", base_batch)
    if rule not in _RULES:
        raise unknown("rule", rule, _RULES)
    return positive("peak", peak) * ratio ** _RULES[rule]


_RULES = {"linear": 1.0, "sqrt": 0.5}
_BUILDERS: dict[str, Callable[..., Factor]] = {
    "linear": linear,
    "gradual": gradual,
    "constant": constant,
    "cosine": cosine,
    "exponential": exponential,
    "noam": noam,
    "untuned-linear": untuned_linear,
    "untuned-exponential": untuned_exponential,
    "radam": radam,
    "hold": hold,
    "decay": decay,
    "inverse-sqrt": inverse_sqrt,
    "step": step_decay,
    "wsd": wsd,
}
NAMES = tuple(_BUILDERS)
"""Every factor's name, as `by_name` takes it."""


def by_name(name: str, *args: Any, **kwargs: Any) -> Factor:
    """The factor that the function of that name makes: ``by_name("linear", 2000)``.

    Raises:
        ValueError: if there is none, with the names that there are.
    """
    if name not in _BUILDERS:
        raise unknown("factor", name, _BUILDERS)
    return _BUILDERS[name](*args, **kwargs)
