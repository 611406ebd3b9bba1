"""Writes the table of docs/recipes.md, from what `groundup plan` says: python docs/recipes.py"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from groundup.report.words import number
from groundup.train.cost import Device, Estimate, estimate
from groundup.train.recipe import Recipe
from groundup.train.recipe_file import expand, find, read, sweep

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- python docs/recipes.py -->\n", "<!-- end -->"
HEAD = (
    "| recipe | what | runs | parameters | GPU-hours of a run | of all |",
    "| --- | --- | --- | --- | --- | --- |",
)
WHAT = {
    "c4-130m": "Table 2 at 130M: seven methods, without and with residual warmup",
    "c4-350m": "Table 2 at 350M",
    "c4-1.3b": "Table 2 at 1.3B; evaluated, Tables 3 and 4; measured, Figures 3 and 4",
    "c4-350m-schedules": "Table 6: 21 schedules × Pre-, Post-, Sandwich-LN; DeepNorm, LNS",
    "climbmix": "Table 7: Pre-LN on ClimbMix at 130M, 350M, 1.3B",
    "c4-71m-depth": "Figures 1 and 2: eight methods at 12 to 120 layers",
    "c4-7b": "Figure 5: Pre-LN at 7B",
    "gpt2-need-for-warmup": "arXiv:2410.23922, GPT-2 124M: seven optimizers × 3 rates × 6 warmups",
    "need-for-warmup": "the same question to a toy, on a CPU",
    "quickstart": "Pre-LN, 12 layers of width 64, on a CPU",
    "quickstart-post-ln": "Post-LN, 24 layers of width 64, on a CPU",
    "resting-layers": "layers that wait and are not computed, at equal tokens, on a CPU",
    "studies/placement": "study: five placements, without and with residual warmup, on a CPU",
    "studies/schedules": "study: schedules, lengths, layers that wait, on a CPU",
    "studies/depth": "study: 6 to 96 layers, without and with residual warmup, on a CPU",
    "studies/deep": "study: 24 layers, scaled initialization, ReZero, residual warmup, on a CPU",
    "studies/dynamics": "study: norms, similarity, what layers are worth, on a CPU",
    "studies/relatives": "study: ReZero, LayerScale, stochastic depth, Muon, QK-norm, on a CPU",
    "studies/need-for-warmup": "study: ten optimizers × 3 warmups of the rate, on a CPU",
    "studies/rate-and-residual": "study: warmup of the rate × residual warmup, on a CPU",
}


def runs(name: str) -> list[Recipe]:
    """What `groundup compare` or `groundup sweep` would train."""
    file = read(find(name))
    variants = expand(file.recipe, file.changes) if file.changes or not file.axes else {}
    if not file.axes:
        return list(variants.values())
    points = sweep(variants or {"": file.recipe}, file.axes)
    return [point.recipe for point in points.values()]


def planned(recipes: Iterable[Recipe]) -> list[Estimate]:
    """One plan for each, on eight GPUs; runs that take the same are planned once."""
    found: dict[object, Estimate] = {}
    plans = []
    for recipe in recipes:
        skipped = recipe.residual if recipe.residual.dormant == "skip" else None
        alike = replace(recipe.model, init="normal"), recipe.train, recipe.data.length, skipped
        if alike not in found:
            found[alike] = estimate(recipe, Device(gpus=8 if recipe.train.batch % 8 == 0 else 1))
        plans.append(found[alike])
    return plans


def table(found: Mapping[str, list[Estimate]]) -> str:
    """The table's lines; `found`: the plans of each recipe."""
    rows = [*HEAD]
    for name, what in WHAT.items():
        plans = found[name]
        sizes = [plan.recipe.model.parameters() for plan in plans]
        hours = [plan.gpu_hours for plan in plans if plan.gpu_hours is not None]
        cells = [f"`{name}`", what, str(len(plans)), span(sizes, short)]
        cells += [span(hours, brief), brief(sum(hours))] if hours else ["", ""]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def span(values: list[int] | list[float], said: Callable[[float], str]) -> str:
    low, high = said(min(values)), said(max(values))
    return low if low == high else f"{low} to {high}"


def short(parameters: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= size:
            return f"{parameters / size:.3g}{unit}"
    return str(parameters)


def brief(hours: float) -> str:
    return number(hours, 1 if hours < 100 else 0)


def main() -> None:
    found = {name: planned(runs(name)) for name in WHAT}
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + BEGIN + table(found) + END + after, "utf-8")


if __name__ == "__main__":
    main()
