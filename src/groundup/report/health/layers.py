"""In which layers: what each contributes, how the stream grows, which ones settle first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundup.report.health.reading import awake, finite_median, last_layers
from groundup.report.health.telling import layer_list, quoted, shown, significant
from groundup.report.runs import Run
from groundup.report.table import Study, Variant
from groundup.report.words import count, listing, number

__all__ = ["sentences"]

Numbers = NDArray[np.float64]

LITTLE = 0.01
"""Nats per token: a perplexity 1% higher without the layer."""
LITTLE_SHARE = 0.05
"""Of the mean over layers. A layer hardly used is below both: many equal layers are all used."""

SETTLED = 0.9
"""Cosine with the final output from which a layer counts as settled: an angle of 26 degrees."""
AHEAD = 0.1
"""Of the cosine at half of the run, in every seed. The error of a sketch is at most 0.03. Ours."""
FEW = 10
"""With fewer sketches, a moment is known to no better than a tenth of the run."""

SURE = 2.0
"""Standard deviations of a difference between seeds: with three seeds each, 1 in 40 by chance."""
LEAST_SEEDS = 3

MANY_LAYERS = 4
"""With fewer, the growth of the stream over half of them says nothing."""
LEAST_SKETCHES = 5

_THIRDS = ("early", "middle", "late")


@dataclass(frozen=True)
class Profile:
    """A number for each layer of one variant, mean over seeds, as last measured."""

    variant: Variant
    values: Numbers
    steps: tuple[int, ...]
    rows: tuple[Numbers, ...]

    @property
    def one_seed(self) -> bool:
        return len(self.rows) == 1


def sentences(group: Study) -> list[str]:
    """What was measured of the layers, with and without residual warmup; [] without any."""
    variants, note = shown(group)
    told = [*_contributions(group, variants), *_stream(variants), *_settling(variants)]
    return [note, *told] if note and told else told


def thirds(layers: int) -> list[slice]:
    """Early, middle and late layers, as equal as can be, the middle taking what is over."""
    outer = (layers + 1) // 3
    return [slice(0, outer), slice(outer, layers - outer), slice(layers - outer, layers)]


def idle(values: Numbers) -> list[int]:
    """Layers (from 1) without which the loss rises by next to nothing."""
    known = values[np.isfinite(values)]
    if not len(known):
        return []
    bound = min(LITTLE, LITTLE_SHARE * max(float(known.mean()), 0.0))
    low = max(bound, 0.0)
    return [i + 1 for i, value in enumerate(values) if math.isfinite(value) and value <= low]


def _profiles(variants: Sequence[Variant], name: str) -> list[Profile]:
    found = []
    for variant in variants:
        measured = [m for m in (last_layers(run, name) for run in variant.runs) if m]
        length = len(measured[0][1]) if measured else 0
        same = [(step, values) for step, values in measured if len(values) == length]
        if same:
            rows = tuple(values for _, values in same)
            found.append(Profile(variant, _mean(rows), tuple(step for step, _ in same), rows))
    return found


def _contributions(group: Study, variants: Sequence[Variant]) -> list[str]:
    profiles = _profiles(variants, "skip_loss/layers")
    if not profiles:
        return []
    told = [_use(profile) for profile in profiles]
    base = next((p for p in profiles if p.variant is group.baseline), None)
    for profile in profiles:
        if base and profile is not base and len(profile.values) == len(base.values):
            told.append(_against(profile, base))
    told[0] = f"What a layer is worth is how much the loss rises when it is skipped. {told[0]}"
    return told


def _use(profile: Profile) -> str:
    values = profile.values
    unused = idle(values)
    known = np.flatnonzero(np.isfinite(values))
    top = int(known[np.argmax(values[known])])
    text = (
        f"{quoted(profile.variant)}: {_used(profile)} of {len(known)} layers are used, "
        f"layer {top + 1} most ({number(values[top])} nats per token)"
    )
    if unused:
        largest = max(values[layer - 1] for layer in unused)
        text += f"; {layer_list(unused)} hardly ({significant(float(largest), 1)} nats or less)"
    harmful = [layer for layer in unused if values[layer - 1] < -LITTLE]
    if harmful:
        text += f", and without {layer_list(harmful)} the loss is even lower"
    last = max(profile.steps)
    text += f"; after {count(last)} updates."
    early = [run for run in profile.variant.runs if last < (awake(run) or 0.0)]
    return text + (" Its residual warmup had not ended by then." if early else "")


def _used(profile: Profile) -> str:
    """How many layers; of each seed, since a layer that one seed does not use hides in a mean."""
    counts = [int(np.isfinite(row).sum()) - len(idle(row)) for row in profile.rows]
    if len(set(counts)) == 1:
        return str(counts[0])
    return f"{listing([str(n) for n in sorted(counts)])} (by seed)"


def _against(profile: Profile, base: Profile) -> str:
    """Where a variant's layers are worth more or less than the baseline's."""
    told = []
    for name, span in _spans(len(base.values)):
        before, after = (finite_median(p.values[span]) for p in (base, profile))
        where = layer_list(range(span.start + 1, span.stop + 1))
        told.append(f"{name} ({where}) {number(before)} → {number(after)}")
    basis = (
        "One seed: differences of this kind need several"
        if profile.one_seed or base.one_seed
        else f"Mean of {len(base.rows)} and {len(profile.rows)} seeds{_certain(profile, base)}"
    )
    return (
        f"What the median layer is worth, {quoted(base.variant)} → {quoted(profile.variant)}: "
        f"{listing(told)} nats. {basis}."
    )


def _certain(profile: Profile, base: Profile) -> str:
    """Which thirds differ by more than the seeds do among themselves."""
    if min(len(profile.rows), len(base.rows)) < LEAST_SEEDS:
        return ", too few to tell a difference from chance"
    sure = []
    for name, span in _spans(len(base.values)):
        a, b = ([finite_median(row[span]) for row in p.rows] for p in (profile, base))
        spread = math.sqrt(float(np.var(a, ddof=1)) + float(np.var(b, ddof=1)))
        if abs(float(np.mean(a)) - float(np.mean(b))) > SURE * spread:
            sure.append(name)
    if not sure:
        return ", which differ among themselves as much"
    return f"; by more than {SURE:.0f} standard deviations over seeds: {listing(sure)}"


def _spans(layers: int) -> list[tuple[str, slice]]:
    if layers < len(_THIRDS):
        return [("all", slice(0, layers))]
    return list(zip(_THIRDS, thirds(layers), strict=True))


def _stream(variants: Sequence[Variant]) -> list[str]:
    return [*_added(variants), *_growth(variants)]


def _added(variants: Sequence[Variant]) -> list[str]:
    """What the branches add, compared with the stream they enter."""
    told = []
    for variant in variants:
        rows = [row for row in (_ratios(run) for run in variant.runs) if row is not None]
        if not rows or len({len(row) for row in rows}) > 1 or len(rows[0]) < 3:
            continue
        values = _mean(rows)
        parts = (finite_median(values[span]) for span in thirds(len(values)))
        told.append(f"{quoted(variant)} {listing([significant(part) for part in parts])}")
    if not told:
        return []
    return [
        "What a branch adds, over the stream that enters its layer (norms; median layer of the "
        f"early, middle and late third): {'; '.join(told)}."
    ]


def _ratios(run: Run) -> Numbers | None:
    """[L]: mean over branches of the last ‖branch‖/‖stream‖."""
    names = [n for n in run.measured if n.startswith("branch_ratio/") and n.endswith("/layers")]
    rows = [m[1] for m in (last_layers(run, name) for name in names) if m]
    return _mean(rows) if rows and len({len(row) for row in rows}) == 1 else None


def _growth(variants: Sequence[Variant]) -> list[str]:
    told, compounding = [], []
    for profile in _profiles(variants, "stream_norm/layers"):
        values = profile.values
        depth = len(values)
        middle = depth // 2
        if depth < MANY_LAYERS or not (np.isfinite(values).all() and (values > 0).all()):
            continue
        whole, half = values[-1] / values[0], values[-1] / values[middle - 1]
        told.append(
            f"{quoted(profile.variant)} {significant(whole)}-fold from layer 1 to {depth}, "
            f"{significant(half)}-fold from {middle} on"
        )
        if half > depth / middle:
            compounding.append(quoted(profile.variant))
    if not told:
        return []
    text = f"The residual stream grows: {'; '.join(told)}."
    if compounding:
        text += (
            f" In {listing(compounding)} the second half grows faster than steady addition would "
            "let it (in proportion to depth): growth compounds, which leaves deep Pre-LN layers "
            "little to do (arXiv:2502.05795)."
        )
    return [text]


def _settling(variants: Sequence[Variant]) -> list[str]:
    """How near each third is to its final function at half of the run, and when it is there."""
    halves, moments, sketches = [], [], []
    for variant in variants:
        found = [s for s in (_settled(run) for run in variant.runs) if s is not None]
        if not found or len({len(s.half) for s in found}) > 1:
            continue
        half = [_finite_mean(_mean([s.half for s in found])[span]) for span in _of(found)]
        share = [_finite_mean(_mean([s.share for s in found])[span]) for span in _of(found)]
        cosines = listing([number(cosine, 2) for cosine in half])
        halves.append(f"{quoted(variant)} {cosines} ({_order(found)})")
        moments.append(f"{quoted(variant)} {listing([f'{100 * s:.0f}%' for s in share])}")
        sketches += [s.sketches for s in found]
    if not halves:
        return []
    coarse = f" With {min(sketches)} sketches this is coarse." if min(sketches) < FEW else ""
    return [
        "How near the outputs of the layers are to their final ones at half of the run (cosine; "
        f"early, middle and late third): {'; '.join(halves)}. They stay within {SETTLED} from this "
        f"share of the run on: {'; '.join(moments)}.{coarse}"
    ]


@dataclass(frozen=True)
class _Settled:
    """Of one run: [L] cosines at half of it, [L] shares of it at which each layer settled."""

    half: Numbers
    share: Numbers
    sketches: int


def _settled(run: Run) -> _Settled | None:
    found = [m for m in run.similarity.values() if m.values.ndim == 2]
    found = [m for m in found if m.values.shape == found[0].values.shape]
    if not found or found[0].values.shape[1] < len(_THIRDS):
        return None
    steps = found[0].steps
    if len(steps) < LEAST_SKETCHES or steps[-1] <= 0:
        return None
    shares = steps / steps[-1]
    # A branch that is all zero has no direction: it is not near.
    cosines = np.stack([np.where(np.isfinite(m.values), m.values, 0.0) for m in found]).mean(0)
    near = cosines >= SETTLED
    near[-1] = True
    staying = np.cumprod(near[::-1], axis=0).sum(axis=0)  # sketches in a row, from the end
    half = cosines[int(np.argmin(np.abs(shares - 0.5)))]
    return _Settled(half, shares[len(shares) - staying], len(steps))


def _of(found: Sequence[_Settled]) -> list[slice]:
    return thirds(len(found[0].half))


def _order(found: Sequence[_Settled]) -> str:
    """Which layers are nearer at half of the run, if all seeds say the same."""
    early, _, late = _of(found)
    ahead = [_finite_mean(s.half[early]) - _finite_mean(s.half[late]) for s in found]
    if min(ahead) > AHEAD:
        return "shallow layers settle first"
    return "deep layers settle first" if max(ahead) < -AHEAD else "no clear order"


def _mean(rows: Sequence[Numbers]) -> Numbers:
    return np.array([_finite_mean(column) for column in np.stack(rows).T], dtype=np.float64)


def _finite_mean(values: Sequence[float] | Numbers) -> float:
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else math.nan
