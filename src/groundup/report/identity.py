"""Which results are of the very same evaluation, and what to call one of several alike."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Identity", "identity", "labels"]

# The settings that numbers depend on, as a label says them.
_SAID = {
    "limit": "first {}",
    "source": "{}",
    "file": "{}",
    "form": "{}",
    "shots": "shots {}",
    "stride": "stride {}",
    "stream": "stream",
    "length": "length {}",
    "precision": "{}",
}
_ALWAYS = "limit"  # said also where nothing else has the name


@dataclass(frozen=True)
class Identity:
    """What was evaluated, and how: results of one identity are comparable between models.

    Attributes:
        name: of the text or task.
        what: the kind of evaluation.
        settings: the values of the settings that numbers depend on, None where one is not there.
    """

    name: str
    what: str
    settings: tuple[Hashable, ...]

    def setting(self, field: str) -> Hashable:
        """One of the settings."""
        return self.settings[list(_SAID).index(field)]


def identity(key: str, result: Mapping[str, Any], among: Mapping[str, Any]) -> Identity:
    """Of a result that stands under `key` in the results of one model, `among`.

    A result of a version that did not store its name has that of its key, without the number that
    told it from another.
    """
    name = result.get("name")
    if name is None:
        numbered = re.fullmatch(r"(.+)-\d+", key)
        name = numbered[1] if numbered and numbered[1] in among else key
    return Identity(str(name), str(result["what"]), tuple(_plain(result.get(f)) for f in _SAID))


def labels(found: Iterable[Identity]) -> dict[Identity, str]:
    """What to call each: its name, how little was read if not all was, and whatever else differs
    from another one of that name."""
    alike: dict[str, list[Identity]] = {}
    for one in found:
        alike.setdefault(one.name, []).append(one)
    return {one: _label(one, group) for group in alike.values() for one in group}


def _label(one: Identity, group: list[Identity]) -> str:
    kind = f", {one.what}" if len({other.what for other in group}) > 1 else ""
    said = []
    for field, form in _SAID.items():
        value, values = one.setting(field), {other.setting(field) for other in group}
        if value is not None and value is not False and (field == _ALWAYS or len(values) > 1):
            said.append(form.format(_tail(str(value), values)))
    return f"{one.name}{kind}" + (f" ({', '.join(said)})" if said else "")


def _tail(value: str, values: Iterable[Hashable]) -> str:
    """Of a path its last names only, as many as tell it from the others."""
    paths = {str(other) for other in values}
    deepest = max(path.count("/") for path in paths)
    for names in range(1, deepest + 1):
        tails = {_last(path, names) for path in paths}
        if len(tails) == len(paths):
            return _last(value, names)
    return value


def _last(path: str, names: int) -> str:
    return "/".join(path.split("/")[-names:])


def _plain(value: Any) -> Hashable:
    return value if isinstance(value, str | int | float | None) else repr(value)
