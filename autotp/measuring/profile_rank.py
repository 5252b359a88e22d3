"""One rank of `autotp profile`: measures item after item, round after round, in step with the other ranks."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from autotp.errors import ProfileError
from autotp.hardware.journal import Journal
from autotp.hardware.patterns import Pattern, patterns
from autotp.measuring import samples
from autotp.measuring.clock import host_operator_s, seconds_of
from autotp.measuring.collectives import Member, collective_s, make_groups
from autotp.measuring.devices import (
    device_name,
    host,
    link_between,
    link_inside,
    memory_bytes,
    num_units,
    other_users,
    process_bytes,
)
from autotp.measuring.items import Effort, Item, effort_of, items_of, pattern_of
from autotp.measuring.optimizers import optimizer_s
from autotp.measuring.progress import Progress


@dataclass(frozen=True)
class Task:
    """What every rank is told. `devices`: by local rank, `cpu` or `cuda:0`; `journal`: where rank 0 keeps what is done."""

    devices: tuple[str, ...]
    journal: str
    is_full: bool
    budget_s: float | None
    group_timeout_s: float
    effort: Effort | None = None  # instead of the quick or the full one


@dataclass(frozen=True)
class Findings:
    """What rank 0 hands over: facts by rank, and by item key the samples of every round."""

    facts: tuple[dict[str, Any], ...]
    samples: dict[str, list[Any]]
    effort: Effort
    ranks_per_node: int
    num_rounds: int
    num_resumed: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Session:
    """A rank that is ready to measure. `facts`: of every rank, by rank; `members`: this rank's groups."""

    device: torch.device
    effort: Effort
    facts: tuple[dict[str, Any], ...]
    ranks_per_node: int
    members: dict[Pattern, Member]

    def items(self) -> list[Item]:
        return items_of(self.effort, len(self.facts), self.ranks_per_node)


def begin(task: Task) -> Session:
    """Find out who runs where, and make all groups. Called by all ranks of an initialised process group."""
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    hosts: list[str] = [""] * num_ranks
    dist.all_gather_object(hosts, host())
    per_node = _ranks_per_node(hosts)
    device = torch.device(task.devices[rank % per_node % len(task.devices)])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    facts: list[dict[str, Any]] = [{}] * num_ranks
    dist.all_gather_object(facts, {
        "device": device_name(device), "type": device.type, "memory_bytes": memory_bytes(device, per_node),
        "others": other_users(device, num_ranks), "host": host(), "num_units": num_units(device),
        "process_bytes": process_bytes(device), "link_inside": link_inside(device), "link_between": link_between(),
    })  # fmt: skip
    kinds = {each["type"] for each in facts}
    if len(kinds) > 1:
        raise ProfileError(f"ranks run on {' and '.join(sorted(kinds))}: profile one type of device at a time")
    effort = task.effort or effort_of(device.type, is_full=task.is_full)
    members = make_groups(patterns(num_ranks, per_node, is_full=effort.is_full), task.group_timeout_s)
    return Session(device, effort, tuple(facts), per_node, members)


def run_rank(rank: int, task: Task) -> Findings | None:
    """Measure; rank 0 returns the findings. Called by all ranks of an initialised process group."""
    session = begin(task)
    # how many rounds there are is no part of what one of them measures: a later run may add some
    subject = {
        "torch": torch.__version__, "devices": [each["device"] for each in session.facts],
        "hosts": [each["host"] for each in session.facts], "least_s": session.effort.least_s,
    }  # fmt: skip
    journal = Journal(Path(task.journal), subject) if rank == 0 else None
    num_rounds = _Loop(session, journal, task.budget_s or session.effort.budget_s).run()
    if session.device.type == "cuda":  # what communicators take is known when all of them have talked
        held: list[int] = [0] * len(session.facts)
        dist.all_gather_object(held, process_bytes(session.device))
        for fact, num_bytes in zip(session.facts, held, strict=True):
            fact["process_bytes"] = num_bytes
    if journal is None:
        return None
    journal.close()
    finished = {key: [by_round[number] for number in sorted(by_round)] for key, by_round in journal.samples.items()}
    notes = (
        (f"{task.journal} was of another machine, version or effort: measured anew",) if journal.is_of_another else ()
    )
    return Findings(
        session.facts, finished, session.effort, session.ranks_per_node, num_rounds, journal.num_resumed, notes
    )


