"""How long a warmup lasts: in updates, in tokens, as a fraction of the run."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from decimal import Decimal

from groundup._check import count, positive, within


@dataclass(frozen=True)
class Tokens:
    """A length in tokens. It becomes updates where it is known how many tokens an update has.

    >>> in_steps("length", Tokens(375e6), None, tokens_per_step=512 * 1024)
    715
    """

    tokens: float

    def __post_init__(self) -> None:
        positive("tokens", self.tokens)

    def __str__(self) -> str:
        return f"{self.tokens:g} tokens"


Length = int | float | Tokens
"""An int is a number of optimizer updates, a float in (0, 1] a fraction of the run."""

_WRITTEN = re.compile(
    r"([0-9][0-9_]*(?:\.[0-9]+)?(?:e[0-9]{1,2})?)\s*([kKMGBT]?)\s*(tokens|steps|%)"
)
_POWERS = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "B": 9, "T": 12}


def parse_length(field: str, text: str) -> Length:
    """The length that a recipe writes as text: "375M tokens", "2k steps", "2%".

    Raises:
        ValueError: naming `field` if it is none of these, or not a valid length.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None or (found[3] == "%" and found[2]):
        raise ValueError(
            f'{field}={text!r} is not valid: write it like "375M tokens", "2k steps" or "2%"'
        )
    # Decimal: 16.1k steps are 16100, where floats have 16100.000000000002.
    number = Decimal(found[1].replace("_", "")).scaleb(_POWERS[found[2]])
    if found[3] == "tokens":
        return Tokens(positive(field, float(number)))
    if found[3] == "%":
        return check_length(field, float(number / 100))
    if number != number.to_integral_value():
        raise ValueError(f"{field}={text!r} is not valid: steps are whole")
    return check_length(field, int(number))


def check_length(field: str, length: Length) -> Length:
    """`length` if it is a whole number ≥ 1, a float in (0, 1] or `Tokens`, else ValueError."""
    if isinstance(length, Tokens):
        return length
    if isinstance(length, float) and not 0.0 < length <= 1.0:
        hint = f" (write {int(length)} for steps)" if length > 1 and length.is_integer() else ""
        raise ValueError(
            f"{field}={length!r} is not valid: a float is a fraction of the run, "
            f"above 0 and at most 1{hint}"
        )
    return length if isinstance(length, float) else count(field, length)


def in_steps(
    field: str, length: Length, steps: int | None, tokens_per_step: int | None = None
) -> int:
    """The number of updates that `length` stands for (at least 1), in a run of `steps` updates of
    `tokens_per_step` tokens.

    Raises:
        ValueError: if it is a fraction or in tokens and what that needs is not given.
    """
    return max(1, round(exact_steps(field, length, steps, tokens_per_step)))


def exact_steps(
    field: str, length: Length, steps: int | None, tokens_per_step: int | None = None
) -> float:
    """The same before it is rounded."""
    if isinstance(length, Tokens):
        if tokens_per_step is None:
            raise ValueError(f"{field}={length} needs tokens_per_step, the tokens of an update")
        return length.tokens / count("tokens_per_step", tokens_per_step)
    if not isinstance(length, float):
        return int(length)
    if steps is None:
        raise ValueError(f"{field}={length!r} is a fraction of the run: say how long the run is")
    return length * steps


def total_length(
    T: float | None, total: float | None, fraction: float | None, steps: int | None
) -> tuple[float | None, float | None]:
    """(T, total) of a depth schedule from exactly one of T, total, fraction (which needs steps)."""
    given = {"T": T, "total": total, "fraction": fraction}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        said = ", ".join(f"{name}={given[name]!r}" for name in named) or "nothing"
        raise ValueError(
            "the length of a depth schedule is given by exactly one of T, total, fraction: "
            f"got {said}"
        )
    if fraction is None:
        if steps is not None:
            raise ValueError(f"steps={steps!r} has a meaning only together with fraction")
        positive(named[0], given[named[0]])
        return T, total
    within("fraction", fraction, 0.0, 1.0)
    positive("fraction", fraction)
    if steps is None:
        raise ValueError(f"fraction={fraction!r} needs steps, the length of the run")
    return None, fraction * count("steps", steps)


@dataclass(frozen=True)
class Suggestion:
    """A warmup length of the first layer, in steps, and why."""

    T: int
    reason: str


def suggest(depth: int, steps: int, decay: Length = 0.1) -> Suggestion:
    """A length T for `gu.depth.linear` in a run of `steps` updates of a model of `depth` layers.

    Table 6 of arXiv:2603.05369 (24 layers, 60k steps) is flat from T·L = 10% to 40% of the run and
    best at 20%: T = 0.2·steps/depth. Runs so short that T falls below one update get T = 1.

    Args:
        depth: number of layers L.
        steps: length of the run in updates.
        decay: length of the final rate decay. A warmup that would still be going on when the decay
            begins is warned about: the last layers would learn at a falling rate only.

    Raises:
        ValueError: for a depth or a run below 1 or a length that is not valid.
    """
    count("depth", depth)
    count("steps", steps)
    check_length("decay", decay)
    T = max(1, round(0.2 * steps / depth))
    before_decay = steps - in_steps("decay", decay, steps)
    reason = (
        f"T = {T}: all {depth} layers are awake after {T * depth} of {steps} steps "
        f"({T * depth / steps:.0%}); arXiv:2603.05369, Table 6, is flat from 10% to 40%"
    )
    if message := into_decay(T * depth, before_decay):
        warnings.warn(message, stacklevel=2)
    return Suggestion(T, reason)


def into_decay(end: float, decay: int) -> str | None:
    """What to say of a residual warmup of `end` updates when the rate decays from update `decay`
    on; None if it ends before."""
    if end <= decay:
        return None
    return (
        f"residual warmup would last {end:g} steps, but the rate decays from step {decay}: "
        "train longer, or use gu.depth.equal"
    )
