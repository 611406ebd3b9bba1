"""[log] of a recipe: where a run's numbers go besides its own files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LogConfig:
    """Copies of a run's numbers for TensorBoard and Weights & Biases; nothing that is computed
    depends on them."""

    tensorboard: bool = False
    """Event files in the run's folder, under tensorboard/."""

    wandb: bool = False
    """A run of Weights & Biases that keeps its id when the run goes on."""

    project: str | None = None
    """W&B's project; its own default unless given. So the three below."""

    entity: str | None = None
    """The user or team that the project belongs to."""

    group: str | None = None
    """What the W&B page groups runs by; in a comparison the recipe's name unless given."""

    mode: Literal["online", "offline", "disabled"] | None = None
    """offline: files for `wandb sync`; disabled: W&B does nothing."""

    def __post_init__(self) -> None:
        if self.wandb:
            return
        for name in ("project", "entity", "group", "mode"):
            if (value := getattr(self, name)) is not None:
                raise ValueError(
                    f"{name}={value!r} would be ignored with wandb=false; to leave W&B out of one "
                    'run say mode="disabled"'
                )
