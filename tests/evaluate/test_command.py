"""`groundup eval`, on a run that was trained here and on a model in Hugging Face's format."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.cli import main
from groundup.train.trained import open_trained
from tests.evaluate.texts import PASSAGES, WIKITEXT
from tests.forked import side_by_side
from tests.train.runs import metrics


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be written to."""
    return Path(shutil.copytree(run, tmp_path / "runs" / "own"))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder with something to evaluate on."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "code.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in ["if x : return", "def self ( y )"])
    )
    (folder / "wiki.test.tokens").write_text(WIKITEXT)
    (folder / "lambada.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in PASSAGES)
    )
    (folder / "bad.txt").write_bytes(b"\xff\xfe")
    return folder


def held(run: Path, step: int = 12) -> dict[str, Any]:
    return json.loads((run / "evaluations" / f"step-{step:08d}.json").read_text())


def test_nothing_asked_for_is_the_held_out_text(own: Path, capsys: Any) -> None:
    assert main(["eval", str(own)]) == 0
    result = held(own)["results"]["held-out"]
    line = metrics(own)[-1]
    assert result["recorded_loss"] == line["eval_loss"]
    # The fixture's recipe evaluates the first 256 tokens only.
    assert result["loss_of_beginning"] == pytest.approx(line["eval_loss"], rel=1e-6)
    assert result["tokens"] > 256
    assert result["tokens"] == 16 * result["windows"]
    assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))
    assert held(own)["step"] == 12
    assert held(own)["tokens"] == line["tokens"]
    printed = capsys.readouterr()
    assert f"{result['loss']:.4f}" in printed.out
    assert f"{line['eval_loss']:.4f}" in printed.out
    assert str(own / "evaluations" / "step-00000012.json") in printed.out
    assert "held-out" in printed.err
    assert f"{result['tokens']:,} tokens" in printed.err


def test_an_earlier_checkpoint(own: Path) -> None:
    assert main(["eval", str(own), "--step", "8"]) == 0
    result = held(own, 8)["results"]["held-out"]
    assert result["recorded_loss"] is None  # evaluated after 5, 10, 12 updates
    assert result["loss"] > 0
    assert not (own / "evaluations" / "step-00000012.json").exists()


def test_text_wikitext_and_lambada(own: Path, texts: Path, capsys: Any) -> None:
    code, wiki = str(texts / "code.jsonl"), str(texts / "wiki.test.tokens")
    asked = ["--wikitext", wiki, "--lambada", str(texts / "lambada.jsonl")]
    assert main(["eval", str(own), "--text", code, wiki, *asked]) == 0
    found = held(own)["results"]
    assert {name: result["what"] for name, result in found.items()} == {
        "code": "text",
        "wiki.test": "text",
        "wiki.test-2": "wikitext",
        "lambada": "lambada",
    }
    assert found["code"]["source"] == code
    assert found["code"]["length"] == 16
    assert found["code"]["precision"] == "float32"
    assert (found["code"]["documents"], found["code"]["words"]) == (2, 9)
    assert found["wiki.test-2"]["documents"] == 3
    assert found["wiki.test-2"]["unk"] == WIKITEXT.count("<unk>") > 0
    assert found["lambada"]["passages"] == len(PASSAGES)
    printed = capsys.readouterr().out
    for name, metric in [("code", "bits_per_byte"), ("wiki.test-2", "bits_per_byte")]:
        assert f"{found[name][metric]:.4f}" in printed
    # Of two documents that fit into a window, by hand.
    trained = open_trained(own, device="cpu")
    nats = 0.0
    for text in ["if x : return", "def self ( y )"]:
        ids = [trained.tokenizer.eos_id, *trained.tokenizer.encode(text).tolist()]
        with torch.no_grad():
            logits = trained.model(torch.tensor([ids[:-1]]))[0].double()
        nats -= logits.log_softmax(1)[range(len(ids) - 1), ids[1:]].sum().item()
    assert found["code"]["nats"] == pytest.approx(nats, rel=1e-6)

    assert main(["eval", str(own), "--text", code, "--stride", "4", "--limit", "1"]) == 0
    merged = held(own)["results"]
    assert {name: merged[name] for name in found} == found
    other = merged["code-2"]
    assert (other["name"], other["stride"], other["limit"]) == ("code", 4, 1)
    assert other["documents"] == 1
    assert "code (first 1)" in capsys.readouterr().out


