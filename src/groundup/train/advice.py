"""What there is to say of a recipe's warmups before it runs."""

from __future__ import annotations

from dataclasses import replace

from groundup.optim.table import info
from groundup.schedules import Advice, advise
from groundup.schedules.effective import effective_length, residual_warnings
from groundup.train.recipe import Recipe


def advice(recipe: Recipe) -> Advice:
    """On the warmup of the rate, and on residual warmup beside the rate's decay."""
    entry, factor, steps = info(recipe.optimizer.name), recipe.factor(), recipe.train.steps
    model = recipe.model
    if model.vocab_size is None:
        model = replace(model, vocab_size=recipe.data.vocab_size)
    found = advise(
        effective_length(factor, steps),
        steps,
        beta2=recipe.optimizer.beta2,
        batch_tokens=recipe.tokens_per_step,
        parameters=model.parameters(),
        peak=recipe.rate.peak,
        placement=model.placement,
        bounded=entry.decay == "angle" or recipe.optimizer.rrc,
    )
    schedule = recipe.residual.resolve(steps)
    warnings = list(found.warnings)
    if schedule.name != "none":
        warnings += residual_warnings(schedule, model.layers, factor, steps)
    reason = f"{found.reason} {entry.name}: warmup {entry.warmup}."
    return replace(found, reason=reason, warnings=tuple(warnings))
