"""What if the machine were another: a cluster with one number changed, as in `link.intra.bandwidth*=2`.

A change is `link[.intra|.inter].bandwidth`, `link[...].latency`, `device[.NAME].memory`, `.bandwidth` (of its memory),
`.matmul` or `.launch`, then `*=`, `/=` or `=` and a number (with `=` in SI units, or bytes as in 141GB).
"""

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from autotp.errors import AutoTPError
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.curves import CollectivePoints, MatmulCurve
from autotp.hardware.profile import CollectiveProfile, DeviceProfile, LinkProfile
from autotp.report.units import parse_bytes

EXAMPLE = "write it as link.intra.bandwidth*=2 or device.memory=141GB"
Change = Callable[[float], float]


def changed(cluster: ClusterProfile, changes: Iterable[str]) -> ClusterProfile:
    """The cluster after all changes; its name and sources say what was changed. Raises AutoTPError."""
    for text in changes:
        cluster = _changed(cluster, text)
    return cluster


def _changed(cluster: ClusterProfile, text: str) -> ClusterProfile:
    match = re.fullmatch(r"\s*(link|device)(?:\.(.+))?\.(\w+)\s*(\*=|/=|=)\s*(\S+)\s*", text)
    if not match:
        raise AutoTPError(f"cannot read --what-if {text!r}: {EXAMPLE}")
    kind, name, field, operator, amount = match.groups()
    fields = LINK if kind == "link" else DEVICE
    if field not in fields:
        close = difflib.get_close_matches(field, fields, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise AutoTPError(f"--what-if {text}: a {kind} has no {field}; {hint}it has {', '.join(fields)}")
    parts = cluster.links if kind == "link" else cluster.device_profiles
    if name is not None and name not in parts:
        raise AutoTPError(f"--what-if {text}: cluster {cluster.name} has no {kind} {name}, only {', '.join(parts)}")
    change = _change(operator, amount, text)
    note = f"changed by {text}"
    title = f"{cluster.name} ({text})"
    if kind == "link":
        links = {
            key: replace(LINK[field](link, change), source=f"{link.source}; {note}", is_measured=False)
            if name in (None, key) else link
            for key, link in cluster.links.items()
        }  # fmt: skip
        return replace(cluster, name=title, links=links)
    devices = {
        key: replace(DEVICE[field](device, change), source={**device.source, field: note}, is_measured=False)
        if name in (None, key) else device
        for key, device in cluster.device_profiles.items()
    }  # fmt: skip
    return replace(cluster, name=title, device_profiles=devices)


def _change(operator: str, amount: str, text: str) -> Change:
    try:
        number = float(amount) if operator != "=" else parse_bytes(amount.removesuffix("/s"))
    except (ValueError, AutoTPError):
        number = float("nan")
    if not 0 < number < float("inf"):
        raise AutoTPError(f"--what-if {text}: {amount} is not a positive number; {EXAMPLE}")
    if operator == "*=":
        return lambda value: value * number
    return (lambda value: value / number) if operator == "/=" else (lambda value: number)


# ---------------------------------------------------------------- links


def _bandwidth(link: LinkProfile, change: Change) -> LinkProfile:
    def one(found: CollectiveProfile) -> CollectiveProfile:
        rates = tuple(map(change, found.bus_bytes_per_s))
        points = {}
        for num_ranks, each in found.points.items():
            latency_s, before = found.at(num_ranks)
            factor = change(before) / before
            # what is beyond the latency is sent, and shrinks as the bandwidth grows
            times = tuple(t if t <= latency_s else latency_s + (t - latency_s) / factor for t in each.time_s)
            points[num_ranks] = CollectivePoints(each.num_bytes, times)
        return replace(found, bus_bytes_per_s=rates, points=points)

    return replace(link, collectives={kind: one(each) for kind, each in link.collectives.items()})


def _latency(link: LinkProfile, change: Change) -> LinkProfile:
    def one(found: CollectiveProfile) -> CollectiveProfile:
        latencies = tuple(map(change, found.latency_s))
        points = {}
        for num_ranks, each in found.points.items():
            latency_s, _ = found.at(num_ranks)
            less_s = latency_s - change(latency_s)
            times = tuple(max(t - less_s, t * change(latency_s) / latency_s) for t in each.time_s)
            points[num_ranks] = CollectivePoints(each.num_bytes, times)
        return replace(found, latency_s=latencies, added_rank_s=change(found.added_rank_s), points=points)

    return replace(link, collectives={kind: one(each) for kind, each in link.collectives.items()})


# ---------------------------------------------------------------- devices


def _matmul(device: DeviceProfile, change: Change) -> DeviceProfile:
    def curve(found: MatmulCurve) -> MatmulCurve:
        tiles = tuple((m, n, change(rate)) for m, n, rate in found.tiles)
        return replace(found, tiles=tiles, wave_s=found.wave_s * found.tiles[0][2] / tiles[0][2])

    rates = {dtype: change(rate) for dtype, rate in device.matmul_flops_per_s.items()}
    curves = {dtype: curve(each) for dtype, each in device.matmul_curves.items()}
    return replace(device, matmul_flops_per_s=rates, matmul_curves=curves)


def _memory_bandwidth(device: DeviceProfile, change: Change) -> DeviceProfile:
    curves = {
        dtype: replace(each, memory_bytes_per_s=change(each.memory_bytes_per_s))
        for dtype, each in device.matmul_curves.items()
    }
    return replace(device, memory_bytes_per_s=change(device.memory_bytes_per_s), matmul_curves=curves)


LINK: dict[str, Callable[[LinkProfile, Change], LinkProfile]] = {"bandwidth": _bandwidth, "latency": _latency}
DEVICE: dict[str, Callable[[DeviceProfile, Change], DeviceProfile]] = {
    "memory": lambda device, change: replace(device, memory_bytes=int(change(device.memory_bytes))),
    "bandwidth": _memory_bandwidth,
    "matmul": _matmul,
    "launch": lambda device, change: replace(device, launch_s=change(device.launch_s)),
}
