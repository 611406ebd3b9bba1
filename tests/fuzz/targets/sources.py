"""Sources of text: plain, JSONL, and compressed, held against readers that share no code with
groundup's."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import zstandard

from groundup.data import DataConfig
from groundup.data.corpus.reading import documents
from groundup.data.texts import listings, measured
from tests.fuzz.damage import damage
from tests.fuzz.structure import damage_lines
from tests.fuzz.trial import Target, Trial, Wrong

_TEXT = "".join(f"line {n}: the quick brown fox — žluťoučký kůň — 日本語\n" for n in range(400))
_LINES = "".join(
    json.dumps({"id": n, "text": f"document {n}\n{'word ' * (n % 7)}é\U0001f600", "m": {"a": []}},
               ensure_ascii=n % 2 == 0) + "\n"
    for n in range(200)
)  # fmt: skip


def _zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


def _in_two(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """As parallel compressors write: more than one stream in a file."""
    return lambda content: pack(content[: len(content) // 2]) + pack(content[len(content) // 2 :])


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda content: gzip.compress(content, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": _zstd,
}


@dataclass(frozen=True)
class World:
    plain: dict[str, bytes]
    packed: dict[str, tuple[bytes, bytes]]


def _make(folder: Path) -> World:
    plain = {"a.txt": _TEXT.encode(), "a.jsonl": _LINES.encode()}
    packed = {}
    for suffix, pack in PACKED.items():
        for name, content in plain.items():
            packed[f"{name}.{suffix}"] = pack(content), content
            packed[f"two-{name}.{suffix}"] = _in_two(pack)(content), content
    return World(plain, packed)


def _draw(world: World, draw: Random, folder: Path) -> Trial:
    if draw.random() < 0.5:
        name = draw.choice(list(world.plain))
        content = world.plain[name]
        if name == "a.jsonl" and draw.random() < 0.7:
            content = damage_lines(content.decode(), draw).encode("utf-8", "surrogatepass")
        else:
            content = damage(content, draw, list(world.plain.values()))
        found = content
    else:
        name = draw.choice(list(world.packed))
        content, found = world.packed[name]
        content = damage(content, draw, [file for file, _ in world.packed.values()])
    path = folder / name.removeprefix("two-")
    path.write_bytes(content)
    return Trial(name, lambda: _read(path, content, found), (str(path), "the source is empty"))


def _read(path: Path, content: bytes, whole: bytes) -> str:
    config = DataConfig(source=str(path), folder=str(path.parent), vocab_size=257)
    (text,) = measured(config, listings(config), path.parent, lambda *about: None, 1)
    skipped: Counter[str] = Counter()
    found = [one for shard in text.shards for one in documents(shard, skipped)]
    kind = "whole"
    if path.suffix[1:] in PACKED:
        # Damage may have made another file that is whole: then all of its content counts.
        unpacked = whole
        if "".join(found) != _joined(path.stem, whole):
            unpacked, kind = _unpacked(path), "other"
        whole = unpacked
    elif path.name in ("a.txt", "a.jsonl"):
        kind = "other"
    if "".join(found) != _joined(path.name.removesuffix(path.suffix)
                                 if path.suffix[1:] in PACKED else path.name, whole):  # fmt: skip
        raise Wrong("other documents than the file holds")
    return kind


def _joined(name: str, content: bytes) -> str:
    """All documents of a file, one after another."""
    if name.endswith(".txt"):
        return content.decode().removeprefix("\ufeff")
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return "".join(json.loads(line)["text"] for line in lines if line.strip())


def _unpacked(path: Path) -> bytes:
    """Every stream of an archive; Wrong if what is behind the last one is none."""
    content, found = path.read_bytes(), b""
    opened: dict[str, Callable[[], object]] = {
        "bz2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor,
        "zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
    }  # fmt: skip
    try:
        if path.suffix == ".gz":
            with gzip.open(io.BytesIO(content)) as stream:
                return stream.read()
        while content:
            stream = opened[path.suffix[1:]]()
            found += stream.decompress(content)  # type: ignore[attr-defined]
            if not stream.eof:  # type: ignore[attr-defined]
                raise Wrong("the last stream has no end")
            content = stream.unused_data  # type: ignore[attr-defined]
    except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError) as error:
        raise Wrong(f"read without complaint, though: {error}") from None
    return found


TARGET = Target("sources", _make, _draw, few=60)