def test_several_runs_beside_each_other(own: Path, texts: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(own, own.parent / "other")
    out = tmp_path / "out.json"
    code = str(texts / "code.jsonl")
    assert main(["eval", str(own.parent), "--text", code, "--out", str(out)]) == 0
    whole = json.loads(out.read_text())["runs"]
    assert [one["run"] for one in whole] == [str(own.parent / name) for name in ("other", "own")]
    assert whole[0]["results"] == whole[1]["results"]
    assert not (own / "evaluations").exists()
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["other,", "step", "12", "own,", "step", "12"]
    assert rows[0].split()[:2] == ["code", "perplexity"]
    assert len(set(rows[0].split()[2:])) == 1
    assert len(rows[0].split()) == 4


def test_a_model_in_hugging_faces_format(
    run: Path, texts: Path, tmp_path: Path, capsys: Any
) -> None:
    transformers = pytest.importorskip("transformers")
    trained = open_trained(run, device="cpu")
    folder = tmp_path / "llama"
    config = transformers.LlamaConfig(
        vocab_size=trained.tokenizer.vocab_size, hidden_size=16, intermediate_size=24,
        num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=20,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    trained.tokenizer.save(folder / "tokenizer.json")
    code = str(texts / "code.jsonl")
    assert main(["eval", str(folder), "--text", code]) == 0
    written = json.loads((folder / "evaluations" / "model.json").read_text())
    result = written["results"]["code"]
    assert written["step"] is None
    assert result["length"] == 20
    nats = 0.0
    for text in ["if x : return", "def self ( y )"]:
        ids = torch.tensor([[trained.tokenizer.eos_id, *trained.tokenizer.encode(text).tolist()]])
        with torch.no_grad():
            loss = model(input_ids=ids, labels=ids).loss.item()
        nats += loss * (ids.shape[1] - 1)
    assert result["nats"] == pytest.approx(nats, rel=1e-5)
    before = (folder / "evaluations" / "model.json").read_bytes()
    for more, said in [
        (["--text", code, "--length", "21"], "reads at most 20 tokens at once"),
        (["--text", code, "--step", "3"], "step=3 would be ignored"),
        ([], "is no run and has no held-out text"),
    ]:
        assert main(["eval", str(folder), *more]) == 2
        assert said in capsys.readouterr().err
    assert (folder / "evaluations" / "model.json").read_bytes() == before


def test_tasks(own: Path, tmp_path: Path, capsys: Any) -> None:
    row = {"goal": "if x", "sol1": "return", "sol2": "import", "label": 0}
    files = tmp_path / "tasks"
    files.mkdir()
    (files / "piqa.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    asked = ["--tasks", "piqa", "--task-files", str(files)]
    assert main(["eval", str(own), *asked, "--limit", "2", "--shots", "0"]) == 0
    result = held(own)["results"]["piqa"]
    assert (result["what"], result["n"], result["shots"]) == ("task", 2, 0)
    assert result["length"] == 16
    assert f"{result['acc']:.4f}" in capsys.readouterr().out


def test_what_is_done_is_kept(own: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("stopped here")

    monkeypatch.setattr("groundup.evaluate.kinds.last_words", fail)
    asked = ["--text", str(texts / "code.jsonl"), "--lambada", str(texts / "lambada.jsonl")]
    assert main(["eval", str(own), *asked]) == 2
    assert list(held(own)["results"]) == ["code"]


def test_a_results_file_that_is_damaged_is_kept(own: Path, texts: Path, capsys: Any) -> None:
    path = own / "evaluations" / "step-00000012.json"
    path.parent.mkdir()
    path.write_text("{")
    assert main(["eval", str(own), "--text", str(texts / "code.jsonl")]) == 2
    assert "does not hold results of evaluations" in capsys.readouterr().err
    assert path.read_text() == "{"


REFUSED = {
    "no run": ([], "say which runs"),
    "no such run": (["{texts}"], "is no run folder"),
    "no such step": (["{run}", "--step", "9"], "step=9 is not valid"),
    "no such file": (["{run}", "--text", "nowhere.txt"], "text='nowhere.txt' is not valid"),
    "no WikiText": (["{run}", "--wikitext", "{texts}/code.jsonl"], "must be a file of plain text"),
    "a second text that is none": (
        ["{run}", "--text", "{texts}/code.jsonl", "{texts}/bad.txt"],
        "bad.txt",
    ),
    "no such field": (
        ["{run}", "--text", "{texts}/code.jsonl", "--text-field", "body"],
        "no text_field 'body'",
    ),
    "stride": (
        ["{run}", "--text", "{texts}/code.jsonl", "--stride", "17"],
        "stride=17 is not valid: it must be from 1 to length=16",
    ),
    "batch": (["{run}", "--batch", "0"], "batch=0 is not valid"),
    "length": (["{run}", "--length", "0"], "length=0 is not valid"),
    "shots alone": (["{run}", "--shots", "2"], "--shots would be ignored: it needs --tasks"),
    "stride alone": (["{run}", "--stride", "2"], "--stride would be ignored"),
    "limit of a stream": (
        ["{run}", "--wikitext", "{texts}/wiki.test.tokens", "--wikitext-stream", "--limit", "2"],
        "limit=2 would be ignored",
    ),
    "no file of a task": (
        ["{run}", "--tasks", "piqa", "--task-files", "{texts}"],
        "holds no file for task 'piqa'",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_refused(
    run: Path, texts: Path, case: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case != "stride":  # which depends on the run's length
        monkeypatch.setattr("groundup.commands.eval.open_subject", None)
    arguments, said = REFUSED[case]
    words = [word.format(run=run, texts=texts) for word in arguments]
    assert main(["eval", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (run / "evaluations").exists()


def test_the_table_shows_published_numbers(
    own: Path, texts: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundup.commands import _evaluated
    from groundup.report.published import benchmarks

    column = benchmarks.Column("Table 9", {"lambada/acc": 0.125, "wikitext/word_perplexity": 20.5})
    other = benchmarks.Column("Table 10", {"piqa/acc": 0.5})
    monkeypatch.setattr(_evaluated, "columns", lambda recipe: [column, other])
    wiki, lambada = str(texts / "wiki.test.tokens"), str(texts / "lambada.jsonl")
    assert main(["eval", str(own), "--wikitext", wiki, "--lambada", lambada]) == 0
    assert "Table 9" not in capsys.readouterr().out  # of other pages and passages than these
    whole = {"lambada_openai": len(PASSAGES), "wikitext": 3}
    monkeypatch.setattr(benchmarks, "ROWS", whole)
    raw = texts / "wiki.test.raw"
    raw.write_text(WIKITEXT.replace("<unk>", "word"))
    assert main(["eval", str(own), "--wikitext", str(raw), "--lambada", lambada]) == 0
    heading, *rows, note, _ = capsys.readouterr().out.splitlines()
    assert heading.rstrip().endswith("Table 9")
    assert note == benchmarks.NOTE
    ends = {tuple(row.split()[:-1][:3]): row.split()[-1] for row in rows}
    assert ends[("lambada", "accuracy", "0.0000")] == "0.1250"
    values = [row.split()[-1] for row in rows]
    assert values == ["–", "20.50", "–", "–", "0.1250"]


def test_the_table_of_many_models_fits_the_terminal() -> None:
    from rich.console import Console

    from groundup.commands._evaluated import Evaluated, print_evaluations

    task = {"what": "task", "acc": 0.5142, "acc_stderr": 0.0117, "n": 1838, "shots": 0}
    runs = [Path(f"runs/some-long-name-{n}/seed-0") for n in range(8)]
    for width in (80, 60, 20):
        console = Console(file=io.StringIO(), width=width, force_terminal=True)
        print_evaluations(
            console, [Evaluated(run, run, {"step": 100}, None, {"piqa": task}) for run in runs]
        )
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        printed = "\n".join(lines)
        assert "…" not in printed
        assert printed.count("0.5142 ± 0.0117") == 8
        for number in range(8):
            assert f"some-long-name-{number}" in printed
        if width > 20:
            assert max(map(len, (line.rstrip() for line in lines))) <= width


def test_a_length_beyond_that_of_training_is_noted_once(
    own: Path, texts: Path, capsys: Any
) -> None:
    shutil.copytree(own, own.parent / "other")
    asked = [str(own.parent), "--text", str(texts / "code.jsonl")]
    assert main(["eval", *asked, "--length", "20"]) == 0
    said = capsys.readouterr().err
    assert said.count("note:") == said.count("(16 tokens)") == 1
    assert main(["eval", *asked, "--length", "16"]) == 0
    assert "note:" not in capsys.readouterr().err


def test_what_is_limited_does_not_replace_the_whole(own: Path, texts: Path, capsys: Any) -> None:
    asked = ["eval", str(own), "--text", str(texts / "code.jsonl")]
    for more in ([], ["--limit", "1"], ["--length", "8"], ["--precision", "bf16"], []):
        assert main([*asked, *more]) == 0
    found = held(own)["results"]
    assert list(found) == ["code", "code-2", "code-3", "code-4"]
    assert {result["name"] for result in found.values()} == {"code"}
    assert [result["documents"] for result in found.values()] == [2, 1, 2, 2]


def test_two_processes_share_the_work(own: Path, texts: Path, tmp_path: Path, capsys: Any) -> None:
    asked = ["eval", str(own), "--text", str(texts / "code.jsonl"), "--batch", "1"]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    alone = held(own)["results"]
    shutil.rmtree(own / "evaluations")
    logs = [tmp_path / str(rank) for rank in range(2)]
    for process in side_by_side([*asked, "--device", "cpu"], logs):
        assert process.wait(120) == 0, process.log.read_text()
    progress, _, said = logs[0].read_text().partition("\n")
    assert progress.startswith("✓")
    assert said == printed
    assert logs[1].read_text() == ""
    for metric, value in held(own)["results"]["code"].items():
        assert value == (pytest.approx(alone["code"][metric]) if value else alone["code"][metric])
