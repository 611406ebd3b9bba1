"""Schedules of the residual warmup and their lengths: Table 6 of arXiv:2603.05369."""

from __future__ import annotations

from groundup.experiment.studies.arms import of_recipe
from groundup.experiment.studies.scales import GPU
from groundup.experiment.studies.shown import Course, Grid, Lines
from groundup.experiment.studies.study import Claim, Setting, Study

_TABLE_6 = "arXiv:2603.05369, Table 6, perplexity at 350M: "
_EXPECTED = "not published; expected if "
_OF_60K = {"2": "1k", "5": "3k", "10": "6k", "20": "12k", "80": "48k"}
_SCHEDULES = ("linear", "linear-square", "equal", "reverse", "stagewise-0", "stagewise-L")
_FIXED = {"fix-sqrt-l": "fix-sqrt-layer"}
_PRE = (
    "pre-ln",
    *(f"pre-ln-linear-{percent}" for percent in _OF_60K),
    "pre-ln-equal-2",
    *(f"pre-ln-{name}" for name in (*_SCHEDULES, *_FIXED)),
)
_POST = ("post-ln", *(f"post-ln-{name}" for name in (*_SCHEDULES, *_FIXED)))
_ON_GPU = (
    *_PRE,
    *("post-ln", "post-ln-linear", "post-ln-linear-square", "post-ln-stagewise-L"),
    *("pre-ln-stagewise-0-skip", "pre-ln-cascade-skip"),
)
_PAPER = {
    **{placement: placement for placement in ("pre-ln", "post-ln")},
    **{f"pre-ln-linear-{percent}": f"pre-ln-linear-{k}" for percent, k in _OF_60K.items()},
    "pre-ln-equal-2": "pre-ln-equal-1k",
    **{f"{p}-{name}": f"{p}-{name}-24k" for p in ("pre-ln", "post-ln") for name in _SCHEDULES},
    **{f"{p}-{name}": f"{p}-{own}" for p in ("pre-ln", "post-ln") for name, own in _FIXED.items()},
}
_LENGTHS = {
    **{f"pre-ln-linear-{percent}": float(percent) for percent in _OF_60K},
    "pre-ln-linear": 40.0,
}
_OWN = {
    "pre-ln-stagewise-0-skip": "pre-ln-stagewise-0",
    "pre-ln-stagewise-0-strong-decay": "pre-ln-strong-decay",
    "pre-ln-stagewise-0-strong-decay-skip": "pre-ln-strong-decay",
    "pre-ln-cascade": "pre-ln",
    "pre-ln-cascade-skip": "pre-ln",
    "pre-ln-cascade-skip-longer": "pre-ln",
}

