"""Warmups of the rate as they were published, to compare with. Only what their papers state."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """A pretraining: `warmup` of `length` updates, or of both in tokens, as `unit` says.

    Attributes:
        peak: the peak rate; None where it is no constant.
        batch_tokens: tokens of an update; None where it changes in the course of the run.
        post_norm: whether the norms are Post-LN.
    """

    name: str
    parameters: float
    warmup: float
    length: float
    peak: float | None
    batch_tokens: float | None
    source: str
    post_norm: bool = False
    unit: str = "steps"

    @property
    def share(self) -> float:
        """Of the run."""
        return self.warmup / self.length

    def __str__(self) -> str:
        return (
            f"{self.name} {short(self.warmup)} of {short(self.length)} {self.unit} "
            f"({percent(self.share)}, {self.source})"
        )


_PRORES = "arXiv:2603.05369"
PUBLISHED = (
    Setting("71M Pre-LN", 71e6, 2000, 100e3, 2e-3, 512 * 1024, _PRORES),
    Setting("130M Pre-LN", 130e6, 2000, 100e3, 2e-3, 512 * 1024, _PRORES),
    Setting("350M Pre-LN", 350e6, 2000, 100e3, 1e-3, 512 * 1024, _PRORES),
    Setting("1.3B Pre-LN", 1.3e9, 2000, 100e3, 6e-4, 512 * 1024, _PRORES),
    Setting("7B Pre-LN", 7e9, 2000, 100e3, 3e-4, 512 * 1024, _PRORES),
    Setting("130M Post-LN", 130e6, 10e3, 100e3, 1e-3, 512 * 1024, _PRORES, post_norm=True),
    Setting("350M Post-LN", 350e6, 10e3, 100e3, 5e-4, 512 * 1024, _PRORES, post_norm=True),
    Setting("1.3B Post-LN", 1.3e9, 10e3, 100e3, 3e-4, 512 * 1024, _PRORES, post_norm=True),
    Setting("Transformer", 65e6, 4000, 100e3, None, 25e3, "arXiv:1706.03762", post_norm=True),
    Setting("BERT-base", 110e6, 10e3, 1e6, 1e-4, 256 * 512, "arXiv:1810.04805", post_norm=True),
    Setting("RoBERTa-base", 125e6, 24e3, 500e3, 6e-4, 8e3 * 512, "arXiv:1907.11692", True),
    Setting("GPT-3 125M", 125e6, 375e6, 300e9, 6e-4, 0.5e6, "arXiv:2005.14165", unit="tokens"),
    Setting("GPT-3 175B", 175e9, 375e6, 300e9, 6e-5, 3.2e6, "arXiv:2005.14165", unit="tokens"),
    # The paper has 2T tokens in batches of 4M.
    Setting("Llama 2 7B", 7e9, 2000, 500e3, 3e-4, 4e6, "arXiv:2307.09288"),
    Setting("Llama 2 70B", 70e9, 2000, 500e3, 1.5e-4, 4e6, "arXiv:2307.09288"),
    Setting("Llama 3 405B", 405e9, 8000, 1.2e6, 8e-5, None, "arXiv:2407.21783"),
)


def percent(share: float) -> str:
    """0.0125 → 1.25%."""
    return f"{100.0 * share:.3g}%"


def short(value: float) -> str:
    """375000000 → 375M; a number below 10000 as it is."""
    for least, divisor, unit in _UNITS:
        if value >= least:
            return f"{value / divisor:.3g}{unit}"
    return f"{value:g}"


_UNITS = ((1e12, 1e12, "T"), (1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
