"""What a study is: a question, arms to be trained at some scale, and what has been claimed of them.

A study holds no state. What it wants to train next is a function of what has been trained
(`trials.wanted`), so that one which was stopped goes on by being asked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from groundup._check import unknown
from groundup.experiment.studies.arms import Arm, Arms
from groundup.experiment.studies.shown import LOSS, Column, Figure, Grid, Value

Scale = Literal["cpu", "gpu", "paper"]
SCALES: tuple[str, ...] = get_args(Scale)

TUNING_SEED = 0
"""Of the runs that choose a peak rate. It is not reported: a best of several is a lucky one."""


@dataclass(frozen=True)
class Setting:
    """A study at one scale.

    Attributes:
        arms: what is trained.
        multiples: of each arm's own peak rate, those which are tried with `TUNING_SEED`; the best
            one is what the reported seeds are trained with. A single one is not tried first.
        seeds: how many are reported: 1, 2, …
        change: tables of a recipe that this scale changes in every arm.
    """

    arms: Arms
    multiples: tuple[float, ...] = (1.0,)
    seeds: int = 3
    change: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Claim:
    """An ordering that was published, or is expected: the loss of `better` is below `worse`'s.

    With `bases` it is one of differences: what `better` has more than the first base is below what
    `worse` has more than the second one. (Below 0, a lead: the larger lead is the lower.)

    Attributes:
        better, worse: arms.
        source: where it stands, with its numbers.
        bases: an arm that `better` is compared with, and one for `worse`.
    """

    better: str
    worse: str
    source: str
    bases: tuple[str, str] | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        """All of them."""
        return (self.better, self.worse, *(self.bases or ()))

    @property
    def said(self) -> str:
        """In Markdown, as an inequality."""
        if self.bases is None:
            return f"`{self.better}` < `{self.worse}`"
        first, second = self.bases
        return f"`{self.better}` − `{first}` < `{self.worse}` − `{second}`"


@dataclass(frozen=True)
class Study:
    """A question, and how it is answered at each scale.

    Attributes:
        name: what `groundup reproduce` calls it.
        title, question: a heading, and what is asked, in a few sentences.
        settings: by scale.
        claims: what is held against the results.
        baselines: arm → the arm its paired differences are taken from.
        value: what is compared.
        columns: more numbers that the table shows of each arm.
        grids: tables of arms in two dimensions.
        figures: more figures than those that every study has. What was measured in its runs is kept
            where one of these shows it.
        speed: whether the speed of an arm against its baseline's means something.
    """

    name: str
    title: str
    question: str
    settings: Mapping[str, Setting] = field(hash=False)
    claims: tuple[Claim, ...] = ()
    baselines: Mapping[str, str] = field(default_factory=dict, hash=False)
    value: Value = LOSS
    columns: tuple[Column, ...] = ()
    grids: tuple[Grid, ...] = ()
    figures: tuple[Figure, ...] = ()
    speed: bool = False

    def setting(self, scale: str) -> Setting:
        """How it is done at a scale.

        Raises:
            ValueError: naming the scales that it has, if this is none of them.
        """
        if scale not in self.settings:
            raise unknown("scale", scale, self.settings)
        return self.settings[scale]

    def arms(self, scale: str) -> Mapping[str, Arm]:
        """The arms at a scale, by their names."""
        setting = self.setting(scale)
        return setting.arms(setting.change)
