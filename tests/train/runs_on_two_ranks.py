"""What two processes train, against what one has trained in `folder / "one"`.

`folder` holds recipe.toml, and begun/NAME/: runs of one process that stand at 8 of 12 updates.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from groundup.train import Recipe, ResidualConfig, TrainingStopped, recipe_file, train, update
from groundup.train.evaluating import EvaluateConfig
from groundup.train.parallel.config import ParallelConfig
from groundup.train.world import FailedElsewhere, World
from tests.train.runs import changed, forget_the_end, lines, metrics

FSDP = ParallelConfig(mode="fsdp")
RESTING = ResidualConfig("cascade", T=3, S=4, dormant="skip")


def with_gains(recipe: Recipe) -> Recipe:
    """A number for each layer: one process has it, the other has nothing of it."""
    return replace(recipe, model=replace(recipe.model, gain="rezero", gain_init=0.3))


def recipe_in(folder: Path) -> Recipe:
    return recipe_file.read(folder / "recipe.toml").recipe


def world() -> World:
    return World(dist.get_rank(), dist.get_world_size(), plain=dist.group.WORLD)


def like_one(folder: Path, out: Path, one: str = "one") -> None:
    """Alike but for rounding, which twelve updates make larger."""
    dist.barrier()
    found, expected = metrics(out), metrics(folder / one)
    assert [list(line) for line in found] == [list(line) for line in expected]
    for line, other in zip(found, expected, strict=True):
        assert line == pytest.approx(other, rel=2e-4), line["step"]
    seen, expected = (lines(run, "measurements") for run in (out, folder / one))
    assert [list(line) for line in seen] == [list(line) for line in expected]
    for line, other in zip(seen, expected, strict=True):
        for name in line:
            found, wanted = (
                [-1.0 if value is None else value for value in values]
                if isinstance(values := measured[name], list)
                else values
                for measured in (line, other)
            )
            assert found == pytest.approx(wanted, rel=1e-2, abs=1e-4), name


@contextmanager
def without_kernels() -> Iterator[None]:
    """Compiled, but what was traced is run as it is: the kernels are others' test, and long."""
    compiled = torch.nn.Module.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "compile", partialmethod(compiled, backend="aot_eager"))
        yield


def check_ddp(folder: Path) -> None:
    train(recipe_in(folder), folder / "ddp")
    like_one(folder, folder / "ddp")


def check_ddp_with_micro_batches_compiled_and_recomputing(folder: Path) -> None:
    recipe = changed(recipe_in(folder), micro_batch=2, compile=True, recompute="ops")
    with without_kernels():
        train(recipe, folder / "micro")
    like_one(folder, folder / "micro")


def check_fsdp(folder: Path) -> None:
    train(replace(recipe_in(folder), parallel=FSDP), folder / "fsdp")
    like_one(folder, folder / "fsdp")


def check_fsdp_with_everything(folder: Path) -> None:
    recipe = changed(recipe_in(folder), micro_batch=2, recompute="full", compile=True)
    parallel = replace(FSDP, offload=True, reshard=False)
    train(replace(recipe, parallel=parallel), folder / "everything")
    like_one(folder, folder / "everything")


def check_evaluations_are_shared(folder: Path) -> None:
    """Three documents and two processes: batches of one do not come out even."""
    recipe = changed(recipe_in(folder), micro_batch=1)
    evaluate = EvaluateConfig(4, texts=(str(folder / "held.jsonl"),))
    parallel = replace(FSDP, reshard=False)
    train(replace(recipe, parallel=parallel, evaluate=evaluate), folder / "evaluated-fsdp")
    dist.barrier()
    runs = ("evaluated-fsdp", "evaluated")
    found, expected = (lines(folder / run, "measurements") for run in runs)
    for line, other in zip(found, expected, strict=True):
        assert line.keys() == other.keys()
        for key in [key for key in line if key.startswith("eval/")]:
            assert line[key] == pytest.approx(other[key], rel=2e-4), (line["step"], key)
    assert "eval/held/perplexity" in found[-2]


def check_gradients_are_sent_once_an_update(folder: Path) -> None:
    """However many micro-batches it has: counted by PyTorch's profiler."""
    for name, parallel in (("ddp", ParallelConfig()), ("fsdp", FSDP)):
        sent = {}
        for micro in (4, 1):
            recipe = changed(recipe_in(folder), steps=6, micro_batch=micro, eval_every=100)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
                train(replace(recipe, parallel=parallel), folder / f"sent-{name}-{micro}")
            trace = folder / f"sent-{name}-{micro}-{dist.get_rank()}.json"
            seen.export_chrome_trace(str(trace))  # a minute sooner than events() makes objects
            sent[micro] = len(re.findall(r'"name": "c10d::\w*reduce', trace.read_text()))
            trace.unlink()
        assert sent[1] == sent[4] > 6


def check_layers_that_rest(folder: Path) -> None:
    """A layer wakes at the 4th and one at the 8th update, behind a checkpoint each."""
    recipe = replace(recipe_in(folder), residual=RESTING)
    train(changed(recipe, micro_batch=2), folder / "resting-ddp")
    like_one(folder, folder / "resting-ddp", "resting")
    fsdp = replace(changed(recipe, compile=True), parallel=FSDP)
    with without_kernels():
        train(fsdp, folder / "resting-fsdp")
    like_one(folder, folder / "resting-fsdp", "resting")
    if world().main:
        forget_the_end(folder / "resting-ddp")
        forget_the_end(folder / "resting-ddp")
    dist.barrier()
    with without_kernels():
        train(fsdp, folder / "resting-ddp")
    like_one(folder, folder / "resting-ddp", "resting")


