"""CIFAR-10 (Krizhevsky 2009) from files or from the library `datasets`.

`from_files` takes a path to
- the folder ``cifar-10-batches-py`` (or one that contains it): pickles, read without running what
  a pickle can name: see `_Unpickler`;
- the folder ``cifar-10-batches-bin`` (or one that contains it): records of a label and 3072 bytes;
- a file .npz (also .npz.gz, .npz.zst, …) with ``train_labels``, ``test_labels`` and for each split
  either ``…_images``, uint8 [n, 32, 32, 3] or [n, 3, 32, 32], or ``…_jpeg``, the bytes of one JPEG
  after the other, with ``…_offsets`` [n + 1].
"""

from __future__ import annotations

import io
import itertools
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.data.corpus.compression import open_stream
from groundup.data.errors import DataError

__all__ = ["Labelled", "from_datasets", "from_files"]

Labelled = tuple[NDArray[np.uint8], NDArray[np.integer]]
"""Images uint8 [n, colours, height, width] and labels [n]."""

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_CLASSES = 10
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))


def from_files(where: str) -> tuple[Labelled, Labelled]:
    """Training and test images of a folder or a file. Raises: DataError naming what is wrong."""
    path = Path(where).expanduser()
    if path.is_file():
        return _npz(path)
    for folder, suffix, read in _FOLDERS:
        for place in (path, path / folder):
            if (place / f"test_batch{suffix}").is_file():
                return _batches(place, _TRAIN, suffix, read), _batches(
                    place, ("test_batch",), suffix, read
                )
    raise DataError(
        f"data: {path} is no CIFAR-10: it must be a folder with data_batch_1 … test_batch (the "
        "python version, or the binary one in .bin files), or a file .npz"
    )


def _batches(
    folder: Path, names: Iterable[str], suffix: str, read: Callable[[bytes], tuple[Any, Any]]
) -> Labelled:
    parts = []
    for name in names:
        path = folder / f"{name}{suffix}"
        try:
            pixels, labels = read(path.read_bytes())
            parts.append(_checked(pixels, labels))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error}") from error
        except ValueError as error:
            raise DataError(f"{path}: is no batch of CIFAR-10: {error}") from error
    return np.concatenate([p for p, _ in parts]), np.concatenate([n for _, n in parts])


def _checked(pixels: Any, labels: Any) -> Labelled:
    images, classes = np.asarray(pixels), np.asarray(labels)
    if images.dtype != np.uint8 or images[:1].size not in (0, _PIXELS) or images.ndim < 2:
        raise ValueError(
            f"its images are {images.dtype} {list(images.shape)}: they must be uint8 [n, {_PIXELS}]"
        )
    if classes.dtype.kind not in "iu" or classes.shape != images.shape[:1] or not len(classes):
        raise ValueError(
            f"its labels are {classes.dtype} {list(classes.shape)}: they must be {len(images)} "
            "whole numbers, at least 1"
        )
    if classes.min() < 0 or classes.max() >= _CLASSES:
        raise ValueError(f"a label is {classes.min()} or {classes.max()}: it must be in 0..9")
    if images.shape[1:] == (_SIDE, _SIDE, 3):
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images.reshape(-1, 3, _SIDE, _SIDE)), classes


def _binary(content: bytes) -> tuple[Any, Any]:
    if len(content) % (1 + _PIXELS):
        raise ValueError(f"its {len(content)} bytes are no whole number of records of 3073")
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0]


def _pickled(content: bytes) -> tuple[Any, Any]:
    try:
        found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        values = {k.decode() if isinstance(k, bytes) else k: v for k, v in found.items()}
        return values["data"].array(), values["labels"]
    except ValueError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(f"the pickle is damaged: {type(error).__name__}: {error}") from error


