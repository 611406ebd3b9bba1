"""Residual warmup in runs of thousands of updates."""

from __future__ import annotations

from groundup.experiment.studies.arms import of_recipe
from groundup.experiment.studies.scales import GPU
from groundup.experiment.studies.shown import Course, Layers
from groundup.experiment.studies.study import Claim, Setting, Study

_ARMS = ("none", "linear", "cascade")

STUDY = Study(
    name="longer",
    title="Six times as many updates",
    question=(
        "Do the leads of the other studies, of a few hundred updates, last? Pre-LN, the model of "
        "`schedules`. `linear`: a layer has 1% of the run, as in most of the paper's. `cascade`: "
        "layers wait, not computed, the last one for 30% of the run, and all are at 1 after 40%. "
        "And are more layers in use than in so short a run? What a layer is worth is what the loss "
        "rises by without its branches."
    ),
    settings={
        "cpu": Setting(of_recipe("studies/longer"), multiples=(0.5, 1.0, 2.0), seeds=5),
        # Up to the paper's rate at this width.
        "gpu": Setting(
            of_recipe("studies/longer"),
            multiples=(0.25, 0.5),
            seeds=5,
            change=GPU | {"train": GPU["train"] | {"steps": 4500, "eval_every": 500}},
        ),
    },
    baselines={"linear": "none", "cascade": "none"},
    figures=(
        Course(
            "course",
            "Held-out loss over the run, difference to no warmup",
            "evaluation",
            _ARMS[1:],
            paired=True,
        ),
        Layers(
            "worth",
            "What the loss rises by without a layer, nats, at the end",
            "skip_loss/layers",
            _ARMS,
            log=True,
        ),
    ),
    claims=(
        Claim("linear", "none", "not published at this size; the paper's finding"),
        Claim("cascade", "none", "not published; expected if its lead lasts, at equal tokens"),
        Claim("cascade", "linear", "not published; expected if `cascade` is the better way"),
    ),
    speed=True,
)
