"""One tokenizer for all parts, each part's own token files, and what a run opens of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.data import (
    Batches,
    DataConfig,
    DataError,
    MixturePart,
    TokenFile,
    load,
    open_data,
    prepare,
    prepare_all,
)
from groundup.data import texts as reading
from groundup.data.mixture import preparation
from groundup.train.spikes import words
from tests.data.conftest import make_documents, write_jsonl
from tests.data.prepared import contents, decoded

POINTS = (("0%", 0.9), ("50%", 0.25))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Two corpora in different letters, and a held-out file."""
    folder = tmp_path / "texts"
    folder.mkdir()
    write_jsonl(folder / "web.jsonl", make_documents(200))
    numbers = [f"{n} " * (n % 30 + 1) for n in range(1000, 1120)]
    write_jsonl(folder / "numbers.jsonl", numbers)
    write_jsonl(folder / "held.jsonl", [f"{n} {n}" for n in range(5000, 5030)])
    return folder


def config(texts: Path, **changes: Any) -> DataConfig:
    parts = (
        MixturePart(str(texts / "web.jsonl"), weight=POINTS),
        MixturePart(
            str(texts / "numbers.jsonl"), weight=0.75, validation=str(texts / "held.jsonl")
        ),
    )
    settings = {"folder": str(texts.parent / "out"), "vocab_size": 300, "length": 16}
    return DataConfig(**{**settings, "mixture": parts, "validation_fraction": 0.1, **changes})


def test_each_part_is_prepared_as_if_alone_with_the_tokenizer_of_all(texts: Path) -> None:
    prepared = prepare_all(config(texts), workers=1)
    assert [part.report["sources"][0]["name"] for part in prepared.parts] == ["web", "numbers"]
    assert len({part.report["tokenizer"] for part in prepared.parts}) == 1
    assert load(prepared.tokenizer).vocab_size == 300
    for part, one in zip(prepared.parts, config(texts).corpora(), strict=True):
        assert one.validation_fraction == (0.1 if one.validation is None else 0.02)
        alone = replace(
            one, tokenizer=str(prepared.tokenizer), vocab_size=2048, folder=str(texts.parent / "b")
        )
        assert contents(prepare(alone, workers=1).folder) == contents(part.folder)
    held_out = decoded(prepared.parts[1].validation, prepared.tokenizer)
    assert held_out == [f"{n} {n}" for n in range(5000, 5030)]


