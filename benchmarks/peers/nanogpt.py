"""nanoGPT's train.py (github.com/karpathy/nanoGPT), the script itself, its settings in its way.

Its model is GPT-2's: LayerNorm, GELU, learned positions, four times the width inside, one matrix
for embedding and head. Layers, width, heads and vocabulary are ours, and no biases; what it has
more or less is in its FLOPs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from peers import BETAS, CLIP, DECAY, RATE, STEPS, NotHere, Task, Updated

ABOUT = "nanoGPT's train.py: a GPT-2 of the same layers, width and heads; fused AdamW on a CPU, too"
OPTIONS = ("compiled",)

_FOUR = 4  # times the width inside its feed-forward


def train(task: Task, updated: Updated) -> None:
    import torch

    script = Path(task.path or ".") / "train.py"
    if not script.is_file():
        raise NotHere("there is no train.py: --peer nanogpt=FOLDER of its repository")
    text = script.read_text(encoding="utf-8")
    # It leaves autocast out on a CPU.
    text = text.replace("if device_type == 'cpu' else", "if dtype == 'float32' else")
    model = task.config
    settings = {
        "out_dir": task.folder,
        "dataset": str(_data(task)),
        "eval_interval": STEPS,
        "eval_iters": 1,  # it evaluates before the first update
        "log_interval": STEPS,
        "always_save_checkpoint": False,
        "gradient_accumulation_steps": 1,
        "batch_size": task.batch,
        "block_size": task.length,
        "n_layer": model.layers,
        "n_head": model.heads,
        "n_embd": model.width,
        "bias": False,
        "learning_rate": RATE,
        "decay_lr": False,
        "weight_decay": DECAY,
        "beta1": BETAS[0],
        "beta2": BETAS[1],
        "grad_clip": CLIP,
        "device": task.device,
        "dtype": "bfloat16" if task.precision == "bf16" else "float32",
        "compile": task.has("compiled"),
        "max_iters": STEPS,
    }
    sys.argv = [str(script)]
    scope: dict[str, Any] = {"__name__": "__main__", "open": _configured(settings)}

    class Fused(torch.optim.AdamW):
        """It takes the fused one on a GPU only."""

        def __init__(self, groups: Any, **given: Any) -> None:
            super().__init__(groups, **given | {"fused": True})
            self.register_step_post_hook(lambda *_: updated(scope["loss"]))

    torch.optim.AdamW = Fused  # type: ignore[misc]
    exec(compile(text, str(script), "exec"), scope)


def _configured(settings: dict[str, Any]) -> Any:
    """`open` for a script that executes configurator.py of the folder it is started in."""

    def opened(path: str, *given: Any, **more: Any) -> Any:
        if path == "configurator.py":
            import io

            return io.StringIO("\n".join(f"{name} = {value!r}" for name, value in settings.items()))
        return open(path, *given, **more)

    return opened


def _data(task: Task) -> Path:
    """A folder with what it reads."""
    import pickle

    folder = Path(task.folder) / "data"
    folder.mkdir()
    for name in ("train.bin", "val.bin"):
        (folder / name).symlink_to(Path(task.shared) / "tokens.bin")
    with open(folder / "meta.pkl", "wb") as file:
        pickle.dump({"vocab_size": task.config.vocab_size}, file)
    return folder


def flops_per_token(task: Task) -> int:
    """6·N + 12·layers·width·length, N without positions; the one matrix is that of the head."""
    model = task.config
    width, layers = model.width, model.layers
    each = 4 * width**2 + 2 * _FOUR * width**2 + 2 * width
    count = layers * each + width + model.vocab_size * width
    return 6 * count + 12 * layers * width * task.length
