"""How much of a tensor, or of an operator's factor, the rank with the most holds."""

from collections.abc import Iterable
from functools import lru_cache

from autotp.graph import TensorSpec
from autotp.placement import Blocks, Placement, largest_shape, num_elements, shard
from autotp.rules.rule import OpRule
from autotp.rules.strategy import Strategy


@lru_cache(maxsize=1 << 16)
def local_numel(shape: tuple[int, ...], placement: Placement) -> int:
    """Elements of the largest shard."""
    return num_elements(largest_shape(shape, placement))


def local_bytes(spec: TensorSpec, placement: Placement) -> int:
    """Bytes of the largest shard."""
    return local_numel(spec.shape, placement) * spec.item_bytes


@lru_cache(maxsize=1 << 14)
def _largest_extent(extent: int, cuts: tuple[Blocks, ...]) -> int:
    return largest_shape((extent,), tuple(shard(0, blocks) for blocks in cuts))[0]


def local_extents(rule: OpRule, strategy: Strategy, letters: Iterable[str], skip_axis: int | None = None) -> int:
    """Product of the extents of these letters on the rank with the most; cuts of axis `skip_axis` do not count.

    Letters are cut by axes independently, so the largest of each is on one rank.
    """
    result = 1
    for letter in letters:
        cuts = tuple(
            choice.cut[letter]
            for axis, choice in enumerate(strategy.choices)
            if axis != skip_axis and choice.cut and letter in choice.cut
        )
        result *= _largest_extent(rule.extents[letter], cuts) if cuts else rule.extents[letter]
    return result
