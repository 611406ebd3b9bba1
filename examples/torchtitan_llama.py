"""Residual warmup in torchtitan 0.2: this file registers Llama 3 with it, in the lines marked <--.

On GPUs torchtitan's own trainer runs it. `--experimental.custom_import` names this module, which
must be importable, and `--model.name` the spec that it registers:

    PYTHONPATH=examples torchrun --nproc_per_node 8 -m torchtitan.train \\
        --job.config_file train_configs/debug_model.toml \\
        --experimental.custom_import torchtitan_llama --model.name llama3_warmup

Without a GPU it shows the same pieces at work, over the bytes of Python's library:

    python examples/torchtitan_llama.py [--steps 30]  # needs torchtitan==0.2.2
"""

import argparse
import pathlib

import torch
import torch.nn.functional as F
from torchtitan.config.job_config import Optimizer as OptimizerConfig
from torchtitan.models.llama3 import get_train_spec
from torchtitan.protocols.train_spec import register_train_spec

import groundup as gu
from groundup.integrations.torchtitan import residual_warmup  # <-- 1

spec = residual_warmup(get_train_spec(), gu.depth.linear(T=1000))  # <-- 2
register_train_spec("llama3_warmup", spec)  # <-- 3: or "llama3", to take the place of its own


def demonstrate(steps: int) -> None:
    """What torchtitan's trainer does with a spec, but for its parallelism."""
    spec = residual_warmup(get_train_spec(), gu.depth.linear(fraction=0.5, steps=steps))
    torch.manual_seed(0)
    with torch.device("meta"):
        model = spec.model_cls(spec.model_args["debugmodel"])
    for block in model.layers.values():
        block.compile(backend="eager")
    model.to_empty(device="cpu")
    with torch.no_grad():
        model.init_weights()
    optimizers = spec.build_optimizers_fn([model], OptimizerConfig(implementation="foreach"), None)

    files = sorted(pathlib.Path(argparse.__file__).parent.glob("*.py"))[:60]
    text = torch.tensor(list(b"".join(file.read_bytes() for file in files)))
    for step in range(steps):
        starts = torch.randint(len(text) - 65, (4,))
        rows = torch.stack([text[start : start + 65] for start in starts])
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        optimizers.step()
        optimizers.zero_grad()
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            # The step stands in the optimizer, and so in torchtitan's checkpoints.
            updates = optimizers.optimizers[0].param_groups[0]["residual_warmup_step"]
            print(f"step {step:3}   loss {loss.item():.3f}   updates {updates}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=30)
    demonstrate(parser.parse_args().steps)
