"""What is read, and how: each target lays out whole files, damages a copy and reads it."""

from __future__ import annotations

from tests.fuzz.targets import (
    flags,
    parquet,
    prepared,
    recipes,
    reports,
    resuming,
    sources,
    tokenizers,
    tokens,
)

_MODULES = (recipes, flags, tokens, tokenizers, sources, parquet, prepared, reports, resuming)
TARGETS = {
    module.TARGET.name: module.TARGET
    for module in _MODULES
    if module is not parquet or parquet.THERE  # pyarrow is an optional package
}
