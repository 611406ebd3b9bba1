"""Accuracies against a float64 loop over prompts that are written out here, and against lm-eval's
own HFLM on the same weights."""

from __future__ import annotations

import copy
import json
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.data import Tokenizer
from groundup.evaluate import harness
from groundup.evaluate.harness import running, tasks
from groundup.evaluate.scoring import Scorer

from .conftest import LENGTH, ORIGINAL, Logits, rows

pytest.importorskip("lm_eval")

TASKS = sorted(ORIGINAL)
Asked = tuple[list[tuple[str, str]], list[str], int]
"""Contexts and continuations; the answers, by whose length is normalized; which is right."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    for task in TASKS:
        text = "".join(json.dumps(row) + "\n" for row in rows(task))
        (folder / f"{task}_valid.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module")
def prepared(tokenizer: Tokenizer, files: Path) -> harness.Prepared:
    return harness.prepare(tokenizer, TASKS, files)


@pytest.fixture(scope="module")
def results(prepared: harness.Prepared, scorer: Scorer) -> dict[str, dict[str, Any]]:
    return prepared.evaluate(scorer)


# ------------------------------------------------------------------ by hand, in float64


@pytest.fixture(scope="module")
def logprob(llama: Any, tokenizer: Tokenizer) -> Callable[[str, str], tuple[float, bool]]:
    """Σ log p of a continuation, and whether it is greedy."""
    model = Logits(copy.deepcopy(llama).double())

    def of(context: str, continuation: str) -> tuple[float, bool]:
        stripped = context.rstrip(" ")
        whole = tokenizer.encode(context + continuation).tolist()
        scored = len(whole) - len(tokenizer.encode(stripped)) if stripped else len(whole)
        whole = whole if stripped else [tokenizer.eos_id, *whole]
        kept = whole[-(LENGTH + 1) :]
        with torch.no_grad():
            table = model(torch.tensor([kept[:-1]]))[0].log_softmax(1)
        pairs = list(zip(table[-scored:], kept[-scored:], strict=True))
        total = sum(float(row[token]) for row, token in pairs)
        return total, all(int(row.argmax()) == token for row, token in pairs)

    return of


def _labelled(prompt: str, question: str) -> Callable[[dict[str, Any]], Asked]:
    def asked(row: dict[str, Any]) -> Asked:
        texts = row["choices"]["text"]
        context = prompt.format(row[question])
        gold = row["choices"]["label"].index(row["answerKey"])
        return [(context, " " + text) for text in texts], texts, gold

    return asked


def _of_letters(context: str, number: int, gold: int) -> Asked:
    letters = list("ABCDE"[:number])
    return [(context, " " + letter) for letter in letters], letters, gold


def _boolq(row: dict[str, Any]) -> Asked:
    context = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return [(context, " no"), (context, " yes")], ["no", "yes"], int(row["answer"])


def _commonsense_qa(row: dict[str, Any]) -> Asked:
    lines = [f"{at}. {text}\n" for at, text in zip("ABCDE", row["choices"]["text"], strict=True)]
    context = f"Question: {row['question']}\n{''.join(lines)}Answer:"
    return _of_letters(context, 5, "ABCDE".index(row["answerKey"]))


def _copa(row: dict[str, Any]) -> Asked:
    word = {"cause": "because", "effect": "therefore"}[row["question"]]
    answers = [row[name][0].lower() + row[name][1:] for name in ("choice1", "choice2")]
    # Two spaces: the task writes one, and lm-eval another.
    asked = [(f"{row['premise'][:-1]} {word}", "  " + answer) for answer in answers]
    return asked, answers, row["label"]


def _hellaswag(row: dict[str, Any]) -> Asked:
    def clean(text: str) -> str:
        text = text.strip().replace(" [title]", ". ")
        return re.sub(r"\[.*?\]", "", text).replace("  ", " ")

    context = clean(f"Doing things: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    endings = [clean(ending) for ending in row["endings"]]
    return [(context, " " + ending) for ending in endings], endings, int(row["label"])


def _mmlu(row: dict[str, Any]) -> Asked:
    about = row["subject"].replace("_", " ")
    head = f"The following are multiple choice questions (with answers) about {about}.\n\n"
    lines = [f"{at}. {text}\n" for at, text in zip("ABCD", row["choices"], strict=True)]
    return _of_letters(f"{head}{row['question']}\n{''.join(lines)}Answer:", 4, row["answer"])


def _piqa(row: dict[str, Any]) -> Asked:
    answers = [row["sol1"], row["sol2"]]
    context = f"Question: {row['goal']}\nAnswer:"
    return [(context, " " + answer) for answer in answers], answers, row["label"]


def _race(row: dict[str, Any]) -> Asked:
    *before, last = eval(row["problems"])  # written by this test
    text = f"Article: {row['article']}\n\n"
    for problem in before:
        right = problem["options"]["ABCD".index(problem["answer"])]
        if problem["question"].endswith("  _  ."):
            text += problem["question"][:-5] + right + "\n"
        else:
            text += f"Question: {problem['question']}\nAnswer: {right}\n"
    asked = [(text + last["question"], " " + option) for option in last["options"]]
    return asked, last["options"], "ABCD".index(last["answer"])


def _sciq(row: dict[str, Any]) -> Asked:
    answers = [row[f"distractor{at}"] for at in (1, 2, 3)] + [row["correct_answer"]]
    context = f"{row['support']}\nQuestion: {row['question']}\nAnswer:"
    return [(context, " " + answer) for answer in answers], answers, 3


def _social_iqa(row: dict[str, Any]) -> Asked:
    answers = [row["answerA"], row["answerB"], row["answerC"]]
    context = f"Q: {row['context']} {row['question']}\nA:"
    return [(context, " " + answer) for answer in answers], answers, int(row["label"]) - 1


def _winogrande(row: dict[str, Any]) -> Asked:
    before, after = row["sentence"].split("_")
    options = [row["option1"], row["option2"]]
    asked = [(before + option, " " + after.strip()) for option in options]
    return asked, options, int(row["answer"]) - 1


BY_HAND: dict[str, Callable[[dict[str, Any]], Asked]] = {
    "arc_challenge": _labelled("Question: {}\nAnswer:", "question"),
    "arc_easy": _labelled("Question: {}\nAnswer:", "question"),
    "boolq": _boolq,
    "commonsense_qa": _commonsense_qa,
    "copa": _copa,
    "hellaswag": _hellaswag,
    "mmlu": _mmlu,
    "openbookqa": _labelled("{}", "question_stem"),
    "piqa": _piqa,
    "race": _race,
    "sciq": _sciq,
    "social_iqa": _social_iqa,
    "winogrande": _winogrande,
}
NORMALIZED = ("arc_challenge", "arc_easy", "hellaswag", "openbookqa", "piqa", "sciq")


@pytest.mark.parametrize("task", sorted(BY_HAND))
def test_multiple_choice_by_hand(
    task: str,
    results: dict[str, dict[str, Any]],
    logprob: Callable[[str, str], tuple[float, bool]],
) -> None:
    right, right_norm = [], []
    for row in rows(task):
        asked, answers, gold = BY_HAND[task](row)
        found = [logprob(*one)[0] for one in asked]
        right.append(int(np.argmax(found)) == gold)
        lengths = [len(answer) for answer in answers]
        right_norm.append(int(np.argmax(np.divide(found, lengths))) == gold)
    result = results[task]
    assert result["acc"] == pytest.approx(np.mean(right), abs=1e-12)
    assert ("acc_norm" in result) == (task in NORMALIZED)
    if task in NORMALIZED:
        assert result["acc_norm"] == pytest.approx(np.mean(right_norm), abs=1e-12)
        errors = [np.std(right, ddof=1), np.std(right_norm, ddof=1)] / np.sqrt(len(right))
        assert [result["acc_stderr"], result["acc_norm_stderr"]] == pytest.approx(errors)
    assert (result["n"], result["shots"], result["what"]) == (12, 0, "task")
    assert result["file"] == f"{task}_valid.jsonl"
    assert "form" not in result
    assert "limit" not in result


def test_lambada_by_hand(
    results: dict[str, dict[str, Any]], logprob: Callable[[str, str], tuple[float, bool]]
) -> None:
    found = [
        logprob(*row["text"].rsplit(" ", 1)[:1], " " + row["text"].rsplit(" ", 1)[1])
        for row in rows("lambada_openai")
    ]
    result = results["lambada_openai"]
    expected = math.exp(-np.mean([total for total, _ in found]))
    assert result["perplexity"] == pytest.approx(expected, rel=1e-5)
    assert result["acc"] == np.mean([greedy for _, greedy in found])


def test_wikitext_by_hand(
    results: dict[str, dict[str, Any]], llama: Any, tokenizer: Tokenizer
) -> None:
    """In windows: each token given all those of its own, the last window as long as the others."""
    model, nats, words = Logits(copy.deepcopy(llama).double()), 0.0, 0
    for row in rows("wikitext"):
        page = row["page"].replace(" @-@ ", "-").replace(" , ", ", ").replace(" . ", ". ")
        page = page.replace(" \n", "\n").replace("\n ", "\n")
        ids = [tokenizer.eos_id, *tokenizer.encode(page).tolist()]
        windows: dict[int, torch.Tensor] = {}
        for target in range(1, len(ids)):
            first = (target - 1) // LENGTH * LENGTH
            if first + LENGTH > len(ids) - 1:
                first = max(0, len(ids) - 1 - LENGTH)
            if first not in windows:
                with torch.no_grad():
                    windows[first] = model(torch.tensor([ids[first : first + LENGTH]]))[0]
            nats -= float(windows[first][target - 1 - first].log_softmax(0)[ids[target]])
        words += len(re.split(r"\s+", row["page"]))
    assert any(len(tokenizer.encode(row["page"])) > 2 * LENGTH for row in rows("wikitext"))
    assert results["wikitext"]["word_perplexity"] == pytest.approx(math.exp(nats / words), rel=1e-4)


# ------------------------------------------------------------------ lm-eval's own model


@pytest.fixture(scope="module")
def hflm(llama: Any, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(path)
    fast = PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token=tokenizer.eos)
    fast.pad_token = fast.eos_token
    return HFLM(pretrained=llama, tokenizer=fast, max_length=LENGTH, batch_size=7)


def test_results_are_those_of_the_harness_itself(
    prepared: harness.Prepared, results: dict[str, dict[str, Any]], hflm: Any
) -> None:
    from lm_eval import evaluator

    from groundup.evaluate.harness.tasks import quiet

    tasks = {name: task for one in prepared.loaded for name, task in one.tasks.items()}
    bootstrapped = ("lambada_openai", "wikitext")  # in processes of their own, which takes long
    with quiet():
        found = evaluator.evaluate(hflm, tasks, bootstrap_iters=0, log_samples=False)
        closed = {name: task for name, task in tasks.items() if name not in bootstrapped}
        errors = evaluator.evaluate(hflm, closed, bootstrap_iters=1, log_samples=False)
    for name in tasks:
        for key, value in found["results"][name].items():
            metric, comma, _ = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                assert results[name][metric] == pytest.approx(value, rel=1e-4), (name, metric)
    for name in closed:
        own = results[name].get("acc_stderr")
        theirs = errors["results"][name]["acc_stderr,none"]
        assert own == (pytest.approx(theirs) if results[name]["n"] > 1 else None)


def test_log_likelihoods_are_those_of_hflm(hflm: Any, scorer: Scorer, tokenizer: Tokenizer) -> None:
    from lm_eval.api.instance import Instance

    from groundup.evaluate.harness.model import Encodings, HarnessModel
    from groundup.evaluate.harness.tasks import quiet

    pairs = [
        ("", "the dog runs"),  # EOS before it
        ("the dog ", "runs"),  # the space belongs to what is scored
        ("the dog\n", " runs over the river"),
        ("the dog", "s and cats"),  # tokens may span both
        ("over the river " * 40, " sleeps"),  # cut off on the left
        ("a", " stone" + " falls" * (LENGTH - 1)),  # all that the model reads
        ("Ünïcödé 雨", " 雨が降る"),
    ]
    texts = ["", "the", "the dog runs", "cold and warm water " * 30, "雨" * 20]
    own = HarnessModel(scorer, Encodings(tokenizer, tokenizer.eos_id))

    def asked(kind: str, arguments: list[Any]) -> list[Instance]:
        return [Instance(kind, {}, argument, at) for at, argument in enumerate(arguments)]

    with quiet():
        ours = own.loglikelihood(asked("loglikelihood", pairs))
        theirs = hflm.loglikelihood(asked("loglikelihood", pairs))
        rolling = asked("loglikelihood_rolling", [(text,) for text in texts])
        our_texts, their_texts = (
            own.loglikelihood_rolling(rolling),
            hflm.loglikelihood_rolling(rolling),
        )
    assert [total for total, _ in ours] == pytest.approx([total for total, _ in theirs], abs=1e-4)
    assert [greedy for _, greedy in ours] == [bool(greedy) for _, greedy in theirs]
    assert our_texts == pytest.approx(their_texts, rel=1e-5, abs=1e-4)
    assert our_texts[0] == 0.0


def test_longer_answers_than_the_model_reads(
    scorer: Scorer, tokenizer: Tokenizer, llama: Any
) -> None:
    """HFLM refuses them; here the chain rule holds, with the context that fits."""
    from lm_eval.api.instance import Instance

    from groundup.evaluate.harness.model import Encodings, HarnessModel

    ids = tokenizer.encode("a" + " stone falls" * LENGTH).tolist()
    expected, model = 0.0, Logits(llama)
    for at in range(1, len(ids)):
        first = (at - 1) // LENGTH * LENGTH
        if first + LENGTH > len(ids) - 1:
            first = len(ids) - 1 - LENGTH
        with torch.no_grad():
            expected += float(model(torch.tensor([ids[first:at]]))[0, -1].log_softmax(0)[ids[at]])
    own = HarnessModel(scorer, Encodings(tokenizer, tokenizer.eos_id))
    request = Instance("loglikelihood", {}, ("a", " stone falls" * LENGTH), 0)
    assert own.loglikelihood([request])[0][0] == pytest.approx(expected, abs=1e-3)


# ------------------------------------------------------------------ names, files, settings


def test_mmlu_is_a_group_of_the_subjects_that_are_there(
    results: dict[str, dict[str, Any]],
) -> None:
    from lm_eval.api.metrics import pooled_sample_stderr

    parts = [result for name, result in results.items() if name.startswith("mmlu_")]
    whole = results["mmlu"]
    assert (whole["tasks"], whole["absent"]) == (3, 54)
    sizes = [part["n"] for part in parts]
    assert whole["n"] == sum(sizes) == 12
    expected = sum(part["acc"] * part["n"] for part in parts) / 12
    assert whole["acc"] == pytest.approx(expected)
    errors = pooled_sample_stderr([part["acc_stderr"] for part in parts], sizes)
    assert whole["acc_stderr"] == pytest.approx(errors)
    # A group stands before its tasks.
    names = list(results)
    assert names.index("mmlu") < names.index("mmlu_anatomy")


def test_a_group_says_that_rows_were_left_out() -> None:
    part = {"acc": 0.5, "n": 3, "shots": 0, "version": 1, "lm_eval": "0"}
    limited = [{**part, "limit": 3}, {**part, "n": 2}]
    assert running._group(limited)["limit"] == 3
    assert "limit" not in running._group([part, part])


def test_the_option_for_files_is_named_where_there_is_no_network() -> None:
    class Offline:
        def load_task_or_group(self, names: list[str]) -> None:
            raise ConnectionError("no network")

    with pytest.raises(ValueError, match=r"'piqa' cannot be had: no network; .*--task-files"):
        tasks._downloaded(Offline(), "piqa")


def test_converted_rows_give_the_same_prompts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Of each task that has the form: the same texts are asked for as of original rows."""
    converted = {
        "arc_easy": lambda row: (row["question"], *_answers(row)),
        "commonsense_qa": lambda row: (row["question"], *_answers(row)),
        "hellaswag": lambda row: (
            BY_HAND["hellaswag"](row)[0][0][0],
            BY_HAND["hellaswag"](row)[1],
            int(row["label"]),
        ),
        "mmlu": lambda row: (row["question"], row["choices"], row["answer"]),
        "openbookqa": lambda row: (row["question_stem"], *_answers(row)),
        "piqa": lambda row: (row["goal"], [row["sol1"], row["sol2"]], row["label"]),
        "race": lambda row: (BY_HAND["race"](row)[0][0][0], *BY_HAND["race"](row)[1:]),
        "social_iqa": lambda row: (
            f"{row['context']} {row['question']}",
            [row["answerA"], row["answerB"], row["answerC"]],
            int(row["label"]) - 1,
        ),
        "winogrande": lambda row: (
            row["sentence"],
            [row["option1"], row["option2"]],
            int(row["answer"]) - 1,
        ),
    }
    folders = {form: tmp_path / form for form in ("original", "converted")}
    for folder in folders.values():
        folder.mkdir()
    for task, convert in converted.items():
        original = rows(task)
        (folders["original"] / f"{task}.jsonl").write_text("\n".join(map(json.dumps, original)))
        made = []
        for row in original:
            query, choices, gold = convert(row)
            made.append({"id": 1, "query": query, "choices": choices, "gold": gold})
            if "subject" in row:
                made[-1]["subject"] = row["subject"]
        (folders["converted"] / f"{task}.json").write_text(json.dumps(made))
    asked = {}
    for form, folder in folders.items():
        prepared = harness.prepare(tokenizer, list(converted), folder)
        prepared.rehearse()
        asked[form] = set(prepared.encodings.pairs)
        forms = {one.notes.get("form") for one in prepared.loaded}
        assert forms == ({"converted"} if form == "converted" else {None})
    assert asked["original"] == asked["converted"]


