"""Faults that are really injected into real processes, and what must come of each.

`benchmarks/reliability.py` carries them out and writes the table of docs/reliability.md.
"""
