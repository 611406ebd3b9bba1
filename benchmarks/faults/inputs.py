"""Files that a run needs and that are gone, changed or damaged when it looks for them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

from faults.ends import ends_the_same, is_the_same, says
from faults.moments import cut_off, in_training
from faults.place import Folder, Place
from faults.registry import Act, demand, fault


def prepared(folder: Folder, name: str) -> Path:
    """A file of the prepared data."""
    (path,) = (folder.path / "data").glob(f"*/{name}")
    return path


def flip(path: Path, place: float) -> None:
    """Turn over one bit at that fraction of the file."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


def shorten(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


# ---------------------------------------------------------------------- gone


@fault("source-gone", "source vanished", "the folder of texts is renamed after a kill", times=2)
def source_gone(place: Place, times: int) -> Generator[str, None, str]:
    for _ in range(times):
        folder = place.folder()
        cut_off(folder, 20)
        (folder.path / "texts").rename(folder.path / "away")
        yield says(folder.finish(), 2, "texts")
        (folder.path / "away").rename(folder.path / "texts")
        ends_the_same(place, folder)
    return "with the texts back, the same command ended as undisturbed"


@fault(
    "tokens-gone",
    "prepared data vanished",
    "train.gtok, validation.gtok, tokenizer.json or all are removed after a kill",
    times=4,
)
def tokens_gone(place: Place, times: int) -> Generator[str, None, str]:
    names = ("train.gtok", "validation.gtok", "tokenizer.json", "")
    for turn in range(times):
        folder = place.folder()
        cut_off(folder, 20)
        if name := names[turn % 4]:
            prepared(folder, name).unlink()
        else:
            shutil.rmtree(folder.path / "data")
        ends_the_same(place, folder)
        yield "prepared again"
    return "the same command ended as undisturbed"


@fault("tokens-gone-in-use", "token file removed in use", "at update 20 of a run", times=2)
def tokens_gone_in_use(place: Place, times: int) -> Generator[str, None, str]:
    for _ in range(times):
        folder = place.folder()
        started = in_training(folder, 20)
        prepared(folder, "train.gtok").unlink()
        demand(started.wait().code == 0, started.said())
        is_the_same(place, folder)
        yield "the run went on, the file being mapped"
    return "ended as undisturbed"


@fault(
    "tokens-truncated-in-use",
    "token file truncated in use",
    "to its header, at update 20 of a run",
    times=3,
)
def tokens_truncated_in_use(place: Place, times: int) -> Generator[str, None, str]:
    for _ in range(times):
        folder = place.folder()
        started = in_training(folder, 20)
        path = prepared(folder, "train.gtok")
        with open(path, "rb+") as file:
            file.truncate(4096)
        ended = started.wait()
        demand(ended.code == -7, f"exit {ended.code}:\n{ended.said[-2000:]}")
        refused = says(folder.finish(), 2, "train.gtok", "truncated", "delete this folder")
        shutil.rmtree(path.parent)
        ends_the_same(place, folder)
        yield f"SIGBUS; then {refused}"
    return "then, that folder removed, ended as undisturbed"


# ---------------------------------------------------------------------- damaged


def damaged(name: str, damage: Callable[[Path, random.Random], None], *said: str) -> Act:
    """A file of the prepared data is damaged after a kill: refused until it is made again."""

    def act(place: Place, times: int) -> Generator[str, None, str]:
        draw = random.Random(0)
        for _ in range(times):
            folder = place.folder()
            cut_off(folder, 20)
            path = prepared(folder, name)
            damage(path, draw)
            yield says(folder.finish(), 2, name, *said)
            shutil.rmtree(path.parent)
            ends_the_same(place, folder)
        return "that folder removed, the same command ended as undisturbed"

    return act


def _flip_in_header(path: Path, draw: random.Random) -> None:
    flip(path, draw.uniform(0, 4000) / path.stat().st_size)


def _flip_in_tokens(path: Path, draw: random.Random) -> None:
    flip(path, draw.uniform(4096 / path.stat().st_size, 1))


def _shorten(path: Path, draw: random.Random) -> None:
    shorten(path, draw.uniform(0, 0.99))


def _another_tokenizer(path: Path, draw: random.Random) -> None:
    """Two of its tokens change places: the same size, another meaning."""
    table = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = table["model"]["vocab"]
    first, second = draw.sample(sorted(vocabulary), 2)
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(table), encoding="utf-8")


