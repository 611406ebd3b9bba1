"""DCP's own metadata, the only pickle in a checkpoint, read without executing code."""

from __future__ import annotations

import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

NAME = ".metadata"
_METADATA = "torch.distributed.checkpoint.metadata"
# What it is made of, and nothing else: by a module as a whole one would also get what that module
# imports (a dotted name reaches "os.system").
_ALLOWED = {
    (_METADATA, "Metadata"),
    (_METADATA, "MetadataIndex"),
    (_METADATA, "TensorStorageMetadata"),
    (_METADATA, "ChunkStorageMetadata"),
    (_METADATA, "TensorProperties"),
    (_METADATA, "StorageMeta"),
    (_METADATA, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),  # Python 3.13
    ("pathlib._local", "WindowsPath"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint's metadata")


class Reader(FileSystemReader):
    """DCP's reader of the checkpoint at `place`, that executes nothing and reads `files` only.

    Raises:
        Exception: of many kinds, if the metadata is not what DCP writes for tensors.
    """

    def __init__(self, place: Path, files: Collection[str]) -> None:
        super().__init__(place)
        with open(place / NAME, "rb") as stream:
            metadata = _Unpickler(stream).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError(f"metadata is a {type(metadata).__name__}")
        self.tensors: dict[str, TensorStorageMetadata] = {}
        for name, about in metadata.state_dict_metadata.items():
            # Anything else DCP would unpickle.
            if not isinstance(about, TensorStorageMetadata):
                raise pickle.UnpicklingError(f"{name} is no tensor")
            self.tensors[name] = about
        for where in metadata.storage_data.values():
            if where.relative_path not in files or where.transform_descriptors:
                raise pickle.UnpicklingError(f"a tensor is in {where.relative_path!r}")
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        self._metadata = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._metadata