class _Unpickler(pickle.Unpickler):
    """Builds plain values, and of NumPy's arrays what was stored of them. Nothing that the pickle
    names is looked up: the few names that CIFAR-10 needs stand for the stand-ins below, all others
    are refused."""

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        if known is None:
            raise ValueError(f"the pickle asks for {module}.{name}, which no batch needs: refused")
        return known


class _Stored:
    """What a pickle says of an object: the arguments to make it, and its state."""

    def __init__(self, *given: Any) -> None:
        self.given, self.state = given, ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Stored):
    def array(self) -> NDArray[np.uint8]:
        """Raises: ValueError if what was stored are not bytes in C order that fill its shape."""
        match self.state:
            case (_, tuple(shape), _Stored(given=(b"u1" | "u1", *_)), False | 0, bytes(content)):
                return np.frombuffer(content, np.uint8).reshape(shape)
        raise ValueError("its array is none of bytes, rows first")


def _encoded(text: str, encoding: str) -> bytes:
    """As pickles of Python 3 in old protocols store bytes."""
    return text.encode("latin-1" if encoding in ("latin1", b"latin1") else str(encoding))


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Stored,
    ("numpy", "dtype"): _Stored,
    ("_codecs", "encode"): _encoded,
}

_FOLDERS: tuple[tuple[str, str, Callable[[bytes], tuple[Any, Any]]], ...] = (
    ("cifar-10-batches-py", "", _pickled),
    ("cifar-10-batches-bin", ".bin", _binary),
)


def _npz(path: Path) -> tuple[Labelled, Labelled]:
    with open_stream(path) as stream:
        content = stream.read()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is one array")
            return _split(file, "train"), _split(file, "test")
    except DataError:
        raise
    except Exception as error:  # the archive's, NumPy's and Pillow's, where it is damaged
        raise DataError(f"{path}: is no .npz of CIFAR-10: {error}") from error


def _split(file: Any, split: str) -> Labelled:
    if f"{split}_images" in file:
        return _checked(file[f"{split}_images"], file[f"{split}_labels"])
    content, offsets = file[f"{split}_jpeg"], file[f"{split}_offsets"].astype(np.int64)
    ends = np.array([0, len(content)])
    if content.dtype != np.uint8 or len(offsets) < 2 or (np.diff(offsets) < 0).any():
        raise ValueError(f"{split}_jpeg must be uint8, and {split}_offsets rise")
    if (offsets[[0, -1]] != ends).any():
        raise ValueError(f"{split}_offsets must go from 0 to {ends[1]}")
    pieces = (content[a:b].tobytes() for a, b in itertools.pairwise(offsets))
    return _checked(np.stack([_decoded(piece) for piece in pieces]), file[f"{split}_labels"])


def _decoded(jpeg: bytes) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "reading JPEG images needs the package Pillow: pip install 'groundup[studies]'"
        ) from error
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        return np.asarray(image.convert("RGB"))


def from_datasets(name: str) -> tuple[Labelled, Labelled]:
    """The splits train and test of a data set with a column of images and one of labels (``img``
    or ``image``, and ``label``). Raises: DataError naming what is wrong."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"data='dataset:{name}' needs the packages datasets and Pillow: "
            "pip install 'groundup[studies]'"
        ) from error
    try:
        folder = Path(name).expanduser()
        found = datasets.load_from_disk(folder) if folder.is_dir() else datasets.load_dataset(name)
        return _columns(found["train"]), _columns(found["test"])
    except Exception as error:  # the library lets through what its readers raise
        raise DataError(f"data='dataset:{name}': {type(error).__name__}: {error}") from error


def _columns(split: Any) -> Labelled:
    name = next((name for name in ("img", "image") if name in split.column_names), None)
    if name is None or "label" not in split.column_names:
        raise ValueError(
            f"it has the columns {split.column_names}: img (or image) and label needed"
        )
    images = np.stack([np.asarray(image.convert("RGB")) for image in split[name]])
    return _checked(images, np.asarray(split["label"]))
