"""Measurements: functions on plain numbers or tensors. The spike score needs no torch."""

from __future__ import annotations

from groundup.measure.spikes import SpikeScore, run_spike_score, spike_score

__all__ = ["SpikeScore", "run_spike_score", "spike_score"]
