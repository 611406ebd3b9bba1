"""What a token file or a prepared folder holds, for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup._check import count
from groundup._json import unseal
from groundup.data.errors import TokenFileError
from groundup.data.prepared import MANIFEST
from groundup.data.tokenizer import load
from groundup.data.tokens import TokenFile

__all__ = ["describe"]

_CHUNK = 1 << 24


def describe(path: str | Path, sample: int = 200) -> str:
    """Counts, checksum, lengths of documents, and the first `sample` tokens as text.

    `path`: a token file, or a folder that `prepare` has made. The sample is decoded with the
    tokenizer.json in the same folder, if it is the one the file was made with.
    Errors: `TokenFileError` naming the path if there is nothing to describe or it is damaged.
    """
    path = Path(path).expanduser()
    count("sample", sample, least=0)
    if not path.is_dir():
        return "\n".join(_file(path, sample))
    lines = [f"{path}"]
    manifest = path / MANIFEST
    if manifest.is_file():
        try:
            report = unseal(manifest.read_bytes())
            for source in report["sources"]:
                what = f"{source['files']:,} files, {source['bytes']:,} bytes of text"
                lines.append(_row(f"from {source['name']}", what))
                if "origin" in source:
                    lines.append(_row("", _harmless(source["origin"])))
            asked = report["identity"]["tokenizer"].get("train")
            if asked is not None and asked != report["vocab_size"]:
                note = f"{report['vocab_size']:,}, though {asked:,} were asked: too little text"
                lines.append(_row("vocabulary", note))
            for what, number in report["skipped"].items():
                lines.append(_row("left out", _harmless(f"{number:,} {what}")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TokenFileError(f"{manifest}: cannot be read: {error!r}") from error
    elif folders := list(path.glob("parts-*")):
        finished = sum(len(list(folder.glob("*.json"))) for folder in folders)
        lines.append(_row("state", f"unfinished, {finished:,} parts: prepare again to continue"))
    files = sorted(path.glob("*.gtok"))
    if not files and len(lines) == 1:
        raise TokenFileError(
            f"{path}: there is no token file (*.gtok) in this folder: name a file or folder that "
            "`groundup data prepare` has made"
        )
    for file in files:
        lines += ["", *_file(file, sample)]
    return "\n".join(lines)


def _file(path: Path, sample: int) -> list[str]:
    file = TokenFile.open(path)
    header = file.header
    file.verify()
    lines = [
        str(path),
        _row("tokens", f"{header.tokens:,} ({header.dtype}, {path.stat().st_size:,} bytes)"),
        _row("documents", f"{header.documents:,}"),
        _row("vocabulary", f"{header.vocab_size:,}, end of document: {header.eos_id}"),
        _row("tokenizer", f"sha256 {header.tokenizer}"),
        _row("checksum", f"verified, sha256 {header.sha256}"),
    ]
    lengths = _document_lengths(file.tokens, header.eos_id)
    if len(lengths):
        middle = f"median {np.median(lengths):,.0f}, mean {lengths.mean():,.0f}"
        lines.append(
            _row("per document", f"{lengths.min():,} to {lengths.max():,} tokens, {middle}")
        )
    if sample and header.tokens:
        shown = min(sample, header.tokens)
        lines.append(_row("sample", f"the first {shown:,} tokens"))
        lines += ["    " + line for line in _sample(file, shown).split("\n")]
    return lines


def _sample(file: TokenFile, size: int) -> str:
    ids = file.tokens[:size]
    path = file.path.with_name("tokenizer.json")
    if not path.is_file():
        return f"(no tokenizer.json beside the file; ids: {ids.tolist()})"
    tokenizer = load(path)
    if tokenizer.hash != file.header.tokenizer:
        return f"(the tokenizer.json beside the file is another; ids: {ids.tolist()})"
    return _harmless(tokenizer.decode(ids))


def _harmless(text: str) -> str:
    """What is in the data must not steer the terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def _document_lengths(tokens: NDArray[np.integer], eos_id: int) -> NDArray[np.int64]:
    """Tokens of each document, its EOS included."""
    ends = [
        np.flatnonzero(tokens[start : start + _CHUNK] == eos_id) + start
        for start in range(0, len(tokens), _CHUNK)
    ]
    if not ends:
        return np.empty(0, dtype=np.int64)
    return np.diff(np.concatenate(ends), prepend=-1).astype(np.int64)


def _row(name: str, value: str) -> str:
    return f"  {name:<18} {value}"