STUDY = Study(
    name="schedules",
    title="Schedules and lengths of the residual warmup",
    question=(
        "Which course of α, and how long? Unless an arm's name says a percentage, all layers are "
        "at 1 after 40% of the run, as after 24k of 60k updates in Table 6. Why is `stagewise-0` "
        "bad: does weight decay wear down the layers that wait (`strong-decay`: 30 times the decay "
        "for a run that is so much shorter), or does Adam begin with empty moments? With "
        "`skip` weights and moments of a waiting layer stay untouched, and it is not computed. If "
        "that does not help, it is the time that deep layers lose. `cascade` starts a layer before "
        "the one below has ended; `longer` makes the updates for which not computing "
        "the waiting layers leaves the time."
    ),
    settings={
        "cpu": Setting(of_recipe("studies/schedules"), multiples=(0.5, 1.0, 2.0)),
        # 2e-3, the paper's rate at this width, and half of it for Post-LN.
        "gpu": Setting(
            of_recipe("studies/schedules", {name: name for name in _ON_GPU}), (0.5,), change=GPU
        ),
        "paper": Setting(of_recipe("c4-350m-schedules", _PAPER), seeds=1),
    },
    baselines={
        **dict.fromkeys(_PRE[1:], "pre-ln"),
        **dict.fromkeys(_POST[1:], "post-ln"),
        **_OWN,
    },
    grids=(
        Grid(
            "Held-out loss by schedule",
            "placement",
            {
                said: {"none": p} | {name: f"{p}-{name}" for name in (*_SCHEDULES, *_FIXED)}
                for said, p in (("Pre-LN", "pre-ln"), ("Post-LN", "post-ln"))
            },
        ),
    ),
    figures=(
        Lines(
            "length",
            "Held-out loss by length of the warmup, Pre-LN",
            "updates until all layers are at 1, % of the run",
            {"linear": _LENGTHS, "equal": {"pre-ln-equal-2": 2.0, "pre-ln-equal": 40.0}},
            log=True,
        ),
        Course(
            "waiting",
            "Training loss, Pre-LN",
            "loss",
            ("pre-ln", "pre-ln-linear", "pre-ln-stagewise-0", "pre-ln-stagewise-0-skip"),
        ),
    ),
    claims=(
        Claim("pre-ln-linear", "pre-ln", _TABLE_6 + "14.43 < 15.21"),
        Claim("pre-ln-linear-2", "pre-ln", _TABLE_6 + "warmup 1k of 60k, 14.60 < 15.21"),
        Claim("pre-ln-linear-80", "pre-ln", _TABLE_6 + "warmup 48k of 60k, 14.57 < 15.21"),
        Claim("pre-ln-linear-20", "pre-ln-linear-2", _TABLE_6 + "12k against 1k, 14.41 < 14.60"),
        Claim("pre-ln-linear", "pre-ln-equal", _TABLE_6 + "14.43 < 15.29"),
        Claim("pre-ln-equal-2", "pre-ln-equal", _TABLE_6 + "1k against 24k, 14.79 < 15.29"),
        Claim("pre-ln", "pre-ln-equal", _TABLE_6 + "15.21 < 15.29"),
        Claim("pre-ln", "pre-ln-reverse", _TABLE_6 + "15.21 < 15.65"),
        Claim("pre-ln", "pre-ln-stagewise-0", _TABLE_6 + "15.21 < 19.51"),
        Claim("pre-ln", "pre-ln-stagewise-L", _TABLE_6 + "15.21 < 15.35"),
        Claim("pre-ln-fix-sqrt-l", "pre-ln", _TABLE_6 + "14.98 < 15.21"),
        Claim("pre-ln-linear", "pre-ln-fix-sqrt-l", _TABLE_6 + "14.43 < 14.98"),
        Claim("post-ln-linear", "post-ln", _TABLE_6 + "15.12 < 16.83"),
        Claim("post-ln-linear-square", "post-ln-linear", _TABLE_6 + "14.84 < 15.12"),
        Claim("post-ln-stagewise-L", "post-ln-linear", _TABLE_6 + "15.09 < 15.12"),
        Claim("post-ln-fix-sqrt-l", "post-ln", _TABLE_6 + "16.21 < 16.83"),
        *(
            Claim("post-ln", f"post-ln-{name}", _TABLE_6 + "16.83 < diverged")
            for name in ("equal", "reverse", "stagewise-0")
        ),
        Claim(
            "pre-ln-stagewise-0-skip",
            "pre-ln-stagewise-0",
            _EXPECTED + "weight decay or empty moments harm the layers that wait",
        ),
        Claim(
            "pre-ln-stagewise-0-strong-decay-skip",
            "pre-ln-stagewise-0-strong-decay",
            _EXPECTED + "weight decay, with more of it, harms the layers that wait",
        ),
        Claim(
            "pre-ln-stagewise-0",
            "pre-ln-stagewise-0-strong-decay",
            _EXPECTED + "weight decay is what makes `stagewise-0` bad",
            bases=("pre-ln", "pre-ln-strong-decay"),
        ),
        Claim(
            "pre-ln-cascade-skip",
            "pre-ln",
            _EXPECTED + "`cascade` warms up as well as `linear`; at equal tokens",
        ),
        Claim(
            "pre-ln-cascade-skip-longer",
            "pre-ln",
            _EXPECTED + "it does; at about equal time",
        ),
        *(
            Claim(arm, "pre-ln-linear", _EXPECTED + f"`cascade` is the better way; at {equal}")
            for arm, equal in (
                ("pre-ln-cascade-skip", "equal tokens"),
                ("pre-ln-cascade-skip-longer", "about equal time"),
            )
        ),
    ),
    speed=True,
)
