"""What a decoder is: its sizes, the place of its norms, its initialization.

Derived numbers (parameters, FLOPs) of our own decoder are closed forms, so that a plan costs no
memory and no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from groundup._check import count, finite, positive, unknown, within
from groundup.model.size_names import SIZES, contradiction, longest

PlacementName = Literal["pre", "post", "sandwich", "deepnorm", "lns", "output"]
InitializationName = Literal["normal", "ds", "scaled", "deepnorm"]
GainName = Literal["none", "rezero", "layerscale"]
QKNorm = bool | Literal["width"]

_NAMES = {"placement": PlacementName, "gain": GainName, "init": InitializationName}

# RMSNorms that a placement puts around one branch, where it is not one.
_NORMS_PER_BRANCH = {"sandwich": 2}


# What weights decide, and what has no meaning beside a configuration of transformers.
_STARTS = ("init", "init_std", "embedding_std")
_RELATIVES = ("gain", "gain_init", "drop_path")
_DECODER = ("rope_theta", "norm_eps", "qk_norm", "placement", *_RELATIVES, *_STARTS)


@dataclass(frozen=True)
class ModelConfig:
    """A Llama-style decoder: RMSNorm, SwiGLU, rotary positions, no biases. Or, with `hf_config`, a
    causal language model of Hugging Face transformers.

    Raises:
        ValueError: a field is out of range or does not fit another; the message names the field,
            its value and what would be valid.
    """

    vocab_size: int | None = None
    """Number of tokens; left out, `groundup train` takes it from the tokenizer."""

    width: int = 64
    """Size of the residual stream."""

    layers: int = 12
    """Number of layers L; each has an attention and a feed-forward branch."""

    heads: int = 4
    """Query heads; they divide the width into heads of even size."""

    kv_heads: int | None = None
    """Key and value heads, a divisor of heads (grouped-query attention); left out, heads."""

    feed_forward: int | None = None
    """Inner size of SwiGLU; left out, 8/3 of the width, rounded up to a multiple of 8."""

    rope_theta: float = 10000.0
    """Base of the rotary frequencies."""

    norm_eps: float = 1e-5
    """What every RMSNorm adds to the mean square."""

    tied: bool = False
    """Read the logits with the embedding matrix instead of a head of its own."""

    qk_norm: QKNorm = False
    """RMSNorm of queries and keys before the rotation: true over each head, as in Qwen3; "width"
    over all heads together, as in OLMo 2."""

    z_loss: float = 0.0
    """Coefficient of the squared log-normalizer in the loss (PaLM: 1e-4); 0 leaves it out."""

    placement: PlacementName = "pre"
    """Where a layer normalizes; "deepnorm" is meant to go with init "deepnorm"."""

    gain: GainName = "none"
    """Learned factors on what branches add: "rezero" a number for each layer, "layerscale" a vector
    for each branch."""

    gain_init: float | None = None
    """Where the gains start; left out, 0 for "rezero", and by depth for "layerscale": 0.1 up to 18
    layers, 1e-5 up to 24, 1e-6 in deeper models."""

    drop_path: float = 0.0
    """Stochastic depth: the probability with which a branch of the last layer is left out, for each
    sequence, in training; that of layer l is l/L of it."""

    init: InitializationName = "normal"
    """How the weights of the layers start."""

    init_std: float = 0.02
    """Standard deviation of the truncated normal of the weights, cut at three of them."""

    embedding_std: float | None = None
    """Standard deviation of an untruncated normal for the embedding; left out, like the rest."""

    hf: str | None = None
    """Train a model of Hugging Face transformers: a folder with a config.json, a model type such as
    gpt2 (its default configuration), or a name on the Hub. hf_config changes some of it. Resolved,
    a recipe has it all in hf_config."""

    hf_config: dict[str, Any] = field(default_factory=dict, hash=False)
    """The configuration of transformers, model_type among its keys; the sizes above follow it."""

    branches: tuple[str, ...] = ()
    """Of a model of transformers that groundup does not know, what ends its residual branches:
    names of modules with {l} for the layer, such as "model.layers.{l}.mlp.down_proj"."""

    weights: str | None = None
    """Start from the weights of a Hugging Face checkpoint, a folder or a name on the Hub, instead
    of from scratch; with hf or without."""

    def __post_init__(self) -> None:
        if self.hf is not None:  # not resolved: nothing of what it is stands here yet
            return
        for name in ("width", "layers", "heads"):
            count(name, getattr(self, name))
        for name in ("vocab_size", "kv_heads", "feed_forward"):
            if getattr(self, name) is not None:
                count(name, getattr(self, name))
        within("z_loss", self.z_loss, 0.0, math.inf)
        if self.hf_config:
            self._refuse_ignored(_DECODER, "hf_config decides it")
            sizes = {name: getattr(self, name) for name in SIZES}
            if (said := contradiction(self.hf_config, sizes)) is not None:
                raise ValueError(said)
            return
        self._refuse_ignored(("branches",), "our own decoder knows its branches")
        if self.weights is not None:
            self._refuse_ignored(_STARTS, f"weights={self.weights!r} decides it")
        self._check_decoder()

    def _refuse_ignored(self, names: tuple[str, ...], why: str) -> None:
        for name in names:
            if (value := getattr(self, name)) != getattr(type(self), name):
                raise ValueError(f"{name}={value!r} would be ignored: {why}")

    def _check_decoder(self) -> None:
        for name in ("rope_theta", "norm_eps", "init_std"):
            positive(name, getattr(self, name))
        if self.embedding_std is not None:
            positive("embedding_std", self.embedding_std)
        for name, other in (("tied", ()), ("qk_norm", ("width",))):
            value = getattr(self, name)
            if not isinstance(value, bool) and value not in other:
                said = " or ".join(("true", "false", *map(repr, other)))
                raise ValueError(f"{name}={value!r} is not valid: it must be {said}")
        for name, names in _NAMES.items():
            if getattr(self, name) not in get_args(names):
                raise unknown(name, getattr(self, name), get_args(names))
        if self.gain == "none":
            self._refuse_ignored(("gain_init",), "gain='none'")
        if self.gain_init is not None:
            finite("gain_init", self.gain_init)
        if within("drop_path", self.drop_path, 0.0, 1.0) == 1.0:
            raise ValueError(
                f"drop_path={self.drop_path!r} is not valid: it must be below 1, or the last layer "
                "would never run"
            )
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} is not valid: it must divide width={self.width}")
        if self.head_dim % 2:
            raise ValueError(
                f"heads={self.heads} is not valid: it cuts width={self.width} into heads of "
                f"{self.head_dim}, and rotary positions turn pairs, so that must be even"
            )
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"kv_heads={self.kv_heads} is not valid: it must divide heads={self.heads}"
            )

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        said = self.hf_config.get("head_dim")
        return said if type(said) is int else self.width // self.heads

    @property
    def key_value_heads(self) -> int:
        """`kv_heads`, resolved."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def key_value_width(self) -> int:
        """Size of all key heads together, and of all value heads."""
        return self.key_value_heads * self.head_dim

    @property
    def qk_norm_sizes(self) -> tuple[int, int]:
        """Weights of the norm of queries and of that of keys; 0 where there is none."""
        sizes = {
            False: (0, 0),
            True: (self.head_dim, self.head_dim),
            "width": (self.width, self.key_value_width),
        }
        return sizes[self.qk_norm]

    @property
    def gains(self) -> int:
        """Learned factors of each layer's branches."""
        return {"none": 0, "rezero": 1, "layerscale": 2 * self.width}[self.gain]

    @property
    def feed_forward_width(self) -> int:
        """`feed_forward`, resolved: 8·⌈width/3⌉ is 8/3 of the width, up to a multiple of 8."""
        return 8 * -(-self.width // 3) if self.feed_forward is None else self.feed_forward

    @property
    def longest(self) -> tuple[str, int] | None:
        """Tokens of the longest sequence and the key of hf_config that says so; None if nothing
        limits them."""
        return longest(self.hf_config)

    @property
    def unused(self) -> tuple[str, ...]:
        """Fields that have no meaning in this model."""
        return _DECODER if self.hf_config else ("hf_config",)

    def parameters(self, *, embedding: bool = True) -> int:
        """Number of trainable parameters; of a model of transformers, which must be installed for
        it, counted on the meta device.

        Args:
            embedding: count the input embedding. Without it a tied matrix still counts once,
                as the head: the multiplication by it is computed. (Learned positions are looked up
                too, and not counted.)

        Raises:
            ValueError: `vocab_size` is not set.
        """
        if self.hf_config:
            from groundup.model.hugging_face import count

            found = count(self)
            return found.total - (0 if embedding else found.looked_up)
        if self.vocab_size is None:
            raise ValueError("vocab_size=None: the number of parameters needs an integer")
        attention = 2 * self.width * (self.width + self.key_value_width)
        attention += sum(self.qk_norm_sizes)
        feed_forward = 3 * self.width * self.feed_forward_width
        norms = 2 * _NORMS_PER_BRANCH.get(self.placement, 1) * self.width
        layers = self.layers * (attention + feed_forward + norms + self.gains)
        matrices = 1 if self.tied or not embedding else 2
        return layers + self.width + matrices * self.vocab_size * self.width

    def flops_per_token(self, length: int) -> int:
        """Training FLOPs per token at sequence length `length`: 6·N + 12·layers·width·length.

        N counts the parameters without the input embedding, which is a look-up; the second term is
        attention's two products, forward and backward, without a discount for causality (Chowdhery
        et al. 2022, PaLM, appendix B). Models of transformers have heads·head_dim for the width
        there, and of a mixture of experts all are counted, as if each token went through all.
        """
        attention = 12 * self.layers * self.heads * self.head_dim * length
        return 6 * self.parameters(embedding=False) + attention