def test_a_second_call_trains_and_encodes_nothing(
    texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare_all(config(texts), workers=1)
    monkeypatch.setattr(preparation.tokenizers, "train", None)
    # The course of the weights does not matter to the files, nor do names.
    parts = tuple(replace(part, name=f"my-{part.name}") for part in config(texts).mixture)
    parts = (replace(parts[0], weight=(("0%", 0.1), ("90%", 0.9))), parts[1])
    assert prepare_all(config(texts, mixture=parts), workers=1) == first


def test_the_tokenizer_is_trained_on_all_parts_by_weight(
    texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prepare_all(config(texts), workers=1)
    held_out = set(decoded(before.parts[0].validation, before.tokenizer))
    samples: list[list[str]] = []
    for module in (preparation, reading):
        monkeypatch.setattr(module, "SAMPLE", 8000)
    train = preparation.tokenizers.train

    def told(found: Any, size: int) -> Any:
        samples.append(list(found))
        return train(samples[-1], size)

    monkeypatch.setattr(preparation.tokenizers, "train", told)
    folders = []
    for weight in (POINTS, 0.25):
        parts = config(texts).mixture
        parts = (replace(parts[0], weight=weight), parts[1])
        new = config(texts, mixture=parts, folder=str(texts.parent / "new"))
        folders.append(prepare_all(new, workers=1).identity)
    assert folders[0] != folders[1]
    assert len(samples) == 2
    for sample, share in zip(samples, (0.9 / 1.65, 0.25), strict=True):
        numbers = sum(len(text) for text in sample if text[0].isdigit())
        # A document more or less.
        assert sum(map(len, sample)) - numbers == pytest.approx(share * 8000, abs=400)
        assert numbers == pytest.approx((1 - share) * 8000, abs=400)
        assert not held_out & set(sample)


def test_a_given_tokenizer_is_that_of_all(texts: Path) -> None:
    first = prepare_all(config(texts), workers=1)
    again = prepare_all(config(texts, tokenizer=str(first.tokenizer), vocab_size=2048), workers=1)
    assert again == first


def test_held_out_text_of_one_part_is_not_trained_on_by_another(texts: Path) -> None:
    parts = (*config(texts).mixture, MixturePart(str(texts), name="all"))
    with pytest.raises(DataError, match=r"validation='.*held.jsonl' of 'numbers' .*of 'all'"):
        prepare_all(config(texts, mixture=parts), workers=1)


def test_a_part_that_is_not_there_is_named(texts: Path) -> None:
    parts = (config(texts).mixture[0], MixturePart("nowhere", name="lost"))
    with pytest.raises(DataError, match="mixture, 'lost': source='nowhere'"):
        prepare_all(config(texts, mixture=parts), workers=1)
    with pytest.raises(ValueError, match="prepare_all"):
        prepare(config(texts))


def test_one_corpus_opens_as_it_always_did(texts: Path) -> None:
    one = DataConfig(
        str(texts / "web.jsonl"), folder=str(texts.parent / "out"), vocab_size=300, length=16
    )
    prepared, alone = prepare_all(one, workers=1), prepare(one, workers=1)
    assert prepared.parts == (alone,)
    found = open_data(one, prepared, batch=8, seed=3, steps=100)
    assert isinstance(found.batches, Batches)
    expected = Batches(TokenFile.open(alone.train).tokens, 16, 8, 3)
    assert all(
        np.array_equal(found.batches.rows(step, 0, 8), expected.batch(step)) for step in range(60)
    )
    assert (found.identity, found.notes, found.tokenizer) == (
        alone.folder.name,
        (),
        alone.tokenizer,
    )
    (held_out,) = found.held_out
    assert (held_out.name, held_out.weight) == ("", 1.0)
    assert np.array_equal(held_out.tokens, TokenFile.open(alone.validation).tokens)


def test_a_mixture_opens_with_its_parts(texts: Path) -> None:
    prepared = prepare_all(config(texts), workers=1)
    found = open_data(config(texts), prepared, batch=8, seed=3, steps=100)
    assert [text.name for text in found.held_out] == ["web", "numbers"]
    # At the end of the run.
    assert [text.weight for text in found.held_out] == pytest.approx([0.25, 0.75])
    for text, part in zip(found.held_out, prepared.parts, strict=True):
        assert np.array_equal(text.tokens, TokenFile.open(part.validation).tokens)
    order = found.batches.order(0)
    named, number = found.documents.of_windows(order, 16, 100)
    assert number == len(named)
    coder, rows = load(found.tokenizer), found.batches.rows(0, 0, 8)
    all_of = dict(zip(["web", "numbers"], prepared.parts, strict=True))
    for document, place in named:
        text = decoded(all_of[document.part].train, found.tokenizer)[document.number]
        assert text.startswith(document.starts)
        shown = coder.decode(rows[place])
        assert any(piece in text for piece in shown.split(coder.eos) if piece)
    assert [place for _, place in named] == sorted(place for _, place in named)
    assert {document.part for document, _ in named} == {"web", "numbers"}
    few, same = found.documents.of_windows(order, 16, 2)
    assert (few, same) == (named[:2], number)


def test_what_a_run_will_read_is_said(texts: Path) -> None:
    prepared = prepare_all(config(texts), workers=1)
    notes = open_data(config(texts), prepared, batch=8, seed=3, steps=400).notes
    windows = [(TokenFile.open(part.train).header.tokens - 1) // 16 for part in prepared.parts]
    weight = [0.9 + (0.25 - 0.9) * min(1.0, step / 200) for step in range(400)]
    web = sum(8 * w / (w + 0.75) for w in weight)
    epochs = [web / windows[0], (3200 - web) / windows[1]]
    assert re.sub(r"\d[\d.]*", "…", notes[0]) == (
        "of the sequences of this run: web …% (… epochs), numbers …% (… epochs)"
    )
    numbers = [float(number) for number in re.findall(r"\d[\d.]*", notes[0])]
    share = 100 * web / 3200
    assert numbers == pytest.approx([share, epochs[0], 100 - share, epochs[1]], abs=0.06)
    expected = [name for name, n in zip(("web", "numbers"), epochs, strict=True) if n > 4]
    assert [note.split()[0] for note in notes[1:]] == expected != []


def test_another_course_is_other_data(texts: Path) -> None:
    prepared = prepare_all(config(texts), workers=1)

    def identity(points: Sequence[Any], steps: int, **more: Any) -> str:
        parts = (replace(config(texts).mixture[0], weight=points), config(texts).mixture[1])
        return open_data(config(texts, mixture=parts), prepared, 8, 0, steps, **more).identity

    whole = identity(((0, 0.9), (50, 0.25)), 100)
    assert whole == identity(POINTS, 100)
    assert whole == identity(((0, 0.9), (50, 0.25)), 200)  # a longer run of the same course
    assert whole == identity(((0, 0.9), ("warmup", 0.25)), 100, warmup_end=50.0)
    assert whole != identity(POINTS, 200)  # its fractions are of another length
    assert whole != identity(((0, 0.9), (50, 0.26)), 100)
    assert whole.startswith(prepared.identity)


def test_the_words_on_a_spike_name_the_part() -> None:
    document = {"number": 5, "starts": "the text", "part": "web"}
    assert words._named(document, 8.25, "{} nats") == "web 5 “the text” (8.25 nats)"
    del document["part"]
    assert words._named(document, 8.25, "{} nats") == "5 “the text” (8.25 nats)"
