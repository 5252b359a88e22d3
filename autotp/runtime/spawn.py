"""Real ranks on this machine: one process each, talking over a process group on localhost."""

import os
import pickle
import shutil
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from autotp.errors import VerificationError

LOOPBACK = ("lo", "lo0")


def run_processes(
    function: Callable[..., Any],
    num_ranks: int,
    args: Sequence[Any] = (),
    *,
    backend: str = "gloo",
    timeout_s: float = 300.0,
    group_timeout_s: float | None = None,
) -> list[Any]:
    """Run `function(rank, *args)` in `num_ranks` processes with an initialised process group; their results, by rank.

    `function` must be importable by name; results travel by pickle. Every process runs one thread, on cores of its own
    where there are enough, and what it prints goes to standard error. `group_timeout_s`: after which a collective that
    does not end is a failure, if not `timeout_s`. Raises VerificationError, with the traceback, when a rank fails or the
    time is over; no process is left behind.
    """
    context = get_context("spawn")
    folder = Path(tempfile.mkdtemp(prefix="autotp-"))
    processes: list[SpawnProcess] = []
    pipes: list[Connection] = []
    try:
        for rank in range(num_ranks):
            receiver, sender = context.Pipe(duplex=False)
            init = (rank, num_ranks, backend, str(folder / "store"), group_timeout_s or timeout_s)
            process = context.Process(target=_main, args=(sender, init, function, tuple(args)), daemon=True)
            process.start()
            sender.close()  # so that the pipe ends when the child does
            processes.append(process)
            pipes.append(receiver)
        results = _results(processes, pipes, time.monotonic() + timeout_s, timeout_s)
        for process in processes:  # they have nothing left to do but to tidy up
            process.join(10)
        return results
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in pipes:
            pipe.close()
        shutil.rmtree(folder, ignore_errors=True)


def _results(
    processes: Sequence[SpawnProcess], pipes: Sequence[Connection], deadline: float, timeout_s: float
) -> list[Any]:
    results: dict[int, Any] = {}
    failures: list[tuple[float, int, str]] = []
    while len(results) + len(failures) < len(pipes):
        waiting = [
            pipe for rank, pipe in enumerate(pipes) if rank not in results and rank not in {r for _, r, _ in failures}
        ]
        # after a first failure the others only get the time to say when they failed: who was first is the cause
        left = deadline - time.monotonic()
        ready = wait(waiting, min(left, 1.0) if failures else left)
        if not ready:
            break
        for pipe in ready:
            rank = pipes.index(pipe)
            try:
                ok, value, at = pickle.loads(pipes[rank].recv_bytes())
            except EOFError:
                processes[rank].join(5)
                # whoever talks to a process that died fails too, perhaps before that is noticed here
                ok, value, at = False, f"the process ended with exit code {processes[rank].exitcode}", 0.0
            if ok:
                results[rank] = value
            else:
                failures.append((at, rank, value))
    if failures:
        _, rank, text = min(failures)
        silent = sorted(set(range(len(pipes))) - set(results) - {rank for _, rank, _ in failures})
        hint = f"; ranks {silent} were still silent" if silent else ""
        raise VerificationError(f"rank {rank} failed{hint}:\n{text}")
    if len(results) < len(pipes):
        missing = sorted(set(range(len(pipes))) - set(results))
        raise VerificationError(f"ranks {missing} were not done after {timeout_s:g} s and were stopped")
    return [results[rank] for rank in range(len(pipes))]


def keep_to_own_cores(rank: int, num_ranks: int) -> None:
    """Give this process an equal part of the cores it may run on; nothing where there are fewer cores than ranks.

    Left alone, a scheduler may keep two processes that wake each other on one core, and a step then takes up to twice as
    long: seen for whole runs on a machine with two cores.
    """
    if not hasattr(os, "sched_setaffinity"):  # only Linux lets a process choose
        return
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // num_ranks
    if share:
        os.sched_setaffinity(0, cores[rank * share : (rank + 1) * share])


def _main(
    sender: Connection,
    init: tuple[int, int, str, str, float],
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    rank, num_ranks, backend, store, timeout_s = init
    os.dup2(sys.stderr.fileno(), 1)  # standard output belongs to the parent: one JSON object, perhaps
    try:
        torch.set_num_threads(1)
        if backend == "gloo":
            keep_to_own_cores(rank, num_ranks)
        if backend == "nccl":
            torch.cuda.set_device(rank % max(torch.cuda.device_count(), 1))
        loopback = [name for _, name in socket.if_nameindex() if name in LOOPBACK]
        if loopback:  # the host's own name may resolve to nothing
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
        dist.init_process_group(
            backend,
            init_method=f"file://{store}",
            rank=rank,
            world_size=num_ranks,
            timeout=timedelta(seconds=timeout_s),
        )
        result = function(rank, *args)
        # plain bytes: torch would send tensors as files shared with a process that is about to end
        sender.send_bytes(pickle.dumps((True, result, time.time())))
        dist.barrier()  # nobody leaves while another still talks to it
    except BaseException:  # noqa: BLE001 - told to the parent, which raises it
        sender.send_bytes(pickle.dumps((False, traceback.format_exc(), time.time())))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
