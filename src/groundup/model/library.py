"""transformers, imported where it is needed, with a clear word where it is not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def transformers() -> Any:
    """The package.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ValueError(
            "models of Hugging Face need the package transformers: pip install 'groundup[export]'"
        ) from error
    return transformers


@contextmanager
def quiet() -> Iterator[None]:
    """Within, transformers draws no progress bars and only says what is an error: of token ids,
    which belong to the tokenizer of the data, it would say that they are beyond the vocabulary."""
    logging = transformers().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
