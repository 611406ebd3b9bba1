"""Token files: their bytes damaged, and headers that are signed anew and say something wrong."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np

from groundup.data import TokenFile, TokenWriter
from groundup.data.inspect import describe
from tests.fuzz.damage import damage
from tests.fuzz.structure import damage_json
from tests.fuzz.trial import Target, Trial, Wrong

_WHOLE_NUMBERS = ("vocab_size", "eos_id", "tokens", "documents")


@dataclass(frozen=True)
class World:
    files: list[bytes]
    found: list[tuple[dict, list[int]]]


def _make(folder: Path) -> World:
    draw = np.random.default_rng(0)
    files, found = [], []
    for vocabulary, number in ((300, 900), (70_000, 5000), (300, 0)):
        path = folder / f"{vocabulary}-{number}.gtok"
        with TokenWriter(path, vocab_size=vocabulary, eos_id=1, tokenizer="0" * 64) as writer:
            for _ in range(3 if number else 0):
                writer.add(draw.integers(2, vocabulary, number // 3))
        file = TokenFile.open(path)
        files.append(path.read_bytes())
        found.append((asdict(file.header), file.tokens.tolist()))
    return World(files, found)


def _draw(world: World, draw: Random, folder: Path) -> Trial:
    which = draw.randrange(len(world.files))
    content, about = world.files[which], "bytes"
    if draw.random() < 0.5:
        content = damage(content, draw, world.files)
    else:
        content, about = _signed_anew(content, draw), "header"
    path = folder / "train.gtok"
    path.write_bytes(content)
    before = world.found[which] if about == "bytes" else None
    return Trial(about, lambda: _read(path, world, before), (str(path),))


def _signed_anew(content: bytes, draw: Random) -> bytes:
    """A file whose header has its right checksum, but other values."""
    length = struct.unpack("<I", content[12:16])[0]
    text = damage_json(content[48 : 48 + length].decode(), draw).encode("utf-8", "surrogatepass")
    body = text[: 4096 - 48].ljust(4096 - 48, b"\0")
    version = draw.choice((1, 1, 1, 1, 0, 2, 0xFFFFFFFF))
    said = draw.choice((min(len(text), len(body)), len(text), 0xFFFFFFFF, 0))
    numbers = struct.pack("<II", version, said % (1 << 32))
    checksum = hashlib.sha256(b"GUTOKENS" + numbers + body).digest()
    return b"GUTOKENS" + numbers + checksum + body + content[4096:]


def _read(path: Path, world: World, before: tuple[dict, list[int]] | None) -> str:
    file = TokenFile.open(path)
    file.verify()
    describe(path)
    found = (asdict(file.header), file.tokens.tolist())
    if before is not None:
        # Another file whole in its place is what it says it is.
        if found not in world.found:
            raise Wrong("other tokens than before the damage")
        return "whole" if found == before else "other"
    header = found[0]
    for name in _WHOLE_NUMBERS:
        if type(header[name]) is not int:
            raise Wrong(f"{name} is {json.dumps(header[name])}")
    if found[1] and max(found[1]) >= header["vocab_size"]:
        raise Wrong("tokens outside the vocabulary")
    if not 0 <= header["eos_id"] < header["vocab_size"]:
        raise Wrong("an end of document outside the vocabulary")
    return "whole" if found in world.found else "other"


TARGET = Target("token files", _make, _draw, few=80)
