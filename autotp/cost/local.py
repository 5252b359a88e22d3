"""How much of a tensor, or of an operator's factor, a rank holds: the one at some coordinates, or the one with the most."""

import math
from collections.abc import Iterable
from functools import lru_cache

from autotp.graph import TensorSpec
from autotp.placement import Blocks, Placement, largest_shape, local_shape, num_elements, shard
from autotp.rules.rule import OpRule, parts_of
from autotp.rules.strategy import Strategy

Coordinates = tuple[int, ...] | None  # of a rank on the mesh; None for the rank that has most


@lru_cache(maxsize=1 << 16)
def local_numel(shape: tuple[int, ...], placement: Placement, at: Coordinates = None) -> int:
    """Elements of the shard at these coordinates, or of the largest."""
    return num_elements(largest_shape(shape, placement) if at is None else local_shape(shape, placement, at))


def local_shape_of(spec: TensorSpec, placement: Placement, at: Coordinates = None) -> tuple[int, ...]:
    """Shape of the shard at these coordinates, or of the largest."""
    return tuple(largest_shape(spec.shape, placement) if at is None else local_shape(spec.shape, placement, at))


def local_bytes(spec: TensorSpec, placement: Placement, at: Coordinates = None) -> int:
    """Bytes of the shard at these coordinates, or of the largest."""
    return local_numel(spec.shape, placement, at) * spec.item_bytes


@lru_cache(maxsize=1 << 14)
def _extent(extent: int, cuts: tuple[Blocks, ...], at: Coordinates) -> int:
    return local_numel((extent,), tuple(shard(0, blocks) for blocks in cuts), at)


def local_extents(
    rule: OpRule, strategy: Strategy, letters: Iterable[str], skip_axis: int | None = None, at: Coordinates = None
) -> int:
    """Product of the extents of these letters on a rank; cuts of axis `skip_axis` do not count.

    Letters are cut by axes independently, so the largest of each is on one rank.
    """
    result, rest = 1, list(letters)
    for run in rule.runs:
        if any(choice.cut and run in choice.cut for choice in strategy.choices):  # its letters count together
            rest = [letter for letter in rest if letter not in parts_of(run)] + [run]
    for letter in rest:
        extent = math.prod(rule.extents[part] for part in parts_of(letter))
        axes = [
            axis
            for axis, choice in enumerate(strategy.choices)
            if axis != skip_axis and choice.cut and letter in choice.cut
        ]
        cuts = tuple((strategy.choices[axis].cut or {})[letter] for axis in axes)
        here = None if at is None else tuple(at[axis] for axis in axes)
        result *= _extent(extent, cuts, here) if cuts else extent
    return result
