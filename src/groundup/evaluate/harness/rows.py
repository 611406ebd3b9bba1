"""Rows of files → rows as lm-eval's tasks expect them.

A task's rows may have the fields of its data set, or those of the converted form in which several
collections keep multiple choice: {query, choices, gold}, gold counted from 0. Of the latter a row
is made from which lm-eval writes its own prompt around the query.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from groundup.data.errors import DataError
from groundup.evaluate.harness.fields import LETTERS, Row

CONVERTED = ("query", "choices", "gold")


@dataclass(frozen=True)
class Form:
    """One way in which a task's rows may be given.

    Attributes:
        fields: that it is known by; all must be there.
        read: checks a row and gives it lm-eval's fields.
        changes: settings of lm-eval's task that it needs.
    """

    fields: tuple[str, ...]
    read: Callable[[Row], dict[str, Any]]
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """The rows of a task, with lm-eval's fields.

    Attributes:
        values: the rows.
        converted: whether they had the converted form.
        changes: settings of lm-eval's task that they need.
    """

    values: list[dict[str, Any]]
    converted: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)


def adapt(task: str, found: Sequence[tuple[str, dict[str, Any]]]) -> Rows:
    """Rows of a file, each with where it stands, as lm-eval's task expects them.

    All have the form of the first. Rows of a task that is not in `FORMS` are taken as they are; all
    must have the fields of the first.

    Raises:
        DataError: naming the file, the line and the field.
    """
    forms = FORMS.get(task)
    where, first = found[0]
    if forms is None:
        for where, row in found:
            if row.keys() != first.keys():
                raise _need(where, row, [tuple(first)], task)
        return Rows([row for _, row in found])
    form = next((form for form in forms if first.keys() >= set(form.fields)), None)
    if form is None:
        raise _need(where, first, [form.fields for form in forms], task)
    for where, row in found:
        if not row.keys() >= set(form.fields):
            raise _need(where, row, [form.fields], task)
    values = [form.read(Row(row, where)) for where, row in found]
    return Rows(values, "gold" in form.fields, form.changes)


def _need(
    where: str, row: dict[str, Any], valid: Sequence[tuple[str, ...]], task: str
) -> DataError:
    return DataError(
        f"{where}: its fields are {', '.join(row) or 'none'}; task {task!r} needs "
        + "; or ".join(", ".join(fields) for fields in valid)
    )


# --------------------------------------------------------------------------- original fields


def _piqa(row: Row) -> dict[str, Any]:
    texts = {name: row.text(name) for name in ("goal", "sol1", "sol2")}
    return {**texts, "label": row.index("label", 2)}


def _social_iqa(row: Row) -> dict[str, Any]:
    names = ("context", "question", "answerA", "answerB", "answerC")
    return {**{name: row.text(name) for name in names}, "label": row.one_of("label", "123")}


def _hellaswag(row: Row) -> dict[str, Any]:
    return {
        "activity_label": row.text("activity_label"),
        "ctx_a": row.text("ctx_a"),
        "ctx_b": row.text("ctx_b", empty=True),
        "endings": row.choices("endings", 4),
        "label": str(row.index("label", 4)),
    }


def _winogrande(row: Row) -> dict[str, Any]:
    if "_" not in row.text("sentence"):
        raise row.wrong("sentence", "a sentence with _ where an option belongs")
    texts = {name: row.text(name) for name in ("sentence", "option1", "option2")}
    return {**texts, "answer": row.one_of("answer", "12")}


def _labelled(question: str) -> Callable[[Row], dict[str, Any]]:
    def read(row: Row) -> dict[str, Any]:
        texts, labels, answer = row.labelled()
        choices = {"text": texts, "label": labels}
        return {question: row.text(question), "choices": choices, "answerKey": answer}

    return read


def _commonsense_qa(row: Row) -> dict[str, Any]:
    texts, labels, answer = row.labelled(exactly=5)
    choices = {"text": texts, "label": list("ABCDE")}
    return {
        "question": row.text("question"),
        "choices": choices,
        "answerKey": LETTERS[labels.index(answer)],
    }


def _race(row: Row) -> dict[str, Any]:
    """The questions of an article in one row: `problems`, a list or, as lm-eval's data set has it,
    one spelled out."""
    problems = row.values["problems"]
    if isinstance(problems, str):
        try:
            problems = ast.literal_eval(problems)
        except (ValueError, SyntaxError):
            problems = None
    if not isinstance(problems, list) or not problems:
        raise row.wrong("problems", "a list of {question, options, answer}, or one spelled out")
    read = [_problem(row, at, problem) for at, problem in enumerate(problems)]
    return {"article": row.text("article"), "problems": str(read)}


def _race_files(row: Row) -> dict[str, Any]:
    """As RACE's own files have it: questions, options and answers of an article in three lists."""
    lists = [row.values[name] for name in ("questions", "options", "answers")]
    if not all(isinstance(one, list) and len(one) == len(lists[0]) for one in lists):
        raise row.wrong("questions", "a list as long as options and answers")
    problems = [
        {"question": question, "options": options, "answer": answer}
        for question, options, answer in zip(*lists, strict=True)
    ]
    return _race(Row({**row.values, "problems": problems}, row.where))


