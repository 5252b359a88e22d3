"""The meaning of a placement, for tests: what every rank holds of a whole tensor, and the whole tensor again.

Partial sums are made by random weights that add up to one, so that nothing but a true sum gives the whole again.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from autotp.mesh import Mesh
from autotp.placement import Placement, held_spans
from autotp.redistribute import TABLE, Step

PARTIAL = {"value": "P", "gradient": "B"}  # the state in which the one, or the other, is partial sums


def index_of(shape: Sequence[int], placement: Placement, coordinates: Sequence[int]) -> tuple[Tensor, ...]:
    """Index of the elements that a rank holds, by an independent road: membership per element, then an open mesh."""
    chosen = []
    for dim, extent in enumerate(shape):
        held = held_spans(extent, dim, placement, coordinates)
        chosen.append(
            torch.tensor([i for i in range(extent) if any(b <= i < b + n for b, n in held)], dtype=torch.long)
        )
    return tuple(torch.meshgrid(*chosen, indexing="ij")) if chosen else ()


def distribute(whole: Tensor, placement: Placement, mesh: Mesh, what: str = "value") -> list[Tensor]:
    """Every rank's local tensor."""
    generator = torch.Generator().manual_seed(7)
    weights = []
    for state, size in zip(placement, mesh.sizes, strict=True):
        w = torch.rand(size, *whole.shape, generator=generator, dtype=torch.float64) + 0.1
        weights.append(w / w.sum(0) if state.kind == PARTIAL[what] else None)
    locals_ = []
    for rank in range(mesh.num_ranks):
        coordinates = mesh.coordinates(rank)
        local = whole
        for w, coordinate in zip(weights, coordinates, strict=True):
            local = local if w is None else local * w[coordinate].to(local.dtype)
        locals_.append(local[index_of(whole.shape, placement, coordinates)].clone())
    return locals_


def recombine(locals_: Sequence[Tensor], shape: Sequence[int], placement: Placement, mesh: Mesh, what: str = "value"):
    """The whole tensor; fails where replicas are not bit-equal or an element is in no shard."""
    whole = torch.zeros(tuple(shape), dtype=locals_[0].dtype)
    count = torch.zeros(tuple(shape), dtype=torch.long)
    summed = [i for i, state in enumerate(placement) if state.kind == PARTIAL[what]]
    replicated = [i for i, state in enumerate(placement) if state.kind != "S" and i not in summed]
    for rank, local in enumerate(locals_):
        coordinates = list(mesh.coordinates(rank))
        first = mesh.rank([0 if i in replicated else c for i, c in enumerate(coordinates)])
        assert torch.equal(local, locals_[first]), f"rank {rank} differs from its replica {first}"
        index = index_of(shape, placement, coordinates)
        assert local.shape == whole[index].shape, f"rank {rank} has {tuple(local.shape)}, not {whole[index].shape}"
        if rank == first:
            whole[index] = whole[index] | local if whole.dtype == torch.bool else whole[index] + local
            count[index] += 1
    times = torch.tensor([mesh.sizes[i] for i in summed], dtype=torch.long).prod()
    assert bool((count == times).all()), "some elements are held too often, or by no rank"
    return whole


def table_of(step: Step) -> tuple[str, str]:
    return TABLE[step.source[step.axis].kind, step.target[step.axis].kind]


def cuts(extent: int, parts: int) -> list[tuple[tuple[int, ...], ...]]:
    """Blocks of a dim: even, uneven, with an empty shard, several equal blocks, several unequal ones."""
    unit = extent // parts
    even = ((unit,) * (parts - 1) + (extent - unit * (parts - 1),),)
    uneven = ((1,) * (parts - 1) + (extent - parts + 1,),)
    empty = ((extent,) + (0,) * (parts - 1),)
    half = extent // 2
    two = tuple(tuple(itertools.chain([n - (parts - 1)], [1] * (parts - 1))) for n in (half, extent - half))
    return [even, uneven, empty, two]
