"""Damage to JSON and TOML that are still JSON and TOML, or nearly: other types, other names, twice
the same name, numbers too large, nesting too deep, text that is none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from random import Random
from typing import Any, get_type_hints

from groundup.train import Recipe

DEEP = 100_000
_TEXTS = (
    "", " ", "\0", "\u2028", "é", "e\u0301", "日本語", "\U0001f600", "\u202e", "a\nb", "../x", "/",
    "nan", "None", "true", "0", "%s", "{0}", "$(x)", "<script>", "2%", "1e999 tokens", "3M tokens",
    "-5 steps", "linear", "__class__", "x" * 100_000,
)  # fmt: skip
_NUMBERS = (
    "0", "-0", "-1", "1", "2", "7", "1.5", "-0.0", "1e-320", "1e308", "1e999", "-1e999", "0.1",
    "65536", "2147483648", "9223372036854775807", "9223372036854775808", "18446744073709551616",
    "1" + "0" * 30, "1" + "0" * 400, "9" * 5000,
)  # fmt: skip
_JSON = ("null", "true", "false", "[]", "{}", "[1]", '["a"]', '{"a": 1}', "NaN", "Infinity",
         "-Infinity", r'"\ud800"', r'"\udc00x"', r'"\u0000"', '[[], {}, null]')  # fmt: skip
_TOML = ("true", "false", "[]", "{}", "[1]", '["a"]', "[1, 'a', 2.0]", "{a = 1}", "nan", "inf",
         "-inf", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "'''a\nb'''", "0x10", "1_000",
         "[[], [1]]", "{a = {b = {c = []}}}", "[nan, 0.9]", "[0.9, 2]")  # fmt: skip


class Pairs(list[tuple[str, Any]]):
    """A JSON object, in which a name may stand twice."""


class Raw(str):
    """A piece of JSON as it stands."""

    __slots__ = ()


def damage_json(text: str, draw: Random) -> str:
    """A JSON text with one or two of its values, names or objects changed."""
    tree = json.loads(text, object_pairs_hook=Pairs)
    for _ in range(draw.choice((1, 1, 2))):
        tree = _changed(tree, draw)
    return dump(tree)


def damage_lines(text: str, draw: Random) -> str:
    """The same in one line of a JSONL text, or a line moved, doubled or left out."""
    lines = text.splitlines(keepends=True)
    place = draw.randrange(len(lines))
    change = draw.choice((None, None, None, lambda: lines.pop(place),
                          lambda: lines.insert(draw.randrange(len(lines)), lines[place]),
                          lambda: lines.insert(place, "\n")))  # fmt: skip
    if change is None:
        lines[place] = damage_json(lines[place], draw) + "\n"
    else:
        change()
    return "".join(lines)


def dump(tree: Any) -> str:
    if isinstance(tree, Raw):
        return str(tree)
    if isinstance(tree, Pairs):
        return "{" + ", ".join(f"{json.dumps(name)}: {dump(v)}" for name, v in tree) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(dump, tree)) + "]"
    return json.dumps(tree)


def value(draw: Random, own: tuple[str, ...]) -> str:
    """A value of any kind, as text; `own` are those that only this format has."""
    kind = draw.randrange(4)
    if kind == 0:
        return json.dumps(draw.choice(_TEXTS))
    return draw.choice(_NUMBERS) if kind == 1 else draw.choice(own)


def _changed(tree: Any, draw: Random) -> Any:
    """The tree with a change at a place drawn with a walk down from the root."""
    if isinstance(tree, list) and tree and draw.random() < 0.8:
        place = draw.randrange(len(tree))
        if isinstance(tree, Pairs):
            name, below = tree[place]
            tree[place] = (name, _changed(below, draw))
        else:
            tree[place] = _changed(tree[place], draw)
        return tree
    return draw.choice((_replaced, _replaced, _nested, _renamed, _removed, _doubled))(tree, draw)


def _replaced(tree: Any, draw: Random) -> Any:
    if isinstance(tree, int | float) and draw.random() < 0.5:
        return Raw(draw.choice((str(tree + 1), str(-tree), f"{tree}.0", f'"{tree}"', f"[{tree}]")))
    return Raw(value(draw, _JSON))


def _nested(tree: Any, draw: Random) -> Any:
    depth = draw.choice((1, 3, 500, DEEP))
    a, b = draw.choice((("[", "]"), ('{"a":', "}")))
    return Raw(a * depth + dump(tree) + b * depth)


def _renamed(tree: Any, draw: Random) -> Any:
    if isinstance(tree, Pairs) and tree:
        place = draw.randrange(len(tree))
        tree[place] = (draw.choice(_TEXTS[:-1]), tree[place][1])
    return tree


def _removed(tree: Any, draw: Random) -> Any:
    if isinstance(tree, list) and tree:
        del tree[draw.randrange(len(tree))]
    return tree


def _doubled(tree: Any, draw: Random) -> Any:
    if isinstance(tree, Pairs) and tree:
        name, _ = draw.choice(tree)
        tree.append((name, Raw(value(draw, _JSON))))
    elif isinstance(tree, list):
        tree *= 2
    return tree


def damage_toml(text: str, draw: Random) -> str:
    """A recipe with one or two of its lines changed, or lines more."""
    lines = text.splitlines()
    for _ in range(draw.choice((1, 1, 2))):
        draw.choice(_TOML_CHANGES)(lines, draw)
    return draw.choice(("\n", "\n", "\n", "\r\n")).join(lines) + "\n"


def _a_value(lines: list[str], draw: Random) -> None:
    places = [n for n, line in enumerate(lines) if "=" in line and not line.startswith("#")]
    if places:
        place = draw.choice(places)
        lines[place] = f"{lines[place].partition('=')[0]}= {value(draw, _TOML)}"


def _a_field(lines: list[str], draw: Random) -> None:
    """A field of a recipe that the file may not have; its own line goes, if there is one."""
    table, _, name = draw.choice(FIELDS).rpartition(".")
    found = value(draw, _TOML)
    if not table:
        lines.insert(0, f"{name} = {found}")
        return
    inside = None
    for place, line in enumerate(lines):
        if line.startswith("["):
            inside = place if line.strip() == f"[{table}]" else None
        elif inside is not None and re.match(rf"{name}\s*=", line):
            lines[place] = f"{name} = {found}"
            return
    header = f"[{table}]"
    if header in lines:
        lines.insert(lines.index(header) + 1, f"{name} = {found}")
    else:
        lines += [header, f"{name} = {found}"]


def _a_line(lines: list[str], draw: Random) -> None:
    more = draw.choice((
        "unknown = 1", "[unknown]", "[[unknown]]", "[[variants]]", "[sweep]", "= 1", "[", "a",
        '"a\\u0000" = 1', "[train", "a.b.c = 1", "x = [", 'x = """', "\ufeff", "variants = 1",
        "sweep = 1", "sweep = []", "variants = [1]", "variants = []", "[sweep.train]", "name = 1",
        "x = " + "[" * DEEP, ".".join("a" * 2_000) + " = 1", "x = " + "{a = " * 5_000,
    ))  # fmt: skip
    lines.insert(draw.randrange(len(lines) + 1), more)


