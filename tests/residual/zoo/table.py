"""The table of docs/architectures.md, made from the specimens."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from groundup.residual import find_branches
from tests.residual.zoo import SPECIMENS
from tests.residual.zoo.specimen import Specimen

PAGE = Path(__file__).parents[3] / "docs" / "architectures.md"
_BEGIN, _END = "<!-- table: begin -->", "<!-- table: end -->"
_HEAD = """\
| architecture | library | layer | its branches end in | stacks |
| --- | --- | --- | --- | --- |
"""


def table() -> str:
    """Markdown: one line for the architectures that have their layers in common."""
    lines: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for specimen in SPECIMENS:
        if specimen.patterns is None:
            lines[_facts(specimen)].append(specimen.name)
    return _HEAD + "".join(
        f"| {'; '.join(names)} | {' | '.join(facts)} |\n" for facts, names in lines.items()
    )


def _facts(specimen: Specimen) -> tuple[str, ...]:
    """Library, classes of layers, ends of branches with a remark, stacks."""
    found = find_branches(specimen.make(), None)
    layers = dict.fromkeys(type(branch.block).__name__ for branch in found)
    ends = dict.fromkeys(branch.end.path for branch in found)
    stacks = dict.fromkeys(branch.stack for branch in found)
    remark = f" ({specimen.remark})" if specimen.remark else ""
    return specimen.library, _code(layers), _code(ends) + remark, _code(stacks)


def _code(names: dict[str, None]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def on_page(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{table()}{_END}{after}"
