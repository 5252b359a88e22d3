"""A cluster profile from logs of nccl-tests: its links are measured, its devices are the catalogue's."""

import re
from collections.abc import Sequence
from typing import Any

from autotp.errors import ProfileError
from autotp.hardware.catalogue import list_devices, load_device
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.fit import link_json
from autotp.hardware.nccl_tests import Log
from autotp.hardware.patterns import Pattern

# What drivers call a device -> its name in the catalogue, where the words alone do not tell.
NAMES = {
    r"H100 80GB HBM3": "H100-SXM5-80GB", r"H100 PCIe": "H100-PCIe-80GB", r"H200$": "H200-SXM-141GB",
    r"A100-PCIE-40GB": "A100-PCIe-40GB", r"A100 80GB PCIe": "A100-PCIe-80GB", r"B200$": "B200-SXM",
    r"B300$": "B300-SXM", r"GB200$": "GB200-SXM", r"GH200 480GB": "GH200-96GB", r"RTX 4090": "RTX-4090",
    r"Tesla V100-SXM2-32GB": "V100-SXM2-32GB",
}  # fmt: skip


def catalogue_name(device: str) -> str:
    """The catalogue's name of a device as its driver names it. Raises ProfileError where it has none."""
    known = list_devices()
    text = device.removeprefix("NVIDIA ").removeprefix("AMD ").strip()
    if text in known:
        return text
    for pattern, name in NAMES.items():
        if re.search(pattern, text):
            return name
    raise ProfileError(f"the catalogue has no device {device!r}: give --device with one of {', '.join(known)}")


def import_logs(
    logs: Sequence[Log], name: str, date: str, *, base: ClusterProfile | None = None, device: str | None = None
) -> ClusterProfile:
    """One cluster out of logs of one kind of node, as large as the largest of them.

    The link inside a node comes from logs of one node, the one between nodes from those of several; what no log tells is
    `base`'s. `device`: its name in the catalogue, if the logs' is not known there. Raises ProfileError.
    """
    largest = max(logs, key=lambda log: len(log.hosts))
    per_node = {_ranks_per_node(log) for log in logs if log.num_nodes > 1} or {len(largest.hosts)}
    if len(per_node) > 1:
        raise ProfileError(
            f"the logs have {sorted(per_node)} ranks on a node: import logs of one kind of node at a time"
        )
    (ranks_per_node,) = per_node
    names = [device or catalogue_name(each) for each in largest.devices]
    inside = [log for log in logs if log.num_nodes == 1]
    between = [log for log in logs if log.num_nodes > 1]
    links: dict[str, Any] = {}
    if inside:
        kind = base.links["intra"].kind if base else _link_kind(names[0])
        links["intra"] = link_json(kind, _by_kind(inside), _source(inside), date)
    elif base is not None:
        links["intra"] = base.to_json()["links"]["intra"]
    else:
        raise ProfileError(
            "no log is of ranks on one node alone: add one, or --base with a cluster whose link inside a node is the same"
        )
    groups: dict[str, Any] = {}
    if between:
        kind = base.links["inter"].kind if base and "inter" in base.links else "infiniband"
        for log in between:
            pattern = Pattern(len(log.hosts), 1)
            same = [each for each in between if len(each.hosts) == pattern.size]
            groups[str(pattern)] = link_json(kind, _by_kind(same), _source(same), date)
        links["inter"] = _per_rank(link_json(kind, _by_kind(between), _source(between), date), ranks_per_node)
    elif base is not None and "inter" in base.links:
        links["inter"] = base.to_json()["links"]["inter"]
    data = {
        "name": name, "devices": names, "ranks_per_node": ranks_per_node, "links": links, "groups": groups,
        "device_profiles": _device_profiles(names), "schema_version": 1, "date": date,
        "source": f"links: {_source(logs)}; devices: the catalogue's",
    }  # fmt: skip
    return ClusterProfile.from_json(data, name)


def _device_profiles(names: Sequence[str]) -> dict[str, Any]:
    return {name: load_device(name).to_json() for name in dict.fromkeys(names)}


def _ranks_per_node(log: Log) -> int:
    counts = {log.hosts.count(host) for host in log.hosts}
    if len(counts) > 1:
        raise ProfileError(f"a log has nodes of {sorted(counts)} ranks: equally many are needed on each")
    return counts.pop()


def _link_kind(device: str) -> str:
    return "nvlink" if "SXM" in device or device.startswith("GH200") else "pcie"


def _by_kind(logs: Sequence[Log]) -> dict[str, dict[int, dict[float, float]]]:
    """Points by collective and group size; where logs repeat a size the first one counts."""
    found: dict[str, dict[int, dict[float, float]]] = {}
    for log in logs:
        points = found.setdefault(log.collective, {}).setdefault(len(log.hosts), {})
        for num_bytes, seconds in log.times_s.items():
            points.setdefault(float(num_bytes), seconds)
    return found


def _per_rank(link: dict[str, Any], ranks_per_node: int) -> dict[str, Any]:
    """The link between nodes as one rank per node has it: its share of the network, and no points."""
    for numbers in link["collectives"].values():
        numbers["bus_bytes_per_s"] = [each / ranks_per_node for each in numbers["bus_bytes_per_s"]]
        numbers.pop("points", None)
    link["source"] += f"; bus bandwidth of a whole node divided by its {ranks_per_node} ranks"
    return link


def _source(logs: Sequence[Log]) -> str:
    kinds = sorted({f"{log.collective} over {len(log.hosts)} ranks of {log.num_nodes} nodes" for log in logs})
    versions = sorted({log.version for log in logs if log.version})
    return f"measured: nccl-tests{' (' + ', '.join(versions) + ')' if versions else ''}, {', '.join(kinds)}"
