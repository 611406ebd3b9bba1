"""Clocks, time zones, languages and names that are not the usual ones."""

from __future__ import annotations

from collections.abc import Generator, Mapping

from faults.ends import is_the_same
from faults.moments import cut_off
from faults.place import Place
from faults.registry import Act, demand, fault

# ASCII in, ASCII out, and no UTF-8 mode to the rescue.
_ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def under(inject: str = "", environment: Mapping[str, str] | None = None) -> Act:
    """A run that is started, killed and ended so."""

    def act(place: Place, times: int) -> Generator[str, None, str]:
        for _ in range(times):
            folder = place.folder(prepared=False)
            how = {"inject": inject, "environment": environment or {}}
            cut_off(folder, 40, **how)
            ended = folder.finish(**how)
            demand(ended.code == 0, f"exit {ended.code}:\n{ended.said[-3000:]}")
            is_the_same(place, folder)
            yield "killed and carried on as usual"
        return "ended as undisturbed"

    return act


fault("clock-back", "clock set back", "an hour at each look at time.time() (injected code)", 2)(
    under(inject="clock-back:0")
)
fault("time-zone", "odd time zone", "TZ=:/nowhere/at/all", 1)(
    under(environment={"TZ": ":/nowhere/at/all"})
)
fault(
    "locale",
    "ASCII locale",
    "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0: output and file names are ASCII to Python",
    2,
)(under(environment=_ASCII))
fault("locale-unknown", "unknown locale", "LC_ALL=xx_YY.KOI8-X", 1)(
    under(environment={"LC_ALL": "xx_YY.KOI8-X"})
)


@fault(
    "names",
    "odd names",
    "texts and run in folders with spaces, quotes, Greek and emoji, also under LC_ALL=C",
    times=2,
)
def names(place: Place, times: int) -> Generator[str, None, str]:
    for turn in range(times):
        folder = place.folder(data__source="täxte 'α' 🙂", prepared=False)
        folder.run = folder.path / 'rün "α" [bold] 🙂'
        command = ("train", "recipe.toml", "--out", folder.run.name)
        how = {"command": command, "environment": {"LC_ALL": "C"} if turn % 2 else {}}
        cut_off(folder, 40, **how)
        ended = folder.finish(**how)
        demand(ended.code == 0, f"exit {ended.code}:\n{ended.said[-3000:]}")
        yield "killed and carried on as usual"
        is_the_same(place, folder)
    return "ended as undisturbed"
