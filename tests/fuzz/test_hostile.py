"""Checkpoints made to run code: nothing in them does, and each is refused by its name."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, MetadataIndex

from groundup.train import train
from tests.fuzz.targets import runs


class Call:
    """Pickled, it is a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def by_name(module: str, name: str, *arguments: str) -> bytes:
    """A pickle that calls what only its name leads to, such as a dotted one."""
    words = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
    values = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in arguments)
    return b"\x80\x04" + words + b"\x93" + b"(" + values + b"t" + b"R."


def pickles(canary: Path) -> dict[str, bytes]:
    """Pickles that would make the file `canary`."""
    touch = f"touch {canary}"
    code = f"open({str(canary)!r}, 'w').close()"
    metadata = Metadata({}, storage_data=Call(exec, code))
    storage = "torch.distributed.checkpoint"
    return {
        "os.system": by_name("os", "system", touch),
        "posix.system": by_name("posix", "system", touch),
        "builtins.eval": by_name("builtins", "eval", code),
        "builtins.exec": pickle.dumps(Call(exec, code)),
        "inside the metadata": pickle.dumps(metadata),
        "a list of calls": pickle.dumps([[{"a": Call(exec, code)}]]),
        "old protocol": pickle.dumps(Call(exec, code), protocol=0),
        "os, as DCP's reader imports it": by_name(f"{storage}.filesystem", "os.system", touch),
        "os, as DCP's planner imports it": by_name(f"{storage}.metadata", "os.system", touch),
        "pathlib": pickle.dumps(Call(Path.touch, canary)),
        "pathlib, dotted": by_name("pathlib", "os.system", touch),
        "torch": by_name("torch", "os.system", touch),
        "torch.serialization": by_name("torch.serialization", "os.system", touch),
        "torch.load": pickle.dumps(Call(torch.load, str(canary))),
        "getattr": by_name("builtins", "getattr", "os", "system"),
    }


NAMES = tuple(pickles(Path("/x")))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> runs.World:
    return runs.make(tmp_path_factory.mktemp("hostile"))


def replaced(world: runs.World, folder: Path, name: str, content: bytes) -> Path:
    """A run with this content in the file of each checkpoint, the manifest made to fit."""
    there = folder / "run"
    shutil.copytree(world.stopped, there)
    for place in (there / "checkpoints").iterdir():
        (place / name).write_bytes(content)
        manifest = json.loads((place / "manifest.json").read_text())
        entry = {"size": len(content), "sha256": sha256(content).hexdigest()}
        manifest["files"][name] = entry
        (place / "manifest.json").write_text(json.dumps(manifest))
    return there


@pytest.mark.parametrize("name", NAMES)
def test_the_pickles_do_what_they_are_made_for(name: str, tmp_path: Path) -> None:
    """Else the tests below would prove nothing."""
    canary = tmp_path / "canary"
    found = pickles(canary)[name]
    if name in ("torch.load", "getattr"):
        return  # refused for what they call, whatever that would do
    with contextlib.suppress(Exception):
        pickle.loads(found)
    assert canary.exists()


@pytest.mark.parametrize("name", NAMES)
def test_no_code_is_executed_from_metadata(world, name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    there = replaced(world, tmp_path, ".metadata", pickles(canary)[name])
    with pytest.raises(ValueError, match="checkpoint") as said:
        train(world.recipe, there)
    assert str(there) in str(said.value)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["os.system", "builtins.exec", "torch"])
def test_no_code_is_executed_from_tensors(world, name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    before = next(world.stopped.glob("checkpoints/*/__0_0.distcp")).stat().st_size
    archive = io.BytesIO()
    torch.save(torch.zeros(3), archive)
    for content in (pickles(canary)[name], archive.getvalue() + pickles(canary)[name]):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        padded = content.ljust(before, b"\0")
        there = replaced(world, tmp_path, "__0_0.distcp", padded)
        with pytest.raises(ValueError, match="checkpoint"):
            train(world.recipe, there)
        assert not canary.exists()


def test_no_bytes_are_unpickled(world, tmp_path: Path) -> None:
    """DCP keeps what is no tensor as bytes, which it unpickles by itself."""
    canary = tmp_path / "canary"
    place = next(world.stopped.glob("checkpoints/*"))
    metadata = pickle.loads((place / ".metadata").read_bytes())
    name = next(iter(metadata.state_dict_metadata))
    metadata.state_dict_metadata[name] = BytesStorageMetadata()
    about = next(value for key, value in metadata.storage_data.items() if key.fqn == name)
    metadata.storage_data[MetadataIndex(name)] = about
    there = replaced(world, tmp_path, ".metadata", pickle.dumps(metadata))
    hostile = pickles(canary)["builtins.exec"]
    for data in there.glob("checkpoints/*/__0_0.distcp"):
        content = bytearray(data.read_bytes())
        content[about.offset : about.offset + len(hostile)] = hostile
        data.write_bytes(content)
        manifest = data.with_name("manifest.json")
        found = json.loads(manifest.read_text())
        found["files"][data.name]["sha256"] = sha256(content).hexdigest()
        manifest.write_text(json.dumps(found))
    with pytest.raises(ValueError, match="checkpoint"):
        train(world.recipe, there)
    assert not canary.exists()


def test_nothing_outside_the_checkpoint_is_read(world, tmp_path: Path) -> None:
    place = next(world.stopped.glob("checkpoints/*"))
    metadata = pickle.loads((place / ".metadata").read_bytes())
    outside = tmp_path / "outside.distcp"
    outside.write_bytes((place / "__0_0.distcp").read_bytes())
    for about in metadata.storage_data.values():
        about.relative_path = str(outside)
    there = replaced(world, tmp_path, ".metadata", pickle.dumps(metadata))
    with pytest.raises(ValueError, match=r"outside\.distcp"):
        train(world.recipe, there)
