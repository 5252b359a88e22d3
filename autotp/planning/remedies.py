"""What would make a model fit where no plan does: each remedy is solved, none is guessed."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import replace

from autotp.capture.export import Captured
from autotp.cost.training import Training
from autotp.errors import AutoTPError
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.planning.attempts import Attempts
from autotp.planning.balance import METRICS, shares_by
from autotp.planning.planner import classes_of
from autotp.planning.search import Options
from autotp.regions import CHECKPOINTING
from autotp.report.shortage import MAX_TIMES, Remedy
from autotp.rules.enumerate import even_shares
from autotp.rules.registry import rules_of

ANY = 1.0  # a plan that fits is asked for, not the best of them
SECONDS = 20.0  # for one remedy


def remedies(captured: Captured, mesh: Mesh, cluster: ClusterProfile, options: Options) -> tuple[Remedy, ...]:
    """Every single change of these that helps: more devices (the fewest), another optimizer, activation checkpointing.

    Sharding the optimizer's state is none of them: plans do that by themselves where it makes room.
    """
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
    for level in _stronger(options.training):
        needed = least_needed(captured, mesh, cluster, replace(options, training=level))
        if needed is not None:
            found.append(Remedy(f"activation checkpointing (--checkpointing {level.checkpointing})", needed))
            break
    return tuple(found)


def _stronger(training: Training) -> Iterator[Training]:
    """The same step with more computed again in backward."""
    if training.mode == "train":
        for level in CHECKPOINTING[CHECKPOINTING.index(training.checkpointing) + 1 :]:
            yield replace(training, checkpointing=level)


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
