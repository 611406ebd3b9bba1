"""Warmup of the rate × residual warmup, which nobody has published."""

from __future__ import annotations

from groundup.experiment.studies.arms import of_recipe
from groundup.experiment.studies.rate_warmups import WARMUPS, arm, cells, lines
from groundup.experiment.studies.scales import GPU
from groundup.experiment.studies.shown import Course, Grid, Lines
from groundup.experiment.studies.study import Claim, Setting, Study

_METHODS = {
    "Pre-LN": "pre-ln",
    "Pre-LN, ProRes": "pre-ln-prores",
    "Post-LN": "post-ln",
    "Post-LN, ProRes": "post-ln-prores",
}
_PLACEMENTS = ("pre-ln", "post-ln")
_LESS = "not published; expected if residual warmup does what warmup of the rate does"
_STILL = "not published; expected if warmup of the rate is needed without residual warmup"
_CHEAPER = "not published; expected if less warmup of the rate is needed with residual warmup"
_BOTH = "arXiv:2603.05369, Table 2, perplexity at 130M, the rate warmed up over {numbers}"
_TABLE_2 = {"pre-ln": "2%: 14.30 < 14.67", "post-ln": "10%: 14.72 < 14.84"}
_USUAL = {"pre-ln": "0.05", "post-ln": "0.2"}


STUDY = Study(
    name="rate-and-residual",
    title="Warmup of the rate and residual warmup",
    question=(
        "Does one need less warmup of the rate with residual warmup? Every arm has its own best of "
        "the peak rates that were tried. The question is of an interaction: is what the loss rises "
        "by without a warmup of the rate smaller with ProRes than without (the claims on "
        "differences; in the figure, a flatter line)? Judged, too: whether ProRes without any "
        "warmup of the rate is below no warmup at all, whether it replaces one (below the longest "
        "without ProRes), and whether a warmup of the rate is needed to begin with."
    ),
    settings={
        "cpu": Setting(
            of_recipe("studies/rate-and-residual"), multiples=(0.5, 1.0, 2.0, 4.0), seeds=5
        ),
        "gpu": Setting(
            of_recipe(
                "studies/rate-and-residual",
                {
                    arm(method, w): arm(method, w)
                    for method in ("pre-ln", "pre-ln-prores")
                    for w in WARMUPS.values()
                },
            ),
            multiples=(0.5, 1.0),
            seeds=5,
            change=GPU,
        ),
    },
    baselines={
        arm(f"{placement}-prores", w): arm(placement, w)
        for placement in _PLACEMENTS
        for w in WARMUPS.values()
    },
    grids=(
        Grid(
            "Held-out loss by warmup of the rate",
            "method \\ warmup of the rate",
            cells(_METHODS),
        ),
    ),
    figures=(
        *(
            Lines(
                f"warmup-{placement}",
                f"Held-out loss by warmup of the rate, {said}",
                "warmup of the rate, % of the run",
                lines({label: m for label, m in _METHODS.items() if label.startswith(said)}),
            )
            for placement, said in (("pre-ln", "Pre-LN"), ("post-ln", "Post-LN"))
        ),
        Course(
            "loss",
            "Training loss without warmup of the rate",
            "loss",
            tuple(arm(method, "0") for method in _METHODS.values()),
        ),
    ),
    claims=tuple(
        claim
        for placement in _PLACEMENTS
        for claim in (
            Claim(arm(f"{placement}-prores", "0"), arm(placement, "0"), _LESS),
            Claim(arm(f"{placement}-prores", "0"), arm(placement, "0.2"), _LESS),
            *(
                Claim(
                    arm(f"{placement}-prores", "0"),
                    arm(placement, "0"),
                    _CHEAPER,
                    bases=(arm(f"{placement}-prores", longer), arm(placement, longer)),
                )
                for longer in ("0.05", "0.2")
            ),
            Claim(arm(placement, "0.05"), arm(placement, "0"), _STILL),
            Claim(
                arm(f"{placement}-prores", _USUAL[placement]),
                arm(placement, _USUAL[placement]),
                _BOTH.format(numbers=_TABLE_2[placement]),
            ),
        )
    ),
)
