"""Published numbers against the tables as they are printed in the paper."""

from __future__ import annotations

import pytest

from groundup.model import ModelConfig
from groundup.report.published import benchmarks
from groundup.train import Recipe


def _columns(placement: str, init: str) -> dict[str, dict[str, float]]:
    recipe = Recipe(model=ModelConfig(placement=placement, init=init))  # type: ignore[arg-type]
    return {column.heading: dict(column.values) for column in benchmarks.columns(recipe)}


def test_numbers_of_the_paper() -> None:
    found = _columns("pre", "normal")
    assert list(found) == ["Pre-LN, 1.3B, published", "Pre-LN + ProRes, 1.3B, published"]
    without, warmed = found.values()
    assert without["piqa/acc_norm"] == pytest.approx(0.7285)
    assert warmed["hellaswag/acc_norm"] == pytest.approx(0.5639)
    assert warmed["mmlu/acc"] == pytest.approx(0.2844)
    assert (without["wikitext/word_perplexity"], warmed["lambada_openai/perplexity"]) == (
        25.61,
        15.05,
    )
    assert warmed["lambada/perplexity"] == 15.05
    assert warmed["lambada/acc"] == warmed["lambada_openai/acc"] == pytest.approx(0.4271)
    post = _columns("post", "normal")["Post-LN + ProRes, 1.3B, published"]
    assert post["race/acc"] == pytest.approx(0.3177)


@pytest.mark.parametrize(
    ("placement", "init"),
    [("deepnorm", "deepnorm"), ("lns", "normal"), ("pre", "ds"), ("pre", "scaled")],
)
def test_the_published_average_is_that_of_the_ten(placement: str, init: str) -> None:
    for values in _columns(placement, init).values():
        assert benchmarks.average(values) == pytest.approx(values[benchmarks.AVERAGE], abs=1e-4)


def test_other_models_have_none() -> None:
    assert _columns("output", "normal") == {}
    assert benchmarks.average({"piqa/acc_norm": 0.5}) is None


def test_every_task_of_the_paper_has_its_rows() -> None:
    tasks = {
        key.split("/")[0] for key in (*benchmarks.TABLE_3.values(), *benchmarks.TABLE_4.values())
    }
    assert tasks == set(benchmarks.ROWS)
