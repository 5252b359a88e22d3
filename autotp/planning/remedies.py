"""What would make a model fit where no plan does: each remedy is solved, none is guessed."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from autotp.capture.export import Captured
from autotp.errors import AutoTPError
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.planning.attempts import Attempts
from autotp.planning.balance import METRICS, shares_by
from autotp.planning.planner import classes_of
from autotp.planning.search import Options
from autotp.rules.enumerate import even_shares
from autotp.rules.registry import rules_of

MAX_TIMES = 8  # as many devices as this times the present number are thought of
ANY = 1.0  # a plan that fits is asked for, not the best of them
SECONDS = 20.0  # for one remedy


@dataclass(frozen=True)
class Remedy:
    """A change that makes the model fit, and the bytes that the fullest device then needs."""

    what: str
    memory_bytes: float


def remedies(captured: Captured, mesh: Mesh, cluster: ClusterProfile, options: Options) -> tuple[Remedy, ...]:
    """Every single change of these that helps: more devices (the fewest), another optimizer."""
    found = []
    for times in _doublings():
        needed = least_needed(captured, *_with_more(mesh, cluster, times), options)
        if needed is not None:
            larger, _ = _with_more(mesh, cluster, times)
            found.append(Remedy(f"{times} times the devices ({larger})", needed))
            break
    if options.training.mode == "train" and options.training.optimizer == "adamw":
        without = replace(options, training=replace(options.training, optimizer="sgd"))
        needed = least_needed(captured, mesh, cluster, without)
        if needed is not None:
            found.append(Remedy("an optimizer without state (--optimizer sgd)", needed))
    return tuple(found)


def advice(found: Sequence[Remedy]) -> str:
    """Remedies in words."""
    if not found:
        return (
            f"Neither a smaller batch, nor an optimizer without state, nor up to {MAX_TIMES} times the devices would do "
            "alone: combine them, or choose a smaller model"
        )
    return "What would do: " + "; ".join(f"{one.what}, which needs {one.memory_bytes / 2**30:.3g} GiB" for one in found)


def least_needed(captured: Captured, mesh: Mesh, cluster: ClusterProfile, options: Options) -> float | None:
    """Bytes of the fullest device under some plan within the limits; None where none is found."""
    options = replace(options, objective="time", time_limit_s=SECONDS)
    graph = captured.graph
    attempts = Attempts(graph, rules_of(graph), classes_of(graph, mesh, options), mesh, cluster, options)
    for shares in dict.fromkeys([even_shares(mesh), *(shares_by(metric, mesh, cluster) for metric in METRICS[::-1])]):
        try:
            found = attempts.within_limits(shares, math.inf, gap=ANY)
        except AutoTPError:
            continue
        if found is not None:
            return max(found.solution.memory_bytes)
    return None


def _doublings() -> Iterator[int]:
    times = 2
    while times <= MAX_TIMES:
        yield times
        times *= 2


def _with_more(mesh: Mesh, cluster: ClusterProfile, times: int) -> tuple[Mesh, ClusterProfile]:
    """So many times the devices along the last axis; where the cluster has no more, more of the same beside them."""
    *axes, (name, size) = mesh.axes
    larger = Mesh((*axes, (name, size * times)))
    if larger.num_ranks > cluster.max_ranks:
        devices = tuple(device for device in cluster.devices[: mesh.num_ranks] for _ in range(times))
        cluster = dataclasses.replace(
            cluster, devices=devices, ranks_per_node=max(cluster.ranks_per_node, len(devices))
        )
    return larger, cluster
