"""Placement of the norms × residual warmup: Table 2 of arXiv:2603.05369."""

from __future__ import annotations

from groundup.experiment.studies.arms import of_recipe
from groundup.experiment.studies.scales import GPU
from groundup.experiment.studies.study import Claim, Setting, Study

_TABLE_2 = "arXiv:2603.05369, Table 2, perplexity at 130M / 350M / 1.3B: "
_METHODS = ("pre-ln", "sandwich-ln", "lns", "deepnorm", "post-ln")

STUDY = Study(
    name="placement",
    title="Placement of the norms, without and with residual warmup",
    question=(
        "Does residual warmup lower the loss wherever the norms stand, and most for Post-LN?"
    ),
    settings={
        "cpu": Setting(of_recipe("studies/placement"), multiples=(0.5, 1.0, 2.0, 4.0), seeds=5),
        "gpu": Setting(of_recipe("studies/placement"), (0.5, 1.0), seeds=3, change=GPU),
        "paper": Setting(
            of_recipe(
                "c4-130m",
                {name: name for method in _METHODS for name in (method, f"{method}-prores")},
            ),
            seeds=1,
        ),
    },
    baselines={
        **{f"{method}-prores": method for method in _METHODS},
        "post-ln-linear-square": "post-ln",
        "post-ln-stagewise-L": "post-ln",
    },
    claims=(
        Claim("pre-ln-prores", "pre-ln", _TABLE_2 + "14.30 < 14.67, 11.74 < 12.36, 9.86 < 10.32"),
        Claim(
            "sandwich-ln-prores",
            "sandwich-ln",
            _TABLE_2 + "14.50 < 14.55, 11.78 < 11.97, 9.94 < 10.16",
        ),
        Claim("lns-prores", "lns", _TABLE_2 + "14.22 < 14.45, 11.62 < 11.74, 9.89 < 9.93"),
        Claim(
            "deepnorm-prores", "deepnorm", _TABLE_2 + "14.45 < 14.57, 11.97 < 12.38, 10.09 < 10.32"
        ),
        Claim(
            "post-ln-prores", "post-ln", _TABLE_2 + "14.72 < 14.84, 11.92 < 12.74, 10.53 < 11.62"
        ),
        Claim("lns", "pre-ln", _TABLE_2 + "14.45 < 14.67, 11.74 < 12.36, 9.93 < 10.32"),
        Claim("sandwich-ln", "pre-ln", _TABLE_2 + "14.55 < 14.67, 11.97 < 12.36, 10.16 < 10.32"),
        Claim("pre-ln", "post-ln", _TABLE_2 + "14.67 < 14.84, 12.36 < 12.74, 10.32 < 11.62"),
        Claim(
            "post-ln-linear-square",
            "post-ln-prores",
            "arXiv:2603.05369, Table 6, 350M, warmup over 40% of the run (here 24%): 14.84 < 15.12",
        ),
        Claim(
            "post-ln-stagewise-L",
            "post-ln-prores",
            "arXiv:2603.05369, Table 6, 350M, warmup over 40% of the run (here 24%): 15.09 < 15.12",
        ),
    ),
)
