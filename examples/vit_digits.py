"""Is it better? A vision Transformer with and without residual warmup, side by side.

    python examples/vit_digits.py [--steps 300] [--seeds 2]  # needs transformers, scikit-learn

The images are the handwritten digits of scikit-learn: 8×8 pixels, 1,797 of them. Both variants
begin with the same weights and see the same batches. The problem is small and easy: expect no
difference beyond the spread over the seeds. It shows how to compare.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTForImageClassification

import groundup as gu

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--seeds", type=int, default=2)
arguments = parser.parse_args()

torch.set_num_threads(1)  # more would only wait for each other in a model this small
digits = load_digits()
images = torch.tensor(digits.images / 8 - 1).float().unsqueeze(1)
labels = torch.tensor(digits.target)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
train, validation = order[:1300], order[1300:]
config = ViTConfig(
    initializer_range=0.1,  # the usual 0.02 is for wider models
    image_size=8,
    patch_size=2,
    num_channels=1,
    hidden_size=48,
    num_hidden_layers=12,
    num_attention_heads=4,
    intermediate_size=96,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    num_labels=10,
)


def accuracy(seed: int, with_warmup: bool) -> float:
    torch.manual_seed(seed)
    model = ViTForImageClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, arguments.steps, pct_start=0.1)
    if with_warmup:
        schedule = gu.depth.linear(fraction=0.2, steps=arguments.steps)
        gu.attach(model, schedule).follow(optimizer)
    batches = torch.Generator().manual_seed(seed)
    for _ in range(arguments.steps):
        batch = train[torch.randint(len(train), (32,), generator=batches)]
        model(pixel_values=images[batch], labels=labels[batch]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
    model.eval()
    with torch.no_grad():
        guessed = model(pixel_values=images[validation]).logits.argmax(1)
    return (guessed == labels[validation]).float().mean().item()


print(f"accuracy on {len(validation)} held-out digits after {arguments.steps} steps")
print("seed   without   with residual warmup")
rows = []
for seed in range(arguments.seeds):
    rows.append([accuracy(seed, with_warmup) for with_warmup in (False, True)])
    print(f"{seed:4}   {rows[-1][0]:7.1%}   {rows[-1][1]:7.1%}")
means = torch.tensor(rows).mean(dim=0)
differences = torch.tensor([b - a for a, b in rows])
error = differences.std().item() / len(rows) ** 0.5 if len(rows) > 1 else float("nan")
print(f"mean   {means[0]:7.1%}   {means[1]:7.1%}")
print(f"difference {differences.mean():+.1%} ± {error:.1%} (standard error over the seeds)")
