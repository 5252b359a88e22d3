"""Shares of the ranks of a mesh axis as whole numbers: which devices are alike, and which divisions are worth a look.

Devices of one kind get near-equal shares, so a division is decided by what each *kind* gets. In whole granules there are
few of those: 32 heads over two kinds of device can be divided in 33 ways.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.placement import apportion, near_equal

Vector = tuple[int, ...]  # of every rank of an axis its share
Kinds = tuple[tuple[int, ...], ...]  # coordinates of an axis whose devices are alike

PARTS = 1000  # of which shares are whole numbers, where no granules say otherwise
MAX_COARSE = 64  # granules of a dim up to which each of its divisions is a vector of its own
SHIFTS = (1 / 16, 1 / 64, 1 / 256)  # of everything, from one kind to another, where granules are finer


def uneven_axes(mesh: Mesh, cluster: ClusterProfile) -> tuple[int, ...]:
    """Axes along which the devices of some group are not alike."""
    return tuple(axis for axis in range(len(mesh.axes)) if len(kinds_of(mesh, cluster, axis)) > 1)


def kinds_of(mesh: Mesh, cluster: ClusterProfile, axis: int) -> Kinds:
    """The coordinates of an axis by the devices of the ranks there."""
    found: dict[tuple[str, ...], list[int]] = {}
    for coordinate in range(mesh.sizes[axis]):
        devices = (cluster.devices[r] for r in range(mesh.num_ranks) if mesh.coordinates(r)[axis] == coordinate)
        found.setdefault(tuple(devices), []).append(coordinate)
    return tuple(map(tuple, found.values()))


def whole(weights: Sequence[float]) -> Vector:
    """Weights as shares of `PARTS` in whole numbers."""
    total = sum(weights)
    return apportion(PARTS, [round(weight / total * 1e9) for weight in weights])


def reduced(vector: Sequence[int]) -> Vector:
    """The same shares in the smallest whole numbers."""
    divisor = math.gcd(*vector)
    return tuple(share // divisor for share in vector)


def divisions(units: int, kinds: Kinds, near: Vector | None = None, limit: int | None = None) -> list[Vector]:
    """Every division of `units` granules that treats devices of one kind alike, or the `limit` nearest to a vector."""
    found = [_spread(totals, kinds) for totals in _totals(units, kinds, near, limit)]
    if near is None or limit is None:
        return found
    wanted = [units * share / sum(near) for share in near]
    return sorted(found, key=lambda v: (sum(abs(n - w) for n, w in zip(v, wanted, strict=True)), v))[:limit]


def num_divisions(units: int, kinds: Kinds) -> int:
    """How many `divisions` there are."""
    return math.comb(units + len(kinds) - 1, len(kinds) - 1)


def shifted(vector: Vector, kinds: Kinds, shift: float) -> Iterator[Vector]:
    """Divisions of `vector` after a share `shift` of everything went from one kind to another."""
    total = sum(vector)
    held = [sum(vector[i] for i in kind) / total for kind in kinds]
    for giver, taker in itertools.permutations(range(len(kinds)), 2):
        given = min(shift, held[giver])
        if given > 0:
            now = [h - given * (k == giver) + given * (k == taker) for k, h in enumerate(held)]
            yield whole([now[k] / len(kind) for i in range(len(vector)) for k, kind in enumerate(kinds) if i in kind])


def distinct(vectors: Iterable[Vector]) -> tuple[Vector, ...]:
    """Without those that say the same; in order, the first one kept."""
    return tuple(dict.fromkeys(map(reduced, vectors)))


def _spread(totals: Sequence[int], kinds: Kinds) -> Vector:
    vector = [0] * sum(map(len, kinds))
    for total, kind in zip(totals, kinds, strict=True):
        for coordinate, size in zip(kind, near_equal(total, len(kind)), strict=True):
            vector[coordinate] = size
    return tuple(vector)


def _totals(units: int, kinds: Kinds, near: Vector | None, limit: int | None) -> Iterator[tuple[int, ...]]:
    """What each kind gets: all combinations, or those within a window around `near` that holds `limit` at least."""
    ranges = [range(units + 1)] * (len(kinds) - 1)
    if near is not None and limit is not None:
        width = math.ceil(limit ** (1 / max(1, len(kinds) - 1)))
        centre = [units * sum(near[i] for i in kind) / sum(near) for kind in kinds]
        ranges = [range(max(0, math.floor(c) - width), min(units, math.ceil(c) + width) + 1) for c in centre[:-1]]
    for some in itertools.product(*ranges):
        if sum(some) <= units:
            yield (*some, units - sum(some))
