"""What the rate, the weight decay and α of a recipe will be, from its pure functions: no training,
no model."""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from groundup.optim.entries import Entry
from groundup.optim.rate.course import Course, Layered, Setting
from groundup.optim.table import info
from groundup.schedules import Advice, DepthSchedule, Factor
from groundup.schedules.chain import Chain
from groundup.schedules.segments import Segment
from groundup.train.advice import advice
from groundup.train.recipe import Recipe

_LAYERS = 16  # of a deeper model some layers only are followed


@dataclass(frozen=True)
class Preview:
    """A variant of a recipe. A step is the number of completed updates: the first update sees 0."""

    name: str
    recipe: Recipe

    @property
    def steps(self) -> int:
        return self.recipe.train.steps

    @property
    def depth(self) -> int:
        return self.recipe.model.layers

    @functools.cached_property
    def factor(self) -> Factor:
        """What the peak rate is multiplied by, resolved."""
        return self.recipe.factor()

    @functools.cached_property
    def residual(self) -> DepthSchedule | None:
        return _warming(self.recipe.residual.resolve(self.steps))

    @functools.cached_property
    def layers(self) -> DepthSchedule | None:
        """The warmup of the rate by layers."""
        return _warming(self.recipe.rate.layers.resolve(self.steps))

    def rate(self, step: int, layer: int | None = None) -> float:
        """The rate of an update; where layers have rates of their own, that of a `layer`."""
        return self._course(layer)(step)["lr"]

    @property
    def own_decay(self) -> float:
        """λ before any schedule."""
        given = self.recipe.optimizer.weight_decay
        return float(self._entry.defaults.get("weight_decay", 0.0)) if given is None else given

    def weight_decay(self, step: int, layer: int | None = None) -> float:
        """λ as it will stand in the optimizer's group."""
        return self._course(layer)(step).get("weight_decay", self.own_decay)

    def decay(self, step: int, layer: int | None = None) -> float:
        """rate·λ, the share of a weight that an update takes from it."""
        return self.rate(step, layer) * self.weight_decay(step, layer)

    def alphas(self, step: int) -> list[float]:
        """α of every layer in the forward pass of an update."""
        return [1.0] * self.depth if self.residual is None else self.residual(step, self.depth)

    def layer_factors(self, step: int) -> list[float]:
        """What the rate of every layer is multiplied by besides the factor."""
        return [course.layered(step) for course in self._courses if course.layered]

    @property
    def decays(self) -> bool:
        """Whether rate·λ is what an update takes from a weight."""
        return self.own_decay > 0 and self._entry.decay == "decoupled"

    @property
    def decay_note(self) -> str:
        """What weight decay does, in words."""
        mode = self.recipe.rate.weight_decay
        if self.own_decay == 0:
            return "there is no weight decay"
        if not self.decays:
            return f"λ = {self.own_decay:g}: {_KINDS[self._entry.decay]}"
        top = self.recipe.rate.peak * self.own_decay
        return f"weight decay a step, rate·λ ({mode}), {top:.3g} at the peak: {_MODES[mode]}"

    @functools.cached_property
    def advice(self) -> Advice:
        return advice(self.recipe)

    def some_layers(self, most: int) -> list[int]:
        """Layers 1 and L and some between them."""
        few = min(most, self.depth)
        return sorted({round(1 + i * (self.depth - 1) / max(1, few - 1)) for i in range(few)})

    def moments(self) -> dict[int, str]:
        """The updates at which something begins or ends, rising, and what."""
        found = {0: ["first update"], min(1, self.steps - 1): ["second update"]}
        found[self.steps - 1] = ["last update"]
        begins = ((at, f"{what} begins") for at, what in self.segments)
        for step, words in itertools.chain(begins, self._layer_moments()):
            if 0 < step < self.steps:
                found.setdefault(step, []).append(words)
        return {step: ", ".join(words) for step, words in sorted(found.items())}

    @functools.cached_property
    def segments(self) -> list[tuple[int, str]]:
        """What the factor is joined from: the update at which each begins, and what it is."""
        if not isinstance(self.factor, Chain):
            return [(at, "another course") for at in (0, *self.factor.joints())]
        lengths = [part.length for part in self.factor.segments]
        begins = itertools.accumulate((n for n in lengths[:-1] if isinstance(n, int)), initial=0)
        return [(at, _said(part)) for at, part in zip(begins, self.factor.segments, strict=False)]

    def _layer_moments(self) -> Iterator[tuple[int, str]]:
        residual = self.residual and self.alphas
        layers = self.layers and self.layer_factors
        for values, what in ((residual, "α = 1"), (layers, "its full rate")):
            if not values:
                continue
            ends = {l: self._end(values, l) for l in self.some_layers(_LAYERS)}
            for step in sorted(set(ends.values())):
                there = [l for l, end in ends.items() if end == step]
                yield step, f"{_numbers(there, len(ends))} at {what}"

    def _end(self, values: Callable[[int], list[float]], layer: int) -> int:
        """The first update at which a layer's value is 1; `steps` if there is none."""
        return bisect.bisect_left(range(self.steps), 1.0, key=lambda step: values(step)[layer - 1])

    def _course(self, layer: int | None) -> Course:
        return self._courses[0 if layer is None or self.layers is None else layer]

    @functools.cached_property
    def _courses(self) -> list[Course]:
        """That of what belongs to no layer and, where layers differ, that of each."""
        rate = self.recipe.rate
        settings: tuple[Setting, ...] = ()
        if rate.weight_decay != "coupled":
            settings = (Setting("weight_decay", self.own_decay, rate.weight_decay),)
        layered: list[Layered | None] = [None]
        if self.layers is not None:
            layered += [Layered(self.layers, l, self.depth) for l in range(1, self.depth + 1)]
        return [Course(rate.peak, self.factor, one, settings) for one in layered]

    @property
    def _entry(self) -> Entry:
        return info(self.recipe.optimizer.name)

    # What two variants have in common where these are equal.

    @property
    def rate_key(self) -> Hashable:
        layers = self.layers and (self.layers.to_json(), self.depth)
        return self.steps, self.recipe.rate.peak, self.factor.to_json(), layers

    @property
    def decay_key(self) -> Hashable:
        mode = self.recipe.rate.weight_decay
        return self.rate_key, self.own_decay, mode, self._entry.decay

    @property
    def alpha_key(self) -> Hashable:
        return self.residual and (self.residual.to_json(), self.depth, self.steps)


