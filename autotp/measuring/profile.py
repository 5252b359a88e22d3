"""`autotp profile`: starts the ranks, or is one of torchrun's, and makes a cluster profile of what they find."""

import os
import socket
import time
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from autotp.errors import ProfileError, VerificationError
from autotp.hardware.journal import journal_path
from autotp.measuring.cluster_fit import Profiled, cluster_of
from autotp.measuring.items import Effort
from autotp.measuring.profile_rank import Findings, Task, run_rank
from autotp.plan_file import write_atomically
from autotp.runtime.spawn import run_processes

SLACK_S = 1800.0  # beside the budget: the first round, whatever it takes
GROUP_TIMEOUT_S = 120.0  # after which a collective that does not end means a rank that does nothing


def profile(
    output: str | Path,
    *,
    num_ranks: int | None = None,
    devices: str | None = None,
    is_full: bool = False,
    budget_s: float | None = None,
    name: str | None = None,
    group_timeout_s: float = GROUP_TIMEOUT_S,
    effort: Effort | None = None,
) -> Profiled | None:
    """Measure this machine, or all of torchrun's, and write its profile to `output`; None on ranks other than 0.

    `devices`: `cpu`, `cuda`, or the indices of GPUs, `0,2,3`; all GPUs if there are any, else the CPU. `budget_s`: seconds
    after which no further round begins. `effort`: instead of the quick or the full one. What is measured is kept beside
    `output` until that is written, and not measured again. Raises ProfileError where a rank dies or hangs, or something
    cannot be written.
    """
    output, started = Path(output), time.monotonic()
    under_torchrun = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    if under_torchrun and num_ranks is not None:
        raise ProfileError("torchrun says how many ranks there are: leave --nproc out")
    chosen = parse_devices(devices)
    task = Task(chosen, str(journal_path(output).absolute()), is_full, budget_s, group_timeout_s, effort)
    _check_writable(output)
    backend = "nccl" if chosen[0].startswith("cuda") else "gloo"
    if under_torchrun:
        found = _under_torchrun(task, backend)
    else:
        count = num_ranks or (len(chosen) if backend == "nccl" else max(2, os.cpu_count() or 2))
        if count < 2:
            raise ProfileError("links are measured between ranks: give --nproc 2 or more")
        if backend == "nccl" and count > len(chosen):
            raise ProfileError(f"--nproc {count}, but there are {len(chosen)} GPUs: NCCL wants one for each rank")
        found = _spawn(task, count, backend)
    if found is None:
        return None
    cluster, warnings = cluster_of(found, name or output.stem, date.today().isoformat())
    write_atomically(output, cluster.dumps())
    journal_path(output).unlink(missing_ok=True)
    return Profiled(cluster, warnings, found.num_rounds, found.num_resumed, time.monotonic() - started)


def parse_devices(text: str | None) -> tuple[str, ...]:
    """Devices by local rank. Raises ProfileError where there is no such device."""
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text is None:
        text = "cuda" if num_gpus else "cpu"
    if text == "cpu":
        return ("cpu",)
    if text == "cuda":
        indices: Sequence[int] = range(num_gpus)
    elif all(part.strip().isdigit() for part in text.split(",")):
        indices = [int(part) for part in text.split(",")]
    else:
        raise ProfileError(f"cannot read --devices {text!r}: write cpu, cuda, or indices of GPUs as in 0,1,3")
    missing = [index for index in indices if index >= num_gpus]
    if missing or not indices:
        raise ProfileError(f"--devices {text}: this machine has {num_gpus} GPUs; --devices cpu measures the CPU")
    return tuple(f"cuda:{index}" for index in indices)


def _check_writable(output: Path) -> None:
    """Before anything is measured: the folder must be there and take a file."""
    if output.is_dir():
        raise ProfileError(f"cannot write {output}: it is a folder")
    folder = output.absolute().parent
    if not folder.is_dir():
        raise ProfileError(f"cannot write {output}: there is no folder {output.parent}")
    probe = folder / f".{output.name}.{os.getpid()}.probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ProfileError(f"cannot write {output}: {error.strerror}") from error


def _spawn(task: Task, num_ranks: int, backend: str) -> Findings:
    limit_s = (task.budget_s or 0.0) + SLACK_S
    try:
        found: list[Findings | None] = run_processes(
            run_rank, num_ranks, (task,), backend=backend, timeout_s=limit_s, group_timeout_s=task.group_timeout_s
        )
    except VerificationError as error:
        raise ProfileError(
            f"{_last_line(str(error))}. What was measured is kept in {task.journal}; run the same command again to go on"
        ) from error
    assert found[0] is not None
    return found[0]


def _last_line(text: str) -> str:
    """`rank 1 failed: Error: message` out of a message with a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{lines[0]} {lines[-1]}" if len(lines) > 1 else lines[0]


def _under_torchrun(task: Task, backend: str) -> Findings | None:
    torch.set_num_threads(1)
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    dist.init_process_group(backend, timeout=timedelta(seconds=task.group_timeout_s))
    try:
        return run_rank(dist.get_rank(), task)
    except RuntimeError as error:
        raise ProfileError(
            f"rank {dist.get_rank()} on {socket.gethostname()}: {error}. What was measured is kept in {task.journal}; "
            "run the same command again to go on"
        ) from error
    finally:
        dist.destroy_process_group()
