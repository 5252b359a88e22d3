"""Seconds of a call on this process's device: warmed up, repeated for long enough to be told from the clock."""

import statistics
import time
from collections.abc import Callable

import torch

MOST_CALLS = 200


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
    count = max(3, min(MOST_CALLS, int(least_s / once_s)))
    inner = max(1, int(2e-5 / once_s))  # the clock itself takes some 50 ns
    return statistics.median(_loop_s(call, inner) for _ in range(count))


def _loop_s(call: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count


def queue_s(call: Callable[[], object], device: torch.device, count: int) -> float:
    """Seconds of one call out of `count` that a GPU is given at once."""
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    before.record()
    for _ in range(count):
        call()
    after.record()
    synchronise(device)
    return float(before.elapsed_time(after)) / 1e3 / count


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
