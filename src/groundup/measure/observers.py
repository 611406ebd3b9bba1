"""Observing a run: measurements around every so many updates of any model and torch optimizer.

Neither's code is touched. On an update that is not measured nothing happens but a comparison; on
one that is, weights are kept as they were before, one forward more is run where inputs of layers
are needed, and the results travel to the host together. Training goes on bit by bit as without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from groundup._check import count
from groundup._following import innermost, skipping
from groundup.measure import parts, probing
from groundup.measure.closure import after_closure
from groundup.measure.noise import two_batches
from groundup.measure.subject import Subject, choose
from groundup.residual.names import unwrap

Measurements = dict[str, Any]
"""By name a float, or a list with one for each layer."""

Measured = Callable[[int, Measurements], None]

_LISTS = ("/layers", "/positions")


def observe(
    model: nn.Module,
    optimizer: Optimizer,
    what: Sequence[str] | None = None,
    every: int = 50,
    *,
    batch_size: int | None = None,
    probe: Any = None,
    targets: Tensor | None = None,
    branches: Sequence[str] | None = None,
    rows: int = 256,
    per_tensor: bool = True,
) -> Observer:
    """Measure every `every`-th update of `optimizer`, from the next one on.

    ==============  ==================================================================
    ``updates``     ``update_norm`` ‖Δw‖; ``relative_update`` ‖Δw‖/‖w‖; ``angle`` in
                    radians, of all weights as one vector; ``row_angle``, the mean over
                    the rows of all matrices; each by layer too
    ``gradients``   ``grad_norm``, as the optimizer gets it (clipped); by layer too
    ``noise``       where the momentum is known, ``phi`` from it (`split_by_momentum`) and
                    ``momentum_cosine``, of the gradient with the momentum of those before
                    it; where the loop says `accumulated`, ``phi_two_batches``
    ``rrc``         ``rrc``, the mean over linear layers of ‖ΔW·x‖/‖W·x‖, over `rows`
                    inputs x each
    ``rank``        ``stable_rank``, the mean over matrices, within 1%
    ``relus``       ``dead_relus``, the share of dead units
    ``stream``      by layer: ``stream_norm``, ‖x‖ after it (mean over tokens);
                    ``stream_max``, the largest |entry|; ``stream_alike``, the mean cosine
                    between different tokens of a sequence (`alikeness`; the batch is the
                    first dimension); ``stream_next``, the cosine of x after it and after
                    the next; and of each branch b ``branch_norm/b``, of what it adds (α
                    included); ``branch_ratio/b``, that over ‖x‖ before the layer, token by
                    token; ``branch_next/b``, its cosine with the next layer's (mean over
                    tokens)
    ``attention``   by layer: ``attention_entropy`` in nats, mean over heads and queries;
                    ``attention_uniform``, that over the entropy of attending evenly;
                    ``attention_logit``, the largest
    ``similarity``  ``sketch/b`` by layer: a text of what each branch gives on the `probe`,
                    of up to `rows` tokens, for `similarity.compare` with another's
    ``depth``       ``skip_loss`` by layer: the loss on `probe` and `targets` with the
                    layer's branches at 0, minus ``probe_loss``; costs a forward a layer
    ``positions``   ``loss/positions``, the mean loss at positions from ``loss_bins``[i] to
                    ``loss_bins``[i + 1]; on `probe` and `targets`
    ==============  ==================================================================

    φ of a single update is rough: average it before it is trusted.

    By layer: a list under ``angle/layers``, the shallowest layer (`Observer.layers`) first, None
    where it has no value. By weight or module: ``angle/layers.0.attention.query.weight``. What is
    not defined or infinite is left out: the angle of a weight that was 0, φ at the first update.

    What is seen in a forward (all but ``updates``, ``gradients``, ``noise``, ``rank``) is seen in
    one of its own before the update: eager, in evaluation mode (no dropout), without gradients,
    leaving random state and buffers as they were. ``updates`` and ``rrc`` keep a copy of the
    weights meanwhile. Of sharded models (FSDP) all ranks must measure; of a replicated one, any.

    Args:
        model: any module; its trainable parameters that `optimizer` has are measured. If it is
            compiled, the compiled one (``torch.compile(model)``), or give a `probe`.
        optimizer: any of torch's kind, also as Accelerate or Lightning wrap it.
        what: some of the above; None: all that apply.
        every: update number 1, 1 + every, … is measured (steps 0, every, …).
        batch_size: B, examples (sequences) in an update, over all ranks and micro-batches, for φ;
            required by ``noise``.
        probe: what the model is called with in that forward: a tensor, a list of inputs, or a dict
            of named ones. None: what it was last called with before the update (the last
            micro-batch). For ``similarity`` it is to be the same at each measurement, so required.
        targets: [...] int64, the class that belongs to each of the model's logits [..., C] on the
            probe (the next token, at each position), -100 for none.
        branches: patterns as for `groundup.attach`, for models it does not know.
        rows: inputs of each linear layer, and tokens of each sketch, that are kept, evenly spaced.
        per_tensor: False leaves out the values of weights and modules.

    Raises:
        ValueError: for bad input, for what does not apply, for a setting that would be ignored.

    Example, with the steps counted by itself:
        >>> model = nn.Linear(4, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> observer = observe(model, optimizer, ["updates"], every=10)
        >>> observer.on_measure(lambda step, values: print(step, sorted(values)[:2]))
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        0 ['angle', 'angle/bias']

    Or told by the loop, ``if observer.begin(step): …`` before the forward and
    ``values = observer.end()`` after ``optimizer.step()`` (None if it was not measured). At the end
    of a run, ``observer.look(step)`` measures what needs no update.
    """
    if probe is None and targets is not None:
        raise ValueError("targets would be ignored: they belong to a probe")
    return Observer(
        model, optimizer, what, every, batch_size, probe, targets, branches, rows, per_tensor
    )


class Observer:
    """What `observe` makes; also a context manager that detaches."""

    latest: Measurements
    """The values of the last measured update."""
    step: int | None
    """Which one that was, in completed updates before it."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        what: Sequence[str] | None,
        every: int,
        batch_size: int | None,
        probe: Any,
        targets: Tensor | None,
        branches: Sequence[str] | None,
        rows: int,
        per_tensor: bool,
    ) -> None:
        self.latest, self.step = {}, None
        if not hasattr(optimizer, "_optimizer_step_pre_hooks"):  # not torch's own: a wrapper
            optimizer = innermost(optimizer, "Measure updates by the functions of gu.measure")
        self._model, self._optimizer = model, optimizer
        self._every = count("every", every)
        self._batch_size = batch_size
        self._per_tensor = per_tensor
        self._next = 0  # completed updates
        # Updates of the optimizer, for those that do not count them; inf where they are not known.
        self._made = math.inf if any(optimizer.state.values()) else 0.0
        self._measuring = False
        self._seen: parts.Values = {}
        self._autocast: Mapping[str, torch.dtype] = {}
        self._done: Measurements | None = None
        self._squares: dict[int, Tensor] = {}
        self._callbacks: list[Measured] = []
        if batch_size is not None:
            count("batch_size", batch_size)
        self._fixed = None if probe is None else probing.Probe.of(probe)
        subject = Subject(
            model, optimizer, batch_size, count("rows", rows), lambda: self._made, targets,
            probe is not None, self._forward, branches,
        )  # fmt: skip
        self._weights = subject.weights
        self.layers = [layer.name for layer in subject.layers]
        self._parts = choose(subject, what)
        self._looks = any(part.sight is not None or part.needs_output for part in self._parts)
        self._probe: probing.Probe | None = None
        self._last: probing.LastInputs | None = None
        if what is not None:
            self._refuse_ignored(what, batch_size, probe, targets)
        if self._looks:
            self._last = probing.LastInputs(model, lambda: self._armed and not self._measuring)
        # Of a compiled optimizer.step() nothing of this is to be compiled.
        before, after = (torch.compiler.disable(hook) for hook in (self._before, self._after))
        self._hooks = [
            optimizer.register_step_pre_hook(before),
            optimizer.register_step_post_hook(after),
            optimizer.register_load_state_dict_post_hook(self._loaded),
        ]

    def __repr__(self) -> str:
        return f"<Observer of {type(self._model).__name__}, every {self._every} updates>"

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    # ------------------------------------------------------------------ driving it

    def begin(self, step: int) -> bool:
        """Say that `step` updates are completed; whether the next one will be measured.

        To be called before the forward, at each update or once after resuming: from there on the
        observer counts by itself.

        Raises:
            ValueError: if step is not a whole number ≥ 0.
        """
        self._next = count("step", step, least=0)
        self._made = float(step)
        self._done = None
        self._squares = {}
        return self._armed

    def accumulated(self, sequences: int) -> None:
        """Say that the gradients hold `sequences` of the batch so far, after each backward.

        With the first micro-batch and the last (the whole batch; before clipping) φ is estimated
        from two batch sizes too: ``phi_two_batches``. The gradient must be the sum of the
        sequences' over the size of the whole batch, summed over ranks: not DDP's with ``no_sync``.
        Does nothing where the update is not measured.

        Raises:
            ValueError: without ``batch_size``, or if `sequences` is not from 1 to it.
        """
        if self._batch_size is None:
            raise ValueError("accumulated() would be ignored: it needs batch_size, and noise")
        if count("sequences", sequences) > self._batch_size:
            raise ValueError(
                f"sequences={sequences} is not valid: the batch has batch_size={self._batch_size}"
            )
        if self._armed and (not self._squares or sequences == self._batch_size):
            self._squares[sequences] = self._gradient_square()

    def end(self) -> Measurements | None:
        """The values of the update since `begin`, if it was measured."""
        return self._done

    @torch.no_grad()
    def look(self, step: int) -> Measurements:
        """Measure the model as it is after `step` updates, without one: all that needs none.

        Raises:
            RuntimeError: if there is no `probe`, and inputs are needed.
        """
        wanted = [part for part in self._parts if not part.needs_update]
        self.latest, self.step = self._as_numbers(self._look(wanted)), count("step", step, least=0)
        return self.latest

    def on_measure(self, callback: Measured) -> None:
        """Call back with the step and the values after each measured update."""
        self._callbacks.append(callback)

    def detach(self) -> None:
        """Take all hooks off."""
        for hook in self._hooks:
            hook.remove()
        if self._last is not None:
            self._last.remove()
            self._last.probe = None

    # ------------------------------------------------------------------ around an update

    @property
    def _armed(self) -> bool:
        return self._next % self._every == 0

    def _refuse_ignored(
        self, what: Sequence[str], batch_size: int | None, probe: Any, targets: Any
    ) -> None:
        if probe is not None and not self._looks:
            raise ValueError(f"probe would be ignored: none of {list(what)!r} needs a forward")
        if targets is not None and not any(part.needs_output for part in self._parts):
            raise ValueError("targets would be ignored: only depth and positions need them")
        if batch_size is not None and "noise" not in what:
            raise ValueError(f"batch_size={batch_size!r} would be ignored: only noise needs it")

    def _before(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._armed:
            return None
        return after_closure(args, kwargs, self._begin)

    @torch.no_grad()
    def _begin(self) -> None:
        if skipping(self._optimizer):
            self._squares = {}
            return
        self._measuring = True
        try:
            self._seen = self._look(self._parts)
            for part in self._parts:
                part.before()
        except BaseException:  # an update that never comes is not waited for
            self._measuring = False
            raise

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        step, self._next, self._made = self._next, self._next + 1, self._made + 1
        if not self._measuring:
            return
        self._measuring = False
        values, self._seen = self._seen, {}
        for part in self._parts:
            values |= part.after()
        values |= self._two_batches()
        self.latest, self.step = self._as_numbers(values), step
        self._done = self.latest
        for callback in self._callbacks:
            callback(step, self.latest)

    def _loaded(self, *_: Any) -> None:
        self._made = math.inf

    def _look(self, wanted: Sequence[parts.Part]) -> parts.Values:
        output = None
        sights = [part.sight for part in wanted if part.sight is not None]
        found: parts.Values = {}
        try:
            if sights or any(part.needs_output for part in wanted):
                self._probe = self._inputs()
                output = self._forward(sights)
            for part in wanted:
                found |= part.look(output)
        finally:
            self._probe = None  # a batch is not to be held until the next time
        return found

    def _forward(self, sights: Sequence[probing.Sight]) -> Any:
        assert self._probe is not None
        # What only replicates it would have all ranks come along.
        return probing.run(unwrap(self._model), self._probe, sights)

    def _inputs(self) -> probing.Probe:
        assert self._last is not None
        last, self._last.probe = self._last.probe, None
        if last is not None:
            self._autocast = last.autocast
        if self._fixed is not None:
            return replace(self._fixed, autocast=self._autocast)
        if last is None:
            raise RuntimeError(
                f"no forward of {type(self._model).__name__} was seen before the update (it is "
                "compiled as a whole, only a part of it is called, or the last look failed): give "
                "observe(…) a probe, or the module that is called"
            )
        return last

    def _gradient_square(self) -> Tensor:
        weights = [w for w in self._weights.values() if w.grad is not None]
        if not weights:
            raise RuntimeError("accumulated() was called where there are no gradients")
        return parts.gradient_squares(weights).sum()

    def _two_batches(self) -> parts.Values:
        squares, self._squares = self._squares, {}
        total, small = self._batch_size, min(squares, default=0)
        if total is None or total not in squares or small == total:
            return {}
        # The sum so far stands over the size of the whole batch.
        small_sq = float(squares[small]) * (total / small) ** 2
        return {"phi_two_batches": two_batches(small_sq, float(squares[total]), small, total).phi}

    def _as_numbers(self, values: parts.Values) -> Measurements:
        if not self._per_tensor:
            values = {k: v for k, v in values.items() if "/" not in k or k.endswith(_LISTS)}
        there: dict[torch.device, dict[str, Tensor]] = {}
        found: Measurements = dict(values)
        for name, value in values.items():
            if isinstance(value, Tensor):
                there.setdefault(value.device, {})[name] = value
        for tensors in there.values():  # one transfer from each device
            sizes = [value.numel() for value in tensors.values()]
            flat = torch.cat([value.reshape(-1).to(torch.float64) for value in tensors.values()])
            parted = torch.split(flat.cpu(), sizes)
            for (name, value), part in zip(tensors.items(), parted, strict=True):
                found[name] = part.tolist() if value.ndim else part.item()
        return {name: kept for name, value in found.items() if (kept := _finite(value)) is not None}


def _finite(value: Any) -> Any:
    """Without what is not finite: None for a number, or for a list that has nothing left."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    kept = [entry if isinstance(entry, str | None) else _finite(entry) for entry in value]
    return kept if any(entry is not None for entry in kept) else None
