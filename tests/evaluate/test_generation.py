"""What a model writes, against a loop that reads all again for every token."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup import cli
from groundup.data import Tokenizer
from groundup.evaluate.generation import Sampling, Speaker, Written, _Hearing, open_speaker
from groundup.model import ModelConfig, Transformer
from groundup.model.resolution import resolved
from groundup.train import Recipe, ResidualConfig, train
from groundup.train.trained import open_trained
from tests.evaluate.texts import WIKITEXT

pytest.importorskip("transformers")

LENGTH = 24
LLAMA = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
PROMPT = "In my palm"


@pytest.fixture(scope="module")
def decoder(tokenizer: Tokenizer) -> Transformer:
    """Of random weights large enough that few tokens are likely."""
    config = ModelConfig(
        layers=2, width=32, heads=2, vocab_size=tokenizer.vocab_size, placement="post", init_std=0.3
    )
    return Transformer(config).eval()


@pytest.fixture(scope="module")
def speaker(decoder: Transformer, tokenizer: Tokenizer) -> Speaker:
    from groundup.export import as_hugging_face

    return Speaker(as_hugging_face(decoder, [1.0, 1.0]), tokenizer, tokenizer.eos_id, LENGTH)


def drawn(logits: torch.Tensor, text: list[int], how: dict[str, Any]) -> int:
    """The next token, from logits [V]: each option written out."""
    logits = logits.clone()
    penalty = how.get("repetition_penalty", 1.0)
    for token in set(text):
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    if how.get("greedy"):
        return int(logits.argmax())
    logits = logits / how.get("temperature", 1.0)
    order = logits.sort(descending=True).indices.tolist()
    if "top_k" in how:
        for token in order[how["top_k"] :]:
            logits[token] = -torch.inf
    if "top_p" in how:
        before, p = 0.0, logits.softmax(0).tolist()
        for token in order:
            if before >= how["top_p"]:
                logits[token] = -torch.inf
            before += p[token]
    if "min_p" in how:
        p = logits.softmax(0)
        logits[p < how["min_p"] * p.max()] = -torch.inf
    return int(torch.multinomial(logits.softmax(0), 1))


def recomputed(
    decoder: Transformer, prompt: list[int], tokens: int, end: int, seed: int, how: dict[str, Any]
) -> list[int]:
    """The window moves on when it is full, so that half of it, or all that is missing, has room."""
    torch.manual_seed(seed)
    written: list[int] = []
    window: list[int] = []
    while len(written) < tokens and end not in written:
        if len(window) == LENGTH or not written:
            keep = LENGTH - min(tokens - len(written), LENGTH // 2)
            window = (prompt + written)[-keep:]
        with torch.inference_mode():
            logits = decoder(torch.tensor([window]))[0, -1]
        written.append(drawn(logits, window, how))
        window.append(written[-1])
    return written


WAYS: list[dict[str, Any]] = [
    {"greedy": True},
    {"greedy": True, "repetition_penalty": 1.4},
    {},
    {"temperature": 0.5},
    {"top_k": 5, "temperature": 1.5},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"temperature": 2.0, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
]


@pytest.mark.parametrize("how", WAYS, ids=lambda how: "-".join(how) or "plain")
@pytest.mark.parametrize("prompt", ["", PROMPT, WIKITEXT[:200]], ids=["none", "short", "long"])
def test_a_cache_and_the_librarys_samplers_change_nothing(
    decoder: Transformer, speaker: Speaker, how: dict[str, Any], prompt: str
) -> None:
    tokenizer = speaker.tokenizer
    asked = [tokenizer.eos_id, *tokenizer.encode(prompt).tolist()]
    expected = recomputed(decoder, asked, 50, tokenizer.eos_id, 5, how)
    written = speaker.write(prompt, 50, Sampling(**how), seed=5)
    assert list(written.tokens) == expected
    assert written.text == tokenizer.decode(expected).removesuffix(tokenizer.eos)
    assert written.ended == (expected[-1] == tokenizer.eos_id)
    assert written.left_out == max(0, len(asked) - 1 - LENGTH // 2)


def test_the_seed_decides(speaker: Speaker) -> None:
    before = torch.random.get_rng_state()
    texts = [speaker.write(PROMPT, 20, seed=seed).text for seed in (1, 2, 1)]
    assert texts[0] == texts[2] != texts[1]
    assert torch.equal(before, torch.random.get_rng_state())


def test_it_stops_at_the_end_of_the_document(speaker: Speaker) -> None:
    likeliest = speaker.write(PROMPT, 30, Sampling(greedy=True)).tokens
    place = next(n for n in range(3, 30) if likeliest[n] not in likeliest[:n])
    content = speaker.tokenizer._inner.id_to_token(likeliest[place])
    ending = Tokenizer(speaker.tokenizer._text, eos=content)
    written = replace(speaker, tokenizer=ending).write(PROMPT, 30, Sampling(greedy=True))
    assert written.tokens == likeliest[: place + 1]
    assert written.ended
    whole = ending.decode([*ending.encode(PROMPT), *likeliest[:place]])
    assert PROMPT + written.text == whole


def metaspace() -> Tokenizer:
    """One that drops the space in front of what it decodes, as Llama 2's does."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    words = {"</s>": 0, "▁": 1, "▁a": 2, "b": 3, "\n": 4, "▁▁": 5, "<0xE2>": 6, "<0x82>": 7}
    words |= {"<0xAC>": 8, "é": 9, "<unk>": 10}
    inner = tokenizers.Tokenizer(models.BPE(words, [("▁", "▁")], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return Tokenizer(inner.to_str(), eos="</s>")


@settings(deadline=None, max_examples=60)
@given(data=st.data(), bytes_=st.booleans())
def test_the_pieces_that_are_heard_are_the_whole(
    data: st.DataObject, bytes_: bool, tokenizer: Tokenizer
) -> None:
    which = tokenizer if bytes_ else metaspace()
    ids = st.lists(st.integers(0, which.vocab_size - 1), max_size=25)
    prompt = which.encode(data.draw(st.sampled_from(["", "ab", "a b\n", "é"]))).tolist()
    heard: list[str] = []
    hearing = _Hearing(which, prompt, heard.append)
    kept = list(prompt)
    for written in data.draw(st.lists(ids, max_size=3)):  # between two of them the window moves
        hearing.put(torch.tensor([prompt]))
        for token in written:
            hearing.put(torch.tensor([token]))
            kept += [token] if token != which.eos_id else []
            assert which.decode(kept).startswith(which.decode(prompt) + "".join(heard))
        hearing.end()
    assert hearing.finish() == "".join(heard)
    assert which.decode(prompt) + "".join(heard) == which.decode(kept)
    assert all(heard)


def test_bytes_wait_for_the_end_of_their_run() -> None:
    """₂ is E2 82 82; with another E2 behind it, none of the four bytes is a character."""
    heard: list[str] = []
    hearing = _Hearing(metaspace(), [], heard.append)
    hearing.put(torch.tensor([[]]))
    for token in (6, 7, 7):
        hearing.put(torch.tensor([token]))
    assert heard == []
    hearing.put(torch.tensor([3]))
    assert heard == ["₂b"]
    for token in (6, 7, 7, 6):
        hearing.put(torch.tensor([token]))
    assert hearing.finish() == "₂b" + "\N{REPLACEMENT CHARACTER}" * 4


def test_pieces_come_before_the_end(speaker: Speaker) -> None:
    heard: list[str] = []
    written = speaker.write(PROMPT, 30, Sampling(greedy=True), hear=heard.append)
    assert len(heard) > 5
    assert "".join(heard) == written.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0),
        ("temperature", float("nan")),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("repetition_penalty", 0.0),
    ],
)
def test_sampling_that_is_out_of_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field}="):
        Sampling(**{field: value})


