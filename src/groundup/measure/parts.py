"""What an `Observer` measures around one update, one class for each word of its `what`.

What does not depend on an update is given by `look`. Before the update `before` takes what will be
gone after it; `after` gives the results. They are tensors where they are on a device still: 0-dim,
or with one entry per layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from groundup.measure import probing
from groundup.measure._rows import chunks, local_rows, over_ranks, whole
from groundup.measure.momentum import Group, Momentum, gradient_sign, momentum_of
from groundup.measure.noise import GradientNoise, dots, momentum_noise, split, split_by_momentum
from groundup.measure.rank import stable_rank_by_power
from groundup.measure.representation import representation_change
from groundup.measure.updates import angle_of, row_sums
from groundup.optim.rows import stored_in_out

Values = dict[str, Tensor | float | list[str | None]]


class Part:
    """One measurement."""

    sight: probing.Sight | None = None
    """What looks on during the forward before the update."""

    needs_output = False
    """Whether it needs that forward for what the model returns."""

    needs_update = False
    """Whether it has nothing to say without an update."""

    def look(self, output: Any) -> Values:
        """What is there without an update, after the forward; `output` is what it returned."""
        return {}

    def before(self) -> None:
        """Called before each measured update, after the forward."""

    def after(self) -> Values:
        """What the update did."""
        return {}


class Updates(Part):
    """‖Δw‖, ‖Δw‖/‖w‖ and angles; `in_out` are names of weights [in, out]."""

    needs_update = True

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        in_out: Container[str] = (),
        layers: Sequence[str] = (),
    ) -> None:
        self._weights = weights
        self._in_out = in_out
        self._layers = ByLayer(weights, layers)
        self._kept: dict[str, Tensor] = {}

    def before(self) -> None:
        self._kept = {name: w.detach().clone() for name, w in self._weights.items()}

    def after(self) -> Values:
        weights = [self._by_rows(name, w) for name, w in self._weights.items()]
        kept = [self._by_rows(name, self._kept.pop(name)) for name in self._weights]
        rows = [row_sums(before, w) for before, w in zip(kept, weights, strict=True)]
        del kept
        first = rows[0].device
        # ‖w‖², ‖Δw‖², ⟨w, Δw⟩, the sum of the row angles, and the number of rows that have one.
        each = [_summed(r, w).to(first) for r, w in zip(rows, weights, strict=True)]
        sums = over_ranks(torch.stack(each), weights)
        found = _of_sums("", sums.sum(0))
        if self._layers:
            found |= _of_sums("/layers", self._layers.sums(sums))
        for name, s in zip(self._weights, sums, strict=True):
            found |= _of_sums(f"/{name}", s)
        return found

    def _by_rows(self, name: str, weight: Tensor) -> Tensor:
        return weight.detach().T if name in self._in_out else weight


def _of_sums(suffix: str, sums: Tensor) -> Values:
    weight, update, _, angles, rows = sums.unbind(-1)
    return {
        f"update_norm{suffix}": update.sqrt(),
        f"relative_update{suffix}": (update / weight).sqrt(),
        f"angle{suffix}": angle_of(sums[..., :3]),
        f"row_angle{suffix}": angles / rows,
    }


class ByLayer:
    """Adds up what belongs to the weights of one layer; false where no layers are known."""

    def __init__(self, weights: Iterable[str], layers: Sequence[str]) -> None:
        self._count = len(layers)
        number = {f"{name}.": l for l, name in enumerate(layers)}
        self._layer_of = {
            place: number[layer]
            for place, name in enumerate(weights)
            for layer in number
            if name.startswith(layer)
        }

    def __bool__(self) -> bool:
        return bool(self._layer_of)

    def sums(self, each: Tensor) -> Tensor:
        """[weights, …] → [layers, …]."""
        places = torch.tensor(list(self._layer_of), device=each.device)
        layers = torch.tensor(list(self._layer_of.values()), device=each.device)
        sums = each.new_zeros(self._count, *each.shape[1:]).index_add(0, layers, each[places])
        # A frozen layer has no update, which is not one of size 0.
        nothing = sorted(set(range(self._count)) - set(self._layer_of.values()))
        return sums.index_fill(0, torch.tensor(nothing, device=each.device).long(), math.nan)


class Gradients(Part):
    """The norm of the gradient as the optimizer gets it, and of each layer's."""

    needs_update = True

    def __init__(
        self, weights: Mapping[str, Tensor], optimizer: Optimizer, layers: Sequence[str] = ()
    ) -> None:
        self._weights = weights
        self._optimizer = optimizer
        self._layers = layers
        self._found: Values = {}

    def before(self) -> None:
        there = {name: w for name, w in self._weights.items() if w.grad is not None}
        self._found = {}
        if not there:
            return
        norms = gradient_squares(list(there.values())).sqrt() / grad_scale(self._optimizer)
        self._found["grad_norm"] = norms.square().sum().sqrt()
        if layers := ByLayer(there, self._layers):
            self._found["grad_norm/layers"] = layers.sums(norms.square()).sqrt()

    def after(self) -> Values:
        return self._found


def gradient_squares(weights: Sequence[Tensor]) -> Tensor:
    """‖g‖² of weights that have a gradient, over all ranks: [weights] float64."""
    device = weights[0].device
    squares = [_square(w.grad).to(device) for w in weights if w.grad is not None]
    return over_ranks(torch.stack(squares), weights)


