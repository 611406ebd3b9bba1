"""Residual warmup beside its learned and random relatives."""

from __future__ import annotations

from groundup.experiment.studies.arms import of_recipe
from groundup.experiment.studies.scales import GPU
from groundup.experiment.studies.shown import Grid
from groundup.experiment.studies.study import Claim, Setting, Study

_METHODS = {
    "none": "none",
    "ProRes": "prores",
    "ReZero": "rezero",
    "LayerScale": "layerscale",
    "stochastic depth": "drop-path",
}
_WITH = {"AdamW": "", "Muon": "-muon", "AdamW, QK-norm": "-qk-norm"}
_ROWS = {
    said: {name: f"{method}{suffix}" for name, method in _METHODS.items()}
    for said, suffix in _WITH.items()
}
_ON_GPU = {arm: arm for row in _ROWS.values() for arm in row.values()}
_ROWS["AdamW, embedding 0.55"] = {
    name: f"{method}-embedding" for name, method in _METHODS.items() if method != "drop-path"
}
_TABLE_2 = (
    "arXiv:2603.05369, Table 2, Pre-LN, perplexity at 130M / 350M / 1.3B: "
    "14.30 < 14.67, 11.74 < 12.36, 9.86 < 10.32"
)
_EXPECTED = "not published for this setting; expected if the method helps {said} as AdamW alone"

STUDY = Study(
    name="relatives",
    title="Residual warmup beside ReZero, LayerScale and stochastic depth",
    question=(
        "Is a schedule needed, or do learned factors of the branches (ReZero: one a layer, from 0; "
        "LayerScale: a vector a branch, from 0.1) or layers left out at random (up to 10%, in the "
        "last one) do the same? With AdamW, with Muon, with QK-norm, and with an embedding as "
        "large as the authors' at width 768, beside which branches begin smaller; every arm at its "
        "own best rate. The papers of the relatives are on other models: of those against each "
        "other we know of no published ordering for language models."
    ),
    settings={
        "cpu": Setting(of_recipe("studies/relatives"), multiples=(1.0, 2.0, 4.0)),
        "gpu": Setting(
            of_recipe("studies/relatives", _ON_GPU),
            multiples=(0.5, 1.0),
            seeds=2,
            change=GPU | {"train": GPU["train"] | {"steps": 1000}},
        ),
    },
    baselines={
        arm: row["none"] for row in _ROWS.values() for arm in row.values() if arm != row["none"]
    },
    grids=(Grid("Held-out loss", "with", _ROWS),),
    claims=(
        Claim("prores", "none", _TABLE_2),
        Claim("prores-muon", "none-muon", _EXPECTED.format(said="Muon")),
        Claim("prores-qk-norm", "none-qk-norm", _EXPECTED.format(said="AdamW with QK-norm")),
        Claim("prores-embedding", "none-embedding", _EXPECTED.format(said="a larger embedding")),
        Claim(
            "prores",
            "prores-embedding",
            "not published; expected if a part of the lead is that small branches spare a small "
            "embedding",
            bases=("none", "none-embedding"),
        ),
    ),
)