_AFTER = "after a kill"
fault("tokens-header", "damaged header of a token file", f"one bit turned over, {_AFTER}", 5)(
    damaged("train.gtok", _flip_in_header, "delete this folder")
)
fault("tokens-damaged", "damaged tokens", f"one bit of train.gtok turned over, {_AFTER}", 5)(
    damaged("train.gtok", _flip_in_tokens, "damaged", "delete this folder")
)
fault("tokens-truncated", "truncated token file", f"train.gtok cut at random, {_AFTER}", 5)(
    damaged("train.gtok", _shorten, "truncated", "delete this folder")
)
fault("manifest-truncated", "truncated prepared.json", f"cut at random, {_AFTER}", 3)(
    damaged("prepared.json", _shorten, "delete this folder")
)
fault("tokenizer-swapped", "tokenizer mismatch", f"two tokens change their ids, {_AFTER}", 3)(
    damaged("tokenizer.json", _another_tokenizer, "delete this folder")
)
fault("tokenizer-truncated", "truncated tokenizer", f"tokenizer.json cut at random, {_AFTER}", 3)(
    damaged("tokenizer.json", _shorten)
)


@fault(
    "tokens-of-another",
    "token file of another tokenizer",
    "a sound one, of a vocabulary of 270 tokens, in the place of that of 280, after a kill",
    times=2,
)
def tokens_of_another(place: Place, times: int) -> Generator[str, None, str]:
    for _ in range(times):
        other = place.folder(data__vocab_size=270)
        folder = place.folder()
        cut_off(folder, 20)
        path = prepared(folder, "train.gtok")
        shutil.copy(prepared(other, "train.gtok"), path)
        yield says(folder.finish(), 2, "train.gtok", "another tokenizer", "delete this folder")
        shutil.rmtree(path.parent)
        ends_the_same(place, folder)
    return "that folder removed, the same command ended as undisturbed"


# ---------------------------------------------------------------------- the run's own files


@fault(
    "checkpoint-damaged",
    "damaged newest checkpoint",
    "a bit turned over in, or the end cut off, one of its files drawn at random, after a kill",
    times=12,
)
def checkpoint_damaged(place: Place, times: int) -> Generator[str, None, str]:
    draw = random.Random(0)
    for turn in range(times):
        folder = place.folder()
        cut_off(folder, 30)
        newest = max((folder.run / "checkpoints").glob("step-*"))
        path = draw.choice(sorted(path for path in newest.iterdir() if path.is_file()))
        if turn % 2:
            shorten(path, draw.uniform(0, 0.99))
        else:
            flip(path, draw.random())
        ended = folder.finish()
        demand(ended.code == 0, f"{path.name}: exit {ended.code}: {ended.said[-3000:]}")
        demand(newest.name in ended.said, f"{path.name}: not named:\n{ended.said[-3000:]}")
        is_the_same(place, folder)
        yield f"{path.name}: named, and the one before taken"
    return "ended as undisturbed"


@fault("metrics-cut", "metrics.jsonl shortened", "to its first 3 lines, after a kill", times=2)
def metrics_cut(place: Place, times: int) -> Generator[str, None, str]:
    for _ in range(times):
        folder = place.folder()
        cut_off(folder, 30)
        path = folder.run / "metrics.jsonl"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
        yield says(folder.finish(), 2, "run/metrics.jsonl", "holds 3 updates")
    return "refused: what was computed cannot be told any more"


@fault(
    "recipe-changed", "recipe changed", "another rate.peak than the run has, after a kill", times=2
)
def recipe_changed(place: Place, times: int) -> Generator[str, None, str]:
    for _ in range(times):
        folder = place.folder()
        cut_off(folder, 30)
        yield says(folder.finish("--rate.peak", "1e-4"), 2, "rate.peak: 0.003 there, 0.0001 now")
        ends_the_same(place, folder)
    return "with the recipe as it was, ended as undisturbed"


@fault("source-changed", "data changed", "a line is added to a text, after a kill", times=2)
def source_changed(place: Place, times: int) -> Generator[str, None, str]:
    for _ in range(times):
        folder = place.folder()
        cut_off(folder, 30)
        text = folder.path / "texts" / "00.txt"
        before = text.read_bytes()
        text.write_bytes(before + b"one more line\n")
        yield says(folder.finish(), 2, "run", "the data changed")
        text.write_bytes(before)
        ends_the_same(place, folder)
    return "with the text as it was, ended as undisturbed"
