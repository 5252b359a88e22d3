"""Seconds of every collective, as the runtime issues them, in every group that an axis can form."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from autotp.hardware.patterns import Pattern
from autotp.measuring.clock import queue_s
from autotp.runtime.communicator import GroupCommunicator

# Nobody is done before everybody has begun; in the others a rank may send and go on.
SYNCHRONISING = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")


@dataclass(frozen=True)
class Member:
    """This rank in its group of a pattern."""

    group: dist.ProcessGroup
    communicator: GroupCommunicator


def make_groups(wanted: Sequence[Pattern], timeout_s: float) -> dict[Pattern, Member]:
    """This rank's group of every pattern in which it has one. Called by all ranks with equal arguments."""
    found: dict[Pattern, Member] = {}
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    for pattern in wanted:
        for ranks in pattern.groups(num_ranks):
            group = dist.new_group(ranks, timeout=timedelta(seconds=timeout_s))
            if rank in ranks:
                found[pattern] = Member(group, GroupCommunicator(group, str(pattern)))
    return found


def collective_call(kind: str, num_bytes: int, member: Member, device: torch.device) -> Callable[[], object]:
    """One collective of `num_bytes` (nccl-tests' size: all_gather's result, reduce_scatter's operand), float32."""
    communicator, group = member.communicator, member.group
    size, rank = communicator.size, communicator.rank
    part = max(1, num_bytes // 4 // size)
    whole = torch.zeros(max(1, num_bytes // 4), device=device)
    stacked, piece = torch.zeros(size, part, device=device), torch.zeros(part, device=device)
    parts, shapes = [piece] * size, [(part,)] * size
    peer = rank ^ 1

    def all_to_all() -> list[Tensor]:
        return communicator.all_to_all(parts, shapes)

    def pass_on() -> None:
        if peer < size and rank < peer:
            dist.send(whole, group_dst=peer, group=group)
        elif peer < size:
            dist.recv(whole, group_src=peer, group=group)

    calls: Mapping[str, Callable[[], object]] = {
        "all_reduce": lambda: communicator.all_reduce(whole),
        "all_gather": lambda: communicator.all_gather(piece),
        "reduce_scatter": lambda: communicator.reduce_scatter(stacked),
        "all_to_all": all_to_all,
        "broadcast": lambda: dist.broadcast(whole, group=group, group_src=0),
        "send_recv": pass_on,
    }
    return calls[kind]


def collective_s(kind: str, num_bytes: int, member: Member | None, device: torch.device, least_s: float) -> float:
    """Seconds of one collective in the slowest of the groups. Called by all ranks, also by one that has no group.

    Over gloo the ranks begin every call together. Who comes last waits for nobody, so that of a synchronising collective
    the shortest of the group's times is what it takes; of the others it is the longest. On a GPU calls are queued.
    """
    call = collective_call(kind, num_bytes, member, device) if member else None
    if device.type == "cuda":
        return _queued_s(call, device, least_s)
    times: list[float] = []
    count = 2
    while len(times) < count:
        dist.barrier()
        started = time.perf_counter()
        if call is not None:
            call()
        times.append(time.perf_counter() - started)
        if len(times) == 2:  # the first one connects
            slowest = torch.tensor(times[1])
            dist.all_reduce(slowest, dist.ReduceOp.MAX)
            count = 2 + max(5, min(40, int(least_s / max(float(slowest), 1e-6))))
    found: list[tuple[tuple[int, ...], list[float]]] = [((), [])] * dist.get_world_size()
    ranks = tuple(dist.get_process_group_ranks(member.group)) if member else ()
    dist.all_gather_object(found, (ranks, times[2:]))
    by_group: dict[tuple[int, ...], list[list[float]]] = {}
    for ranks, own in found:
        if ranks:
            by_group.setdefault(ranks, []).append(own)
    pick: Callable[..., float] = min if kind in SYNCHRONISING else max
    return max(statistics.median(map(pick, zip(*times, strict=True))) for times in by_group.values())


def _queued_s(call: Callable[[], object] | None, device: torch.device, least_s: float) -> float:
    """Seconds of one call in a queue of them, on the slowest rank; all ranks queue equally many."""
    own = torch.tensor(queue_s(call, device, 3) if call else 0.0, dtype=torch.float64, device=device)
    dist.all_reduce(own, dist.ReduceOp.MAX)
    count = max(5, min(200, int(least_s / max(float(own), 1e-6))))
    dist.barrier()
    own.fill_(queue_s(call, device, count) if call else 0.0)
    dist.all_reduce(own, dist.ReduceOp.MAX)
    return float(own)
