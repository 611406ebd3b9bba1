from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.data import (
    Batches,
    DataConfig,
    DataError,
    TokenFile,
    TokenFileError,
    describe,
    load,
    prepare,
    show_progress,
    train,
)
from groundup.data import workers as workers_module
from groundup.data.corpora import split_value

RESULTS = {
    "prepared.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "train.gtok",
    "validation.gtok",
    ".groundup-lock",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def config(source: Path, folder: Path, **settings) -> DataConfig:
    return DataConfig(source=str(source), folder=str(folder), **{"vocab_size": 300, **settings})


def decoded(path: Path, tokenizer: Path) -> list[str]:
    """The documents of a token file, by cutting at EOS."""
    file, coder = TokenFile.open(path), load(tokenizer)
    result, current = [], []
    for token in file.tokens.tolist():
        if token == coder.eos_id:
            result.append(coder.decode(current))
            current = []
        else:
            current.append(token)
    assert not current
    return result


def test_every_document_is_on_exactly_one_side_in_order(corpus, tmp_path):
    prepared = prepare(config(corpus, tmp_path / "out", validation_fraction=0.1), workers=1)
    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    held = [split_value(text) < 0.1 * 2**64 for text in texts]
    assert decoded(prepared.train, prepared.tokenizer) == [
        text for text, out in zip(texts, held, strict=True) if not out
    ]
    assert decoded(prepared.validation, prepared.tokenizer) == [
        text for text, out in zip(texts, held, strict=True) if out
    ]
    assert prepared.report["documents"] == {"train": 600 - sum(held), "validation": sum(held)}
    assert set(contents(prepared.folder)) == RESULTS
    TokenFile.open(prepared.train).verify()
    Batches(TokenFile.open(prepared.train).tokens, 128, 4, 0).batch(0)


def test_the_split_does_not_depend_on_order_or_names(corpus, tmp_path):
    first = prepare(config(corpus, tmp_path / "one"), workers=1)
    lines = corpus.read_text().splitlines()
    random.Random(5).shuffle(lines)
    other = tmp_path / "other"
    other.mkdir()
    (other / "z.jsonl").write_text("\n".join(lines[:200]))
    (other / "a.jsonl").write_text("\n".join(lines[200:]))
    second = prepare(config(other, tmp_path / "two"), workers=1)
    for side in ("train", "validation"):
        documents = [
            sorted(decoded(getattr(prepared, side), prepared.tokenizer))
            for prepared in (first, second)
        ]
        assert documents[0] == documents[1]


def test_the_tokenizer_sees_only_training_text(tmp_path):
    texts = [f"number {i}" for i in range(400)]
    held = [text for text in texts if split_value(text) < 0.1 * 2**64]
    marked = [text for text in texts if text not in held]
    # Give every held-out document a word that would surely become a token.
    source = tmp_path / "in.jsonl"
    held_marked = []
    number = 0
    while len(held_marked) < 40:
        text = f"{number} " + "zqxzqxzqx " * 50
        number += 1
        if split_value(text) < 0.1 * 2**64:
            held_marked.append(text)
    source.write_text("\n".join(json.dumps({"text": t}) for t in marked + held_marked))
    prepared = prepare(config(source, tmp_path / "out", validation_fraction=0.1), workers=1)
    assert prepared.report["documents"]["validation"] == 40
    assert "zqx" not in json.loads(prepared.tokenizer.read_text())["model"]["vocab"]


def test_one_and_two_workers_give_the_same_bytes(big_corpus, tmp_path):
    one = prepare(config(big_corpus, tmp_path / "one"), workers=1)
    two = prepare(config(big_corpus, tmp_path / "two"), workers=2)
    three = prepare(config(big_corpus, tmp_path / "three"), workers=3)
    assert one.folder.name == two.folder.name == three.folder.name
    assert contents(one.folder) == contents(two.folder) == contents(three.folder)
    assert one.report["tokens"]["train"] > 100_000


def test_a_second_call_returns_at_once(corpus, tmp_path, monkeypatch):
    first = prepare(config(corpus, tmp_path / "out"), workers=1)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    monkeypatch.setattr(sys.modules["groundup.data.prepare"], "_encode", None)
    # The sequence length is a matter of reading, not of the files.
    again = prepare(config(corpus, tmp_path / "out", length=64), workers=1)
    assert again == first
    assert before == {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}


def test_what_matters_gets_another_folder(corpus, tmp_path):
    out = tmp_path / "out"
    folders = [prepare(config(corpus, out), workers=1).folder]
    folders.append(prepare(config(corpus, out, vocab_size=310), workers=1).folder)
    folders.append(prepare(config(corpus, out, validation_fraction=0.1), workers=1).folder)
    train(["hello"], 260).save(tmp_path / "tokenizer.json")
    given = DataConfig(str(corpus), tokenizer=str(tmp_path), folder=str(out))
    folders.append(prepare(given, workers=1).folder)
    text = corpus.read_text()
    corpus.write_text(text.replace("fox", "cat", 1))  # the same size
    folders.append(prepare(config(corpus, out), workers=1).folder)
    assert len(set(folders)) == 5
    corpus.write_text(text)
    assert prepare(config(corpus, out), workers=1).folder == folders[0]


def test_a_given_tokenizer_is_used_and_copied(corpus, tmp_path):
    tokenizer = train(["the quick brown fox"], 270)
    (tmp_path / "tok").mkdir()
    tokenizer.save(tmp_path / "tok" / "tokenizer.json")
    prepared = prepare(
        DataConfig(str(corpus), tokenizer=str(tmp_path / "tok"), folder=str(tmp_path / "out")),
        workers=1,
    )
    assert load(prepared.tokenizer).hash == tokenizer.hash
    assert TokenFile.open(prepared.train).header.tokenizer == tokenizer.hash


def test_held_out_files(corpus, tmp_path):
    held = corpus.with_name("held.txt")
    held.write_text("only this is held out, with <|endoftext|> in it")
    prepared = prepare(config(corpus.parent, tmp_path / "out", validation=str(held)), workers=1)
    assert decoded(prepared.validation, prepared.tokenizer) == [held.read_text()]
    assert prepared.report["documents"] == {"train": 600, "validation": 1}
    assert prepared.report["skipped"] == {"files that are the validation text": 1}
    with pytest.raises(DataError, match="no file that is not in validation"):
        prepare(config(held, tmp_path / "out", validation=str(held)), workers=1)


def test_a_literal_end_of_text_makes_no_document(tmp_path):
    source = tmp_path / "in.jsonl"
    texts = [f"{i} before <|endoftext|> after" for i in range(200)]
    source.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    prepared = prepare(config(source, tmp_path / "out", validation_fraction=0.2), workers=1)
    sides = [decoded(p, prepared.tokenizer) for p in (prepared.train, prepared.validation)]
    assert sorted(sides[0] + sides[1]) == sorted(texts)


def test_a_split_with_an_empty_side_says_what_to_do(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps({"text": f"text {i}"}) for i in range(5)))
    smallest = min(split_value(f"text {i}") for i in range(5)) / 2**64
    assert smallest > 0.0001
    with pytest.raises(DataError, match="set it to") as error:
        prepare(config(source, tmp_path / "out", validation_fraction=0.0001), workers=1)
    advice = float(str(error.value).split("set it to ")[1].split()[0])
    prepared = prepare(config(source, tmp_path / "out", validation_fraction=advice), workers=1)
    assert prepared.report["documents"]["validation"] == 1
    with pytest.raises(DataError, match="leaves none to train on"):
        prepare(config(source, tmp_path / "out", validation_fraction=0.99999), workers=1)
    (tmp_path / "one.txt").write_text("alone")
    with pytest.raises(DataError, match="name a held-out file"):
        prepare(config(tmp_path / "one.txt", tmp_path / "out"), workers=1)
    (tmp_path / "none.txt").write_text("")
    with pytest.raises(DataError, match="empty"):
        prepare(config(tmp_path / "none.txt", tmp_path / "out"), workers=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_line_stops_everything_and_can_be_mended(big_corpus, tmp_path, workers):
    bad = big_corpus / "zz.jsonl"
    bad.write_text('{"text": "fine"}\n{"text": 3}\n')
    train(["hello"], 300).save(tmp_path / "tokenizer.json")
    settings = DataConfig(str(big_corpus), tokenizer=str(tmp_path), folder=str(tmp_path / "out"))
    with pytest.raises(DataError, match=r"zz\.jsonl, line 2: text_field 'text' is int"):
        prepare(settings, workers=workers)
    assert not list((tmp_path / "out").glob("*/train.gtok"))
    bad.write_text('{"text": "fine"}\n{"text": "3"}\n')
    assert prepare(settings, workers=workers).report["documents"]["train"] > 1000


def test_a_bad_line_met_while_training_the_tokenizer(tmp_path):
    (tmp_path / "zz.jsonl").write_text('{"text": "fine"}\n{"text": 3}\n')
    with pytest.raises(DataError, match=r"zz\.jsonl, line 2"):
        prepare(config(tmp_path / "zz.jsonl", tmp_path / "out"), workers=1)


def test_errors_come_before_work(corpus, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="tokenizer="):
        prepare(DataConfig(str(corpus), tokenizer="nothing-here", folder=str(out)))
    with pytest.raises(ValueError, match="source="):
        prepare(DataConfig("nothing-here", folder=str(out)))
    with pytest.raises(ValueError, match="validation="):
        prepare(DataConfig(str(corpus), validation="nothing-here", folder=str(out)))
    for workers in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="workers"):
            prepare(config(corpus, out), workers=workers)
    assert not out.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder="):
        prepare(config(corpus, tmp_path / "file" / "out"))


