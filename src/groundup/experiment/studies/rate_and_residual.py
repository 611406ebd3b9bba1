"""Warmup of the rate × residual warmup, which nobody has published."""

from __future__ import annotations

from groundup.experiment.studies.arms import of_recipe
from groundup.experiment.studies.scales import GPU
from groundup.experiment.studies.shown import Course, Grid, Lines
from groundup.experiment.studies.study import Claim, Setting, Study

_WARMUPS = {"none": "0", "5%": "0.05", "20%": "0.2"}
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


def _arm(method: str, warmup: str) -> str:
    return f"{method}.warmup-{warmup}"


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
                    _arm(method, w): _arm(method, w)
                    for method in ("pre-ln", "pre-ln-prores")
                    for w in _WARMUPS.values()
                },
            ),
            multiples=(0.5, 1.0),
            seeds=5,
            change=GPU,
        ),
    },
    baselines={
        _arm(f"{placement}-prores", w): _arm(placement, w)
        for placement in _PLACEMENTS
        for w in _WARMUPS.values()
    },
    grids=(
        Grid(
            "Held-out loss by warmup of the rate",
            "method \\ warmup of the rate",
            {
                said: {share: _arm(method, w) for share, w in _WARMUPS.items()}
                for said, method in _METHODS.items()
            },
        ),
    ),
    figures=(
        *(
            Lines(
                f"warmup-{placement}",
                f"Held-out loss by warmup of the rate, {said}",
                "warmup of the rate, % of the run",
                {
                    label: {_arm(method, w): 100 * float(w) for w in _WARMUPS.values()}
                    for label, method in _METHODS.items()
                    if label.startswith(said)
                },
            )
            for placement, said in (("pre-ln", "Pre-LN"), ("post-ln", "Post-LN"))
        ),
        Course(
            "loss",
            "Training loss without warmup of the rate",
            "loss",
            tuple(_arm(method, "0") for method in _METHODS.values()),
        ),
    ),
    claims=tuple(
        claim
        for placement in _PLACEMENTS
        for claim in (
            Claim(_arm(f"{placement}-prores", "0"), _arm(placement, "0"), _LESS),
            Claim(_arm(f"{placement}-prores", "0"), _arm(placement, "0.2"), _LESS),
            *(
                Claim(
                    _arm(f"{placement}-prores", "0"),
                    _arm(placement, "0"),
                    _CHEAPER,
                    bases=(_arm(f"{placement}-prores", longer), _arm(placement, longer)),
                )
                for longer in ("0.05", "0.2")
            ),
            Claim(_arm(placement, "0.05"), _arm(placement, "0"), _STILL),
            Claim(
                _arm(f"{placement}-prores", _USUAL[placement]),
                _arm(placement, _USUAL[placement]),
                _BOTH.format(numbers=_TABLE_2[placement]),
            ),
        )
    ),
)
