"""Curves and heat maps in the characters of a terminal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from groundup.report.style import short

_MARGIN = 9  # what stands left of every picture: its axis, with labels
_SHADES = " ░▒▓█"
# The dots of a braille character by row and column, as Unicode numbers them.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))

SHADES = "blank 0, ░ below 1/3, ▒ below 2/3, ▓ below 1, █ 1"
"""What the shades of a heat map mean."""


def curve(
    value: Callable[[int], float], steps: int, top: float, width: int, height: int = 7
) -> str:
    """`value` at the updates 0 to steps − 1 from 0 to `top` as a line of braille dots, with axes.

    >>> print(curve(lambda step: step, steps=100, top=99, width=44, height=3))
          99 ┤                       ⣀⣀⣀⠤⠤⠤⠒⠒⠒⠉⠉
        49.5 ┤           ⣀⣀⣀⠤⠤⠤⠒⠒⠒⠉⠉⠉
           0 ┤⣀⣀⠤⠤⠤⠒⠒⠒⠉⠉⠉
             └┬────────────────┬────────────────
              0           50 updates
    """
    columns, levels = 2 * (width - _MARGIN - 1), 4 * height
    sampled = _sampled(steps, columns)
    heights = [round((levels - 1) * min(1.0, value(step) / top)) for step in sampled]
    cells = [[0] * (columns // 2) for _ in range(height)]
    for x, (before, here) in enumerate(itertools.pairwise([heights[0], *heights])):
        # Down or up to where the dot before stands, so that the line has no gap.
        near = here if before == here else before + (1 if here > before else -1)
        for y in range(min(near, here), max(near, here) + 1):
            row, dot = divmod(levels - 1 - y, 4)
            cells[row][x // 2] |= _DOTS[dot][x % 2]
    labels = {0: f"{top:.3g}", height // 2: f"{top / 2:.3g}", height - 1: "0"}
    rows = ["".join(chr(0x2800 + cell) if cell else " " for cell in row) for row in cells]
    return _framed(rows, labels, steps, width)


def heat(
    values: Callable[[int], Sequence[float]], steps: int, layers: Sequence[int], width: int
) -> str:
    """`values`, one in [0, 1] for each layer, of the updates 0 to steps − 1 in shades: a line for
    each of `layers`, the deepest on top, with axes."""
    columns = [values(step) for step in _sampled(steps, width - _MARGIN - 1)]
    rows = ["".join(_shade(column[l - 1]) for column in columns) for l in reversed(layers)]
    labels = {row: f"layer {l}" for row, l in enumerate(reversed(layers))}
    return _framed(rows, labels, steps, width)


def _shade(value: float) -> str:
    if value >= 1.0:
        return _SHADES[4]
    return _SHADES[0] if value <= 0.0 else _SHADES[1 + int(3.0 * value)]


def _sampled(steps: int, columns: int) -> list[int]:
    """An update for each column, the first and the last among them."""
    return [round(i * (steps - 1) / max(1, columns - 1)) for i in range(columns)]


def _framed(rows: Sequence[str], labels: dict[int, str], steps: int, width: int) -> str:
    lines = [
        f"{labels.get(i, ''):>{_MARGIN - 1}} {'┤' if i in labels else '│'}{row}".rstrip()
        for i, row in enumerate(rows)
    ]
    ticks = _ticks(steps, width - _MARGIN - 1)
    axis = "".join("┬" if column in ticks else "─" for column in range(width - _MARGIN - 1))
    below = [" "] * width
    for column, label in ticks.items():
        begin = min(max(_MARGIN + 1 + column - len(label) // 2, 0), width - len(label))
        below[begin : begin + len(label)] = label
    return "\n".join([*lines, f"{'':>{_MARGIN}}└{axis}", "".join(below).rstrip()])


def _ticks(steps: int, columns: int) -> dict[int, str]:
    """Round numbers of updates by their column; the last says what they are."""
    last = max(1, steps - 1)
    room = max(2, columns // 12)
    size = 1
    for size in (m * 10**e for e in range(12) for m in (1, 2, 5)):
        if last / size <= room:
            break
    found = {round(at * (columns - 1) / last): short(at) for at in range(0, steps, size)}
    end = max(found)
    return found | {end: f"{found[end]} updates" if len(found) > 1 else found[end]}
