"""Rows of files → rows of lm-eval's tasks. What lm-eval makes of them: test_tasks.py."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.data.errors import DataError
from groundup.evaluate.harness.rows import FORMS, adapt

from .conftest import ORIGINAL, rows


def read(task: str, *values: dict[str, Any]) -> list[dict[str, Any]]:
    return adapt(task, [(f"f, line {at}", row) for at, row in enumerate(values, 1)]).values


CONVERTED = {
    "arc_easy": (
        {"query": "Why? ", "choices": ["a", "b", "c"], "gold": 2},
        {
            "question": "Why?",
            "choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C"]},
            "answerKey": "C",
        },
    ),
    "piqa": (
        {"query": "Q", "choices": ["a", "b"], "gold": 1},
        {"goal": "Q", "sol1": "a", "sol2": "b", "label": 1},
    ),
    "sciq": (
        {"query": "Q", "choices": ["a", "b", "c", "d"], "gold": 1},
        {
            "question": "Q",
            "distractor1": "a",
            "distractor2": "c",
            "distractor3": "d",
            "correct_answer": "b",
            "support": "",
        },
    ),
    "winogrande": (
        {"query": "x _ y", "choices": ["a", "b"], "gold": 0},
        {"sentence": "x _ y", "option1": "a", "option2": "b", "answer": "1"},
    ),
}


@pytest.mark.parametrize("task", sorted(CONVERTED))
def test_the_converted_form(task: str) -> None:
    given, expected = CONVERTED[task]
    assert read(task, {"id": 3, **given}) == [expected]


def test_other_spellings_of_the_same() -> None:
    """Numbers for digits, letters for numbers, RACE's own files."""
    social = rows("social_iqa", 1)[0]
    assert read("social_iqa", {**social, "label": int(social["label"])}) == [social]
    piqa = rows("piqa", 1)[0]
    assert read("piqa", {**piqa, "label": str(piqa["label"])}) == [piqa]
    mmlu = rows("mmlu", 1)[0]
    assert read("mmlu", {**mmlu, "answer": "ABCD"[mmlu["answer"]]}) == [mmlu]
    boolq = rows("boolq", 1)[0]
    label = {"label": int(boolq.pop("answer"))}
    assert read("boolq", {**boolq, **label}) == [{**boolq, **label}]
    race = {
        "article": "Text.",
        "questions": ["Why?", "How?"],
        "options": [["a", "b", "c", "d"], ["e", "f", "g", "h"]],
        "answers": ["A", "D"],
    }
    problems = [
        {"question": "Why?", "answer": "A", "options": ["a", "b", "c", "d"]},
        {"question": "How?", "answer": "D", "options": ["e", "f", "g", "h"]},
    ]
    expected = {"article": "Text.", "problems": str(problems)}
    assert read("race", race) == [expected]
    assert read("race", {"article": "Text.", "problems": problems}) == [expected]


def test_rows_of_other_tasks_are_left_alone_but_must_be_alike() -> None:
    assert read("logiqa", {"a": 1}, {"a": 2}) == [{"a": 1}, {"a": 2}]
    with pytest.raises(DataError, match=r"f, line 2: its fields are a, b; task 'logiqa' needs a$"):
        read("logiqa", {"a": 1}, {"a": 2, "b": 3})


def broken() -> list[tuple[str, dict[str, Any], str]]:
    """Rows with a fault, and the field that must be named."""
    labelled = rows("arc_easy", 1)[0]
    text, label = labelled["choices"]["text"], labelled["choices"]["label"]
    return [
        ("arc_easy", {**labelled, "answerKey": "Z"}, "line 1: field 'answerKey' is 'Z'"),
        ("arc_easy", {**labelled, "choices": text}, "field 'choices' is .* must be an object"),
        (
            "arc_easy",
            {**labelled, "choices": {"text": text, "label": label[:-1]}},
            "line 1, choices: field 'label'",
        ),
        ("boolq", {**rows("boolq", 1)[0], "answer": "maybe"}, "field 'answer'"),
        ("commonsense_qa", {**labelled}, "choices: field 'text' is .* list of 5"),
        ("copa", {**rows("copa", 1)[0], "question": "why"}, "one of cause, effect"),
        ("hellaswag", {"query": "x", "choices": ["a", "b"], "gold": 0}, "field 'choices'"),
        ("hellaswag", {**rows("hellaswag", 1)[0], "label": ""}, "field 'label'"),
        ("lambada_openai", {"text": "word"}, "field 'text'"),
        ("lambada_openai", {"text": "two words "}, "field 'text'"),
        ("mmlu", {**rows("mmlu", 1)[0], "answer": 4}, "field 'answer' is 4"),
        ("mmlu", {"query": "x", "choices": ["a", "b"], "gold": 0}, "its fields are query, choices"),
        ("piqa", {**rows("piqa", 1)[0], "label": True}, "field 'label' is True"),
        ("piqa", {**rows("piqa", 1)[0], "sol2": ""}, "field 'sol2'"),
        ("piqa", {"query": "x", "choices": ["a", "b"], "gold": -1}, "field 'gold' is -1"),
        ("race", {"article": "x", "problems": "[1"}, "field 'problems'"),
        ("race", {"article": "x", "problems": [{"question": "x"}]}, r"problems\[0\]: field"),
        ("race", {"query": "x", "choices": list("abcd"), "gold": 0}, "field 'query'"),
        ("sciq", {"question": "x"}, "its fields are question; task 'sciq' needs question, distr"),
        ("social_iqa", {"query": "x", "choices": list("abc"), "gold": 0}, "field 'query'"),
        ("wikitext", {"page": None}, "field 'page' is None"),
        ("winogrande", {**rows("winogrande", 1)[0], "sentence": "x"}, "field 'sentence'"),
    ]


@pytest.mark.parametrize(("task", "row", "message"), broken())
def test_wrong_rows_name_line_and_field(task: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(task, row)


def test_the_first_row_decides_the_form() -> None:
    converted = {"query": "Q", "choices": ["a", "b"], "gold": 1}
    with pytest.raises(DataError, match="f, line 2: its fields are query, choices, gold; task"):
        read("piqa", rows("piqa", 1)[0], converted)


def test_every_task_is_tried() -> None:
    assert sorted(FORMS) == sorted(ORIGINAL)
