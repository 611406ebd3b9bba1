"""How the weights start.

A rule says from which normal distribution a matrix of a layer is drawn; `initialize` draws. The
embedding and the head are the same under every rule, norm weights start at 1, and gains where
`groundup.model.gain` says.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from groundup.model.config import ModelConfig
from groundup.model.gain import GAINS

if TYPE_CHECKING:
    from groundup.model.transformer import Transformer

# The projections whose outputs are added to the residual stream.
_BRANCH_OUTPUTS = frozenset({"output", "down"})
# What activation checkpointing and torch.compile put into parameter names.
_WRAPPERS = re.compile(r"_(?:checkpoint_wrapped_module|orig_mod)\.")


class Distribution(NamedTuple):
    """N(0, std²), cut at ±`cut` standard deviations; `cut=None` draws the whole normal.

    Cutting at 3 leaves a standard deviation of 0.9866·std.
    """

    std: float
    cut: float | None = 3.0


class Matrix(NamedTuple):
    """What a rule may look at: projection ("query" … "down"), layer l = 1..L, [out, in]."""

    projection: str
    layer: int
    shape: torch.Size


def normal(config: ModelConfig, matrix: Matrix) -> Distribution:
    """N(0, init_std²), cut at three standard deviations, for every matrix (arXiv:2603.05369)."""
    return Distribution(config.init_std)


def ds(config: ModelConfig, matrix: Matrix) -> Distribution:
    """`normal`, with std/√(2l) for the branch outputs.

    Depth-scaled initialization: Zhang, Titov and Sennrich 2019, arXiv:1908.11365, in the form of
    arXiv:2603.05369. l is the layer of the matrix: deeper layers start smaller.
    """
    deeper = 2 * matrix.layer if matrix.projection in _BRANCH_OUTPUTS else 1
    return Distribution(config.init_std / deeper**0.5)


def scaled(config: ModelConfig, matrix: Matrix) -> Distribution:
    """`normal`, with std/√(2L) for the branch outputs of all layers.

    Megatron-LM: Shoeybi et al. 2019, arXiv:1909.08053.
    """
    deeper = 2 * config.layers if matrix.projection in _BRANCH_OUTPUTS else 1
    return Distribution(config.init_std / deeper**0.5)


def deepnorm(config: ModelConfig, matrix: Matrix) -> Distribution:
    """Xavier-normal, std = gain·√(2/(in + out)), not cut; the partner of DeepNorm's k = (2L)^¼.

    gain is 1 for query and key, and (8L)^-¼ for value, output and the feed-forward weights.
    DeepNet, decoder-only: Wang et al. 2022, arXiv:2203.00555.
    """
    gain = 1.0 if matrix.projection in ("query", "key") else (8 * config.layers) ** -0.25
    return Distribution(gain * (2 / sum(matrix.shape)) ** 0.5, cut=None)


INITIALIZATIONS: dict[str, Callable[[ModelConfig, Matrix], Distribution]] = {
    "normal": normal,
    "ds": ds,
    "scaled": scaled,
    "deepnorm": deepnorm,
}
"""`ModelConfig.init` → its rule."""


@torch.no_grad()
def initialize(model: Transformer, seed: int) -> None:
    """Writes the initial weights of `model.config` into every parameter, in place.

    Each parameter has a random stream of its own, keyed by (seed, name), drawn on the CPU in
    float32 and copied in. So device, dtype, sharding and the order of the modules change nothing,
    and two models that differ in placement or gains only start from the same weights.

    Raises:
        ValueError: the model is on the meta device, where there is nothing to write to.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(f"{name} is on the meta device; call model.to_empty(device=…) first")
        name = _WRAPPERS.sub("", name)
        if parameter.ndim == 1:
            value = torch.full(parameter.shape, _vector(model.config, name), device="cpu")
        else:
            distribution = _distribution(model.config, name, parameter.shape)
            value = _draw(distribution, parameter.shape, _generator(seed, name))
        write(parameter, value)


def _vector(config: ModelConfig, name: str) -> float:
    """The value of a vector's elements, by its name: "norm.weight", "layers.3.gains.both"."""
    if name.split(".")[2:3] != ["gains"]:
        return 1.0
    return GAINS[config.gain].start(config.layers) if config.gain_init is None else config.gain_init


def _distribution(config: ModelConfig, name: str, shape: torch.Size) -> Distribution:
    """The distribution of a matrix, by its name: "embedding.weight", "layers.3.….down.weight"."""
    parts = name.split(".")
    if parts[0] == "layers":
        matrix = Matrix(projection=parts[-2], layer=int(parts[1]) + 1, shape=shape)
        return INITIALIZATIONS[config.init](config, matrix)
    if parts[0] == "embedding" and config.embedding_std is not None:
        return Distribution(config.embedding_std, cut=None)
    return Distribution(config.init_std)


def _generator(seed: int, name: str) -> torch.Generator:
    # Not `hash`, which differs from process to process. The CPU generator uses 32 bits of a seed.
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:4], "little"))


def _draw(distribution: Distribution, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draws the standard normal, redraws what lies outside the cut, and scales.

    Not `nn.init.trunc_normal_`, whose numbers for one seed changed between versions of torch.
    """

    def standard(shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")

    values = standard(shape)
    if distribution.cut is not None:
        while (outside := values.abs() > distribution.cut).any():
            values[outside] = standard(values[outside].shape)
    return values.mul_(distribution.std)


def write(parameter: Any, value: Tensor) -> None:
    """Put a whole value into a parameter, sharded or not, in place."""
    if hasattr(parameter, "device_mesh"):  # a DTensor: every rank has drawn all, and keeps its part
        from torch.distributed.tensor import distribute_tensor  # takes a second to import

        mesh, placements = parameter.device_mesh, parameter.placements
        value = distribute_tensor(value, mesh, placements, src_data_rank=None)
    parameter.copy_(value)
