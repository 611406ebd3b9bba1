"""Every curve of the paper's figures has its runs.

arXiv:2603.05369, Sections 4.4 and 5, Appendix B.
"""

from __future__ import annotations

import pytest

from tests.recipes.shipped import runs
from tests.recipes.test_tables import METHODS, check_batches, check_optimizer, check_rate

DEPTHS = (12, 24, 48, 72, 96, 120)
BASELINES = sorted(METHODS.keys() - {"Post-LN", "DeepNorm"})


def test_figures_1_and_2() -> None:
    found = dict(runs("c4-71m-depth"))
    for recipe in found.values():
        model = recipe.model
        assert (model.width, model.feed_forward, model.heads) == (512, 1368, 8)
        assert (model.init_std, model.embedding_std, model.vocab_size) == (0.02, None, 32_000)
        check_optimizer(recipe)
        check_batches(recipe)
    for depth in DEPTHS:
        for method in BASELINES:
            slug, placement, init, _, _ = METHODS[method]
            recipe = found.pop(f"{slug}-{depth}")
            assert (recipe.model.layers, recipe.model.placement) == (depth, placement)
            assert (recipe.model.init, recipe.residual.schedule) == (init, "none")
            check_rate(recipe, 2e-3, 2000, 100_000)
        T = 500 if depth >= 96 else 1000
        for name, expected in (
            (f"pre-ln-prores-{depth}", lambda t, l, T=T: min(t / (T * l), 1)),
            (f"pre-ln-equal-{depth}", lambda t, l: min(t / 12_000, 1)),
        ):
            recipe = found.pop(name)
            assert (recipe.model.layers, recipe.model.placement) == (depth, "pre")
            assert recipe.model.init == "normal"
            check_rate(recipe, 2e-3, 2000, 100_000)
            schedule = recipe.residual.resolve(100_000)
            for t in (0, 1, 499, 1000, 11_999, 50_000, 72_000):
                alphas = [expected(t, l) for l in range(1, depth + 1)]
                assert schedule(t, depth) == pytest.approx(alphas)
            assert schedule.end(depth) <= 72_000
        for said, peak in (("5e-4", 5e-4), ("1e-3", 1e-3), ("1.5e-3", 1.5e-3), ("2e-3", 2e-3)):
            recipe = found.pop(f"deepnorm-{depth}-{said}")
            assert (recipe.model.layers, recipe.model.placement) == (depth, "deepnorm")
            assert (recipe.model.init, recipe.residual.schedule) == ("deepnorm", "none")
            check_rate(recipe, peak, 10_000, 100_000)
    assert found == {}


def test_figures_3_and_4_are_measured_of_the_largest() -> None:
    found = runs("c4-1.3b")
    for name in ("pre-ln", "pre-ln-prores"):
        assert found[name].measure.covers("stream")
        assert found[name].measure.covers("similarity")


def test_figure_5() -> None:
    found = runs("c4-7b")
    assert list(found) == ["pre-ln", "pre-ln-prores"]
    for recipe in found.values():
        model = recipe.model
        assert (model.width, model.feed_forward, model.layers, model.heads) == (4096, 11008, 32, 32)
        assert (model.placement, model.init, model.vocab_size) == ("pre", "normal", 32_000)
        check_optimizer(recipe)
        check_batches(recipe)
        check_rate(recipe, 3e-4, 2000, 100_000)
        assert recipe.train.eval_every == 1000
    assert found["pre-ln"].residual.schedule == "none"
    assert found["pre-ln-prores"].residual.schedule == "linear"
    assert found["pre-ln-prores"].warmup_end == 32_000