def _answers(row: dict[str, Any]) -> tuple[list[str], int]:
    return row["choices"]["text"], row["choices"]["label"].index(row["answerKey"])


def test_limit_and_shots(files: Path, tokenizer: Tokenizer, scorer: Scorer) -> None:
    done: list[int] = []
    found = harness.evaluate(
        scorer, tokenizer, ["piqa"], {"piqa": files / "piqa_valid.jsonl"}, 2, 5, done.append
    )["piqa"]
    assert (found["n"], found["limit"], found["shots"]) == (5, 5, 2)
    assert done[-1] == 10  # sequences: two answers each
    prepared = harness.prepare(tokenizer, ["piqa"], files, shots=2, limit=5)
    prepared.rehearse()
    answers = [(row["sol1"], row["sol2"])[row["label"]] for row in rows("piqa")]
    blocks = {f"Question: {row['goal']}\nAnswer:" for row in rows("piqa")}
    contexts = {context for context, _ in prepared.encodings.pairs}
    assert len(contexts) == 5
    for context in contexts:
        *examples, last = context.split("\n\n")
        assert len(examples) == 2
        assert last in blocks
        for example in examples:
            assert any(example.endswith("Answer: " + answer) for answer in answers)
        assert not any(example.startswith(last) for example in examples)  # not its own answer
    # Again, the same examples.
    before = set(prepared.encodings.pairs)
    prepared.rehearse()
    assert set(prepared.encodings.pairs) == before


