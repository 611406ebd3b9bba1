"""Small labelled images, and the batches of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from groundup._check import count
from groundup.data.errors import DataError
from groundup.data.shuffle import permute
from groundup.experiment.resnet import cifar
from groundup.experiment.resnet.cifar import Labelled

_DIGITS_TEST = 797
_SPLIT = 1797  # the key of the split, the same for all runs
_BORDER = 4


@dataclass(frozen=True)
class Images:
    """Training and test images, normalized by the training set's mean and deviation per colour.

    Attributes:
        train: float32 [n, colours, height, width], in a fixed random order; train_labels: int64
            [n].
        test: the same.
        classes: how many there are.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: int

    def to(self, device: torch.device) -> Images:
        return Images(
            self.train.to(device),
            self.train_labels.to(device),
            self.test.to(device),
            self.test_labels.to(device),
            self.classes,
        )

    def updates(self, batch: int) -> int:
        """Batches of an epoch. Raises: ValueError if there is not one."""
        if len(self.train) < count("batch", batch):
            raise ValueError(
                f"batch={batch} is not valid: there are {len(self.train)} training images"
            )
        return len(self.train) // batch

    def epoch(
        self, batch: int, key: tuple[int, int], augment: str = "none"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch, a pure function of `key` = (seed, epoch): every image once,
        except those that are left over."""
        change, draw = _AUGMENT[augment], np.random.default_rng((*key, 2))
        order = np.argsort(permute(np.arange(len(self.train)), len(self.train), key))
        for index in range(self.updates(batch)):
            chosen = torch.from_numpy(order[index * batch : (index + 1) * batch])
            chosen = chosen.to(self.train.device)
            yield change(self.train[chosen], draw), self.train_labels[chosen]


def _unchanged(images: Tensor, draw: np.random.Generator) -> Tensor:
    return images


def crop_and_flip(images: Tensor, draw: np.random.Generator) -> Tensor:
    """Each image [n, colours, H, W] with four pixels of zeros around it, cropped to H × W at a
    random place, and mirrored half of the time (He et al. 2016, Section 4.2)."""
    n, _, height, width = images.shape
    down, right = draw.integers(0, 2 * _BORDER + 1, (2, n))
    rows = down[:, None] + np.arange(height)
    columns = right[:, None] + np.arange(width)
    mirrored = draw.random(n) < 0.5
    columns[mirrored] = columns[mirrored, ::-1]
    places = (torch.from_numpy(part).to(images.device) for part in (rows, columns))
    row, column = places
    padded = F.pad(images, (_BORDER,) * 4).permute(0, 2, 3, 1)
    image = torch.arange(n, device=images.device)[:, None, None]
    return padded[image, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2).contiguous()


_AUGMENT: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "none": _unchanged,
    "crop-flip": crop_and_flip,
}


def load_images(data: str) -> Images:
    """The images that a run's `data` names.

    ===================  ==========================================================================
    ``digits``           scikit-learn's handwritten digits, 8×8 grey: 1000 to train on, 797 to test
    ``cifar10:PATH``     CIFAR-10 from local files: the folder of the original python or binary
                         version, or an .npz of arrays or JPEG bytes; see `cifar.py`
    ``dataset:NAME``     a data set of the Hugging Face library `datasets`, or a folder of its
                         ``save_to_disk``, with splits train and test: ``dataset:uoft-cs/cifar10``
    ===================  ==========================================================================

    Raises:
        ValueError: for another name.
        DataError: (a ValueError) if the files are missing or damaged, or a package is.
    """
    kind, _, where = data.partition(":")
    if kind not in _KINDS or bool(where) == (kind == "digits"):
        raise ValueError(
            f"data={data!r} is not valid: it must be digits, cifar10:PATH or dataset:NAME"
        )
    return _loaded(kind, where)


@lru_cache(maxsize=1)  # the runs of one process mostly share it
def _loaded(kind: str, where: str) -> Images:
    return _normalized(*_KINDS[kind](where))


def _digits(where: str) -> tuple[Labelled, Labelled]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "data='digits' needs the package scikit-learn: pip install 'groundup[studies]'"
        ) from error
    found = load_digits()
    # 0 to 16; as bytes, like the images of CIFAR.
    pixels = found.images.astype(np.uint8)[:, None]
    order = np.argsort(permute(np.arange(len(pixels)), len(pixels), _SPLIT))
    test, train = np.split(order, [_DIGITS_TEST])
    return (pixels[train], found.target[train]), (pixels[test], found.target[test])


def _normalized(train: Labelled, test: Labelled) -> Images:
    order = np.argsort(permute(np.arange(len(train[0])), len(train[0]), _SPLIT))
    pixels = torch.from_numpy(train[0][order]).float()
    mean = pixels.mean((0, 2, 3), keepdim=True)
    deviation = pixels.std((0, 2, 3), keepdim=True, correction=0)

    def labels(given: NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(given.astype(np.int64))

    return Images(
        (pixels - mean) / deviation,
        labels(train[1][order]),
        (torch.from_numpy(test[0]).float() - mean) / deviation,
        labels(test[1]),
        classes=10,
    )


_KINDS: dict[str, Callable[[str], tuple[Labelled, Labelled]]] = {
    "digits": _digits,
    "cifar10": cifar.from_files,
    "dataset": cifar.from_datasets,
}
