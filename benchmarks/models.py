"""The models that the benchmarks train, and one training step of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import groundup as gu
from groundup.model import ModelConfig, Transformer, preset
from groundup.train.setup import compute_precision

KINDS = ("ours", "hf", "gpt2")
STATES = ("warming", "half", "finished")
"""Of the residual warmup: every α below 1, half of the layers at 1, all of them."""

_T = 10**6  # updates per layer until α is 1, so that no state ends while it is measured


class NotHere(Exception):
    """A model cannot be built on this machine."""


@dataclass(frozen=True)
class Size:
    """A preset, a batch of sequences and their length."""

    preset: str
    batch: int
    length: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """From ``tiny:8x128``."""
        name, _, shape = text.partition(":")
        batch, _, length = shape.partition("x")
        preset(name, vocab_size=2048)  # refuses unknown names
        return cls(name, int(batch), int(length))

    def __str__(self) -> str:
        return f"{self.preset}:{self.batch}x{self.length}"

    def config(self, layers: int | None = None, vocab_size: int | None = None) -> ModelConfig:
        config = preset(self.preset)
        config = replace(config, vocab_size=vocab_size or config.vocab_size or 2048)
        return config if layers is None else replace(config, layers=layers)

    def batch_of(self, config: ModelConfig, device: torch.device) -> Tensor:
        """Random tokens [batch, length + 1]."""
        draw = torch.Generator().manual_seed(0)
        shape = (self.batch, self.length + 1)
        return torch.randint(0, config.vocab_size, shape, generator=draw).to(device)


@dataclass(frozen=True)
class Trained:
    """A model, how its loss is computed, and the names of the modules that end its branches."""

    model: nn.Module
    loss: Callable[[nn.Module, Tensor], Tensor]
    branches: list[str]

    @property
    def blocks(self) -> nn.ModuleList:
        return self.model.get_submodule(self.branches[0].partition(".{l}")[0])


def build(kind: str, config: ModelConfig, length: int, device: torch.device) -> Trained:
    """A model of `kind` with the sizes of `config`.

    Raises:
        NotHere: if it needs transformers and that cannot be imported.
    """
    torch.manual_seed(0)
    if kind == "ours":
        with device:
            model = Transformer(config)
        return Trained(model, _our_loss, model.residual_branches)
    model, branches = _stock(kind, config, length)
    return Trained(model.to(device), _stock_loss, branches)


def _stock(kind: str, config: ModelConfig, length: int) -> tuple[nn.Module, list[str]]:
    try:
        from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
    except (ImportError, RuntimeError) as error:  # RuntimeError: it does not fit this torch
        raise NotHere(f"{kind} needs the package transformers: {error}") from error
    common = {"vocab_size": config.vocab_size, "use_cache": False, "attn_implementation": "sdpa"}
    if kind == "hf":
        sizes = LlamaConfig(
            hidden_size=config.width,
            intermediate_size=config.feed_forward_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=length,
            **common,
        )
        ends = ("self_attn.o_proj", "mlp.down_proj")
        return LlamaForCausalLM(sizes), [f"model.layers.{{l}}.{end}" for end in ends]
    sizes = GPT2Config(
        n_embd=config.width,
        n_layer=config.layers,
        n_head=config.heads,
        n_positions=length,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **common,
    )
    ends = ("attn.c_proj", "mlp.c_proj")
    return GPT2LMHeadModel(sizes), [f"transformer.h.{{l}}.{end}" for end in ends]


def _our_loss(model: nn.Module, rows: Tensor) -> Tensor:
    return model(rows[:, :-1], rows[:, 1:]).total / rows[:, 1:].numel()


def _stock_loss(model: nn.Module, rows: Tensor) -> Tensor:
    return model(input_ids=rows[:, :-1], labels=rows[:, :-1]).loss


class Step:
    """A copy of a model with its optimizer and, in a state of STATES, its residual warmup.

    Calling it is one training step: forward, backward, update, and the warmup's own bookkeeping.
    The learning rate is so small that all copies keep computing with the same weights.
    """

    def __init__(
        self, original: Trained, rows: Tensor, precision: str, state: str | None, compiled: bool
    ) -> None:
        trained = replace(original, model=copy.deepcopy(original.model))
        self.model, self._loss = trained.model, trained.loss
        self._rows, self._precision = rows, precision
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-9, fused=True)
        self.warmup: gu.Warmup | None = None
        if state is not None:
            self.warmup = gu.attach(self.model, gu.depth.linear(T=_T), branches=trained.branches)
            self.warmup.follow(self.optimizer)
            self.warmup.at(_updates(state, len(trained.blocks)))
        if compiled:
            for block in trained.blocks:
                block.compile()

    def __call__(self) -> None:
        self.forward().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def forward(self) -> Tensor:
        with compute_precision(self._precision, self._rows.device):
            return self._loss(self.model, self._rows)


def _updates(state: str, layers: int) -> int:
    return {"warming": _T // 2, "half": _T * layers // 2, "finished": _T * layers}[state]


def kept_for_backward(forward: Callable[[], Tensor], besides: list[Tensor]) -> int:
    """Bytes that one forward keeps for its backward, without the storages of `besides`."""
    apart = {tensor.untyped_storage().data_ptr() for tensor in besides}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in apart:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(kept.values())


def peak_of_step(step: Callable[[], None]) -> int:
    """Bytes of CUDA memory at the peak of a step, above what is held before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