@dataclass(frozen=True)
class OfLayers:
    """Something that every layer has a value of, in [0, 1].

    Attributes:
        title: what it is.
        schedule: which one decides it in a variant, if one does.
        values: those of all layers at a step.
        key: what two variants have in common where this is equal.
    """

    title: str
    schedule: Callable[[Preview], DepthSchedule | None]
    values: Callable[[Preview, int], list[float]]
    key: Callable[[Preview], Hashable]

    def of(self, preview: Preview) -> Callable[[int], list[float]]:
        return lambda step: self.values(preview, step)


OF_LAYERS = (
    OfLayers("α of each layer", lambda p: p.residual, Preview.alphas, lambda p: p.alpha_key),
    OfLayers(
        "each layer’s part of the rate",
        lambda p: p.layers,
        Preview.layer_factors,
        lambda p: (p.layers, p.depth, p.steps),
    ),
)


_WARMUPS = ("linear", "cosine", "constant", "exponential", "radam")
_KINDS = {
    "L2": "λ·w is added to the gradient",
    "angle": "it decides the angle by which rows turn, nothing is taken from the weights",
    "none": "the optimizer has no weight decay",
    "unknown": "what the optimizer does with it is not known here",
}
_MODES = {
    "coupled": "falls with the rate",
    "independent": "stays, whatever the rate",
    "squared": "falls with the square of the rate",
}


def previews(variants: Mapping[str, Recipe]) -> list[Preview]:
    """One for each variant."""
    return [Preview(name, recipe) for name, recipe in variants.items()]


def alike(
    found: Iterable[Preview], key: Callable[[Preview], Hashable]
) -> list[tuple[list[str], Preview]]:
    """The previews of different `key`, each with the names of all that share it."""
    groups: dict[Hashable, tuple[list[str], Preview]] = {}
    for preview in found:
        groups.setdefault(key(preview), ([], preview))[0].append(preview.name)
    return list(groups.values())


def _said(part: Segment) -> str:
    if part.name in _WARMUPS:
        return f"{part.name} warmup"
    return f"{part.name} decay" if part.name in ("inverse-sqrt", "steps") else part.label


def _warming(schedule: DepthSchedule) -> DepthSchedule | None:
    return None if schedule.name == "none" else schedule


def _numbers(layers: list[int], of: int) -> str:
    if len(layers) == of > 1:
        return "all layers"
    if len(layers) > 2 and layers[-1] - layers[0] == len(layers) - 1:
        return f"layers {layers[0]}–{layers[-1]}"
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
