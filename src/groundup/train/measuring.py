"""What a run measures of itself: observers at the intervals of [measure], and their lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from groundup import measure
from groundup.train.recipe import Recipe
from groundup.train.settings import MEASUREMENTS

# How often in a run, at most, what is costly (a forward for each layer; norms by iteration) or
# large is measured.
_TIMES = {"depth": 8, "rank": 8, "similarity": 60}


@dataclass(frozen=True)
class Measuring:
    """The observers of a run; without any, all of this does nothing."""

    observers: Sequence[measure.Observer] = ()
    counts_batches: bool = False
    notes: Sequence[str] = ()
    """What there is to say of it at the start."""

    @classmethod
    def of(
        cls, recipe: Recipe, model: nn.Module, optimizer: Any, inputs: Tensor, targets: Tensor
    ) -> Measuring:
        """What the recipe asks for, seen on the held-out `inputs` and `targets`, [n, length] each.

        Raises:
            ValueError: if something that is asked for does not apply to the model.
        """
        config = recipe.measure
        if not config.every:
            return cls()
        words = [word for word in config.what or MEASUREMENTS if word != "positions"]
        notes = []
        if not config.what and not _layers_are_known(model):
            left_out = [word for word in words if word in _OF_LAYERS]
            words = [word for word in words if word not in _OF_LAYERS]
            notes = [f"not measured, since the layers of this model are not known: {left_out}"]
        at: dict[int, list[str]] = {}
        for word in words:
            at.setdefault(interval(recipe, word), []).append(word)
        observers = [
            measure.observe(
                model,
                optimizer,
                chosen,
                every,
                batch_size=recipe.train.batch if "noise" in chosen else None,
                probe=inputs if _SEEING.intersection(chosen) else None,
                targets=targets if "depth" in chosen else None,
                per_tensor=config.per_tensor,
            )
            for every, chosen in sorted(at.items())
        ]
        return cls(observers, "noise" in words, notes)

    def begin(self, step: int) -> None:
        """`step` updates are completed."""
        for observer in self.observers:
            observer.begin(step)

    def accumulated(self, sequences: int) -> None:
        """After a backward: the gradients hold so many sequences of the batch."""
        if self.counts_batches:
            self.observers[0].accumulated(sequences)

    def end(self) -> measure.Measurements:
        """What was measured of the update; empty if nothing was."""
        return _joined(observer.end() for observer in self.observers)

    def look(self, step: int) -> measure.Measurements:
        """What can be said of the model without an update."""
        return _joined(observer.look(step) for observer in self.observers)


_OF_LAYERS = frozenset({"stream", "attention", "similarity", "depth"})
_SEEING = frozenset({"rrc", "relus", "stream", "attention", "similarity", "depth"})


def _layers_are_known(model: nn.Module) -> bool:
    try:
        return bool(measure.find_layers(model))
    except ValueError:
        return False


def interval(recipe: Recipe, word: str) -> int:
    """Updates between measurements of `word`: a multiple of measure.every."""
    every, times = recipe.measure.every, _TIMES.get(word)
    return every if times is None else every * max(1, -(-recipe.train.steps // (every * times)))


def _joined(found: Any) -> measure.Measurements:
    return {name: value for values in found for name, value in (values or {}).items()}