def _problem(row: Row, at: int, problem: Any) -> dict[str, Any]:
    inner = Row(problem if isinstance(problem, dict) else {}, f"{row.where}, problems[{at}]")
    return {
        "question": inner.text("question"),
        "answer": inner.one_of("answer", "ABCD"),
        "options": inner.choices("options", 4),
    }


def _lambada(row: Row) -> dict[str, Any]:
    if len(row.text("text").rstrip(" ").split(" ")) < 2 or row.text("text").endswith(" "):
        raise row.wrong("text", "words between spaces, the last of which is to be predicted")
    return {"text": row.text("text")}


def _mmlu(row: Row) -> dict[str, Any]:
    answer = row.one_of("answer", [*"0123", *"ABCD"])
    return {
        "question": row.text("question"),
        "subject": row.text("subject"),
        "choices": row.choices(exactly=4),
        "answer": int(answer) if answer.isdigit() else LETTERS.index(answer),
    }


def _sciq(row: Row) -> dict[str, Any]:
    names = ("question", "distractor1", "distractor2", "distractor3", "correct_answer")
    return {**{name: row.text(name) for name in names}, "support": row.text("support", empty=True)}


def _boolq(answer: str) -> Callable[[Row], dict[str, Any]]:
    def read(row: Row) -> dict[str, Any]:
        value = row.values[answer]
        label = int(value) if isinstance(value, bool) else row.index(answer, 2)
        return {"question": row.text("question"), "passage": row.text("passage"), "label": label}

    return read


def _copa(row: Row) -> dict[str, Any]:
    texts = {name: row.text(name) for name in ("premise", "choice1", "choice2")}
    question = row.one_of("question", ("cause", "effect"))
    return {**texts, "question": question, "label": row.index("label", 2)}


def _wikitext(row: Row) -> dict[str, Any]:
    return {"page": row.text("page")}


# --------------------------------------------------------------------------- the converted form

_Build = Callable[[Row, str, list[str], int], dict[str, Any]]


def _converted(build: _Build, exactly: int | None = None, *more: str) -> Form:
    def read(row: Row) -> dict[str, Any]:
        choices = row.choices(exactly=exactly)
        gold = row.index("gold", len(choices))
        # A space at the end would stand before the one that lm-eval writes.
        return build(row, row.text("query").rstrip(), choices, gold)

    return Form((*CONVERTED, *more), read)


def _piqa_from(row: Row, query: str, choices: list[str], gold: int) -> dict[str, Any]:
    return {"goal": query, "sol1": choices[0], "sol2": choices[1], "label": gold}


def _social_iqa_from(row: Row, query: str, choices: list[str], gold: int) -> dict[str, Any]:
    # lm-eval joins context and question with a space: at which one they are cut does not matter.
    context, space, question = query.rpartition(" ")
    if not space:
        raise row.wrong("query", "a context, a space and a question")
    answers = dict(zip(("answerA", "answerB", "answerC"), choices, strict=True))
    return {"context": context, "question": question, **answers, "label": str(gold + 1)}


