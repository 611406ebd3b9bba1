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
from groundup.report.words import count, counts, listing, number

__all__ = ["sentences"]

Numbers = NDArray[np.float64]

LITTLE = 0.01
"""Nats per token: a perplexity 1% higher without the layer, and twice what a probe of 512 tokens
cannot tell from 0 (docs/measurements.md). The same for all variants, so that counts compare."""

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

_SAME = "keeps its size"
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
    """Layers (from 1) without which the loss rises by less than `LITTLE`."""
    return [i + 1 for i, value in enumerate(values) if value < LITTLE]


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
    of = {profile.variant.name: profile for profile in profiles}
    for profile in profiles:
        counterpart = group.counterpart(profile.variant)
        base = of.get(counterpart.name) if counterpart else None
        if base and len(profile.values) == len(base.values):
            told.append(_against(profile, base))
    told[0] = (
        "What a layer is worth is how much the loss rises when it is skipped; below "
        f"{LITTLE} nats per token it is hardly used. {told[0]}"
    )
    return told


def _use(profile: Profile) -> str:
    values = profile.values
    known = np.flatnonzero(np.isfinite(values))
    top = int(known[np.argmax(values[known])])
    used = _used(profile)
    are = "is" if used in ("1", "none") else "are"
    text = f"{quoted(profile.variant)}: {used} of {len(known)} layers {are} used"
    if len(idle(values)) < len(known):
        text += f", layer {top + 1} most ({number(values[top])} nats per token)"
    text += _hardly(profile)
    harmful = [layer for layer in _idle_in_all(profile) if values[layer - 1] < -LITTLE]
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
        return str(counts[0] or "none")
    return f"{listing([str(n) for n in sorted(counts)])} (by seed)"


def _hardly(profile: Profile) -> str:
    """Which layers are hardly used, in every seed, and how little they are worth there."""
    unused = _idle_in_all(profile)
    if not unused:
        some = any(idle(row) for row in profile.rows)
        return "; which are hardly used differs from seed to seed" if some else ""
    largest = max(float(row[layer - 1]) for row in profile.rows for layer in unused)
    worth = f"{significant(largest)} nats or less" if largest > 0 else "worth nothing"
    which = "hardly" if profile.one_seed else "hardly in any seed"
    return f"; {layer_list(unused)} {which} ({worth})"


def _idle_in_all(profile: Profile) -> list[int]:
    return sorted(set.intersection(*(set(idle(row)) for row in profile.rows)))


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
        told.append(f"{quoted(profile.variant)} {_fold(whole)}")
        if (_fold(whole), _fold(half)) != (_SAME, _SAME):
            told[-1] += f" from layer 1 to {depth}, {_fold(half)} from {middle} on"
        if half > depth / middle:
            compounding.append(quoted(profile.variant))
    if not told:
        return []
    text = f"How the residual stream grows with depth (norm): {'; '.join(told)}."
    if compounding:
        text += (
            f" In {listing(compounding)} the second half grows faster than steady addition would "
            "let it (in proportion to depth): growth compounds, which leaves deep Pre-LN layers "
            "little to do (arXiv:2502.05795)."
        )
    return [text]


def _fold(ratio: float) -> str:
    fold = significant(ratio)
    return _SAME if fold == "1.0" else f"{fold}-fold"


def _settling(variants: Sequence[Variant]) -> list[str]:
    """Which layers are near their last outputs at half of the way to them."""
    each = []
    for variant in variants:
        found = [s for s in (_settled(run) for run in variant.runs) if s is not None]
        if not found or len({len(s.half) for s in found}) > 1:
            continue
        each.append((variant, found))
    if not each:
        return []
    everyone = [s for _, found in each for s in found]
    last = _last_sketch(everyone)
    one = len({(s.last, s.planned) for s in everyone}) == 1
    told = [
        f"{quoted(variant)}: {_order(found)} ({_how_near(found)}"
        f"{'' if one else f'; last sketch {_last_sketch(found)}'})."
        for variant, found in each
    ]
    few = min(s.sketches for s in everyone)
    coarse = f" With {few} sketches this is coarse." if few < FEW else ""
    return [
        f"Which layers settle first, by how near their outputs are to their last sketch"
        f"{f' ({last})' if one else ''}, halfway to it (cosine; early, middle and late third). "
        f"{' '.join(told)}{coarse}"
    ]


def _last_sketch(found: Sequence[_Settled]) -> str:
    planned = {s.planned for s in found if s.last < s.planned}
    of = f" of {counts(planned)}" if planned else ""
    return f"at update {counts({s.last for s in found})}{of}"


def _how_near(found: Sequence[_Settled]) -> str:
    """The cosines at half of the way, and from when on they stay near, if before its end."""
    half, share = (
        [_finite_mean(_mean(rows)[span]) for span in _of(found)]
        for rows in ([s.half for s in found], [s.share for s in found])
    )
    text = listing([number(cosine, 2) for cosine in half])
    near = {n: f"{100 * s:.0f}%" for n, s in zip(_THIRDS, share, strict=True)}
    near = {name: s for name, s in near.items() if s != "100%"}
    if near:
        which = f" for the {listing(list(near))}" if len(near) < len(_THIRDS) else ""
        text += f"; within {SETTLED} from {listing(list(near.values()))} of the way on{which}"
    return text


@dataclass(frozen=True)
class _Settled:
    """Of one run: [L] cosines at half of the way to the last sketch, [L] shares of that way at
    which each layer settled, and the updates completed at that sketch, of how many."""

    half: Numbers
    share: Numbers
    sketches: int
    last: int
    planned: int


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
    settled = shares[len(shares) - staying]
    return _Settled(half, settled, len(steps), int(steps[-1]), run.planned)


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
