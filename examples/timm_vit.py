"""Residual warmup in a script of timm's kind: the two lines are marked with <--.

    python examples/timm_vit.py [--steps 300]  # needs timm, scikit-learn

Everything else is timm's: the model, the parameter groups with layer decay, the rate with its own
warmup, the average of the weights. The images are the handwritten digits of scikit-learn.
In timm's own train.py the two lines go after `optimizer = create_optimizer_v2(…)` and before
`model_ema = utils.ModelEmaV3(…)`; there, `model` may be compiled or in DDP already.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from timm import create_model
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, accuracy

import groundup as gu

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=300)
steps = parser.parse_args().steps
torch.manual_seed(0)
torch.set_num_threads(1)  # more would only wait for each other in a model this small

digits = load_digits()
images = torch.tensor(digits.images / 8 - 1).float().unsqueeze(1)
labels = torch.tensor(digits.target)
order = torch.randperm(len(labels))
train, validation = order[:1400], order[1400:]

model = create_model(
    "vit_tiny_patch16_224",
    img_size=8,
    patch_size=4,
    in_chans=1,
    num_classes=10,
    embed_dim=48,
    depth=6,
    num_heads=4,
)
optimizer = create_optimizer_v2(model, opt="adamw", lr=2e-3, weight_decay=0.05, layer_decay=0.9)
warmup = gu.attach(model, gu.depth.linear(fraction=0.2, steps=steps))  # <-- 1
warmup.follow(optimizer)  # <-- 2
model_ema = ModelEmaV3(model, decay=0.99)  # a copy of the model; its α warms up along
scheduler, _ = create_scheduler_v2(
    optimizer,
    sched="cosine",
    num_epochs=steps,
    warmup_epochs=steps // 20,
    step_on_epochs=False,
    updates_per_epoch=1,
)

for step in range(steps):
    batch = train[torch.randint(len(train), (32,))]
    loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    model_ema.update(model, step=step)
    scheduler.step_update(step + 1)
    if step % max(1, steps // 10) == 0:
        awake = int((warmup.alphas() == 1).sum())
        rate = max(group["lr"] for group in optimizer.param_groups)
        print(f"step {step:4}  loss {loss.item():.3f}  rate {rate:.1e}  layers at α = 1: {awake}")

for name, net in ("model", model), ("average", model_ema.module):
    with torch.no_grad():
        right = accuracy(net.eval()(images[validation]), labels[validation])[0]
    print(f"accuracy of the {name}: {right:.1f}%")
