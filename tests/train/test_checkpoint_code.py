"""No code is executed from a checkpoint, though whoever forged it knew the checksums."""

from __future__ import annotations

import os
import pickle
import pickletools
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, MetadataIndex

from groundup.train import checkpoint
from groundup.train.checkpoint import CheckpointError, metadata
from tests.train.checkpoints import as_of_old, made, saved, sign


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def refused(place: Path, match: str) -> None:
    """The checkpoint of step 3 at `place` is, with checksums and without."""
    for prepare in (sign, as_of_old):
        prepare(place)
        with pytest.raises(CheckpointError, match=match):
            checkpoint.load(place.parent, 3, *made(0))


def test_a_pickle_in_the_place_of_metadata(tmp_path: Path) -> None:
    place = saved(tmp_path / "c", 3, *made(0))
    (place / ".metadata").write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    refused(place, "has no place in a checkpoint's metadata")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("module", ["filesystem", "metadata"])
def test_a_dotted_name_does_not_lead_out_of_the_module(tmp_path: Path, module: str) -> None:
    """ "torch.distributed.checkpoint.filesystem" imports os: "os.system" is a name in it."""
    target = tmp_path / "executed"
    name = f"torch.distributed.checkpoint.{module}"

    def text(word: str) -> bytes:
        return b"\x8c" + bytes([len(word)]) + word.encode()

    evil = b"\x80\x04" + text(name) + text("os.system") + b"\x93" + text(f"touch {target}")
    evil += b"\x85R."
    assert {op.name for op, _, _ in pickletools.genops(evil)} >= {"STACK_GLOBAL", "REDUCE"}
    if hasattr(torch.distributed.checkpoint.filesystem, "os") and module == "filesystem":
        pickle.loads(evil)  # it would be
        assert target.exists()
        os.remove(target)
    place = saved(tmp_path / "c", 3, *made(0))
    (place / ".metadata").write_bytes(evil)
    refused(place, "os.system has no place")
    assert not target.exists()


def test_a_tensor_that_metadata_says_is_an_object(tmp_path: Path) -> None:
    """DCP unpickles those without a look."""
    place = saved(tmp_path / "c", 3, *made(0))
    about: Metadata = metadata.Reader(place, {"__0_0.distcp"}).read_metadata()
    name = next(iter(about.state_dict_metadata))
    about.state_dict_metadata[name] = BytesStorageMetadata()
    where = about.storage_data.pop(next(index for index in about.storage_data if index.fqn == name))
    evil = pickle.dumps(Evil(tmp_path / "executed"))
    where.offset, where.length = 0, len(evil)
    about.storage_data[MetadataIndex(name)] = where
    (place / ".metadata").write_bytes(pickle.dumps(about))
    (place / "__0_0.distcp").write_bytes(evil)
    refused(place, "no place in|is no tensor")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../state.json", "state.json"])
def test_metadata_that_leads_to_other_files(tmp_path: Path, name: str) -> None:
    place = saved(tmp_path / "c", 3, *made(0))
    about = metadata.Reader(place, {"__0_0.distcp"}).read_metadata()
    next(iter(about.storage_data.values())).relative_path = name
    (place / ".metadata").write_bytes(pickle.dumps(about))
    refused(place, "a tensor is in")


def test_a_manifest_that_leads_to_other_files(tmp_path: Path) -> None:
    place = saved(tmp_path / "c", 3, *made(0))
    text = (place / "manifest.json").read_text()
    (place / "manifest.json").write_text(text.replace("state.json", "../secret"))
    with pytest.raises(CheckpointError, match="files elsewhere"):
        checkpoint.load(tmp_path / "c", 3, *made(0))


def test_a_pickle_in_the_place_of_tensors(tmp_path: Path) -> None:
    """Tensors are read with weights_only."""
    place = saved(tmp_path / "c", 3, *made(0))
    data = place / "__0_0.distcp"
    evil = pickle.dumps(Evil(tmp_path / "executed"))
    data.write_bytes(evil.ljust(data.stat().st_size, b"\0"))
    refused(place, "cannot be read")
    assert not (tmp_path / "executed").exists()
