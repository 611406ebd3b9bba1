"""Every stock class is loaded by plain transformers, where groundup is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

import groundup
from groundup.export import as_hugging_face, save
from groundup.train.trained import open_trained
from tests.export.models import STOCK, by_recomputation, decoder, difference, some_tokens

ALPHAS = [1.0, 0.6, 0.3]
PROMPT = "def x("
# Nothing of groundup is on the path of this process: the base interpreter reads no .pth files of
# a folder that PYTHONPATH names, and those are what an editable installation consists of.
PROGRAM = """
import importlib.util, json, sys
spec = importlib.util.find_spec("groundup")
assert spec is None or spec.loader is None  # at most a folder of that name, with recipes
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
run, *others = sys.argv[1:]
tokens = torch.tensor(json.loads(sys.stdin.read()))
found = {}
for folder in others:
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logits = model(tokens).logits
    new = model.generate(tokens[:1], max_new_tokens=8, do_sample=False, pad_token_id=0)
    found[folder] = [type(model).__name__, new.tolist(), logits.tolist()]
model = AutoModelForCausalLM.from_pretrained(run)
tokenizer = AutoTokenizer.from_pretrained(run)
prompt = tokenizer("def x(", return_tensors="pt")
found[run] = model.generate(**prompt, max_new_tokens=8, do_sample=False).tolist()
assert not any(name.split(".")[0] == "groundup" for name in sys.modules)
print(json.dumps(found))
"""


def test_loading_and_generating_without_groundup(warming: Path, tmp_path: Path) -> None:
    site = Path(transformers.__file__).parents[1]
    if site in Path(groundup.__file__).parents:
        pytest.skip("groundup is installed next to transformers, not as editable")
    models, tokens = {}, some_tokens()
    for place, (placement, qk_norm) in enumerate(STOCK):
        model = decoder(placement, qk_norm)
        models[str(tmp_path / str(place))] = as_hugging_face(model, ALPHAS)
        as_hugging_face(model, ALPHAS).save_pretrained(tmp_path / str(place))
    trained = open_trained(warming, device="cpu")
    run = str(save(trained, tmp_path / "run").folder)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys._base_executable, "-c", PROGRAM, run, *models],  # type: ignore[attr-defined]
        input=json.dumps(tokens.tolist()),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env=kept | {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for folder, model in models.items():
        kind, new, logits = found[folder]
        assert kind == type(model).__name__
        assert difference(torch.tensor(logits), model(tokens).logits) < 1e-5
        again = model.generate(tokens[:1], max_new_tokens=8, do_sample=False)
        assert new == again.tolist()
    # Of the run, against the model that was trained.
    start = torch.from_numpy(trained.tokenizer.encode(PROMPT).astype("int64"))[None]
    with torch.no_grad():
        assert found[run] == by_recomputation(trained.model, start, new=8).tolist()  # type: ignore[arg-type]