def test_evaluating_is_quiet_and_draws_no_random_number(
    files: Path, tokenizer: Tokenizer, scorer: Scorer, capfd: pytest.CaptureFixture[str]
) -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    harness.evaluate(scorer, tokenizer, ["hellaswag", "mmlu"], files, limit=2)
    assert capfd.readouterr() == ("", "")
    assert states == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "at least one"),
        (["piqa", "piqa"], "piqa is there twice"),
        (["mmlu", "mmlu_anatomy"], "mmlu_anatomy is in mmlu and in mmlu_anatomy"),
        (["arc_easy", "ai2_arc"], "tasks='ai2_arc' is a group: with files of your own"),
    ],
)
def test_tasks_that_are_refused(
    tasks: list[str], message: str, files: Path, tokenizer: Tokenizer
) -> None:
    given = {task: files / f"{task.removesuffix('_anatomy')}_valid.jsonl" for task in tasks}
    with pytest.raises(ValueError, match=message):
        harness.prepare(tokenizer, tasks, given)


def test_unknown_tasks_are_refused_with_near_names(tokenizer: Tokenizer, monkeypatch: Any) -> None:
    """Looking through all of lm-eval takes many seconds: here it has one folder."""
    import lm_eval.tasks

    from groundup.evaluate.harness import tasks

    root = Path(lm_eval.tasks.__file__).parent
    whole = lm_eval.tasks.TaskManager
    monkeypatch.setattr(
        lm_eval.tasks,
        "TaskManager",
        lambda include_defaults=False, include_path=None: whole(
            include_defaults=False, include_path=include_path or [str(root / "hellaswag")]
        ),
    )
    with pytest.raises(ValueError, match="tasks='helaswag' is unknown: did you mean 'hellaswag'"):
        tasks.check(["helaswag"])


def test_wrong_rows_name_file_and_line(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "mmlu.jsonl"
    path.write_text(json.dumps({**rows("mmlu")[0], "subject": "alchemy"}))
    with pytest.raises(ValueError, match=r"mmlu.jsonl, line 1: field 'subject' is 'alchemy'"):
        harness.check(["mmlu"], tmp_path)


def test_more_examples_than_rows(files: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="shots=12 is not valid: of task 'piqa' there are 12 rows"):
        harness.prepare(tokenizer, ["piqa"], files, shots=12)


def test_tasks_that_generate_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    row = {"question": "How many?", "choices": {"text": list("wxyz"), "label": list("ABCD")}}
    for task in ("arc_easy", "arc_challenge_chat"):
        (tmp_path / f"{task}.jsonl").write_text(json.dumps({**row, "answerKey": "A"}))
    with pytest.raises(ValueError, match="'arc_challenge_chat' cannot be evaluated: it has the mo"):
        harness.prepare(tokenizer, ["arc_easy", "arc_challenge_chat"], tmp_path)
