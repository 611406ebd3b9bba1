"""Depth × residual warmup: Figures 1 and 2 of arXiv:2603.05369."""

from __future__ import annotations

from groundup.experiment.studies.arms import of_recipe
from groundup.experiment.studies.scales import GPU
from groundup.experiment.studies.shown import Lines
from groundup.experiment.studies.study import Claim, Setting, Study

_FIGURE_1 = "arXiv:2603.05369, Figure 1, 71M to 411M: lower at every depth from 12 to 120"
_HERE = (6, 12, 24, 48, 96)
_CASCADE = (6, 12, 24, 48)
_PUBLISHED = (12, 24, 48, 72, 96, 120)
_EVERY = sorted({*_HERE, *_PUBLISHED})
_LINES = {
    name: {f"{name}-{layers}": float(layers) for layers in depths}
    for name, depths in {"none": _EVERY, "linear": _EVERY, "cascade": _CASCADE}.items()
}
# Not `cascade`: half an hour is enough for these.
_GPU = {f"{name}-{layers}": f"{name}-{layers}" for name in ("none", "linear") for layers in _HERE}

STUDY = Study(
    name="depth",
    title="Depth, without and with residual warmup",
    question=(
        "Is the lead of residual warmup larger in deeper models (Pre-LN), and are its spikes "
        "fewer? All depths have the same width, text and updates, so a deeper one is a larger one. "
        "`linear`: a layer warms up over 1% of the run, half of that from 96 layers on, as in the "
        "paper. `cascade`: layers wait, not computed, and all are at 1 after 40% of the run."
    ),
    settings={
        "cpu": Setting(of_recipe("studies/depth"), multiples=(0.5, 1.0, 2.0, 4.0)),
        "gpu": Setting(
            of_recipe("studies/depth", _GPU),
            multiples=(0.25, 0.5),  # up to the paper's rate at this width
            change=GPU | {"train": GPU["train"] | {"steps": 600, "eval_every": 300}},
        ),
        "paper": Setting(
            of_recipe(
                "c4-71m-depth",
                {f"none-{layers}": f"pre-ln-{layers}" for layers in _PUBLISHED}
                | {f"linear-{layers}": f"pre-ln-prores-{layers}" for layers in _PUBLISHED},
            ),
            seeds=1,
        ),
    },
    baselines={
        f"{name}-{layers}": f"none-{layers}"
        for name, depths in (("linear", _EVERY), ("cascade", _CASCADE))
        for layers in depths
    },
    figures=(
        Lines("loss", "Held-out loss by depth", "layers", _LINES, log=True),
        Lines(
            "gradient-spikes",
            "Spikes of the gradient norm by depth, % of updates",
            "layers",
            _LINES,
            "gradient spikes",
            log=True,
        ),
        Lines(
            "loss-spikes",
            "Spikes of the loss by depth, % of updates",
            "layers",
            _LINES,
            "loss spikes",
            log=True,
        ),
    ),
    claims=(
        *(Claim(f"linear-{layers}", f"none-{layers}", _FIGURE_1) for layers in _HERE[1:]),
        *(
            Claim(
                f"linear-{layers}",
                "linear-12",
                "arXiv:2603.05369, Figure 1: the lead grows with depth",
                bases=(f"none-{layers}", "none-12"),
            )
            for layers in _HERE[2:]
        ),
        *(
            Claim(
                f"cascade-{layers}",
                f"none-{layers}",
                "not published; expected if `cascade` is better at every depth, at equal tokens",
            )
            for layers in _CASCADE
        ),
        *(
            Claim(
                f"cascade-{layers}",
                "cascade-12",
                "not published; expected if the lead of `cascade` grows with depth",
                bases=(f"none-{layers}", "none-12"),
            )
            for layers in _CASCADE[2:]
        ),
    ),
)
