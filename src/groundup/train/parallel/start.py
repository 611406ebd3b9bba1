"""Joining the processes that torchrun has started, each on its device."""

from __future__ import annotations

import atexit
import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from groundup.train import toml
from groundup.train.parallel import meeting
from groundup.train.parallel.config import ParallelConfig
from groundup.train.recipe import Recipe
from groundup.train.summary import versions
from groundup.train.world import ALONE, World

# Preparing data, which others wait for, may take days; a process that died is torchrun's to notice.
_PATIENCE = timedelta(days=30)


def launched() -> bool:
    """Whether torchrun, or a launcher that speaks like it, has started this process."""
    return dist.is_available() and {"RANK", "WORLD_SIZE"} <= os.environ.keys()


def pick_device(wanted: str) -> torch.device:
    """The device of "auto", "cpu" or "cuda": of several GPUs the one of this process.

    Raises:
        ValueError: for "cuda" where there is none, or fewer than processes.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device='cuda' is not valid here: torch sees no CUDA device")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if not launched():
        return torch.device("cuda")
    index, there = _local_rank(), torch.cuda.device_count()
    if index >= there:
        raise ValueError(
            f"torchrun --nproc-per-node is not valid: there are {there} GPUs for process {index} "
            "(counted from 0) of this machine"
        )
    return torch.device("cuda", index)


def join(config: ParallelConfig, device: torch.device) -> World:
    """The world of this process. Joined once: later calls return the same.

    Raises:
        ValueError: for launcher settings that are not valid.
    """
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    if not launched() and config.mode != "fsdp" and not dist.is_initialized():
        return ALONE
    if not _joined:
        _joined.append(_join(device, config.timeout))
    return _joined[0]


def leave(code: int) -> None:
    """End this process now, if it is one of several; whatever it wrote is on its way.

    Threads of PyTorch may still hold the tensors of the last collective. One that lets go of them
    while the interpreter is taken down ends the process with SIGABRT, and torchrun takes a run that
    has finished for one that failed.
    """
    if not _joined or _joined[0].size == 1:
        return
    if code == 0:
        dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def speaks() -> bool:
    """Whether this process tells what all of them know."""
    return not _joined or _joined[0].main


def agree(world: World, recipe: Recipe, data: str) -> None:
    """All processes train the same recipe on the same data with the same program.

    Raises:
        ValueError: with the first difference.
    """
    mine = {**toml.flat(toml.plain(recipe)), "data": data, **versions()}
    for rank, other in enumerate(world.gather(mine)):
        for name in sorted(mine.keys() | other.keys()):
            if mine.get(name) != other.get(name):
                raise ValueError(
                    f"the processes differ: {name} is {other.get(name)!r} in rank {rank} and "
                    f"{mine.get(name)!r} in rank {world.rank}; start them all alike"
                )


_joined: list[World] = []


def _join(device: torch.device, timeout: float) -> World:
    store = None
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        # Longer than the watchdog's patience, which has more to say about what hangs.
        patience = timedelta(seconds=2 * timeout + 60)
        if launched():
            store, rank, size = next(dist.rendezvous("env://", timeout=patience))
        else:
            store, rank, size = dist.HashStore(), 0, 1  # FSDP2 wants a group of one process too
        store = dist.PrefixStore(meeting.agree(store, rank, size, patience), store)
        dist.init_process_group(
            backend,
            store=store,
            rank=rank,
            world_size=size,
            timeout=patience,
        )
        atexit.register(dist.destroy_process_group)
    return World(
        rank=dist.get_rank(),
        size=dist.get_world_size(),
        local_rank=_local_rank(),
        plain=dist.new_group(backend="gloo", timeout=_PATIENCE),
        store=store,
    )


def _local_rank() -> int:
    said = os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0"))
    if not said.isdecimal():
        raise ValueError(f"LOCAL_RANK={said!r} is not valid: it must be a whole number")
    return int(said)
