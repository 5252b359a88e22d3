"""Which device sits where on a mesh: numberings of a machine's devices that can make a difference to a plan."""

from collections.abc import Iterator

from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh

MAX_ARRANGEMENTS = 4


def arrangements(cluster: ClusterProfile, mesh: Mesh) -> tuple[tuple[int, ...], ...]:
    """Orders for `ClusterProfile.arranged` that are worth a plan each, the given one first.

    Neighbours on the last axis, which carries most traffic, are put on one island, or on devices that are alike, or on
    unlike ones (so that every group of the last axis is as strong); and the same for the first axis. Of orders under
    which the axes have the same links and groups of the same devices only one is kept. Devices stay on their node.
    """
    identity = tuple(range(cluster.max_ranks))
    if len(set(cluster.devices)) == 1 and not cluster.islands:
        return (identity,)
    found: dict[object, tuple[int, ...]] = {}
    for order in (identity, *_candidates(cluster, mesh)):
        found.setdefault(_signature(cluster.arranged(order), mesh), order)
    return tuple(found.values())[:MAX_ARRANGEMENTS]


def _candidates(cluster: ClusterProfile, mesh: Mesh) -> Iterator[tuple[int, ...]]:
    size = cluster.ranks_per_node
    nodes = [list(range(first, min(first + size, cluster.max_ranks))) for first in range(0, cluster.max_ranks, size)]
    island = {rank: number for number, one in enumerate(cluster.islands) for rank in one.ranks}
    kinds = list(dict.fromkeys(cluster.devices))
    speed = {kind: max(cluster.device_profiles[kind].matmul_flops_per_s.values()) for kind in kinds}

    def by_kind(rank: int) -> tuple[float, int, int]:
        kind = cluster.devices[rank]
        return -speed[kind], kinds.index(kind), rank

    def by_island(rank: int) -> tuple[int, float, int, int]:
        return island.get(rank, len(cluster.islands)), *by_kind(rank)

    for key in (by_island, by_kind):
        near = [sorted(node, key=key) for node in nodes]
        yield tuple(rank for node in near for rank in node)
        for width in dict.fromkeys((mesh.sizes[-1], mesh.num_ranks // mesh.sizes[0])):
            yield tuple(rank for node in near for rank in _dealt(node, width))


def _dealt(node: list[int], width: int) -> list[int]:
    """Like cards to `len(node) // width` hands of `width`: neighbours come to be in different hands."""
    if len(node) % width:
        return node
    num_hands = len(node) // width
    return [node[j * num_hands + i] for i in range(num_hands) for j in range(width)]


def _signature(cluster: ClusterProfile, mesh: Mesh) -> object:
    """What prices can see of an arrangement: per axis the link, and the devices of its groups, whatever their order."""
    return tuple(
        (
            cluster.link(mesh, axis).source,
            tuple(sorted(tuple(sorted(cluster.devices[rank] for rank in group)) for group in mesh.groups(axis))),
        )
        for axis, size in enumerate(mesh.sizes)
        if size > 1
    )
