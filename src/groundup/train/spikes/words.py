"""What is said of a spike: its lines in events.jsonl, and a sentence for whoever watches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from groundup.data import BatchStream, DocumentNames
from groundup.measure import Verdict
from groundup.train.progress import Watcher
from groundup.train.spikes.rewinds import Event, Rewinds
from groundup.train.spikes.suspects import Suspects

Found = Mapping[str, Verdict]
"""The spikes of one update, by series: "loss", "grad_norm"."""

_LISTED = 32  # documents in an event
_NAMED = 3  # and in a sentence, with so many characters of each
_CHARACTERS = 32


class Scene:
    """What the model was shown at an update."""

    def __init__(
        self,
        batches: BatchStream,
        documents: DocumentNames,
        rewinds: Rewinds,
        suspects: Suspects,
    ) -> None:
        self._batches, self._documents, self._rewinds = batches, documents, rewinds
        self._suspects = suspects

    def events(self, step: int, found: Found, action: str) -> list[Event]:
        """One line for events.jsonl for each series that has a spike at the update `step`; the
        documents of the sequence with the highest loss, or gradient norm, come first."""
        batch = self._rewinds.batch(step)
        first = batch * self._batches.size
        return [
            {
                "step": step,
                "kind": "spike",
                "of": name,
                "value": _number(verdict.value),
                "mean": _number(verdict.mean),
                "deviation": _number(verdict.deviation),
                "action": action,
                "batch": batch,
                "samples": [first, first + self._batches.size - 1],
                **self._listed(name, batch),
            }
            for name, verdict in found.items()
        ]

    def _listed(self, series: str, batch: int) -> Event:
        windows = self._batches.order(batch).tolist()
        series, values = self._suspects.of(series, batch)
        worst = sorted(range(len(values)), key=lambda row: _badness(values[row]), reverse=True)
        listed, number = self._documents.of_windows(
            [windows[row] for row in worst], self._batches.length, _LISTED
        )
        documents = [
            asdict(document) | {series: _number(round(values[worst[place]], 4))}
            for document, place in listed
        ]
        return {"by": series, "documents": documents, "document_count": number}


def jump(found: Found) -> str:
    """The numbers: "loss 9.31 (3.21 ± 0.05 before)"."""
    return ", ".join(f"{name} {_jump(verdict)}" for name, verdict in found.items())


def data(event: Event) -> str:
    """The batch and the documents in it that are most suspect."""
    first, last = event["samples"]
    named = event["documents"][:_NAMED]
    words = [_UNITS[event["by"]], *["{}"] * _NAMED]
    names = [_named(d, d[event["by"]], word) for d, word in zip(named, words, strict=False)]
    more = event["document_count"] - len(names)
    return (
        f"batch {event['batch']} (samples {first} to {last}) of "
        f"{'documents' if event['document_count'] > 1 else 'document'} {', '.join(names)}"
        f"{f' and {more} more' if more else ''}"
    )


class Notes:
    """Tells a watcher of spikes, of many in a row only how many they were: at most one note in
    `apart` updates."""

    def __init__(self, watch: Watcher, apart: int) -> None:
        self._watch, self._apart = watch, apart
        self._last: int | None = None
        self._more = 0

    def say(self, step: int, text: str) -> None:
        if self._last is not None and step - self._last < self._apart:
            self._more += 1
            return
        self.now(text)
        self._last = step

    def now(self, text: str) -> None:
        """Whatever was said before."""
        self.finish()
        self._watch.note(text)

    def finish(self) -> None:
        """Say what is left to say."""
        if self._more:
            times = "1 more update" if self._more == 1 else f"{self._more} more updates"
            self._watch.note(f"spikes at {times} soon after update {self._last}: see events.jsonl")
        self._more = 0


def _jump(verdict: Verdict) -> str:
    value = f"{verdict.value:.4g}" if math.isfinite(verdict.value) else "not finite"
    if not math.isfinite(verdict.mean):
        return value
    return f"{value} ({verdict.mean:.4g} ± {verdict.deviation:.2g} before)"


# How the first of several numbers is said.
_UNITS = {"loss": "{} nats", "grad_norm": "gradient norm {}"}


def _named(document: Mapping[str, Any], value: float | None, word: str) -> str:
    part = f"{document['part']} " if "part" in document else ""
    number = part + ("" if document["number"] is None else f"{document['number']} ")
    text = " ".join(str(document["starts"]).split())
    shown = "".join(c if c.isprintable() else "·" for c in text)
    shown = shown if len(shown) <= _CHARACTERS else shown[: _CHARACTERS - 1] + "…"
    return f"{number}“{shown}” ({'not finite' if value is None else word.format(f'{value:.2f}')})"


def _badness(loss: float) -> tuple[bool, float]:
    """What is not finite is worse than any number, and all of it equally."""
    return (False, loss) if math.isfinite(loss) else (True, 0.0)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
