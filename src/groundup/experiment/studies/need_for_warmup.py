"""How much warmup of the rate optimizers need that bound the early update: arXiv:2410.23922."""

from __future__ import annotations

from groundup.experiment.studies.arms import of_recipe
from groundup.experiment.studies.rate_warmups import WARMUPS, arm, cells, lines
from groundup.experiment.studies.scales import GPU
from groundup.experiment.studies.shown import Course, Grid, Lines
from groundup.experiment.studies.study import Claim, Setting, Study

_OPTIMIZERS = {
    "AdamW": "adamw",
    "AdamW, no bias correction": "adamw-no-correction",
    "AdamW, inverse bias correction": "adamw-inverse",
    "Lion": "lion",
    "LionA": "liona",
    "LionA, β = 0.98, Nesterov, inverse": "liona-nesterov-inverse",
    "LionAR": "lionar",
    "LionAR, β = 0.98, Nesterov, inverse": "lionar-nesterov-inverse",
    "LionAR, no momentum": "lionar-no-momentum",
    "LionAR + RRC": "lionar-rrc",
}
_PUBLISHED = (
    *("adamw", "liona", "lionar", "lionar-rrc", "lionar-no-momentum"),
    *("lionar-nesterov-inverse", "liona-nesterov-inverse"),
)
_ON_GPU = ("adamw", "liona", "lionar", "lionar-nesterov-inverse", "liona-nesterov-inverse")
_BEST = "lionar-nesterov-inverse"
_PAPER = "arXiv:2410.23922, as its summaries tell it: "
_ADAMW = _PAPER + "without warmup AdamW ends behind"
_LIONA = _PAPER + "bounding the norm of updates is not enough"
_LIONAR = _PAPER + "bounding the angle helps, but not fully"
_RRC = _PAPER + "with the RRC correction LionAR still gains from warmup"
_NONE = _PAPER + "β = 0.98, Nesterov and inverse bias correction are best without warmup"
_NOT_LIONA = _PAPER + "and the same for LionA is not enough"
_MOMENTUM = _PAPER + "removing momentum hurts"


_FIRST = tuple(
    arm(name, "0")
    for name in ("adamw", "adamw-no-correction", "lion", "liona", "lionar", _BEST, "lionar-rrc")
)
_UNTIL = 100  # updates

STUDY = Study(
    name="need-for-warmup",
    title="The need for warmup of the rate, by optimizer",
    question=(
        "Which bound on the first updates makes warmup of the rate unnecessary? On the trapezoid "
        "with a cooldown over half of the run, without residual warmup; every optimizer with every "
        "warmup has its own best rate. LionA, LionAR and the RRC correction are derived from the "
        "paper's description (derivations.md), so it is no exact reproduction. That too little "
        "warmup costs more at higher rates is to be read from the rates that were tried."
    ),
    settings={
        "cpu": Setting(of_recipe("studies/need-for-warmup"), multiples=(1.0, 2.0, 4.0), seeds=5),
        "gpu": Setting(
            of_recipe(
                "studies/need-for-warmup",
                {arm(name, w): arm(name, w) for name in _ON_GPU for w in ("0", "0.2")},
            ),
            multiples=(0.25, 0.5, 1.0),
            change=GPU | {"measure": {"every": 10}},
        ),
        # 1.2e-3 and its half and double are the three peak rates of the recipe.
        "paper": Setting(
            of_recipe(
                "gpt2-need-for-warmup",
                {
                    arm(name, w): f"{name}.peak-0.0012.warmup-{w}"
                    for name in _PUBLISHED
                    for w in WARMUPS.values()
                },
            ),
            multiples=(0.5, 1.0, 2.0),
            seeds=1,
        ),
    },
    baselines={
        arm(name, w): arm(name, "0") for name in _OPTIMIZERS.values() for w in ("0.05", "0.2")
    },
    grids=(
        Grid(
            "Held-out loss by warmup",
            "optimizer \\ warmup",
            cells(_OPTIMIZERS),
        ),
    ),
    figures=(
        *(
            Lines(
                f"warmup-{family}",
                f"Held-out loss by warmup of the rate, {said}",
                "warmup, % of the run",
                lines(
                    {
                        label: name
                        for label, name in _OPTIMIZERS.items()
                        if label.startswith("LionA") == (family == "bounded")
                    }
                ),
            )
            for family, said in (("usual", "AdamW and Lion"), ("bounded", "LionA and LionAR"))
        ),
        Course("norm", "Norm of the first updates", "update_norm", _FIRST, _UNTIL, log=True),
        Course("angle", "Angle of the rows, first updates", "row_angle", _FIRST, _UNTIL, log=True),
        Course("phi", "Signal to noise φ, first updates", "phi", _FIRST, _UNTIL, log=True),
        Course("rrc", "Change of representations", "rrc", _FIRST, _UNTIL, log=True),
        Course("loss", "Training loss without warmup", "loss", _FIRST),
    ),
    claims=(
        Claim(arm("adamw", "0.05"), arm("adamw", "0"), _ADAMW),
        Claim(arm("adamw", "0.2"), arm("adamw", "0"), _ADAMW),
        Claim(arm("liona", "0.05"), arm("liona", "0"), _LIONA),
        Claim(arm("lionar", "0"), arm("liona", "0"), _LIONAR),
        Claim(arm("lionar", "0.05"), arm("lionar", "0"), _LIONAR),
        Claim(arm("lionar-rrc", "0.05"), arm("lionar-rrc", "0"), _RRC),
        Claim(arm(_BEST, "0"), arm(_BEST, "0.05"), _NONE),
        Claim(arm(_BEST, "0"), arm(_BEST, "0.2"), _NONE),
        Claim(arm(_BEST, "0"), arm("lionar", "0"), _NONE),
        # What no warmup costs, of one optimizer and of another.
        *(
            Claim(
                arm(one, "0"),
                arm(other, "0"),
                source,
                bases=(arm(one, "0.05"), arm(other, "0.05")),
            )
            for one, other, source in (("lionar", "liona", _LIONAR), (_BEST, "adamw", _NONE))
        ),
        Claim(
            arm("liona-nesterov-inverse", "0.05"), arm("liona-nesterov-inverse", "0"), _NOT_LIONA
        ),
        Claim(arm("lionar", "0"), arm("lionar-no-momentum", "0"), _MOMENTUM),
    ),
)