def test_a_damaged_result_is_named(corpus, tmp_path):
    prepared = prepare(config(corpus, tmp_path / "out"), workers=1)
    whole = prepared.train.read_bytes()
    prepared.train.write_bytes(whole[:-1])
    with pytest.raises(TokenFileError, match=r"train\.gtok.*truncated.*delete this folder"):
        prepare(config(corpus, tmp_path / "out"), workers=1)
    prepared.train.unlink()  # but a missing file is made again
    prepare(config(corpus, tmp_path / "out"), workers=1)
    assert prepared.train.read_bytes() == whole


class Stop(Exception):
    pass


def interrupt(settings: DataConfig, after: int) -> int:
    """Prepare until `after` parts are there; return how many there are to be."""
    calls = []

    def progress(phase, done, total):
        if phase == "encode":
            calls.append(done)
            if len(calls) == after + 1:
                raise Stop

    with pytest.raises(Stop):
        prepare(settings, progress=progress, workers=1)
    return len(calls) - 1


def test_finished_parts_are_not_done_again(big_corpus, tmp_path, monkeypatch):
    whole = prepare(config(big_corpus, tmp_path / "whole"), workers=1)
    settings = config(big_corpus, tmp_path / "out")
    assert interrupt(settings, 3) == 3
    (parts,) = (tmp_path / "out").glob("*/parts-*")
    done = sorted(path.name for path in parts.glob("*.json"))
    assert done == ["000000.json", "000001.json", "000002.json"]
    # One of the three is damaged: it is done again, the other two are not.
    damaged = bytearray((parts / "000001.train.gtok").read_bytes())
    damaged[-1] ^= 1
    (parts / "000001.train.gtok").write_bytes(damaged)
    (parts / ".000009.train.gtok.1-ab.tmp").write_bytes(b"left over")
    encoded = []
    original = workers_module.encode_part

    def record(folder, index, *rest):
        encoded.append(index)
        return original(folder, index, *rest)

    monkeypatch.setattr(workers_module, "encode_part", record)
    seen = []
    prepared = prepare(settings, progress=lambda *call: seen.append(call), workers=1)
    assert encoded[0] == 1
    assert encoded[1:] == list(range(3, 3 + len(encoded) - 1))
    assert len(encoded) >= 8
    phases = [call for call in seen if call[0] == "encode"]
    assert phases[0][1] > 0  # the display starts where it was
    assert phases[-1][1] == phases[-1][2]
    assert not [call for call in seen if call[0] == "tokenizer"]  # nor is that trained again
    assert contents(prepared.folder) == contents(whole.folder)


