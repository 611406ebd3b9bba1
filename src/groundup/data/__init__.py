"""Text to batches: corpora, tokenizer, token files on disk, and batches as a function of the step.

    prepared = prepare(DataConfig(source="python"))
    tokens = TokenFile.open(prepared.train).tokens
    Batches(tokens, length=128, batch=32, seed=0).batch(step)     # int64 [32, 129]

Nothing here imports torch.
"""

from __future__ import annotations

from groundup.data.batches import Batches, count_windows, windows
from groundup.data.config import DataConfig
from groundup.data.documents import Document, Documents
from groundup.data.errors import DataError, TokenFileError
from groundup.data.inspect import describe
from groundup.data.preparation import prepare
from groundup.data.prepared import Prepared
from groundup.data.progress import show_progress
from groundup.data.shuffle import permute
from groundup.data.tokenizer import Tokenizer, load, train
from groundup.data.tokens import TokenFile, TokenWriter

__all__ = [
    "Batches",
    "DataConfig",
    "DataError",
    "Document",
    "Documents",
    "Prepared",
    "TokenFile",
    "TokenFileError",
    "TokenWriter",
    "Tokenizer",
    "count_windows",
    "describe",
    "load",
    "permute",
    "prepare",
    "show_progress",
    "train",
    "windows",
]
