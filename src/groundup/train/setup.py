"""From a recipe to the things that a run is made of: device, model, optimizer."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from groundup import optim
from groundup.data import Tokenizer
from groundup.data import load as load_tokenizer
from groundup.measure import probing
from groundup.model import LanguageModel
from groundup.model.hugging_face import seeing_ahead
from groundup.model.kinds import kind_of
from groundup.model.transformer import Transformer
from groundup.train.checkpoint import steps_in
from groundup.train.parallel import spread
from groundup.train.recipe import Recipe
from groundup.train.recompute import recompute
from groundup.train.world import World

# bf16 matrix products without sparsity, in FLOP/s, by what the device calls itself.
PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}


def make_deterministic(device: torch.device) -> None:
    """Refuse CUDA kernels whose result depends on the order of threads."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def with_vocabulary(recipe: Recipe, tokenizer: Tokenizer) -> Recipe:
    """The recipe with the vocabulary of the model filled in from the tokenizer; a model of
    transformers, or one with weights, has its own.

    Raises:
        ValueError: if the recipe says a vocabulary that is too small for the tokenizer.
    """
    said = recipe.model.vocab_size
    if said is None:
        model = dataclasses.replace(recipe.model, vocab_size=tokenizer.vocab_size)
        return dataclasses.replace(recipe, model=model)
    if said < tokenizer.vocab_size:
        key, way = "model.vocab_size", "leave it out, or give at least as many"
        if recipe.model.hf_config:
            key, way = "model.hf_config.vocab_size", "give at least as many"
        if recipe.model.weights is not None:
            way = f"take that of the weights, data.tokenizer = {recipe.model.weights!r}"
        raise ValueError(
            f"{key}={said} is not valid: the tokenizer has {tokenizer.vocab_size} tokens; {way}"
        )
    return recipe


def build_model(
    recipe: Recipe, world: World, device: torch.device
) -> tuple[LanguageModel, type[spread.Whole]]:
    """A float32 model, its weights decided by the seed alone, and how it is to be spread.

    Nothing is allocated before it is cut: a process never holds more than its part.
    """
    kind, model_kind = spread.kind(recipe.parallel, world), kind_of(recipe.model)
    with torch.device("meta"):
        model = model_kind.make(recipe.model)
    recompute(model.layers, recipe.train.recompute)
    if recipe.train.compile:
        for block in model.layers:
            block.compile()
    kind.shard(model, world, recipe.parallel, device)
    model.to_empty(device=kind.memory(device, recipe.parallel))
    for module in model.modules():  # where weights are offloaded, buffers are not fetched with them
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)
    model_kind.initialize(model, recipe.train.seed)
    _refuse_seeing_ahead(model, device)
    return model, kind


def read_weights(model: LanguageModel, recipe: Recipe, world: World) -> None:
    """The weights that the recipe starts from, if it names any, in place.

    Raises:
        ValueError: if there are none, or they are of another model.
    """
    if (weights := recipe.model.weights) is not None:
        world.together(lambda: kind_of(recipe.model).read(model, weights))


def _refuse_seeing_ahead(model: LanguageModel, device: torch.device) -> None:
    """ValueError if what a model gives depends on tokens that it is to predict (an encoder's)."""
    if not model.config.hf_config:
        return
    tokens = torch.zeros(2, 4, dtype=torch.int64, device=device)
    tokens[1, -1] = 1
    one, other = probing.run(model, probing.Probe((tokens,)), [])[:, :-1].float()
    if not torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise seeing_ahead(model.config)


def plain_model(recipe: Recipe, device: torch.device) -> nn.Module:
    """The recipe's model on one device, its weights in no particular state: they are to be
    loaded."""
    kind = kind_of(recipe.model)
    with torch.device("meta"):
        model = kind.make(recipe.model)
    model.to_empty(device=device)
    kind.complete(model)
    return model


