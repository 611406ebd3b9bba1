"""Pieces of HTML: escaped text, tables, data for the page's script."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["bullets", "details", "escape", "grid", "json_block"]

# What could end a script element or open a comment in one is written as an escape of JSON's.
_UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def escape(text: str) -> str:
    """Escaped for HTML, control characters made visible."""
    return html.escape(
        "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text), quote=True
    )


def grid(head: Sequence[str], rows: Iterable[Sequence[str]], name: str = "numbers") -> str:
    """A table; `head` is plain text, cells are HTML already."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="{name}"><thead><tr>{top}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def bullets(lines: Iterable[str], name: str) -> str:
    """A list of plain sentences; nothing for none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="{name}">{items}</ul>' if items else ""


def details(summary: str, content: str) -> str:
    """`content`, HTML already, that shows when the plain `summary` is opened."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}</details>"


def json_block(value: Any, name: str) -> str:
    """Data for the script: JSON in pure ASCII that no parser of HTML can take for markup."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_UNSAFE)
    return f'<script type="application/json" class="{name}">{text}</script>'
