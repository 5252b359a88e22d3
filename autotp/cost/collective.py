"""Seconds of one collective: latency plus bytes over bus bandwidth (Thakur et al. 2005; nccl-tests' PERFORMANCE.md)."""

from autotp.errors import AutoTPError
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
    latency_s, bus_bytes_per_s = link.collective(kind).at(num_ranks)
    return latency_s + factor * num_bytes / bus_bytes_per_s


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
