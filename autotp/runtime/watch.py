"""How long every rank computes between synchronisations, seen while training: who is waited for.

A step takes as long on every rank, since ranks wait for each other in collectives. What tells them apart is the time that
each spends outside of them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch

from autotp.runtime.communicator import Communicator
from autotp.runtime.module import ParallelModule


@dataclass
class WallClock:
    """Seconds inside collectives on a device that works while it is called: a few hundred nanoseconds for each."""

    inside_s: float = 0.0
    _begun_s: float = field(default=0.0, repr=False)

    def begin(self) -> None:
        self._begun_s = time.perf_counter()

    def end(self) -> None:
        self.inside_s += time.perf_counter() - self._begun_s

    def take(self) -> float:
        """Seconds since this was last asked."""
        taken, self.inside_s = self.inside_s, 0.0
        return taken


@dataclass
class CudaClock:
    """The same by events on the current stream; the device is waited for only when the sum is asked."""

    _events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list, repr=False)
    _begun: torch.cuda.Event | None = field(default=None, repr=False)

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def begin(self) -> None:
        self._begun = self._event()

    def end(self) -> None:
        assert self._begun is not None
        self._events.append((self._begun, self._event()))

    def take(self) -> float:
        """Seconds since this was last asked."""
        torch.cuda.synchronize()
        taken = float(sum(begun.elapsed_time(ended) for begun, ended in self._events)) / 1e3
        self._events.clear()
        return taken


class Watcher:
    """Takes the time of every step of one rank, and compares ranks every `every` steps.

    Call `step()` once after every step, on every rank. Between comparisons nothing is sent.
    """

    def __init__(self, module: ParallelModule, *, every: int = 20) -> None:
        self._module, self._every = module, every
        is_cuda = any(parameter.is_cuda for parameter in module.parameters())
        self._clock: WallClock | CudaClock = CudaClock() if is_cuda else WallClock()
        self._computed_s: list[float] = []
        for communicator in module.communicators.values():
            communicator.clock = self._clock
        self.restart()

    def restart(self) -> None:
        """Count from here, and forget the steps so far."""
        self._computed_s.clear()
        self._clock.take()
        self._begun_s = time.perf_counter()

    def stop(self) -> None:
        """No longer take the time."""
        for communicator in self._module.communicators.values():
            communicator.clock = None

    def step(self) -> tuple[float, ...] | None:
        """Every `every`-th time the median seconds per step that each rank computed, in rank order, equal on all ranks."""
        inside_s = self._clock.take()  # waits for the device first
        now_s = time.perf_counter()
        self._computed_s.append(max(0.0, now_s - self._begun_s - inside_s))
        self._begun_s = now_s
        if len(self._computed_s) < self._every:
            return None
        # the first step after a change is no measure: kernels and buffers are made in it
        mine = median(self._computed_s[1:] or self._computed_s)
        found = share_with_all(mine, self._module)
        self.restart()
        return found


def share_with_all(mine: float, module: ParallelModule) -> tuple[float, ...]:
    """One number of every rank, on every rank, in rank order."""
    sharding = module.sharding
    device = next(module.parameters()).device
    numbers = torch.zeros(sharding.mesh.num_ranks, dtype=torch.float64, device=device)
    numbers[sharding.rank] = mine
    communicators: Mapping[str, Communicator] = module.communicators
    for communicator in communicators.values():  # a sum along every axis in turn is one over all ranks
        numbers = communicator.all_reduce(numbers)
    return tuple(numbers.tolist())


def slowdowns(measured_s: Sequence[float], predicted_s: Sequence[float]) -> tuple[float, ...]:
    """How many times slower than predicted every rank is, beside the one that keeps its prediction best; 1 for that."""
    ratios = [m / max(p, 1e-12) for m, p in zip(measured_s, predicted_s, strict=True)]
    return tuple(ratio / min(ratios) for ratio in ratios)
