"""What makes a deep and narrow model learn: initialization, learned factors, residual warmup."""

from __future__ import annotations

from groundup.experiment.studies.arms import of_recipe
from groundup.experiment.studies.scales import GPU
from groundup.experiment.studies.shown import Course, Layers
from groundup.experiment.studies.study import Claim, Setting, Study

_ARMS = ("none", "scaled", "rezero", "cascade", "cascade-scaled")
_EXPECTED = "not published for this setting; expected if "

STUDY = Study(
    name="deep",
    title="Deep models: initialization, learned factors, or residual warmup",
    question=(
        "Of 24 layers, is the lead of a `cascade` that of any way to begin with small branches? "
        "`scaled`: their last matrices begin 1/√(2L) as large, as Megatron's and GPT-2's do; "
        "`rezero`: learned factors of the branches, from 0; `cascade`: layers wait, not computed, "
        "and all are at 1 after 40% of the run; and `cascade` beside `scaled`. Does the lead last, "
        "in runs twice as long as those of `depth`, and which layers are in use?"
    ),
    settings={
        "cpu": Setting(of_recipe("studies/deep"), multiples=(0.5, 1.0, 2.0, 4.0)),
        # Up to the paper's rate at this width.
        "gpu": Setting(
            of_recipe("studies/deep"),
            multiples=(0.125, 0.25, 0.5),
            change=GPU
            | {"model": GPU["model"] | {"layers": 24}, "train": GPU["train"] | {"eval_every": 150}},
        ),
    },
    baselines=dict.fromkeys(_ARMS[1:], "none") | {"cascade-scaled": "scaled"},
    figures=(
        Course(
            "course",
            "Held-out loss over the run, difference to the baseline",
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
        Claim("cascade", "none", _EXPECTED + "the lead seen in `depth` lasts, at equal tokens"),
        Claim("scaled", "none", _EXPECTED + "branches should begin small"),
        Claim("rezero", "none", _EXPECTED + "branches should begin at 0"),
        Claim("cascade", "scaled", _EXPECTED + "a course does what a start does not"),
        Claim(
            "cascade", "rezero", _EXPECTED + "a course that is given is better than a learned one"
        ),
        Claim("cascade-scaled", "scaled", _EXPECTED + "it helps beside a good start, too"),
    ),
    speed=True,
)
