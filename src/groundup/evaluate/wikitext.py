"""WikiText (Merity et al. 2016, arXiv:1609.07843): its files as pages, detokenized.

The files are cut into words, `<unk>` among them in those that are not raw. A model that reads text
is shown the text that the words stand for, and its log-probability is divided by the words of the
file: so word perplexities compare between tokenizers, and with published ones. Pages, rules and
count are those of LM Evaluation Harness's task `wikitext`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from groundup.data import Tokenizer
from groundup.evaluate.perplexity import Encoded

__all__ = ["detokenized", "pages", "pages_encoded", "stream_encoded", "unknown_words"]

# In this order, as they have been used since Megatron-LM (2019). One rule of theirs is left out: it
# rewrites "/' 5/" by a mistake, which no page holds.
_RULES: tuple[tuple[str, str], ...] = (
    # contractions
    (r"s '", "s'"),
    # separators within numbers and compounds
    (r" @-@ ", "-"),
    (r" @,@ ", ","),
    (r" @\.@ ", "."),
    # punctuation
    *((rf" {re.escape(mark)} ", f"{mark} ") for mark in ":;.!?,"),
    # brackets and quotes
    (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"{\s*([^}]*?)\s*}", r"{\1}"),
    (r"\"\s*([^\"]*?)\s*\"", r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
    # headings
    (r"= = = =", "===="),
    (r"= = =", "==="),
    (r"= =", "=="),
    # the rest
    (r" ° ", "°"),
    (r" \n", "\n"),
    (r"\n ", "\n"),
    (r" N ", " 1 "),
    (r" 's", "'s"),
)
_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in _RULES]
_SPACE = re.compile(r"\s+")


def detokenized(page: str) -> str:
    """The text that a page's words stand for."""
    for pattern, replacement in _COMPILED:
        page = pattern.sub(replacement, page)
    return page


def pages(text: str) -> Iterator[str]:
    """The articles of a file: from a heading of the first level, "= Title =", to the next. What is
    blank before the first is left out."""
    lines: list[str] = []
    for line in text.split("\n"):
        if _is_title(line.strip()) and lines:
            if (page := "\n".join(lines)).strip():
                yield page
            lines = []
        lines.append(line)
    if (page := "\n".join(lines)).strip():
        yield page


def pages_encoded(
    texts: Iterable[str], tokenizer: Tokenizer, limit: int | None = None
) -> Iterator[Encoded]:
    """The first `limit` pages of the files, detokenized; words and bytes are those of the pages as
    they stand there. The empty string before a page's first space is counted as a word, and that
    after its last: so the harness does."""
    found = (page for text in texts for page in pages(text))
    for page in islice(found, limit):
        tokens = tokenizer.encode(detokenized(page))
        yield Encoded(tokens, len(_SPACE.split(page)), len(page.encode()))


def stream_encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[Encoded]:
    """Each file as one document, detokenized. A line's end is a word, the `<eos>` of models that
    predict WikiText word by word (245,569 in the test files)."""
    for text in texts:
        tokens = tokenizer.encode(detokenized(text))
        yield Encoded(tokens, len(text.split()) + text.count("\n"), len(text.encode()))


def unknown_words(text: str) -> int:
    """How many `<unk>` a file has; one that is raw has none."""
    return text.count("<unk>")


def _is_title(line: str) -> bool:
    within = line.startswith("= ") and line.endswith(" =")
    return within and not line.startswith("= =") and not line.endswith("= =")
