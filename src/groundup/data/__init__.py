"""Text to batches: corpora, tokenizer, token files on disk, and batches as a function of the step.

    prepared = prepare(DataConfig(source="python"))
    tokens = TokenFile.open(prepared.train).tokens
    Batches(tokens, length=128, batch=32, seed=0).batch(step)     # int64 [32, 129]

Nothing here imports torch.
"""

from __future__ import annotations

from groundup.data.batches import Batches, BatchStream, count_windows, windows
from groundup.data.config import DataConfig
from groundup.data.documents import Document, Documents
from groundup.data.errors import DataError, TokenFileError
from groundup.data.identities import document_id
from groundup.data.inspect import describe
from groundup.data.mixture.batches import MixedBatches
from groundup.data.mixture.part import MixturePart
from groundup.data.mixture.preparation import Corpora, prepare_all
from groundup.data.opening import DocumentNames, HeldOutText, Opened, open_data
from groundup.data.preparation import prepare
from groundup.data.prepared import Prepared
from groundup.data.progress import show_progress
from groundup.data.shuffle import permute
from groundup.data.tokenizer import Tokenizer, load, train
from groundup.data.tokens import TokenFile, TokenWriter

__all__ = [
    "BatchStream",
    "Batches",
    "Corpora",
    "DataConfig",
    "DataError",
    "Document",
    "DocumentNames",
    "Documents",
    "HeldOutText",
    "MixedBatches",
    "MixturePart",
    "Opened",
    "Prepared",
    "TokenFile",
    "TokenFileError",
    "TokenWriter",
    "Tokenizer",
    "count_windows",
    "describe",
    "document_id",
    "load",
    "open_data",
    "permute",
    "prepare",
    "prepare_all",
    "show_progress",
    "train",
    "windows",
]
