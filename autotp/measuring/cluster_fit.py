"""What the ranks found becomes a cluster profile, with what is odd about the machine in words."""

import statistics
from dataclasses import dataclass
from typing import Any

import torch

from autotp.errors import ProfileError
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.fit import link_json, thinned
from autotp.hardware.patterns import Pattern
from autotp.hardware.spread import Spread, complaints, kinds_by_speed
from autotp.measuring.device_fit import Measured, device_json
from autotp.measuring.items import Item
from autotp.measuring.profile_rank import Findings


@dataclass(frozen=True)
class Profiled:
    """A measured cluster, and what a user should know of how it was measured."""

    cluster: ClusterProfile
    warnings: tuple[str, ...]
    num_rounds: int
    num_resumed: int
    seconds: float


def cluster_of(found: Findings, name: str, date: str) -> tuple[ClusterProfile, tuple[str, ...]]:
    """The profile and the warnings. Raises ProfileError where something that every profile needs was not measured."""
    reference = found.samples[Item("product", (found.effort.dtypes[0], *found.effort.reference)).key]
    ranks = range(len(found.facts))
    seconds = [[each[rank][0] for each in reference if each[rank]] for rank in ranks]
    kinds = kinds_by_speed([fact["device"] for fact in found.facts], seconds)
    warnings = list(found.notes)
    for rank in ranks:
        warnings += complaints(f"rank {rank} ({kinds[rank]})", Spread.of(seconds[rank])) if seconds[rank] else []
        others = found.facts[rank]["others"]
        warnings += [f"rank {rank} ({kinds[rank]}): {others}"] if others else []
    devices: dict[str, Any] = {}
    for kind in dict.fromkeys(kinds):
        own = [rank for rank in ranks if kinds[rank] == kind]
        facts = {**found.facts[own[0]], "process_bytes": max(found.facts[rank]["process_bytes"] for rank in own)}
        devices[kind] = device_json(Measured.of(kind, own, facts, found.samples), found.effort, date)
    links, groups = _links(found, date)
    backend = "gloo" if found.facts[0]["type"] == "cpu" else "NCCL"
    data = {
        "name": name, "devices": kinds, "device_profiles": devices, "ranks_per_node": found.ranks_per_node,
        "links": links, "groups": groups, "schema_version": 1, "date": date,
        "source": f"autotp profile ({found.effort.name}), {len(kinds)} ranks over {backend}, torch {torch.__version__}",
    }  # fmt: skip
    return ClusterProfile.from_json(data, name), tuple(dict.fromkeys(warnings))


def _links(found: Findings, date: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The links inside a node and between nodes, and those of groups that are neither neighbours nor one per node."""
    num_ranks, per_node = len(found.facts), found.ranks_per_node
    by_pattern: dict[Pattern, dict[str, dict[float, float]]] = {}
    spreads: list[float] = []
    for key, rounds in found.samples.items():
        if not key.startswith("collective/"):
            continue
        _, kind, of, num_bytes = key.split("/")
        each = Spread.of(rounds)
        spreads.append(each.spread)
        by_pattern.setdefault(Pattern.parse(of), {}).setdefault(kind, {})[float(num_bytes)] = each.median_s
    if not by_pattern:
        raise ProfileError("no collective was measured: profile at least two ranks (--nproc 2)")
    spread = statistics.median(spreads)
    inside_kind, between_kind = found.facts[0]["link_inside"], found.facts[0]["link_between"]
    inside: dict[str, dict[int, dict[float, float]]] = {}
    between: dict[str, dict[int, dict[float, float]]] = {}
    groups: dict[str, Any] = {}
    for pattern, kinds in sorted(by_pattern.items(), key=lambda item: (item[0].size, item[0].stride)):
        spans = pattern.spans_nodes(num_ranks, per_node)
        one_per_node = spans and pattern.stride % per_node == 0
        for kind, points in kinds.items():
            smooth = thinned(list(points.items()))
            if not spans and pattern.stride == 1:
                inside.setdefault(kind, {})[pattern.size] = smooth
            elif one_per_node and pattern.stride == per_node:
                between.setdefault(kind, {})[pattern.size] = smooth
        if pattern.stride > 1 or spans:
            by_size = {kind: {pattern.size: thinned(list(points.items()))} for kind, points in kinds.items()}
            where = between_kind if spans else inside_kind
            groups[str(pattern)] = {**link_json(where, by_size, _source(found, [pattern]), date), "spread": spread}
    links = {}
    for name, kind, measured in (("intra", inside_kind, inside), ("inter", between_kind, between)):
        if measured:
            sizes = [Pattern(size, 1) for size in sorted({size for by_size in measured.values() for size in by_size})]
            links[name] = {**link_json(kind, measured, _source(found, sizes), date), "spread": spread}
    if "intra" not in links:  # one rank on every node: no group lies inside one
        links["intra"] = links["inter"]
    return links, groups


def _source(found: Findings, patterns: list[Pattern]) -> str:
    sizes = ", ".join(str(pattern.size) for pattern in patterns)
    return (
        f"measured: autotp profile ({found.effort.name}), torch {torch.__version__}, groups of {sizes} ranks, all at once, "
        f"float32, medians of {found.num_rounds or 1} rounds"
    )
