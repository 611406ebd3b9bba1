"""LM Evaluation Harness on local rows, with a model that reads each request by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
import torch
from lm_eval import evaluator
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from groundup.data import Tokenizer


class Plain(TemplateLM):
    """As the harness's own HFLM, without batches: nothing of groundup.evaluate is in it."""

    def __init__(self, model: torch.nn.Module, tokenizer: Tokenizer, length: int) -> None:
        super().__init__()
        self.model, self.words, self.length = model, tokenizer, length

    @property
    def eot_token_id(self) -> int:
        return self.words.eos_id

    def tok_encode(self, string: str, add_special_tokens: Any = None, **_: Any) -> list[int]:
        return self.words.encode(string).tolist()

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        found = []
        for _, context, wanted in requests:
            ids = torch.tensor([*context, *wanted][-self.length - 1 :])
            with torch.no_grad():
                logits = self.model(ids[None, :-1])[0, -len(wanted) :]
            logprobs = logits.log_softmax(-1)[range(len(wanted)), wanted]
            greedy = bool((logits.argmax(-1) == torch.tensor(wanted)).all())
            found.append((logprobs.sum().item(), greedy))
        return found

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        totals = []
        for request in requests:
            ids = self.tok_encode(request.args[0])
            cut = get_rolling_token_windows(ids, self.prefix_token_id, self.length, 1)
            parts = [((), *make_disjoint_window(window)) for window in cut]
            totals.append(sum(logprob for logprob, _ in self._loglikelihood_tokens(parts)))
        return totals

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        raise NotImplementedError


def evaluated(task: str, folder: str, rows: list[dict[str, Any]], lm: Plain) -> dict[str, float]:
    """The metrics of a task of the harness on these rows."""
    held = {"test": datasets.Dataset.from_list(rows)}
    where = Path(lm_eval.tasks.__file__).parent / folder
    manager = lm_eval.tasks.TaskManager(include_defaults=False, include_path=str(where))
    changes = {
        "custom_dataset": lambda **_: held,
        "dataset_path": None,
        "dataset_name": None,
        "training_split": None,
        "validation_split": None,
    }
    tasks = manager.load_task_or_group([{"group": "g", "task": [{"task": task, **changes}]}])
    ((_, inner),) = tasks.items()
    found = evaluator.evaluate(lm=lm, task_dict=inner, bootstrap_iters=0, log_samples=False)
    return {key.partition(",")[0]: value for key, value in found["results"][task].items()}
