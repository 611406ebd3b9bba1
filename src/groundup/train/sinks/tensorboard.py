"""TensorBoard's event files, in the run's folder under tensorboard/."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundup.train.recipe import Recipe

# Seconds; a kill loses no more. A checkpoint flushes, so that a run that goes on has no gap.
_FLUSH = 30


class TensorBoard:
    """Scalars by torch's own writer.

    Event files are only ever added to. A run that goes on begins another one with a mark, at which
    TensorBoard forgets what the earlier files hold of that update and later ones.
    """

    name = "TensorBoard"

    def __init__(
        self, recipe: Recipe, folder: Path, start: int, note: Callable[[str], None]
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(
            str(folder / "tensorboard"), purge_step=start, flush_secs=_FLUSH
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        # All in one event: `add_scalar` makes one of each, at ten times the cost.
        scalars = [Summary.Value(tag=name, simple_value=v) for name, v in values.items()]
        self._writer.file_writer.add_summary(Summary(value=scalars), step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self, failed: bool) -> None:
        self._writer.close()