def _square(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    return torch.stack([g.square().sum() for (g,) in chunks(local_rows(gradient))]).sum()


def grad_scale(optimizer: Optimizer) -> Any:
    """What a gradient scaler multiplied the gradients by, where the (fused) step divides by it."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else scale


_NO_MOMENTUM = Momentum("", 0.0)


class Noise(Part):
    """φ, and the cosine of the gradient with the momentum before it, where there is one."""

    needs_update = True

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        optimizer: Optimizer,
        batch_size: float,
        updates: Callable[[], float],
    ) -> None:
        self._optimizer = optimizer
        self._batch_size = batch_size
        self._updates = updates  # made, for optimizers that do not count them
        self._names = {id(w): name for name, w in weights.items()}
        self._found: dict[str, tuple[Tensor, float, float]] = {}

    def before(self) -> None:
        self._found = {}
        for group in self._optimizer.param_groups:
            momentum = momentum_of(self._optimizer, group) or _NO_MOMENTUM
            for p in group["params"]:
                if p.grad is not None and not p.grad.is_sparse and id(p) in self._names:
                    self._found[self._names[id(p)]] = self._sums(p, momentum, group)

    def _sums(self, p: Tensor, momentum: Momentum, group: Group) -> tuple[Tensor, float, float]:
        """⟨m, g⟩, ‖m‖² and ‖g‖² with the momentum m so far; β, and the gradients m has seen."""
        state = self._optimizer.state.get(p, {})
        assert p.grad is not None
        kept = state.get(momentum.key)
        sums = dots(torch.zeros_like(p.grad) if kept is None else kept, p.grad)
        scale, scaled = gradient_sign(group) * momentum.scale, float(grad_scale(self._optimizer))
        factors = torch.tensor([scale / scaled, scale * scale, 1 / scaled**2], dtype=sums.dtype)
        sums = sums * factors.to(sums.device)
        seen = float(state["step"]) if "step" in state else self._updates()
        return sums, momentum.beta, seen or math.inf

    def after(self) -> Values:
        found, self._found = self._found, {}
        if not found:
            return {}
        first = next(iter(found.values()))[0].device
        sums = torch.stack([s.to(first) for s, _, _ in found.values()])
        values: Values = {}
        a = d = g = k = 0.0
        compared = torch.zeros(3, dtype=torch.float64)
        pairs = zip(found.items(), sums.tolist(), strict=True)
        for (name, (_, beta, seen)), (dot, m_sq, g_sq) in pairs:
            if m_sq == 0 or g_sq == 0:  # nothing to compare: no momentum yet, or no gradient
                continue
            total = 1 - beta**seen  # of the weights in m
            hat_sq, hat_dot = m_sq / total**2, dot / total
            noise = split_by_momentum(hat_sq, hat_dot, g_sq, beta, seen + 1, self._batch_size)
            values[f"phi/{name}"] = noise.phi
            a, d, g = a + hat_sq, d + hat_dot, g + g_sq
            k += momentum_noise(beta, seen) * g_sq
            compared += torch.tensor([dot, m_sq, g_sq], dtype=torch.float64)
        if g > 0:
            values["momentum_cosine"] = compared[0] / (compared[1] * compared[2]).sqrt()
            signal, variance = split(a, max(0.0, d), g, k / g)
            values["phi"] = GradientNoise(signal, variance * self._batch_size).phi
        return values


class Representation(Part):
    """‖ΔW·x‖/‖W·x‖ of the linear layers."""

    needs_update = True

    def __init__(self, layers: Mapping[str, nn.Module], rows: int) -> None:
        self.sight = self._inputs = probing.Inputs(layers, rows)
        self._layers = layers
        self._kept: dict[str, Tensor] = {}

    def before(self) -> None:
        self._kept = {name: self._weight(name).clone() for name in self._inputs.rows}

    def after(self) -> Values:
        values: Values = {}
        for name, x in self._inputs.rows.items():
            change = representation_change(self._kept.pop(name), self._weight(name), x)
            values[f"rrc/{name}"] = change
        self._inputs.rows.clear()  # not to be kept until the next time
        return values | mean_of("rrc", values)

    def _weight(self, name: str) -> Tensor:
        module = self._layers[name]
        weight = whole(module.weight)  # type: ignore[arg-type]
        return weight.T if stored_in_out(module) else weight


class Rank(Part):
    """‖W‖_F²/‖W‖₂² of the matrices, within 1%."""

    def __init__(self, matrices: Mapping[str, Tensor]) -> None:
        self._matrices = matrices

    def look(self, output: Any) -> Values:
        values: Values = {}
        for name, w in self._matrices.items():
            values[f"stable_rank/{name}"] = stable_rank_by_power(w)
        return values | mean_of("stable_rank", values)


class Relus(Part):
    """The share of dead units."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.sight = self._dead = probing.Dead(modules)

    def look(self, output: Any) -> Values:
        counts = dict(self._dead.counts)
        self._dead.counts.clear()
        values: Values = {f"dead_relus/{name}": c[0] / c[1] for name, c in counts.items()}
        if counts:
            dead, units = sum(c.cpu() for c in counts.values())  # type: ignore[misc]
            values["dead_relus"] = dead / units
        return values


def _summed(rows: Tensor, weight: Tensor) -> Tensor:
    angles = angle_of(rows) if weight.ndim >= 2 else rows.new_zeros(0)
    known = angles.isfinite()
    return torch.cat(
        [rows.sum(0), torch.where(known, angles, 0.0).sum()[None], known.sum()[None].to(rows.dtype)]
    )


def mean_of(name: str, values: Values) -> Values:
    """The mean of those that are numbers."""
    if not values:
        return {}
    each = torch.stack([torch.as_tensor(v, dtype=torch.float64).cpu() for v in values.values()])
    return {name: each[each.isfinite()].mean()}
