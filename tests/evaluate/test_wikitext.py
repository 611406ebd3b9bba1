"""WikiText, against LM Evaluation Harness's own task."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.tasks.wikitext import preprocess_wikitext

from groundup.data import Tokenizer
from groundup.evaluate.perplexity import perplexity
from groundup.evaluate.scoring import Scorer
from groundup.evaluate.wikitext import detokenized, pages, pages_encoded, stream_encoded
from tests.evaluate.harness_lm import Plain, evaluated
from tests.evaluate.texts import WIKITEXT


def split_line_by_line(text: str) -> list[str]:
    """As the data set of the harness's task was made (EleutherAI/wikitext_document_level)."""
    found: list[str] = []
    kept: list[str] = []
    for line in text.split("\n"):
        bare = line.replace("= = =", "===").replace("= =", "==").strip()
        if bare[:2] == "= " and bare[-2:] == " =":
            found.append("\n".join(kept))
            kept = []
        kept.append(line)
    return [page for page in [*found, "\n".join(kept)] if page.strip()]


def test_pages_begin_at_headings_of_the_first_level() -> None:
    found = list(pages(WIKITEXT))
    titles = [page.split("\n")[0] for page in found]
    assert titles == [" = Robert <unk> = ", " = Second page = ", " = Third = "]
    assert found == split_line_by_line(WIKITEXT)
    assert "".join(f"{page}\n" for page in found) == WIKITEXT.removeprefix(" \n") + "\n"
    assert list(pages(" \n\n")) == []
    assert list(pages("no heading\n at all")) == ["no heading\n at all"]


# fmt: off
pieces = st.sampled_from([
    " ", "\n", "\n ", "=", "= ", " =", " = = ", "' ", " '", "s '", " 's ", '" ', ' "', "( ", " )",
    " @-@ ", " @,@ ", " @.@ ", " , ", " . ", " ; ", " : ", " ! ", " ? ", "[ ", " ]", "{ ", " }",
    " ° ", " N ", "word", "5", "<unk>", "a", "—",
])
# fmt: on


@settings(deadline=None)
@given(st.lists(pieces, max_size=40).map("".join))
def test_detokenized_as_the_harness_does(page: str) -> None:
    assert detokenized(page) == preprocess_wikitext.wikitext_detokenizer({"page": page})


@settings(deadline=None)
@given(st.lists(pieces, max_size=40).map("".join))
def test_words_and_bytes_are_those_of_the_harness(tokenizer: Tokenizer, page: str) -> None:
    for document, text in zip(pages_encoded([page], tokenizer), pages(page), strict=True):
        theirs = preprocess_wikitext.process_results({"page": text}, (-1.0,))
        assert theirs["word_perplexity"] == (-1.0, document.words)
        assert theirs["bits_per_byte"] == (-1.0, document.bytes)


def test_equal_to_the_harness(tokenizer: Tokenizer, scorer: Scorer) -> None:
    rows = [{"page": page} for page in split_line_by_line(WIKITEXT)]
    lm = Plain(scorer.model, tokenizer, scorer.length)
    theirs = evaluated("wikitext", "wikitext", rows, lm)
    documents = list(pages_encoded([WIKITEXT], tokenizer))
    assert max(len(document.tokens) for document in documents) > 2 * scorer.length
    ours = perplexity(scorer, documents, tokenizer.eos_id).numbers()
    for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
        assert ours[metric] == pytest.approx(theirs[metric], rel=1e-9), metric


def test_the_first_pages_only(tokenizer: Tokenizer) -> None:
    every = list(pages_encoded([WIKITEXT, WIKITEXT], tokenizer))
    assert len(every) == 6
    some = list(pages_encoded([WIKITEXT, WIKITEXT], tokenizer, limit=4))
    assert [one.tokens.tolist() for one in some] == [one.tokens.tolist() for one in every[:4]]


def test_a_stream_counts_the_ends_of_lines(tokenizer: Tokenizer) -> None:
    (stream,) = stream_encoded(["a <unk> , b \n\n = c = \n"], tokenizer)
    assert stream.words == 4 + 3 + 3
    assert tokenizer.decode(stream.tokens) == "a <unk>, b\n\n= c =\n"
