"""What happens inside, without and with residual warmup: Figures 3 and 4 of arXiv:2603.05369."""

from __future__ import annotations

from groundup.experiment.studies.arms import of_recipe
from groundup.experiment.studies.scales import GPU
from groundup.experiment.studies.shown import Course, Layers
from groundup.experiment.studies.study import Claim, Setting, Study

_TABLE_2 = "arXiv:2603.05369, Table 2, perplexity at 130M / 350M / 1.3B: "
_PRE, _POST = ("pre-ln", "pre-ln-prores"), ("post-ln", "post-ln-prores")
_EVERY = (*_PRE, *_POST)

STUDY = Study(
    name="dynamics",
    title="Norms, similarity to the final model, and what layers are worth",
    question=(
        "Do the first layers settle first, do activations grow less with depth, and are more "
        "layers in use, where the residual branches warm up? Measured of every reported run; "
        "figures show means over seeds, and the seeds. Similarity is the cosine between what a "
        "branch gives and what it gives at the end of the run, on the same inputs; what a layer is "
        "worth is what the loss rises by without its branches."
    ),
    settings={
        "cpu": Setting(of_recipe("studies/dynamics"), multiples=(0.5, 1.0, 2.0), seeds=5),
        # Up to the paper's rate at this width.
        "gpu": Setting(of_recipe("studies/dynamics"), (0.125, 0.25), seeds=5, change=GPU),
        "paper": Setting(of_recipe("c4-1.3b", {name: name for name in _EVERY}), seeds=1),
    },
    baselines={"pre-ln-prores": "pre-ln", "post-ln-prores": "post-ln"},
    figures=(
        Layers(
            "norm",
            "Norm of the stream after each layer at the end, Pre-LN",
            "stream_norm/layers",
            _PRE,
            log=True,
        ),
        Course(
            "norm-course",
            "Norm of the stream over the run, mean of the layers, Pre-LN",
            "stream_norm/layers",
            _PRE,
            log=True,
        ),
        Layers(
            "attention-share",
            "What attention adds over what was there, at the end",
            "branch_ratio/attention/layers",
            _EVERY,
            log=True,
        ),
        Layers(
            "similarity-attention",
            "Attention at half of the run: cosine with its end",
            "similarity/attention",
            _EVERY,
            at=0.5,
        ),
        Layers(
            "similarity-feed-forward",
            "Feed-forward at half of the run: cosine with its end",
            "similarity/feed_forward",
            _EVERY,
            at=0.5,
        ),
        Course(
            "similarity-course",
            "Attention: cosine with the end, mean of the layers",
            "similarity/attention",
            _EVERY,
        ),
        Layers(
            "worth",
            "What the loss rises by without a layer, nats, at the end",
            "skip_loss/layers",
            _EVERY,
            log=True,
        ),
        Course(
            "updates",
            "Size of the updates, ‖Δw‖/‖w‖",
            "relative_update",
            _EVERY,
            log=True,
        ),
    ),
    claims=(
        Claim("pre-ln-prores", "pre-ln", _TABLE_2 + "14.30 < 14.67, 11.74 < 12.36, 9.86 < 10.32"),
        Claim(
            "post-ln-prores", "post-ln", _TABLE_2 + "14.72 < 14.84, 11.92 < 12.74, 10.53 < 11.62"
        ),
    ),
)