def part_documents(model: nn.Module, recipe: Recipe, separator: int) -> None:
    """Has a model attend as the recipe says, where that token separates documents."""
    if recipe.data.documents == "apart":
        assert isinstance(model, Transformer)
        model.separator = separator


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer, in groups: matrices with weight decay; norms, biases and embeddings
    without; each layer its own where the layers' rates differ."""
    config = recipe.optimizer
    by_layer = recipe.rate.layers.schedule != "none"
    optimizer = optim.create(
        config.name,
        model,
        lr=recipe.rate.peak,
        weight_decay=config.weight_decay,
        by_layer=by_layer,
        **config.arguments(),
    )
    if config.rrc:
        optim.RRC(optimizer, batch_size=recipe.train.batch)
    return optimizer


def build_rates(optimizer: torch.optim.Optimizer, recipe: Recipe) -> optim.rate.RateSchedule:
    """What writes the rate, and the weight decay that goes with it, into the optimizer."""
    layers = recipe.rate.layers.resolve(recipe.train.steps)
    return optim.rate.schedule(
        optimizer,
        recipe.factor(),
        steps=recipe.train.steps,
        weight_decay=recipe.rate.weight_decay,
        layers=None if layers.name == "none" else layers,
    )


def per_process(recipe: Recipe, size: int) -> int:
    """Sequences of an update that each of `size` processes takes.

    Raises:
        ValueError: if the batch cannot be cut so, or not into micro-batches.
    """
    config = recipe.train
    if config.batch % size:
        raise ValueError(
            f"train.batch={config.batch} is not valid: the number of processes, which is {size}, "
            "must divide it"
        )
    rows = config.batch // size
    if config.micro_batch is not None and rows % config.micro_batch:
        raise ValueError(
            f"train.micro_batch={config.micro_batch} is not valid: it must divide the {rows} "
            f"sequences that each of {size} processes takes of train.batch={config.batch}"
        )
    return rows


def check(recipe: Recipe, size: int, out: Path) -> None:
    """What can be said of a run in the folder `out` before data are prepared and the folder is
    made.

    Raises:
        ValueError: if the recipe's model cannot be built, trained by so many processes, read the
            tokens of the tokenizer that it names, or start from the weights that it names.
    """
    kind = kind_of(recipe.model)
    kind.check(recipe.model)
    recipe.parallel.check(size, recipe.train.precision)
    per_process(recipe, size)
    if recipe.data.tokenizer != "train" and recipe.model.vocab_size is not None:
        with_vocabulary(recipe, load_tokenizer(recipe.data.tokenizer))
    # A run that goes on no longer needs the weights that it began with.
    if recipe.model.weights is not None and not steps_in(out / "checkpoints"):
        kind.check_weights(recipe.model)


def seed_update(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Set torch's random state for an update: like all else it is a function of the step, so that
    there is nothing to save. Dropout draws from it, and each process its own."""
    digest = hashlib.sha256(f"{seed}:{step}:{rank}".encode()).digest()
    number = int.from_bytes(digest[:8], "little", signed=True)
    # Not torch.manual_seed, which sees to devices that are not there, and takes a hundred times as
    # long as this.
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


@contextlib.contextmanager
def averaged_weights(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, the weights that an optimizer with two sets of them evaluates (schedule-free)."""
    to_evaluate, to_train = (getattr(optimizer, mode, None) for mode in ("eval", "train"))
    if to_evaluate is None or to_train is None:
        yield
        return
    to_evaluate()
    try:
        yield
    finally:
        to_train()


@contextlib.contextmanager
def compute_precision(precision: str, device: torch.device) -> Iterator[None]:
    """bf16 compute over float32 weights (autocast), or plain float32."""
    if precision == "float32":
        yield
        return
    with torch.autocast(device.type, dtype=torch.bfloat16):
        yield


def fastest(recipe: Recipe, device: torch.device, size: int) -> float | None:
    """Tokens per second at the bf16 peak of `size` such devices; None where that is not known."""
    if device.type != "cuda" or recipe.train.precision != "bf16":
        return None
    name = torch.cuda.get_device_name(device)
    peak = next((peak for key, peak in PEAKS.items() if key in name), None)
    return size * peak / recipe.model.flops_per_token(recipe.data.length) if peak else None


def hardware(device: torch.device) -> str:
    """What the run ran on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
