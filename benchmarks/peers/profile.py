"""Where the time of an update goes: a profile's operations, in a few groups.

An operation's group follows from its name and from the sizes of its tensors, which say what a
product of matrices belongs to. Times are its own, without those of the operations that it calls.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from peers import Task

OTHER = "other, and between operations"

Sizes = set[int]


def parts(profiler: Any, task: Task) -> dict[str, float]:
    """Group → seconds of processor or GPU time of all profiled updates."""
    vocabulary, feed_forward = task.config.vocab_size, task.config.feed_forward_width
    found: dict[str, float] = defaultdict(float)
    on_gpu = task.device == "cuda"
    for event in profiler.key_averages(group_by_input_shape=True):
        time = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if on_gpu and str(event.device_type).endswith("CUDA"):
            continue  # the kernels, which are counted in what launched them
        sizes = set(_numbers(event.input_shapes))
        group = group_of(event.key.lower(), sizes, vocabulary, feed_forward)
        found[group] += time / 1e6
    return dict(found)


def check_groups(task: Task) -> None:
    """Refuse sizes by which groups cannot be told apart.

    Raises:
        ValueError: naming the tokens of a batch.
    """
    tokens, config = task.batch * task.length, task.config
    taken = (config.vocab_size, config.feed_forward_width, 2 * config.feed_forward_width)
    if tokens in taken:
        raise ValueError(
            f"a batch of {tokens} tokens is not valid with --profile: not any of {taken}"
        )


def group_of(name: str, sizes: Sizes, vocabulary: int, feed_forward: int) -> str:
    """The group of an operation: the first of GROUPS that fits."""
    of_head = vocabulary in sizes
    of_feed_forward = bool({feed_forward, 2 * feed_forward} & sizes)
    return next(
        group(of_head, of_feed_forward)
        for fits, group in GROUPS
        if any(word in name for word in fits)
    )


def _always(group: str) -> Callable[[bool, bool], str]:
    return lambda of_head, of_feed_forward: group


def _product(of_head: bool, of_feed_forward: bool) -> str:
    if of_head:
        return "embedding, head, loss"
    return "feed-forward: products" if of_feed_forward else "attention: projections"


def _elementwise(of_head: bool, of_feed_forward: bool) -> str:
    return "embedding, head, loss" if of_head else "norms, rotary, elementwise"


def _cast(of_head: bool, of_feed_forward: bool) -> str:
    return "embedding, head, loss" if of_head else "copies and casts"


GROUPS: tuple[tuple[tuple[str, ...], Callable[[bool, bool], str]], ...] = (
    (("fused_adam", "optimizer"), _always("optimizer")),
    (("foreach_norm", "clip_grad", "linalg_vector_norm", "foreach_mul"), _always("clip")),
    (("attention", "flash", "fmha"), _always("attention: softmax(qkᵀ)v")),
    (("embedding", "cross_entropy", "log_softmax", "nll_loss"), _always("embedding, head, loss")),
    (("mm", "linear", "matmul"), _product),
    (("copy_", "_to_copy", "aten::to", "contiguous", "clone"), _cast),
    (("aten::", "fused", "triton", "graph_", "backward"), _elementwise),
    (("",), _always(OTHER)),
)


def _numbers(shapes: Any) -> Iterator[int]:
    for entry in shapes or ():
        if isinstance(entry, int):
            yield entry
        elif isinstance(entry, list | tuple):
            yield from _numbers(entry)
