"""Readers of images on made-up files, whole and damaged, and the batches made of them."""

from __future__ import annotations

import io
import pickle
import pickletools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.data.errors import DataError
from groundup.experiment.resnet import cifar, load_images
from groundup.experiment.resnet.images import Images, crop_and_flip

_TRAIN = [f"data_batch_{n}" for n in range(1, 6)]
DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
LABELS = DRAW.integers(0, 10, 12)


def _python(folder: Path, number: int, protocol: int = 2) -> None:
    name, rows = [*_TRAIN, "test_batch"][number], slice(2 * number, 2 * number + 2)
    batch = {
        b"batch_label": b"x",
        b"labels": LABELS[rows].tolist(),
        b"data": IMAGES[rows].reshape(2, -1),
        b"filenames": [b"a", b"b"],
    }
    (folder / name).write_bytes(pickle.dumps(batch, protocol))


def _binary(folder: Path, number: int) -> None:
    name, rows = [*_TRAIN, "test_batch"][number], slice(2 * number, 2 * number + 2)
    pairs = zip(LABELS[rows].tolist(), IMAGES[rows], strict=True)
    (folder / f"{name}.bin").write_bytes(b"".join(bytes([k]) + i.tobytes() for k, i in pairs))


def _old_python(folder: Path, number: int) -> None:
    """As Python 2 wrote the original files: its strings are of bytes, and NumPy's old name."""
    _python(folder, number)
    path = folder / [*_TRAIN, "test_batch"][number]
    rows = IMAGES[2 * number : 2 * number + 2].reshape(2, -1)
    content = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87R(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + len(rows.tobytes()).to_bytes(4, "little")
        + rows.tobytes()
        + b"tbU\x06labels](K"
        + b"K".join(bytes([k]) for k in LABELS[2 * number : 2 * number + 2].tolist())
        + b"eu."
    )
    pickletools.dis(content, io.StringIO())  # it is a pickle
    path.write_bytes(content)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("write", [_python, _old_python, _binary])
def test_folders_of_both_versions(
    write: Callable[[Path, int], None], inside: bool, tmp_path: Path
) -> None:
    folder = tmp_path / f"cifar-10-batches-{'bin' if write is _binary else 'py'}"
    folder.mkdir()
    for number in range(6):
        write(folder, number)
    train, test = cifar.from_files(str(tmp_path if inside else folder))
    for (images, labels), rows in ((train, slice(0, 10)), (test, slice(10, 12))):
        np.testing.assert_array_equal(images, IMAGES[rows])
        np.testing.assert_array_equal(labels, LABELS[rows])


def test_older_protocols_of_this_python(tmp_path: Path) -> None:
    for number, protocol in enumerate((0, 1, 2, 3, 4, 2)):
        _python(tmp_path, number, protocol)
    train, _ = cifar.from_files(str(tmp_path))
    np.testing.assert_array_equal(train[0], IMAGES[:10])


