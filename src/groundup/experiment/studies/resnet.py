"""ResNet-20: what large initial updates do (arXiv:2410.23922)."""

from __future__ import annotations

from groundup.experiment.resnet.config import ARMS
from groundup.experiment.resnet.plan import SCALES, study_arms
from groundup.experiment.studies.shown import Column, Course, Grid, Value
from groundup.experiment.studies.study import Claim, Setting, Study

_PAPER = "arXiv:2410.23922, as its summaries tell it: "
_LARGE = tuple(f"{arm}-128" for arm in ARMS)
_DEAD = "dead_share"
_BY_SCALE = {arm: {f"× {s:g}": f"{arm}-{s:g}" for s in SCALES} for arm in ARMS}


STUDY = Study(
    name="resnet",
    title="ResNet-20: large initial updates",
    question=(
        "The updates of the first epochs are multiplied by 1, 8 or 128. Do they kill ReLUs, does "
        "the damage last, and is it less with frozen biases, random gradients or leaky ReLUs? One "
        "peak rate for all arms, near the best of the unscaled run: a rate tuned for each would "
        "take the multiplier back. AdamW is our choice, since the summaries name no optimizer: "
        "SGD, 128 times its best rate (0.1), diverges within ten updates. Rate and phase were "
        "found by trying, before these runs."
    ),
    settings={
        "cpu": Setting(study_arms("cpu"), seeds=5),
        "gpu": Setting(study_arms("gpu"), seeds=5),
        "paper": Setting(study_arms("paper"), seeds=3),
    },
    value=Value("test error", "", perplexity=False),
    columns=(
        Column("dead ReLUs after the phase, %", "dead_share_after_phase", 1, 100),
        Column("dead ReLUs, %", _DEAD, 1, 100),
        Column("stable rank", "stable_rank", 2),
        Column("norm of the weights over that at the start", "weight_norm", 2),
    ),
    grids=(Grid("Test error", "arm", _BY_SCALE),),
    figures=(
        Course("dead", "Share of dead ReLUs", f"metrics/{_DEAD}", _LARGE),
        Course("rank", "Stable rank of the weights", "metrics/stable_rank", _LARGE),
    ),
    baselines={f"{arm}-{scale:g}": f"{arm}-1" for arm in ARMS for scale in SCALES[1:]},
    claims=(
        Claim("standard-1", "standard-128", _PAPER + "large initial updates do lasting damage"),
        Claim("frozen-biases-128", "standard-128", _PAPER + "less with frozen biases"),
        Claim("random-gradients-128", "standard-128", _PAPER + "less with random gradients"),
        Claim("leaky-relu-128", "standard-128", _PAPER + "less with leaky ReLUs"),
    ),
)
