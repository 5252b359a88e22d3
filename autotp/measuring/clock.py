"""Seconds of a call on this process's device: warmed up, repeated for long enough to be told from the clock.

On a CPU calls are timed as they are in a step: what they read has left the nearest cache, and what they return is kept,
as backward keeps it, so that the next one writes to other memory. Repeated in a loop the same calls take up to a third
less, which no step sees.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

MOST_CALLS, FEWEST_CALLS = 200, 3
EVICTED_BYTES = 8 * 2**20  # several times a core's own cache
EVICT_S = 5e-4  # about what writing that takes, so that the number of calls is bounded by it too
KEPT_BYTES = 256 * 2**20


def seconds_of(call: Callable[[], object], device: torch.device, least_s: float) -> float:
    """The median seconds of one call, out of as many as take `least_s` seconds; of three at least.

    On a GPU calls are timed in queues of a tenth of that time, so that launching one hides behind the one before.
    """
    call()
    synchronise(device)
    started = time.perf_counter()
    call()
    synchronise(device)
    once_s = max(time.perf_counter() - started, 1e-7)
    if device.type == "cuda":
        per_queue = max(1, min(MOST_CALLS, int(least_s / 10 / once_s)))
        return statistics.median(queue_s(call, device, per_queue) for _ in range(5))
    count = max(FEWEST_CALLS, min(MOST_CALLS, int(least_s / (once_s + EVICT_S))))
    kept: deque[object] = deque()
    times, kept_bytes = [], 0
    for _ in range(count):
        _evicted().add_(1)
        started = time.perf_counter()
        returned = call()
        times.append(time.perf_counter() - started)
        kept.append(returned)
        kept_bytes += _num_bytes(returned)
        if kept_bytes > KEPT_BYTES:
            kept.clear()
            kept_bytes = 0
    return statistics.median(times)


@cache
def _evicted() -> Tensor:
    return torch.zeros(EVICTED_BYTES // 4)


def _num_bytes(returned: object) -> int:
    tensors = returned if isinstance(returned, list | tuple) else (returned,)
    return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))


def queue_s(call: Callable[[], object], device: torch.device, count: int) -> float:
    """Seconds of one call out of `count` that a GPU is given at once."""
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    before.record()
    for _ in range(count):
        call()
    after.record()
    synchronise(device)
    return float(before.elapsed_time(after)) / 1e3 / count


def host_operator_s(device: torch.device) -> float:
    """Seconds that the host takes to give a GPU one small operator, waiting for nothing; a CPU runs it itself."""
    x = torch.zeros(1, device=device)
    x.add_(1)
    synchronise(device)
    started = time.perf_counter()
    for _ in range(MOST_CALLS):
        x.add_(1)
    taken = time.perf_counter() - started
    synchronise(device)
    return taken / MOST_CALLS


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