class _Code:
    """A pickle of it creates the file `witness`."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.witness,))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    content = pickle.dumps({"data": _Code(witness), "labels": [1]})
    pickle.loads(content)
    assert witness.exists()  # the pickle does what it is meant to
    witness.unlink()
    for number in range(6):
        _python(tmp_path, number)
    (tmp_path / "data_batch_3").write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_3: .* asks for pathlib.*: refused"):
        cifar.from_files(str(tmp_path))
    assert not witness.exists()


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "numpy.load", "numpy.core.multiarray.fromfile"]
)
def test_names_that_a_batch_does_not_need_are_refused(name: str, tmp_path: Path) -> None:
    module, _, function = name.rpartition(".")
    for number in range(6):
        _python(tmp_path, number)
    (tmp_path / "test_batch").write_bytes(f"c{module}\n{function}\n(S'x'\ntR.".encode())
    with pytest.raises(DataError, match=f"test_batch: .* asks for {name}"):
        cifar.from_files(str(tmp_path))


def test_a_damaged_pickle_is_an_error_wherever_it_is_damaged(tmp_path: Path) -> None:
    for number in range(6):
        _python(tmp_path, number)
    path = tmp_path / "data_batch_1"
    whole = path.read_bytes()
    # What stands outside the pixels, and the first of them.
    head = whole.index(IMAGES[0].tobytes()[:8]) if IMAGES[0].tobytes()[:8] in whole else 300
    cuts = [0, 1, *range(2, head, 7), len(whole) // 2, len(whole) - 1]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match="data_batch_1"):
            cifar.from_files(str(tmp_path))
    for at in range(0, head, 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            train, _ = cifar.from_files(str(tmp_path))
        except DataError:
            continue
        assert train[0].shape[1:] == (3, 32, 32)  # a name or a comment has changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-1], "6145 bytes are no whole number of records of 3073"),
        (lambda b: b"", "at least 1"),
        (lambda b: b"\x0a" + b[1:], "a label is . or 10"),
    ],
)
def test_a_damaged_binary_batch(
    change: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    for number in range(6):
        _binary(tmp_path, number)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=rf"data_batch_2\.bin: .*{message}"):
        cifar.from_files(str(tmp_path))
    path.unlink()
    with pytest.raises(DataError, match=r"data_batch_2\.bin: cannot be read"):
        cifar.from_files(str(tmp_path))


def _splits(kind: str) -> dict[str, np.ndarray]:
    values: dict[str, np.ndarray] = {}
    for split, rows in (("train", slice(0, 10)), ("test", slice(10, 12))):
        values[f"{split}_labels"] = LABELS[rows].astype(np.uint8)
        images = IMAGES[rows].transpose(0, 2, 3, 1)
        if kind == "images":
            values[f"{split}_images"] = images
            continue
        files = pytest.importorskip("PIL.Image"), []
        for image in images:
            buffer = io.BytesIO()
            # Images of one colour, which JPEG keeps.
            files[0].new("RGB", (32, 32), tuple(int(v) for v in image[0, 0])).save(
                buffer, "JPEG", quality=100
            )
            files[1].append(buffer.getvalue())
        values[f"{split}_jpeg"] = np.frombuffer(b"".join(files[1]), np.uint8)
        values[f"{split}_offsets"] = np.cumsum([0, *map(len, files[1])])
    return values


@pytest.mark.parametrize("suffix", [".npz", ".npz.gz"])
@pytest.mark.parametrize("kind", ["images", "jpeg"])
def test_npz_of_arrays_and_of_jpeg(kind: str, suffix: str, tmp_path: Path) -> None:
    import gzip

    buffer = io.BytesIO()
    np.savez(buffer, **_splits(kind))
    path = tmp_path / f"cifar{suffix}"
    content = buffer.getvalue()
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    (images, labels), (test, _) = cifar.from_files(str(path))
    np.testing.assert_array_equal(labels, LABELS[:10])
    if kind == "images":
        np.testing.assert_array_equal(images, IMAGES[:10])
        np.testing.assert_array_equal(test, IMAGES[10:])
    else:
        wanted = np.broadcast_to(IMAGES[:10, :, :1, :1], (10, 3, 32, 32)).astype(int)
        assert np.abs(images.astype(int) - wanted).max() <= 4  # JPEG's own rounding


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": None}, "train_labels"),
        ({"train_labels": np.arange(9)}, "10 whole numbers"),
        ({"train_labels": np.full(10, 12)}, r"must be in 0\.\.9"),
        ({"train_images": np.zeros((10, 32, 32, 3))}, "float64"),
        ({"train_images": np.zeros((10, 3, 28, 28), np.uint8)}, "28, 28"),
        ({"train_labels": np.array([{}] * 10, object)}, "allow_pickle"),
        ({"train_images": None, "train_jpeg": np.zeros(4, np.uint8),
          "train_offsets": np.array([0, 3, 2, 4])}, "train_offsets rise"),
        ({"train_images": None, "train_jpeg": np.zeros(4, np.uint8),
          "train_offsets": np.array([0, 2, 9])}, "from 0 to 4"),
        ({"train_images": None, "train_jpeg": np.zeros(4, np.uint8),
          "train_offsets": np.array([0, 2, 4])}, "cannot identify image"),
    ],
)  # fmt: skip
def test_a_damaged_npz(change: dict[str, np.ndarray | None], message: str, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    values = {k: v for k, v in (_splits("images") | change).items() if v is not None}
    path = tmp_path / "c.npz"
    np.savez(path, **values)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"c\.npz: .*{message}"):
        cifar.from_files(str(path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"c\.npz"):
        cifar.from_files(str(path))


@pytest.mark.parametrize("kind", ["images", "jpeg"])
def test_an_npz_damaged_anywhere_is_an_error_or_still_a_data_set(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    np.savez_compressed(path, **_splits(kind))  # type: ignore[arg-type]
    whole = path.read_bytes()
    places = {*range(0, len(whole), len(whole) // 40), *range(len(whole) - 200, len(whole), 9)}
    for at in sorted(places):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            (images, labels), _ = cifar.from_files(str(path))
        except DataError:
            continue
        assert images.shape == (len(labels), 3, 32, 32)


def test_neither_folder_nor_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no CIFAR-10: it must be a folder"):
        load_images(f"cifar10:{tmp_path}")
    for data in ("mnist", "cifar10", "cifar10:", "digits:x", ""):
        with pytest.raises(ValueError, match=f"data='{data}' is not valid: it must be digits,"):
            load_images(data)


def test_a_data_set_of_the_library(tmp_path: Path) -> None:
    datasets, image = pytest.importorskip("datasets"), pytest.importorskip("PIL.Image")
    kinds = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=list("abcdefghij"))}
    )
    made = {
        split: datasets.Dataset.from_dict(
            {
                "img": [image.fromarray(i) for i in IMAGES[rows].transpose(0, 2, 3, 1)],
                "label": LABELS[rows],
            },
            features=kinds,
        )
        for split, rows in (("train", slice(0, 10)), ("test", slice(10, 12)))
    }
    datasets.DatasetDict(made).save_to_disk(tmp_path / "saved")
    train, test = cifar.from_datasets(str(tmp_path / "saved"))
    np.testing.assert_array_equal(train[0], IMAGES[:10])
    np.testing.assert_array_equal(test[1], LABELS[10:])
    datasets.DatasetDict({"train": made["train"]}).save_to_disk(tmp_path / "half")
    with pytest.raises(DataError, match="half': KeyError: 'test'"):
        cifar.from_datasets(str(tmp_path / "half"))


def test_digits_are_split_once_and_normalized(monkeypatch: pytest.MonkeyPatch) -> None:
    source = pytest.importorskip("sklearn.datasets").load_digits()
    found = load_images("digits")
    assert (found.train.shape, found.test.shape) == ((1000, 1, 8, 8), (797, 1, 8, 8))
    pixels = torch.cat([found.train, found.test])
    assert found.train.mean().abs() < 1e-5
    assert (found.train.std() - 1).abs() < 1e-3
    # All of the source, with its labels: undo the normalization, and sort.
    step = 16 / (pixels.max() - pixels.min())
    restored = ((pixels - pixels.min()) * step).round().int().flatten(1)
    labels = torch.cat([found.train_labels, found.test_labels])
    rows = sorted([*row, int(k)] for row, k in zip(restored.tolist(), labels, strict=True))
    wanted = zip(source.images.reshape(-1, 64).astype(int).tolist(), source.target, strict=True)
    assert rows == sorted([*row, int(k)] for row, k in wanted)
    assert found.train_labels.bincount().min() > 80
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    from groundup.experiment.resnet import images

    with pytest.raises(DataError, match=r"pip install 'groundup\[studies\]'"):
        images._digits("")


def _numbered(count: int) -> Images:
    pixels = torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 4, 4)
    return Images(pixels, torch.arange(count), pixels, torch.arange(count), 10)


def test_batches_are_a_function_of_seed_and_epoch() -> None:
    images = _numbered(23)
    assert images.updates(5) == 4

    def labels(seed: int, epoch: int) -> list[int]:
        batches = list(images.epoch(5, (seed, epoch)))
        assert all(torch.equal(x[:, 0, 0, 0].long(), y) for x, y in batches)
        return torch.cat([y for _, y in batches]).tolist()

    first = labels(0, 0)
    assert len(first) == len(set(first)) == 20
    assert first == labels(0, 0)
    assert len({tuple(labels(s, e)) for s in range(2) for e in range(3)}) == 6


def test_crops_against_a_loop() -> None:
    pixels = torch.from_numpy(IMAGES[:, :2, :6, :5].copy()).float()
    found = crop_and_flip(pixels, np.random.default_rng(4))
    draw = np.random.default_rng(4)
    down, right = draw.integers(0, 9, (2, 12))
    mirrored = draw.random(12) < 0.5
    assert 0 < mirrored.sum() < 12
    for n in range(12):
        padded = np.zeros((2, 14, 13), np.float32)
        padded[:, 4:10, 4:9] = pixels[n]
        crop = padded[:, down[n] : down[n] + 6, right[n] : right[n] + 5]
        np.testing.assert_array_equal(found[n], crop[:, :, ::-1] if mirrored[n] else crop)