def test_killed_while_cleaning_up(big_corpus, tmp_path, monkeypatch):
    settings = config(big_corpus, tmp_path / "out")
    module = sys.modules["groundup.data.prepare"]
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(settings, workers=1)
    (folder,) = (tmp_path / "out").glob("*/")
    assert list(folder.glob("parts-*"))
    monkeypatch.setattr(module, "_encode", None)
    prepared = prepare(settings, workers=1)
    assert set(contents(prepared.folder)) == RESULTS


SCRIPT = """
import sys
from groundup.data import DataConfig, prepare
settings = DataConfig(source=sys.argv[1], folder=sys.argv[2], vocab_size=300)
prepare(settings, workers=2)  # no main guard needed
print("done")
"""


def start(source: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(source), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.glob("*/parts-*/*.json"):
        try:
            state = path.stat()
        except FileNotFoundError:
            continue
        found[path.name] = (state.st_ino, state.st_mtime_ns)
    return found


def test_killed_at_random_moments_it_continues_and_ends_the_same(big_corpus, tmp_path):
    began = time.monotonic()
    process = start(big_corpus, tmp_path / "whole")
    assert process.communicate()[0] == "done\n"
    duration = time.monotonic() - began
    (whole,) = (tmp_path / "whole").glob("*/")
    source = random.Random(11)
    kills = kept = 0
    for life in range(3):
        out = tmp_path / f"out{life}"
        known: dict[str, tuple[int, int]] = {}
        for attempt in range(12):
            process = start(big_corpus, out)
            # Any moment; the last attempts run to the end.
            patience = duration * source.uniform(0.1, 0.9) if attempt < 8 else None
            try:
                process.wait(timeout=patience)
            except subprocess.TimeoutExpired:
                # The parent alone, whose workers then end by themselves, or all at once.
                if kills % 2:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.send_signal(signal.SIGKILL)
                kills += 1
            output, errors = process.communicate()
            for name, stamp in stamps(out).items():
                assert known.setdefault(name, stamp) == stamp, f"{name} was done again"
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, errors
            kept = max(kept, len(known))
        assert output == "done\n"
        (folder,) = out.glob("*/")
        assert contents(folder) == contents(whole)
    assert kills >= 4
    assert kept > 0, "no kill fell among the parts"


def test_two_at_the_same_time(big_corpus, tmp_path):
    processes = [start(big_corpus, tmp_path / "out") for _ in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert (output, errors) == ("done\n", "")
    (folder,) = (tmp_path / "out").glob("*/")
    alone = prepare(config(big_corpus, tmp_path / "alone"), workers=2)
    assert contents(folder) == contents(alone.folder)


def test_a_dead_worker_is_reported(big_corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(RuntimeError, match=r"encoding process ended with status.*prepare again"):
        prepare(config(big_corpus, tmp_path / "out"), workers=2)
    monkeypatch.delenv("PYTHONHOME")
    assert prepare(config(big_corpus, tmp_path / "out"), workers=2).report["tokens"]["train"]


def test_the_current_folder_is_not_imported_from(big_corpus, tmp_path, monkeypatch):
    (big_corpus / "json.py").write_text("raise SystemExit('code from the data was run')")
    (big_corpus / "numpy.py").write_text("raise SystemExit('code from the data was run')")
    monkeypatch.chdir(big_corpus)
    prepared = prepare(config(Path("."), tmp_path / "out"), workers=2)
    assert prepared.folder.name.startswith("big-300-")


def test_describe(corpus, tmp_path):
    text = corpus.read_text()
    corpus.write_text(json.dumps({"text": "first \x1b[31m line\nsecond"}) + "\n" + text)
    prepared = prepare(config(corpus, tmp_path / "out"), workers=1)
    shown = describe(prepared.train)
    header = TokenFile.open(prepared.train).header
    assert f"{header.tokens:,} (uint16" in shown
    assert f"documents          {header.documents:,}" in shown
    assert header.tokenizer in shown
    assert "verified" in shown
    assert "first \\x1b[31m line\n    second" in shown  # escape sequences do not reach a terminal
    folder = describe(prepared.folder, sample=5)
    assert "train.gtok" in folder
    assert "validation.gtok" in folder
    assert "from text" in folder
    assert "sample" not in describe(prepared.train, sample=0)
    for sample in (-1, 1.5):
        with pytest.raises(ValueError, match="sample"):
            describe(prepared.train, sample=sample)
    prepared.tokenizer.unlink()
    assert "no tokenizer.json" in describe(prepared.train)
    train(["other"], 260).save(prepared.tokenizer)
    assert "is another" in describe(prepared.train)
    content = bytearray(prepared.train.read_bytes())
    content[-1] ^= 1
    prepared.train.write_bytes(content)
    with pytest.raises(TokenFileError, match="damaged"):
        describe(prepared.train)
    with pytest.raises(TokenFileError, match="no token file"):
        describe(corpus.parent)
    with pytest.raises(TokenFileError, match="cannot be read"):
        describe(tmp_path / "missing")


def test_a_vocabulary_smaller_than_asked_is_shown(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps({"text": f"ab {i}"}) for i in range(20)))
    prepared = prepare(
        config(source, tmp_path / "out", vocab_size=5000, validation_fraction=0.3), workers=1
    )
    size = load(prepared.tokenizer).vocab_size
    assert size == prepared.report["vocab_size"] < 300
    assert f"{size}, though 5,000 were asked" in describe(prepared.folder)


def test_progress_display(corpus, tmp_path, capsys):
    with show_progress() as show:
        show("wait", 0, 1)
        prepare(config(corpus, tmp_path / "out"), progress=show, workers=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "encoding" in captured.err
    assert "100%" in captured.err
    assert "waiting" not in captured.err


def test_a_part_of_the_builtin_corpus(tmp_path, monkeypatch):
    from groundup.data import corpora

    full = corpora.find("python")
    wanted = ("json/", "logging/", "asyncio/")
    files = tuple(file for file in full.files if file.path.startswith(wanted))
    part = corpora.Listing(full.name, full.root, files, {})
    monkeypatch.setitem(corpora.SOURCES, "python", lambda: part)
    settings = DataConfig(folder=str(tmp_path), vocab_size=400, validation_fraction=0.1)
    prepared = prepare(settings, workers=2)
    assert prepared.folder.name.startswith(f"{full.name}-400-")
    documents = decoded(prepared.train, prepared.tokenizer)
    documents += decoded(prepared.validation, prepared.tokenizer)
    texts = [(full.root / file.path).read_text(encoding="utf-8") for file in files]
    assert sorted(documents) == sorted(text for text in texts if text)
    assert os.listdir(tmp_path)
