"""One run on several processes: who writes and speaks, how gradients meet, and starting them on one machine.

The processes are those of `torchrun`, `accelerate launch` or `run_in_processes`: all read the same data, each embeds its
share of every batch, and losses with in-batch negatives see the whole batch (`gather_rows`).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world() -> tuple[int, int]:
    """Number of this process and how many there are; (0, 1) outside a launcher. Joins the others at the first call."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count < 2:
        return 0, 1
    if not dist.is_initialized():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if torch.cuda.is_available():
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return dist.get_rank(), dist.get_world_size()


def wait_for_all() -> None:
    """Returns once every process is here."""
    if world()[1] > 1:
        dist.barrier()


def any_process(said: bool, device: torch.device) -> bool:
    """Whether one of the processes said yes."""
    if world()[1] == 1:
        return said
    flag = torch.tensor(int(said), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag.item())


def average_gradients(modules: Iterable[nn.Module]) -> None:
    """Gradients of the modules' parameters to their mean over the processes, in place.

    In place of torch's DistributedDataParallel, which knows only of what its own forward computed: size ladders read
    the layers inside the model, and gradient caching runs it twice.
    """
    found = {id(p): p.grad for module in modules for p in module.parameters() if p.grad is not None}
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for gradient in found.values():
        by_type.setdefault(gradient.dtype, []).append(gradient)
    for gradients in by_type.values():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def run_in_processes(count: int, work: Callable[[int], int]) -> int:
    """Call `work(rank)` in `count` fresh processes of this machine; the first code above 0, else 0.

    `work` is importable (it is pickled) and gives an exit code. The others are ended when one fails.
    """
    import torch.multiprocessing as multiprocessing

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Its warning that it ends the others would be the last line a person reads, below the reason.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    try:
        multiprocessing.start_processes(_enter, (count, port, work), nprocs=count, start_method="spawn")
    except multiprocessing.ProcessExitedException as stopped:
        return stopped.exit_code if stopped.exit_code > 0 else 1
    return 0


def _enter(rank: int, count: int, port: int, work: Callable[[int], int]) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(count),
        LOCAL_WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    code = work(rank)
    if code:
        raise SystemExit(code)


class _Gather(torch.autograd.Function):
    """All processes compute the same loss of the same rows, so each one's own rows carry the gradient, times the number
    of processes, of which `average_gradients` makes the sum."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.place, ctx.count = dist.get_rank() * len(rows), len(rows)
        return _gathered(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        return gradient[ctx.place : ctx.place + ctx.count] * dist.get_world_size()


def gather_rows(rows: Tensor) -> Tensor:
    """The rows `(b, …)` of all processes in their order, `(b * processes, …)`; every process gives equally many."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows
    return _Gather.apply(rows) if rows.requires_grad else _gathered(rows)


def _gathered(rows: Tensor) -> Tensor:
    rows = rows.detach().contiguous()
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows)
    return torch.cat(parts)
