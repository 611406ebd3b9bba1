"""A decoder as a model of transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from groundup.model.families import family_of
from groundup.model.library import quiet
from groundup.model.transformer import Transformer
from groundup.residual.branches import find_branches
from groundup.residual.fold import folded


def as_hugging_face(model: Transformer, alphas: Sequence[float], **settings: Any) -> Any:
    """The decoder, its branches scaled by α, as a `transformers.PreTrainedModel`.

    The class is one that transformers has wherever one is exactly equal, else
    `groundup.hf.GroundupForCausalLM` (`groundup.model.families`). α, and LayerNorm Scaling's 1/√l,
    are multiplied into the weights of what ends a branch or normalizes its input, so that nothing
    scales anything there: logits are equal within the rounding of the weights' dtype. The decoder
    stays as it is, also one with a `Warmup` attached, whose own α does not count.

    Args:
        model: in any dtype, on any device but meta.
        alphas: α of each layer, the shallowest first.
        settings: fields of the transformers configuration that a decoder does not have, such as
            `max_position_embeddings` and `eos_token_id`. Without them there are no such tokens.

    Returns:
        A model in evaluation mode, dtype and device those of the decoder. Weights that nothing is
        multiplied into share memory with it: `copy.deepcopy` one that is to be trained.

    Raises:
        ValueError: if there is not one finite α per layer, or transformers is not installed.
    """
    config = model.config
    if len(alphas) != config.layers or not all(map(math.isfinite, alphas)):
        raise ValueError(
            f"alphas={list(alphas)!r} is not valid: it must hold a finite number for each of "
            f"{config.layers} layers"
        )
    family = family_of(config)
    kind, configuration = family.classes()
    branches = find_branches(model, None)
    state = folded(model, branches, [alphas[branch.layer] for branch in branches])
    names = family.names(config, state)
    state = family.forth({names[name]: value for name, value in state.items()}, config)
    values = configuration(**dict.fromkeys(_TOKENS, 0) | family.settings(config) | settings)
    for name in _TOKENS:  # afterwards: some classes put tokens of their own in the place of None
        setattr(values, name, settings.get(name))
    return built(kind, values, state)


def built(kind: Any, configuration: Any, state: Mapping[str, Tensor]) -> Any:
    """A model of a class of transformers with these weights, which it may share; in evaluation
    mode. Nothing is drawn from random state.

    Raises:
        ValueError: naming the weights, if some are missing, too many or of another shape.
    """
    like = next(value for value in state.values() if value.is_floating_point())
    with quiet():
        model, report = kind.from_pretrained(
            None,
            config=configuration,
            state_dict=dict(state),
            dtype=like.dtype,
            output_loading_info=True,
        )
    wrong = {what: report[what] for what in _WRONG if report[what]}
    if wrong:
        said = "; ".join(f"{what}: {sorted(map(str, names))}" for what, names in wrong.items())
        raise ValueError(f"these weights do not make a {kind.__name__}: {said}")
    return model.to(like.device).eval()


_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
_WRONG = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
