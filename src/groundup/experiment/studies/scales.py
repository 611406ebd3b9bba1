"""What a scale changes in the recipes of the studies, which are written for a CPU."""

from __future__ import annotations

from typing import Any

GPU: dict[str, Any] = {
    "model": {
        "width": 512,
        "layers": 12,
        "heads": 8,
        "feed_forward": 1368,
        "init_std": 0.02,
        "embedding_std": 0.45,  # the authors' 0.02·√width
    },
    "data": {"vocab_size": 8192, "length": 512},
    "train": {
        "steps": 1500,
        "batch": 24,
        "compile": True,
        "precision": "bf16",
        "eval_every": 500,
        "checkpoint_every": 500,
    },
}
"""The paper's width and depth of 71M (fewer parameters with a smaller vocabulary): some
half a minute a run on an H200, as worked out from its peak; never run."""