@pytest.mark.parametrize(("tokens", "seed"), [(0, 0), (1, -1), (2.5, 0)])
def test_bad_numbers(speaker: Speaker, tokens: int, seed: int) -> None:
    with pytest.raises(ValueError, match=r"tokens=|seed="):
        speaker.write("", tokens, seed=seed)


class TestRun:
    @pytest.mark.parametrize("model", [{}, LLAMA], ids=["ours", "transformers"])
    def test_alpha_is_in_force(self, model: dict[str, Any], recipe: Recipe, tmp_path: Path) -> None:
        if model:
            recipe = replace(recipe, model=ModelConfig(**resolved({"hf_config": model})))
        recipe = replace(recipe, residual=ResidualConfig("linear", T=8))
        train(recipe, tmp_path / "run")
        trained = open_trained(tmp_path / "run", device="cpu")
        assert trained.alphas == (1.0, 12 / 16, 12 / 24)
        speaker = open_speaker(tmp_path / "run", device="cpu")
        assert speaker.length == recipe.data.length
        tokens = torch.arange(12)[None]
        with torch.inference_mode():
            found, expected = speaker.model(tokens).logits, trained.model(tokens)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            assert trained.warmup is not None
            trained.warmup.at(10**6)
            assert not torch.allclose(found, trained.model(tokens), rtol=1e-3, atol=1e-3)
        told = speaker.write("if x", 20, Sampling(greedy=True)).tokens
        trained.warmup.at(12)
        asked = [trained.tokenizer.eos_id, *trained.tokenizer.encode("if x").tolist()]
        assert told[0] == trained.model(torch.tensor([asked]))[0, -1].argmax()

    def test_earlier_steps(self, run: Path) -> None:
        steps = sorted(int(p.name[5:]) for p in (run / "checkpoints").glob("step-*"))
        first = open_speaker(run, steps[0], "cpu").model.lm_head.weight
        assert not torch.equal(first, open_speaker(run, device="cpu").model.lm_head.weight)

    def test_a_folder_that_holds_it(self, run: Path, tmp_path: Path) -> None:
        shutil.copytree(run, tmp_path / "a" / "seed-0")
        assert open_speaker(tmp_path / "a", device="cpu").length > 1
        shutil.copytree(run, tmp_path / "b" / "seed-0")
        with pytest.raises(ValueError, match="holds several runs.*a/seed-0, .*b/seed-0"):
            open_speaker(tmp_path, device="cpu")