def _twice(lines: list[str], draw: Random) -> None:
    lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines or [""]))


def _without(lines: list[str], draw: Random) -> None:
    if lines:
        lines.pop(draw.randrange(len(lines)))


def _swept(lines: list[str], draw: Random) -> None:
    name = draw.choice((*FIELDS, "train", "", "a", "train.steps.x"))
    lines += ["[sweep]", f'"{name}" = [{value(draw, _TOML)}, {value(draw, _TOML)}]']


def _variant(lines: list[str], draw: Random) -> None:
    name = draw.choice(FIELDS)
    lines += ["[[variants]]", f"name = {draw.choice(('x', value(draw, _TOML)))!r}",
              f"{name} = {value(draw, _TOML)}"]  # fmt: skip


_TOML_CHANGES: tuple[Callable[[list[str], Random], None], ...] = (
    _a_value, _a_value, _a_field, _a_field, _a_field, _a_line, _twice, _without, _swept, _variant,
)  # fmt: skip


def _names(kind: type, prefix: str = "") -> list[str]:
    hints = get_type_hints(kind)
    found = []
    for one in fields(kind):
        name = f"{prefix}{one.name}"
        found += _names(hints[one.name], f"{name}.") if is_dataclass(hints[one.name]) else [name]
    return found


FIELDS = tuple(_names(Recipe))
"""The dotted name of every field of a recipe."""