def _ranks_per_node(hosts: list[str]) -> int:
    counts = [hosts.count(name) for name in dict.fromkeys(hosts)]
    per_node = counts[0]
    blocks = [hosts[start : start + per_node] for start in range(0, len(hosts), per_node)]
    if set(counts) != {per_node} or any(len(set(block)) > 1 for block in blocks):
        raise ProfileError(
            f"the nodes have {', '.join(map(str, counts))} ranks: start equally many on each, neighbours on one node"
        )
    return per_node


class _Loop:
    """Runs items in rounds. Rank 0 says whether one is still to be measured."""

    def __init__(self, session: Session, journal: Journal | None, budget_s: float) -> None:
        self._session, self._journal = session, journal
        self._ends_at = time.monotonic() + budget_s
        self._parent = os.getppid()

    def run(self) -> int:
        """The number of rounds that were finished; the first one is whatever the budget is, as a profile needs it."""
        todo, rounds = self._session.items(), self._session.effort.num_rounds
        with Progress(len(todo) * rounds, shown=self._journal is not None) as progress:
            for number in range(rounds):
                for item in todo:
                    wanted = self._decide(item, number)
                    if wanted is None:
                        return number
                    if wanted:
                        measured = measure_item(item, self._session)
                        if self._journal is not None:
                            self._journal.add(item.key, number, measured)
                    progress.advance(f"round {number + 1} of {rounds}: {item.key}")
        return rounds

    def _decide(self, item: Item, number: int) -> bool | None:
        """Whether to measure, said by rank 0; None when the time is over."""
        if os.getppid() != self._parent:
            raise ProfileError("the process that asked for the profile is gone")
        code = 1
        if self._journal is not None:
            if number in self._journal.samples.get(item.key, {}):
                code = 0
            elif number and time.monotonic() > self._ends_at:
                code = 2
        said = torch.tensor(code, device=self._session.device)
        dist.broadcast(said, 0)
        return {0: False, 1: True, 2: None}[int(said)]


def measure_item(item: Item, session: Session) -> Any:
    """One measurement, called by all ranks: seconds of a collective; else by rank [forward, backward] seconds, or None."""
    least_s = session.effort.least_s
    if item.kind == "collective":
        kind, _, num_bytes = item.arguments
        member = session.members.get(pattern_of(item))
        return collective_s(str(kind), int(num_bytes), member, session.device, least_s)
    turns = range(dist.get_world_size()) if item.alone else [dist.get_rank()]
    own = None
    for turn in turns:
        dist.barrier()
        if turn == dist.get_rank():
            own = _times(item, session.device, least_s)
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return found


def _times(item: Item, device: torch.device, least_s: float) -> list[float] | None:
    """[forward, backward] seconds; None where the device cannot do it: it has no such arithmetic, or no room."""
    try:
        if item.kind == "optimizer":
            name, dtype, *sizes = item.arguments
            return [optimizer_s(str(name), str(dtype), *map(int, sizes), device=device, least_s=least_s), 0.0]
        if item.kind == "host":
            return [host_operator_s(device), 0.0]
        if item.kind == "product" and item.arguments[0] == samples.FLOAT8:
            m, n, k = map(int, item.arguments[1:])
            return [seconds_of(samples.float8_product(m, n, k, device), device, least_s), 0.0]
        with samples.precision(item.arguments):
            made = samples.MAKERS[item.kind](*(_plain(each) for each in item.arguments), device)
            return list(samples.times_s(made.run, made.tensors, device, least_s))
    except (RuntimeError, NotImplementedError):
        return None


def _plain(argument: str | int) -> str | int:
    return "float32" if argument == samples.TF32 else argument