def check_fsdp_with_gains(folder: Path) -> None:
    train(with_gains(replace(recipe_in(folder), parallel=FSDP)), folder / "gains-fsdp")
    like_one(folder, folder / "gains-fsdp", "gains")


def check_hsdp(folder: Path) -> None:
    train(replace(recipe_in(folder), parallel=replace(FSDP, replicas=2)), folder / "hsdp")
    like_one(folder, folder / "hsdp")


def check_bf16(folder: Path) -> None:
    """Gathered in bf16, what is computed is rounded otherwise: near, and not the same."""
    recipe = changed(recipe_in(folder), precision="bf16")
    parallel = replace(FSDP, gather="bf16", reduce="bf16")
    train(replace(recipe, parallel=parallel), folder / "bf16")
    dist.barrier()
    losses = [line["loss"] for line in metrics(folder / "bf16")]
    expected = [line["loss"] for line in metrics(folder / "one")]
    assert losses == pytest.approx(expected, rel=2e-2)
    assert losses != pytest.approx(expected, rel=1e-6)


def check_two_go_on_where_one_stood(folder: Path) -> None:
    for name, parallel in (("ddp", ParallelConfig()), ("fsdp", FSDP)):
        train(replace(recipe_in(folder), parallel=parallel), folder / "begun" / name)
        like_one(folder, folder / "begun" / name)


def check_fsdp_goes_on_where_ddp_stood_and_the_other_way(folder: Path) -> None:
    for name, parallel in (("ddp", FSDP), ("fsdp", ParallelConfig())):
        out = folder / f"{name}-changed"
        if world().main:
            shutil.copytree(folder / name, out)
            forget_the_end(out)
        dist.barrier()
        train(replace(recipe_in(folder), parallel=parallel), out)
        like_one(folder, out)
        starts = [json.loads(line) for line in (out / "starts.jsonl").read_text().splitlines()]
        assert [start["step"] for start in starts] == [0, 8]
        assert "parallel.mode" in starts[1]["changed"]


def check_one_bad_process_skips_the_update_of_both(folder: Path) -> None:
    made = update.make

    def poisoned(run, step, spikes, word):
        forward = run.spread.forward

        def bad(inputs, targets):
            losses = forward(inputs, targets)
            return losses._make(each * math.nan for each in losses)

        if step == 3 and run.world.rank == 1:
            run.spread.forward = bad
        try:
            return made(run, step, spikes, word)
        finally:
            run.spread.forward = forward

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update, "make", poisoned)
        train(recipe_in(folder), folder / "skipped")
    dist.barrier()
    found = metrics(folder / "skipped")
    assert [line["step"] for line in found if line.get("skipped")] == [3]
    assert found[3]["grad_norm"] is None
    assert all(math.isfinite(line["loss"]) for line in found if line["step"] > 3)


def check_all_processes_stop_at_the_limit(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.nan))
        recipe = changed(recipe_in(folder), nonfinite=2)
        with pytest.raises(TrainingStopped, match=r"update 2: .*after 2 such updates in a row"):
            train(recipe, folder / "limit")


def check_what_differs_between_processes_is_named(folder: Path) -> None:
    recipe = recipe_in(folder)
    own = replace(recipe, rate=replace(recipe.rate, peak=1e-3 * (1 + dist.get_rank())))
    with pytest.raises(ValueError, match=r"the processes differ: rate.peak is 0.00\d in rank \d"):
        train(own, folder / "differ")


def check_a_batch_that_cannot_be_cut(folder: Path) -> None:
    recipe = changed(recipe_in(folder), batch=7)
    error = ValueError if world().main else FailedElsewhere
    with pytest.raises(error, match=r"train.batch=7 is not valid: the number of processes, .* 2,"):
        train(recipe, folder / "uncut")
    recipe = changed(recipe_in(folder), micro_batch=8)
    with pytest.raises(error, match="train.micro_batch=8 is not valid: it must divide the 4"):
        train(recipe, folder / "uncut")
    assert not (folder / "uncut").exists()


def check_a_folder_in_use(folder: Path) -> None:
    from groundup.train.folder import FolderError, locked

    error = FolderError if world().main else FailedElsewhere
    with ExitStack() as held:
        if world().main:
            held.enter_context(locked(folder / "held"))
        dist.barrier()
        with pytest.raises(error, match="in use by another process"):
            train(recipe_in(folder), folder / "held")


def check_work_in_turn(folder: Path) -> None:
    here = replace(world(), local_rank=dist.get_rank())
    file = folder / "turns"

    def work() -> str:
        with open(file, "a") as turns:
            turns.write(f"{here.rank}")
        return file.read_text()

    assert here.in_turn(work) == ("0" if here.main else "01")
    assert here.gather(here.rank) == [0, 1]
    assert here.share(f"of {here.rank}") == "of 0"
    assert here.on_main(lambda: f"at {here.rank}") == "at 0"
    assert [*here.share_of(6)] == [3 * here.rank, 3 * here.rank + 1, 3 * here.rank + 2]
    with pytest.raises(FailedElsewhere if here.main else OSError, match="only here"):
        here.together(lambda: None if here.main else (_ for _ in ()).throw(OSError("only here")))
