from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data import Tokenizer, load, train

TEXTS = ["def f(x):\n    return x + 1\n", "naïve 東京 🙂\r\n\t  x", "the cat sat on the mat " * 5]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(TEXTS * 3, 300)


def test_training_is_deterministic(tokenizer):
    again = train(iter(TEXTS * 3), 300)
    assert again.hash == tokenizer.hash
    assert tokenizer.vocab_size == 300
    assert tokenizer.eos == "<|endoftext|>"


def test_a_small_text_gives_a_smaller_vocabulary():
    assert train(["ab"], 5000).vocab_size < 300


@given(text=st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_round_trips(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.uint32
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_id not in ids


def test_every_code_point_round_trips(tokenizer):
    for start in range(0, 0x110000, 0x1000):
        text = "".join(chr(c) for c in range(start, start + 0x1000) if not 0xD800 <= c <= 0xDFFF)
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", ["<|endoftext|>", "a<|endoftext|>b", "<|endoftext|>" * 3])
def test_a_literal_eos_is_text(tokenizer, text, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    for each in (tokenizer, load(tmp_path)):
        ids = each.encode(text)
        assert each.eos_id not in ids
        assert each.decode(ids) == text
    assert tokenizer.decode([tokenizer.eos_id]) == "<|endoftext|>"


def test_saving_and_loading_keeps_everything(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load(path)
        assert (loaded.hash, loaded.eos_id, loaded.vocab_size) == (
            tokenizer.hash,
            tokenizer.eos_id,
            tokenizer.vocab_size,
        )
        for text in TEXTS:
            assert np.array_equal(loaded.encode(text), tokenizer.encode(text))
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()
    from tokenizers import Tokenizer as Plain

    plain = Plain.from_file(str(tmp_path / "tokenizer.json"))
    assert plain.encode(TEXTS[0]).ids == tokenizer.encode(TEXTS[0]).tolist()


def modified(tokenizer: Tokenizer, tmp_path, change) -> str:
    tokenizer.save(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").unlink()
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    change(values)
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    return str(tmp_path)


def test_truncation_and_padding_of_a_tokenizer_json_are_switched_off(tokenizer, tmp_path):
    def limit(values):
        values["truncation"] = {
            "direction": "Right",
            "max_length": 4,
            "strategy": "LongestFirst",
            "stride": 0,
        }
        values["padding"] = {
            "strategy": {"Fixed": 64},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        }

    loaded = load(modified(tokenizer, tmp_path, limit))
    assert np.array_equal(loaded.encode(TEXTS[0]), tokenizer.encode(TEXTS[0]))
    assert loaded.hash == tokenizer.hash


def test_no_special_tokens_are_added(tokenizer, tmp_path):
    def frame(values):
        values["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {
                "<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
            },
        }

    loaded = load(modified(tokenizer, tmp_path, frame))
    assert np.array_equal(loaded.encode(TEXTS[0]), tokenizer.encode(TEXTS[0]))


def test_an_eos_that_is_not_marked_special_is_still_no_text(tokenizer, tmp_path):
    def plain(values):
        values["added_tokens"][0]["special"] = False

    loaded = load(modified(tokenizer, tmp_path, plain))
    ids = loaded.encode("a<|endoftext|>b")
    assert loaded.eos_id not in ids
    assert loaded.decode(ids) == "a<|endoftext|>b"


def rename(new: str):
    def change(values):
        values["added_tokens"][0]["content"] = new
        values["model"]["vocab"][new] = values["model"]["vocab"].pop("<|endoftext|>")

    return change


@pytest.mark.parametrize("name", ["</s>", "<eos>", "<|end_of_text|>"])
def test_well_known_eos_names(tokenizer, tmp_path, name):
    loaded = load(modified(tokenizer, tmp_path, rename(name)))
    assert (loaded.eos, loaded.eos_id) == (name, 0)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("token", ["STOP", {"content": "STOP", "lstrip": False}])
def test_eos_from_the_configuration(tokenizer, tmp_path, file, token):
    folder = modified(tokenizer, tmp_path, rename("STOP"))
    with pytest.raises(ValueError, match="no end-of-document token"):
        load(folder)
    (tmp_path / file).write_text(json.dumps({"eos_token": token}))
    assert load(folder).eos == "STOP"
    (tmp_path / file).write_text(json.dumps({"eos_token": "OTHER"}))
    with pytest.raises(ValueError, match="'OTHER' is not in its vocabulary"):
        load(folder)


def test_what_is_no_tokenizer(tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer=.*nothing.*valid are 'train'"):
        load(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        load(tmp_path)
    file = tmp_path / "tokenizer.json"
    for content, what in (("{", "no JSON"), ("[]", "model"), ('{"model": 3}', "cannot read")):
        file.write_text(content)
        with pytest.raises(ValueError, match=what):
            load(file)
    for size in (256, 300.0, True):
        with pytest.raises(ValueError, match="vocab_size"):
            train(["a"], size)