def _hellaswag_from(row: Row, query: str, choices: list[str], gold: int) -> dict[str, Any]:
    """What lm-eval makes of an original row, whose texts are cleaned: not to be done twice."""
    return {"query": query, "choices": choices, "label": str(gold)}


def _winogrande_from(row: Row, query: str, choices: list[str], gold: int) -> dict[str, Any]:
    if "_" not in query:
        raise row.wrong("query", "a sentence with _ where an option belongs")
    options = {"option1": choices[0], "option2": choices[1]}
    return {"sentence": query, **options, "answer": str(gold + 1)}


def _labelled_from(question: str) -> _Build:
    def build(row: Row, query: str, choices: list[str], gold: int) -> dict[str, Any]:
        labels = list(LETTERS[: len(choices)])
        answers = {"text": choices, "label": labels}
        return {question: query, "choices": answers, "answerKey": labels[gold]}

    return build


def _race_from(row: Row, query: str, choices: list[str], gold: int) -> dict[str, Any]:
    # lm-eval writes both and two line breaks between article and question.
    body, between, question = query.removeprefix("Article: ").rpartition("\n\n")
    if not between or not query.startswith("Article: "):
        raise row.wrong("query", "'Article: …', an empty line and a question")
    problem = {"question": question, "answer": LETTERS[gold], "options": choices}
    return {"article": body, "problems": str([problem])}


def _mmlu_from(row: Row, query: str, choices: list[str], gold: int) -> dict[str, Any]:
    subject = row.text("subject")
    return {"question": query, "subject": subject, "choices": choices, "answer": gold}


def _sciq_from(row: Row, query: str, choices: list[str], gold: int) -> dict[str, Any]:
    # lm-eval puts the right one last, which decides ties alone.
    others = [choice for at, choice in enumerate(choices) if at != gold]
    support = row.text("support", empty=True) if "support" in row.values else ""
    wrong = {f"distractor{at}": choice for at, choice in enumerate(others, 1)}
    return {"question": query, **wrong, "correct_answer": choices[gold], "support": support}


_ARC = (
    Form(("question", "choices", "answerKey"), _labelled("question")),
    _converted(_labelled_from("question")),
)

FORMS: dict[str, tuple[Form, ...]] = {
    "arc_challenge": _ARC,
    "arc_easy": _ARC,
    "boolq": (
        Form(("question", "passage", "label"), _boolq("label")),
        Form(("question", "passage", "answer"), _boolq("answer")),
    ),
    "commonsense_qa": (
        Form(("question", "choices", "answerKey"), _commonsense_qa),
        _converted(_labelled_from("question"), 5),
    ),
    "copa": (Form(("premise", "choice1", "choice2", "question", "label"), _copa),),
    "hellaswag": (
        Form(("activity_label", "ctx_a", "ctx_b", "endings", "label"), _hellaswag),
        replace(_converted(_hellaswag_from, 4), changes={"process_docs": None}),
    ),
    "lambada_openai": (Form(("text",), _lambada),),
    "mmlu": (
        Form(("question", "subject", "choices", "answer"), _mmlu),
        _converted(_mmlu_from, 4, "subject"),
    ),
    "openbookqa": (
        Form(("question_stem", "choices", "answerKey"), _labelled("question_stem")),
        _converted(_labelled_from("question_stem")),
    ),
    "piqa": (Form(("goal", "sol1", "sol2", "label"), _piqa), _converted(_piqa_from, 2)),
    "race": (
        Form(("article", "problems"), _race),
        Form(("article", "questions", "options", "answers"), _race_files),
        _converted(_race_from, 4),
    ),
    "sciq": (
        Form(
            ("question", "distractor1", "distractor2", "distractor3", "correct_answer", "support"),
            _sciq,
        ),
        _converted(_sciq_from, 4),
    ),
    "social_iqa": (
        Form(("context", "question", "answerA", "answerB", "answerC", "label"), _social_iqa),
        _converted(_social_iqa_from, 3),
    ),
    "wikitext": (Form(("page",), _wikitext),),
    "winogrande": (
        Form(("sentence", "option1", "option2", "answer"), _winogrande),
        _converted(_winogrande_from, 2),
    ),
}
"""Per task the forms that its rows may have."""
