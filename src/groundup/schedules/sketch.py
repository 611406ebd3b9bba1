"""A curve in a few lines of text."""

from __future__ import annotations

from collections.abc import Sequence

_LEVELS = " ▁▂▃▄▅▆▇█"


def sketch(values: Sequence[float], width: int = 48, height: int = 3) -> str:
    """`values`, all of at least 0, as `height` lines of block characters, the largest at the top.

    >>> print(sketch([0.25, 0.5, 0.75, 1, 1, 1], width=6, height=2))
      ▄███
    ▄█████
    """
    largest = max(values) or 1.0
    columns = [values[int((i + 0.5) * len(values) / width)] / largest for i in range(width)]
    eighths = [round(8 * height * value) for value in columns]
    rows = range(height - 1, -1, -1)
    lines = ("".join(_LEVELS[min(8, max(0, n - 8 * row))] for n in eighths) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
