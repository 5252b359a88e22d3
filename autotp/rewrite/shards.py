"""Parameters and buffers: a rank's shard of a whole tensor, and whole tensors from shards."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from autotp.errors import PlanError
from autotp.mesh import Mesh
from autotp.placement import Placement, format_placement, held_spans, is_valid, local_shape
from autotp.runtime.layout import take


def shard_tensor(whole: Tensor, placement: Placement, mesh: Mesh, coordinates: Sequence[int]) -> Tensor:
    """The elements that the rank at `coordinates` holds, as a contiguous copy that shares no memory with `whole`.

    Raises PlanError where the placement does not fit the tensor's shape.
    """
    _check(tuple(whole.shape), placement, mesh)
    part = whole.detach()
    for dim, extent in enumerate(whole.shape):
        part = take(part, dim, held_spans(extent, dim, placement, coordinates))
    return part.clone(memory_format=torch.contiguous_format)


def unshard(shards: Sequence[Tensor], shape: Sequence[int], placement: Placement, mesh: Mesh) -> Tensor:
    """The whole tensor of the shards of all ranks, in rank order; of replicas the last rank's is taken.

    Raises PlanError where the placement does not fit the shape, or a shard has another shape than the placement says.
    """
    _check(tuple(shape), placement, mesh)
    whole = shards[0].new_empty(tuple(shape))
    for rank, shard in enumerate(shards):
        coordinates = mesh.coordinates(rank)
        expected = local_shape(shape, placement, coordinates)
        if tuple(shard.shape) != expected:
            raise PlanError(f"the shard of rank {rank} is {tuple(shard.shape)}, but its placement makes it {expected}")
        for runs in itertools.product(
            *(_runs(extent, dim, placement, coordinates) for dim, extent in enumerate(shape))
        ):
            target, source = whole, shard
            for dim, (start, offset, length) in enumerate(runs):
                target, source = target.narrow(dim, start, length), source.narrow(dim, offset, length)
            target.copy_(source)
    return whole


def _runs(extent: int, dim: int, placement: Placement, coordinates: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start in the whole dim, offset in the shard, length) of every run of elements that a rank holds."""
    held = held_spans(extent, dim, placement, coordinates)
    offsets = itertools.accumulate((length for _, length in held), initial=0)
    return [(start, offset, length) for (start, length), offset in zip(held, offsets, strict=False)]


def _check(shape: tuple[int, ...], placement: Placement, mesh: Mesh) -> None:
    if not is_valid(shape, placement, mesh) or any(state.kind == "P" for state in placement):
        raise PlanError(f"a tensor of shape {shape} cannot be placed as '{format_placement(placement)}' on {mesh}")
