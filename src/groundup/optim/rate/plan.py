"""What `groundup.rate.schedule` was asked for, checked, and the course of each group from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from groundup._check import count, unknown
from groundup.optim.rate import hyperparameters as hyper
from groundup.optim.rate.course import CONSTANT, MODES, Course, Layered, Setting
from groundup.optim.rate.decays import refuse_unless_decoupled
from groundup.schedules import DepthSchedule, Factor

_FAR = 100_000  # looked at where the length of the run is not known

Factors = Factor | Sequence[Factor] | Mapping[str, Factor]


@dataclass(frozen=True)
class Plan:
    """What is scheduled, the same for all groups; every factor is resolved.

    Attributes:
        factors: one for all groups, one for each in their order, or by the groups' "name".
        rules: names of further settings, and the factor or the mode of weight decay for each.
        layers: the depth schedule of the rate, if there is one, in a model of `depth` layers.
        steps: the length of the run, where it is known.
    """

    factors: Factor | tuple[Factor, ...] | dict[str, Factor]
    rules: dict[str, Factor | str]
    layers: DepthSchedule | None
    depth: int
    steps: int | None

    def course(self, optimizer: torch.optim.Optimizer, index: int) -> Course:
        """The course of the group of that index, whose factors multiply its values: those that it
        has now, or "initial_…" where an earlier schedule has left them, as torch's do."""
        group = optimizer.param_groups[index]
        factor, layered = self._factor(group, index), self._layered(group)
        peak = _own(group, "lr")
        settings = []
        for name, rule in self.rules.items():
            if hyper.has(group, name):
                base = _own(group, name)
                if isinstance(rule, str) and base != 0.0:
                    refuse_unless_decoupled(optimizer, group, rule)
                settings.append(_checked(Setting(name, base, rule), self.steps))
        if "peak_lr" in group:  # an optimizer whose updates are relative to its peak rate
            settings.append(Setting("peak_lr", peak, CONSTANT))
        return Course(peak, factor, layered, tuple(settings))

    def _factor(self, group: hyper.Group, index: int) -> Factor:
        if isinstance(self.factors, Factor):
            return self.factors
        if isinstance(self.factors, tuple):
            if index >= len(self.factors):
                raise ValueError(
                    f"factor has {len(self.factors)} entries, but there is a group {index}: give "
                    "one factor for all groups, or a dict by their names"
                )
            return self.factors[index]
        if "name" not in group:
            raise ValueError(
                f"factor is given by the names of the groups, but group {index} has no 'name'"
            )
        if group["name"] not in self.factors:
            raise unknown(f"name of group {index}", group["name"], self.factors)
        return self.factors[group["name"]]

    def _layered(self, group: hyper.Group) -> Layered | None:
        layer = group.get("layer")
        if self.layers is None or layer is None:
            return None
        if count("layer", layer) > self.depth:
            raise ValueError(
                f"layer={layer} of a group is not valid: it is beyond depth={self.depth}, which is "
                "the largest layer there was unless it is given"
            )
        return Layered(self.layers, layer, self.depth)


def plan(
    groups: Sequence[hyper.Group],
    factor: Factors,
    *,
    steps: int | None,
    tokens_per_step: int | None,
    weight_decay: str | Factor,
    layers: DepthSchedule | None,
    depth: int | None,
    others: Mapping[str, Factor] | None,
) -> Plan:
    """The arguments of `groundup.rate.schedule`, checked against the groups there are.

    Raises:
        ValueError: for what is not valid, does not fit the groups, or would be ignored.
    """

    def resolved(field: str, value: object) -> Factor:
        if not isinstance(value, Factor):
            raise ValueError(
                f"{field}={value!r} is not valid: it must be a factor of groundup.factor, "
                "such as groundup.factor.linear(1000)"
            )
        return value.resolve(steps, tokens_per_step)

    steps = None if steps is None else count("steps", steps)
    factors: Factor | tuple[Factor, ...] | dict[str, Factor]
    if isinstance(factor, Mapping):
        factors = {name: resolved(f"factor[{name!r}]", f) for name, f in factor.items()}
        for name in factors:
            if name not in (known := [g["name"] for g in groups if "name" in g]):
                raise unknown("factor for the group", name, known or ["none: no group has a name"])
    elif isinstance(factor, Sequence):
        if len(factor) != len(groups):
            raise ValueError(f"factor has {len(factor)} entries for {len(groups)} groups")
        factors = tuple(resolved(f"factor[{i}]", f) for i, f in enumerate(factor))
    else:
        factors = resolved("factor", factor)

    rules: dict[str, Factor | str] = {}
    for name, f in (others or {}).items():
        rules[name] = resolved(f"others[{name!r}]", f)
    if "lr" in rules:
        raise ValueError("others['lr'] is not valid: the rate is what factor is for")
    if weight_decay != "coupled":
        if "weight_decay" in rules:
            raise ValueError("weight decay is given twice: as weight_decay and in others")
        if isinstance(weight_decay, str):
            if weight_decay not in MODES:
                raise unknown("weight_decay", weight_decay, ("coupled", *MODES, "or a factor"))
            rules["weight_decay"] = weight_decay
        else:
            rules["weight_decay"] = resolved("weight_decay", weight_decay)
    known = list(dict.fromkeys(name for group in groups for name in hyper.names(group)))
    for name in rules:
        if name not in known:
            raise unknown("hyperparameter", name, known)
    return Plan(factors, rules, layers, _depth(groups, layers, depth), steps)


def _depth(groups: Sequence[hyper.Group], layers: DepthSchedule | None, depth: int | None) -> int:
    if layers is None:
        if depth is not None:
            raise ValueError(f"depth={depth!r} has a meaning only together with layers")
        return 0
    if not isinstance(layers, DepthSchedule):
        raise ValueError(
            f"layers={layers!r} is not valid: it must be a schedule of groundup.depth, such as "
            "groundup.depth.linear(T=1000)"
        )
    found = [count("layer", g["layer"]) for g in groups if g.get("layer") is not None]
    if not found:
        raise ValueError(
            "layers is given, but no group has a 'layer': make them with "
            "groundup.optim.groups(model, by_layer=True)"
        )
    return max(found) if depth is None else count("depth", depth, least=max(found))


def _own(group: hyper.Group, name: str) -> float:
    earlier = f"initial_{name}"
    return hyper.read(group, earlier if earlier in group else name)


def _checked(setting: Setting, steps: int | None) -> Setting:
    """A β must stay below 1. Between the joints of a factor its values lie between theirs."""
    if setting.name.startswith("beta") and isinstance(setting.rule, Factor):
        joints = setting.rule.joints()
        for step in (0, *(j - 1 for j in joints), *joints, (steps or _FAR) - 1):
            if not 0.0 <= (value := setting(step, 1.0)) < 1.0:
                raise ValueError(
                    f"{setting.name}={value:g} at step {step} is not valid: {setting.base:g} times "
                    "its factor must lie in [0, 1)"
                )
    return setting
