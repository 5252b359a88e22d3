"""Seconds of one collective: measured points in log-log, and outside of them, or without any, latency plus bytes over
bus bandwidth (Thakur et al. 2005; nccl-tests' PERFORMANCE.md)."""

import numpy as np

from autotp.errors import AutoTPError
from autotp.hardware.curves import CollectivePoints, interpolated
from autotp.hardware.profile import DeviceProfile, LinkProfile
from autotp.redistribute import Collective


def bus_factor(kind: str, num_ranks: int) -> float:
    """Bytes that cross the busiest link per byte of size, as nccl-tests counts both. Raises AutoTPError."""
    if kind not in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"):
        raise AutoTPError(f"{kind!r} is no collective")
    if kind == "broadcast":
        return 1.0
    return (2 if kind == "all_reduce" else 1) * (num_ranks - 1) / num_ranks


def collective_time_s(kind: str, num_bytes: float, num_ranks: int, link: LinkProfile) -> float:
    """Seconds of a collective of `num_bytes` (nccl-tests' size, see redistribute.Collective); 0 for one rank."""
    factor = bus_factor(kind, num_ranks)
    if num_ranks == 1:
        return 0.0
    profile = link.collective(kind)
    latency_s, bus_bytes_per_s = profile.at(num_ranks)
    sizes = sorted(profile.points)
    if not sizes or not sizes[0] <= num_ranks <= sizes[-1]:
        return latency_s + factor * num_bytes / bus_bytes_per_s
    seconds = [_measured_s(profile.points[size], num_bytes, bus_factor(kind, size), bus_bytes_per_s) for size in sizes]
    return float(np.interp(num_ranks, sizes, seconds))


def _measured_s(points: CollectivePoints, num_bytes: float, factor: float, bus_bytes_per_s: float) -> float:
    """Between points log-log; below the first one its time, beyond the last one a line that begins there."""
    if num_bytes <= points.num_bytes[0]:
        return points.time_s[0]
    if num_bytes > points.num_bytes[-1]:
        return points.time_s[-1] + factor * (num_bytes - points.num_bytes[-1]) / bus_bytes_per_s
    return interpolated(num_bytes, points.num_bytes, points.time_s)


def least_time_s(kind: str, num_bytes: float, num_ranks: int, link: LinkProfile) -> float:
    """Seconds that collectives of together `num_bytes` take at least, one after the other, however they are divided.

    That is all bytes at the least time per byte. Between measured points a time is a power of the bytes, so that the least
    is at a point, or at the end.
    """
    if not num_bytes:
        return 0.0
    points = link.collective(kind).points
    sizes = sorted(points)
    if not sizes or not sizes[0] <= num_ranks <= sizes[-1]:
        return collective_time_s(kind, num_bytes, num_ranks, link)  # a line: latency counts least in one piece
    least_s = []
    for size in sizes:
        ends = [*(each for each in points[size].num_bytes if 0 < each < num_bytes), num_bytes]
        least_s.append(min(collective_time_s(kind, each, size, link) * num_bytes / each for each in ends))
    return float(np.interp(num_ranks, sizes, least_s))


def move_time_s(
    collective: Collective, item_bytes: int, num_ranks: int, link: LinkProfile, device: DeviceProfile
) -> float:
    """Seconds of a redistribution's collective with the copies that put elements in order around it.

    A strided gather or scatter reads and writes the larger side once; an all_to_all packs before and unpacks after.
    """
    num_bytes = collective.num_elements * item_bytes
    seconds = collective_time_s(collective.kind, num_bytes, num_ranks, link)
    if num_ranks == 1 or not collective.strided:
        return seconds
    num_copies = 2 if collective.kind == "all_to_all" else 1
    return seconds + num_copies * (device.launch_s + 2 * num_bytes / device.memory_bytes_per_s)