@pytest.fixture(scope="module")
def exported(speaker: Speaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In Hugging Face's format, of a class of ours."""
    folder = tmp_path_factory.mktemp("exported")
    speaker.model.save_pretrained(folder)
    speaker.tokenizer.save(folder / "tokenizer.json")
    return folder


class TestCommand:
    def said(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
        assert cli.main(["generate", *map(str, arguments), "--device", "cpu"]) == 0
        return capsys.readouterr()

    def test_a_run_goes_on_from_a_prompt(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = ("--prompt", "if x", "--tokens", 20, "--top-k", 9, "--seed", 4)
        out, err = self.said(capsys, run, *options)
        expected = written(run, "if x", 20, Sampling(top_k=9), 4)
        assert out == "if x" + expected.text + "\n" * (not expected.text.endswith("\n"))
        assert err == ""

    def test_an_exported_folder(
        self, exported: Path, speaker: Speaker, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out, _ = self.said(capsys, exported, "--prompt", PROMPT, "--greedy", "--tokens", 9)
        assert out.rstrip("\n") == PROMPT + (
            speaker.write(PROMPT, 9, Sampling(greedy=True)).text.rstrip("\n")
        )

    def test_samples_are_those_of_the_seeds(
        self, exported: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        both, apart = self.said(capsys, exported, "--tokens", 12, "--samples", 2, "--seed", 7)
        each = [self.said(capsys, exported, "--tokens", 12, "--seed", s)[0] for s in (7, 8)]
        assert both == "".join(each)
        assert "=== 1 of 2\n=== 2 of 2\n" in apart
        assert each[0] != each[1]
        plain, zero = ((), ("--seed", 0))
        assert self.said(capsys, exported, *plain)[0] == self.said(capsys, exported, *zero)[0]

    def test_prompts_from_files(
        self,
        exported: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        text = "palm é\r\n"
        file = tmp_path / "prompt.txt"
        file.write_bytes(text.encode())
        out, _ = self.said(capsys, exported, "--prompt-file", file)
        assert out.startswith(text)
        stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
        monkeypatch.setattr("sys.stdin", stdin)
        assert self.said(capsys, exported, "--prompt-file", "-")[0] == out
        assert self.said(capsys, exported, "--prompt", text)[0] == out

    def test_a_prompt_that_is_too_long(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out, err = self.said(capsys, run, "--prompt", WIKITEXT, "--tokens", 3)
        length = open_speaker(run, device="cpu").length
        left = len(open_trained(run, device="cpu").tokenizer.encode(WIKITEXT)) - (length - 3)
        assert out.startswith(WIKITEXT)
        assert f"reads {length} tokens at once: the first {left} of the prompt" in err

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "say which run"),
            (["RUN", "--prompt", "a", "--prompt-file", "b"], "--prompt and --prompt-file"),
            (["RUN", "--greedy", "--temperature", "0.7"], "--temperature .*--greedy"),
            (["RUN", "--greedy", "--top-k", "3"], "--top-k .*--greedy"),
            (["RUN", "--greedy", "--seed", "0"], "--seed .*--greedy"),
            (["RUN", "--greedy", "--samples", "2"], "--samples 2 with --greedy"),
            (["RUN", "--tokens", "0"], "tokens=0"),
            (["RUN", "--temperature", "0"], "temperature=0 is not valid: say --greedy"),
            (["RUN", "--seed", "-1"], "seed=-1"),
            (["RUN", "--top-p", "2"], "top_p=2"),
            (["RUN", "--step", "3"], "step=3 would be ignored"),
            (["RUN", "--prompt-file", "no such file"], "no such file"),
            (["no such folder"], "no such folder"),
        ],
        ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
    )
    def test_refused(
        self,
        exported: Path,
        arguments: list[str],
        said: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        named = [str(exported) if a == "RUN" else a for a in arguments]
        assert cli.main(["generate", *named]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert re.search(said, err)


def written(run: Path, prompt: str, tokens: int, sampling: Sampling, seed: int) -> Written:
    return open_speaker(run, device="cpu").write(prompt, tokens, sampling, seed=seed)
