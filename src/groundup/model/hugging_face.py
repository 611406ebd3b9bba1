"""A causal language model of Hugging Face transformers in the place of our own decoder.

`HuggingFace` is called as `groundup.model.Transformer` is and has the attributes that training uses
of it. What it computes, and how its weights start, is the library's.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groundup.model.config import ModelConfig
from groundup.model.initialization import write
from groundup.model.library import quiet, transformers
from groundup.model.loss import Losses, losses
from groundup.model.resolution import build, resolved
from groundup.model.weights import local_folder
from groundup.residual.names import stock_name

# Of what decides the shapes of weights, what every configuration has.
_SHAPES = ("width", "layers", "heads", "vocab_size")
# What transformers takes for an encoder, which sees all tokens, unless told is_decoder.
_ENCODERS = {
    "bert",
    "bert-generation",
    "big_bird",
    "camembert",
    "data2vec-text",
    "electra",
    "ernie",
    "megatron-bert",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roc_bert",
    "roformer",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}


class HuggingFace(nn.Module):
    """The model of `config.hf_config`, initialized with seed 0.

    Under `torch.device("meta")` nothing is allocated: follow with `to_empty(device=…)` and
    `initialize(seed)`. Tied weights stay tied, and stand in the state dict once. Building draws
    nothing from torch's global random state.

    Attributes:
        config: what it was made from.
        inner: the `transformers.PreTrainedModel`, float32.

    Raises:
        ValueError: if `config.hf_config` is empty, or transformers cannot build such a model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.inner = _scratch(config, seed=0)
        self._stack = _stack_of(self.inner, config)
        self._tied = _tied(self)
        self.register_state_dict_post_hook(_once)
        self.register_load_state_dict_post_hook(_not_missing)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor | Losses:
        """Logits [B, T, V] of the next token; with targets, their `Losses` instead.

        Args:
            tokens: [B, T] int64.
            targets: [B, T] int64; -100 leaves a token out.
        """
        logits = self.inner(input_ids=tokens, use_cache=False, return_dict=True).logits
        return logits if targets is None else losses(logits, targets, self.config.z_loss)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, the shallowest first."""
        found = self.inner.get_submodule(self._stack)
        assert isinstance(found, nn.ModuleList)
        return found

    @property
    def residual_branches(self) -> list[str] | None:
        """The branches that the recipe names; None leaves it to what is known of the class."""
        # As transformers calls them, or as a message about this model does.
        names = (pattern.removeprefix("inner.") for pattern in self.config.branches)
        return [f"inner.{name}" for name in names] or None

    @property
    def embedding(self) -> nn.Module:
        """The input embedding."""
        return self.inner.get_input_embeddings()

    @property
    def head(self) -> nn.Module | None:
        """What reads the logits; None if it is the embedding."""
        head = self.inner.get_output_embeddings()
        return None if head is None or head.weight is self.embedding.weight else head

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Writes transformers' own initial weights, and every buffer, in place.

        They are drawn on the CPU for the whole model and copied in, so that device, sharding and
        the number of processes change nothing; each process holds them whole meanwhile.

        Raises:
            ValueError: the model is on the meta device, where there is nothing to write to.
        """
        for name, parameter in self.named_parameters():
            if parameter.is_meta:
                raise ValueError(
                    f"{name} is on the meta device; call model.to_empty(device=…) first"
                )
        with torch.device("cpu"):
            self._take(_scratch(self.config, seed))

    def complete(self) -> None:
        """Writes what stands in no state dict (rotary frequencies), in place; weights become those
        of seed 0."""
        self.initialize(0)

    @torch.no_grad()
    def read(self, weights: str) -> None:
        """Writes the weights of a checkpoint, from safetensors only; see `initialize`.

        Args:
            weights: a folder that transformers has written, or a name on the Hub.

        Raises:
            ValueError: if there is none, or its weights are not those of this model.
        """
        self._take(_pretrained(weights, self.config))

    def _take(self, source: nn.Module) -> None:
        parameters, buffers = dict(source.named_parameters()), dict(source.named_buffers())
        for name, parameter in self.inner.named_parameters():
            write(parameter, parameters[stock_name(name)].to(torch.float32))
        for name, buffer in self.inner.named_buffers():
            if (
                value := buffers.get(stock_name(name))
            ) is not None:  # α, of residual warmup, is not
                buffer.copy_(value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HuggingFace:
        """`to_empty` and the like make every parameter anew, a shared one once for each place."""
        super()._apply(fn, recurse)
        for first, *others in self._tied:
            for other in others:
                other.module.register_parameter(other.name, first.parameter)
        return self


@dataclass(frozen=True)
class _Place:
    """Where a parameter stands: `full` is the name in the whole model."""

    module: nn.Module
    name: str
    full: str

    @property
    def parameter(self) -> nn.Parameter:
        found = self.module._parameters[self.name]
        assert found is not None
        return found


def _tied(model: nn.Module) -> list[list[_Place]]:
    """The places of each parameter that stands in more than one, in the order of the modules."""
    places: dict[int, list[_Place]] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                full = f"{prefix}.{name}".removeprefix(".")
                places.setdefault(id(parameter), []).append(_Place(module, name, full))
    return [found for found in places.values() if len(found) > 1]


def _once(module: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    for _, *others in module._tied:
        for other in others:
            state.pop(prefix + other.full, None)


def _not_missing(module: Any, incompatible: Any) -> None:
    known = {other.full for _, *others in module._tied for other in others}
    missing = [name for name in incompatible.missing_keys if name not in known]
    incompatible.missing_keys[:] = missing


# ---------------------------------------------------------------------- what transformers makes


def _scratch(config: ModelConfig, seed: int) -> Any:
    """A model as transformers initializes it, on the default device; drawn from `seed` alone."""
    if not config.hf_config:
        raise ValueError("hf_config={} is not valid: it must be a resolved configuration")
    kind = config.hf_config["model_type"]
    digest = hashlib.sha256(f"{seed}:transformers".encode()).digest()
    with torch.random.fork_rng(devices=[]), quiet():
        torch.random.default_generator.manual_seed(int.from_bytes(digest[:4], "little"))
        try:
            return transformers().AutoModelForCausalLM.from_config(
                build(config.hf_config), dtype=torch.float32
            )
        except (ValueError, AssertionError, TypeError) as error:
            raise ValueError(f"hf_config is not valid for {kind}: {error}") from error


def _pretrained(weights: str, config: ModelConfig) -> Any:
    auto = transformers().AutoModelForCausalLM
    with quiet(), torch.device("cpu"), torch.random.fork_rng(devices=[]):
        try:
            model, report = auto.from_pretrained(
                weights,
                config=build(config.hf_config),
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, RuntimeError, ValueError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise ValueError(
                f"model.weights={weights!r} cannot be read into this model: {' '.join(lines[:3])}"
            ) from error
    for what, words in (("missing_keys", "lacks"), ("unexpected_keys", "has besides")):
        if names := sorted(report[what]):
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(
                f"model.weights={weights!r} is of another model than hf_config: it {words} "
                f"{', '.join(names[:3])}{more}"
            )
    return model


def _stack_of(inner: nn.Module, config: ModelConfig) -> str:
    """The name of the list of decoder layers."""
    for name, module in inner.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == config.layers:
            return name
    raise ValueError(
        f"hf_config.model_type={config.hf_config['model_type']!r} is not valid here: its model "
        f"holds no list of {config.layers} layers"
    )


# ---------------------------------------------------------------------- counting


@dataclass(frozen=True)
class Parameters:
    """Numbers of trainable parameters, by where they stand; `looked_up`: in embeddings that are no
    head (tokens, positions)."""

    layers: int
    embedding: int
    head: int
    others: int
    looked_up: int

    @property
    def total(self) -> int:
        return self.layers + self.embedding + self.head + self.others


def count(config: ModelConfig) -> Parameters:
    """Those of a model, counted on the meta device.

    Raises:
        ValueError: if transformers cannot build it.
    """
    return _counted(config)


def check(config: ModelConfig) -> None:
    """Raises:
    ValueError: if transformers cannot build the model, if its configuration says other sizes than
        the fields of `config`, or that of a known encoder.
    """
    said = resolved({"hf_config": config.hf_config})
    for name in _SHAPES:
        if getattr(config, name) != said[name]:
            raise ValueError(
                f"model.{name}={getattr(config, name)!r} would be ignored: hf_config says "
                f"{said[name]!r}"
            )
    if config.hf_config["model_type"] in _ENCODERS and not build(config.hf_config).is_decoder:
        raise seeing_ahead(config)
    count(config)


def check_weights(config: ModelConfig) -> None:
    """Holds the sizes of a model against those of the weights it names, where their folder says
    any; a name on the Hub is left for when they are read.

    Raises:
        ValueError: if there is no such folder, or its sizes are others.
    """
    weights = str(config.weights)
    folder = local_folder(weights)
    if folder is None or not (folder / "config.json").is_file():
        return
    theirs = resolved({"hf": str(folder)})
    for name in _SHAPES:
        if getattr(config, name) != theirs[name]:
            raise ValueError(
                f"model.{name}={getattr(config, name)!r} is not valid: weights={weights!r} has "
                f"{theirs[name]!r}"
            )


def seeing_ahead(config: ModelConfig) -> ValueError:
    """The error for a model that reads the tokens it is to predict."""
    return ValueError(
        f"hf_config.model_type={config.hf_config['model_type']!r} is not valid as it is "
        "configured: it sees the tokens that it is to predict. Where it has is_decoder, say "
        "hf_config.is_decoder = true"
    )


@functools.lru_cache(maxsize=16)
def _counted(config: ModelConfig) -> Parameters:
    with torch.device("meta"):
        model = HuggingFace(config)
    inside = {id(p) for p in model.layers.parameters()}
    embeddings = {
        id(p): p.numel()
        for module in model.inner.modules()
        if isinstance(module, nn.Embedding)
        for p in module.parameters()
        if id(p) not in inside
    }
    head = 0 if model.head is None else _number(model.head)
    tied = 0 if model.head is not None else _number(model.embedding)
    total, within = _number(model), _number(model.layers)
    looked_up = sum(embeddings.values())
    return Parameters(
        layers=within,
        embedding=looked_up,
        head=head,
        others=total - within - looked_up - head,
        looked_up=looked_up - tied,
    )


def _number(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
