"""Residual warmup in Lightning: an import and an argument, marked with <--.

    python examples/lightning_module.py [--steps 300]  # needs lightning, scikit-learn

A small Transformer encoder reads the handwritten digits of scikit-learn, row by row.
"""

import argparse

import lightning
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from groundup.integrations.lightning import ResidualWarmup  # <-- 1

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=300)
steps = parser.parse_args().steps
lightning.seed_everything(0, verbose=False)
torch.set_num_threads(1)  # more would only wait for each other in a model this small

digits = load_digits()
data = TensorDataset(torch.tensor(digits.images / 16).float(), torch.tensor(digits.target))
train, validation = random_split(data, [1400, len(data) - 1400])


class Digits(lightning.LightningModule):
    def __init__(self, width: int = 48, layers: int = 6) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.embedding = nn.Linear(8, width)
        self.positions = nn.Parameter(0.02 * torch.randn(8, width))
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.encoder(self.embedding(images) + self.positions)
        return self.head(x.mean(dim=1))

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def test_step(self, batch: list[torch.Tensor], index: int) -> None:
        images, labels = batch
        self.log("accuracy", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


warmup = ResidualWarmup()  # 20% of the steps; or ResidualWarmup(gu.depth.linear(T=1000))
trainer = lightning.Trainer(
    accelerator="cpu",
    max_steps=steps,
    callbacks=[warmup],  # <-- 2
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
model = Digits()
trainer.fit(model, DataLoader(train, 32, shuffle=True))
result = trainer.test(model, DataLoader(validation, 400), verbose=False)
print(f"accuracy {result[0]['accuracy']:.1%} after {steps} steps; {warmup.warmup!r}")
