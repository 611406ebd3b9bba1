"""One corpus of a mixture: a [[data.mixture]] table of a recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

from groundup.data.mixture.weights import check_weight

__all__ = ["MixturePart", "check_parts", "corpus_fields"]

_NAME = re.compile(r"\w[\w.-]*")
_TAKEN = ("positions",)  # eval_loss/positions is another measurement


@dataclass(frozen=True)
class MixturePart:
    """A corpus and how much of it is mixed in. `ValueError` names the field and its value."""

    source: str = ""
    """The text, as in [data]."""

    name: str = ""
    """What it is called in metrics; the source's own name unless given."""

    weight: Any = 1.0  # a `weights.Weight`, which no flag could say
    """Its share of a batch, next to the weights of the other parts: a number; points [when, weight]
    with straight lines between them; or a factor, as groundup.factor writes it to JSON."""

    validation: str | None = None
    """A held-out file or folder. Without it, a fixed part of the source's documents is held out."""

    text_field: str = "text"
    """The field of a JSONL line that holds the document."""

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source:
            raise ValueError(f"source={self.source!r} is not valid: every part needs a text")
        if not self.name:
            object.__setattr__(self, "name", _called(self.source))
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or self.name in _TAKEN:
            raise ValueError(
                f"name={self.name!r} of source={self.source!r} is not valid: it must hold only "
                "letters, digits, '_', '-' and '.', not begin with the last two, and not be "
                f"{' or '.join(map(repr, _TAKEN))}"
            )
        object.__setattr__(self, "weight", check_weight(f"weight of {self.name!r}", self.weight))


def corpus_fields(part: MixturePart) -> dict[str, Any]:
    """What a part says that [data] says of a single corpus: fields that both have."""
    own = ("name", "weight")
    return {f.name: getattr(part, f.name) for f in fields(part) if f.name not in own}


def check_parts(parts: tuple[MixturePart, ...]) -> None:
    """ValueError where two parts have one name."""
    names = [part.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"mixture: the name {name!r} is used more than once: give each part a name of its "
                "own"
            )


def _called(source: str) -> str:
    """A name for a source: the last part of its path that is no pattern, without suffixes."""
    pieces = re.split("[/:]", source.partition("?")[0])
    last = next((p for p in reversed(pieces) if re.search(r"\w", p) and "*" not in p), "text")
    return re.sub(r"[^\w-]+", "-", last.lstrip(".-").partition(".")[0])
