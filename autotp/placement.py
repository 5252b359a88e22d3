"""Where a tensor is: one state per mesh axis, and the arithmetic of blocks.

A state says where the value is *and* what its gradient is (design, section 4): `R` replicated with a complete gradient,
`B` replicated with a gradient of partial sums, `P` partial sums with a complete gradient, `S(dim)` a shard with its shard.

A shard is described on the *whole* dim by blocks: the dim is a sequence of blocks, and every block is divided over the
ranks of the axis by a tuple of sizes. One block of `(4, 4, 3, 3)` is an ordinary uneven split; three equal blocks are the
heads of a fused `(q k v)` projection. With several axes, what a rank holds of a dim is the *intersection* of what each
axis gives it. So the nesting order of two cuts of one dim is written in the blocks (the inner cut has a block for every
shard of the outer one), any axis can be gathered or added by one collective, and the axes of a placement need no order.
"""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

from autotp.errors import AutoTPError
from autotp.mesh import Mesh

Block = tuple[int, ...]
Blocks = tuple[Block, ...]
Spans = tuple[tuple[int, int], ...]  # (start, length), ascending, none empty


@dataclass(frozen=True, slots=True, order=True)
class State:
    """A tensor's state on one mesh axis; `dim` and `blocks` only for kind `S`. Build them as `R`, `P`, `B`, `shard(...)`."""

    kind: str
    dim: int = -1
    blocks: Blocks = ()

    def __str__(self) -> str:
        return f"S({self.dim}:{format_blocks(self.blocks)})" if self.kind == "S" else self.kind


R, P, B = State("R"), State("P"), State("B")
Placement = tuple[State, ...]  # one state per mesh axis, in mesh order


def shard(dim: int, blocks: Iterable[Iterable[int]]) -> State:
    """The state `S(dim)`: every block of the dim gives `block[r]` elements to rank `r` of the axis."""
    return State("S", dim, tuple(tuple(block) for block in blocks))


def near_equal(units: int, parts: int) -> Block:
    """Whole units spread over parts, sizes differing by at most one: 14 over 4 is (4, 4, 3, 3)."""
    return tuple(units // parts + (i < units % parts) for i in range(parts))


def apportion(units: int, weights: Sequence[int], turn: int = 0) -> Block:
    """Whole units spread by weights, each within one of its exact share (Hamilton's method).

    Ties go to part `turn` and those behind it, round and round. With equal weights and no turn this is `near_equal`.
    Raises AutoTPError where no weight is positive.
    """
    total = sum(weights)
    if total <= 0 or min(weights) < 0:
        raise AutoTPError(f"the shares {tuple(weights)} must be positive")
    sizes = [units * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(units * weights[i] % total), (i - turn) % len(weights)))
    for i in by_remainder[: units - sum(sizes)]:
        sizes[i] += 1
    return tuple(sizes)


def split_blocks(num_blocks: int, granules: int, granule: int, parts: int) -> Blocks:
    """Blocks of `granules` granules each, divided near-equally in whole granules of `granule` elements."""
    return (tuple(n * granule for n in near_equal(granules, parts)),) * num_blocks


# ---------------------------------------------------------------- which elements of a dim a rank holds


def spans(blocks: Blocks, rank: int) -> Spans:
    """The elements of the whole dim that rank `rank` of an axis holds, adjacent ones joined."""
    found: list[tuple[int, int]] = []
    start = 0
    for block in blocks:
        begin, size = start + sum(block[:rank]), block[rank]
        start += sum(block)
        if size and found and sum(found[-1]) == begin:
            found[-1] = (found[-1][0], found[-1][1] + size)
        elif size:
            found.append((begin, size))
    return tuple(found)


def intersect(a: Spans, b: Spans) -> Spans:
    """Elements in both, in order."""
    found, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        begin, end = max(a[i][0], b[j][0]), min(sum(a[i]), sum(b[j]))
        if begin < end:
            found.append((begin, end - begin))
        if sum(a[i]) < sum(b[j]):
            i += 1
        else:
            j += 1
    return tuple(found)


def restrict(blocks: Blocks, held: Spans) -> Blocks:
    """Blocks of one axis as they are inside the elements that the other axes hold: the sizes that one collective sees."""
    result, start = [], 0
    for block in blocks:
        sizes = []
        for size in block:
            sizes.append(sum(n for _, n in intersect(((start, size),), held)) if size else 0)
            start += size
        result.append(tuple(sizes))
    return tuple(result)


def held_spans(extent: int, dim: int, placement: Placement, coordinates: Sequence[int]) -> Spans:
    """Elements of the whole dim that the rank at `coordinates` holds."""
    held: Spans = ((0, extent),) if extent else ()
    for state, coordinate in zip(placement, coordinates, strict=True):
        if state.kind == "S" and state.dim == dim:
            held = intersect(held, spans(state.blocks, coordinate))
    return held


def local_shape(shape: Sequence[int], placement: Placement, coordinates: Sequence[int]) -> tuple[int, ...]:
    """Shape of the shard of the rank at `coordinates`."""
    cut = {state.dim for state in placement if state.kind == "S"}
    return tuple(
        sum(n for _, n in held_spans(extent, dim, placement, coordinates)) if dim in cut else extent
        for dim, extent in enumerate(shape)
    )


def largest_shape(shape: Sequence[int], placement: Placement) -> tuple[int, ...]:
    """Per dim the largest size that any rank holds: the shape of the shard that costs most."""
    result = list(shape)
    for dim in {state.dim for state in placement if state.kind == "S"}:
        result[dim] = _largest_size(
            tuple(state.blocks for state in placement if state.kind == "S" and state.dim == dim)
        )
    return tuple(result)


@lru_cache(maxsize=1 << 14)
def _largest_size(cuts: tuple[Blocks, ...]) -> int:
    """Most elements of one dim that any rank holds under cuts of several axes; cached, since planning asks it often."""
    if len(cuts) == 1:
        return max(map(sum, zip(*cuts[0], strict=True)))
    held = [[spans(blocks, rank) for rank in range(len(blocks[0]))] for blocks in cuts]
    return max(sum(n for _, n in reduce(intersect, combination)) for combination in itertools.product(*held))


def nest(inner: Sequence[int], outer: Blocks, granule: int) -> Blocks:
    """Divide every shard of `outer` again, over `len(inner)` ranks by the weights `inner`, in whole granules."""
    total = sum(inner)
    result = []
    for size in itertools.chain.from_iterable(outer):
        if size % granule:
            raise AutoTPError(f"a shard of {size} elements is not made of granules of {granule}")
        units, edge, sizes = size // granule, 0, []
        for weight in itertools.accumulate(inner):
            cut = -(-units * weight // total)
            sizes.append((cut - edge) * granule)
            edge = cut
        result.append(tuple(sizes))
    return tuple(result)


def is_valid(shape: Sequence[int], placement: Placement, mesh: Mesh) -> bool:
    """Whether every shard has a dim of the tensor, blocks that fill it, and a size for every rank of its axis."""
    return len(placement) == len(mesh.axes) and all(
        state.kind != "S"
        or (
            0 <= state.dim < len(shape)
            and sum(map(sum, state.blocks)) == shape[state.dim]
            and all(len(block) == size and min(block) >= 0 for block in state.blocks)
        )
        for state, size in zip(placement, mesh.sizes, strict=True)
    )


# ---------------------------------------------------------------- text


def format_blocks(blocks: Blocks) -> str:
    """`512^8` for eight equal sizes, `4,4,3,3`, `3*512^8` for three equal blocks, `+` between unequal ones."""
    texts = []
    for block, equal_blocks in itertools.groupby(blocks):
        count = len(list(equal_blocks))
        sizes = ",".join(
            f"{size}^{n}" if n > 1 else str(size)
            for size, n in ((k, len(list(g))) for k, g in itertools.groupby(block))
        )
        texts.append(f"{count}*{sizes}" if count > 1 else sizes)
    return "+".join(texts)


def parse_blocks(text: str) -> Blocks:
    """The inverse of `format_blocks`. Raises AutoTPError."""
    if not re.fullmatch(r"[\d,^*+]+", text):
        raise AutoTPError(f"cannot read the blocks {text!r}: sizes such as 512^8, 4,4,3,3 or 3*64^2 were expected")
    blocks: list[Block] = []
    for part in text.split("+"):
        count, _, sizes = part.rpartition("*")
        pairs = [size.partition("^") for size in sizes.split(",")]
        blocks += [tuple(itertools.chain.from_iterable([int(n)] * int(k or 1) for n, _, k in pairs))] * int(count or 1)
    return tuple(blocks)


def parse_state(text: str) -> State:
    """The inverse of `str(state)`. Raises AutoTPError."""
    if text in ("R", "P", "B"):
        return {"R": R, "P": P, "B": B}[text]
    match = re.fullmatch(r"S\((\d+):([^)]*)\)", text)
    if not match:
        raise AutoTPError(f"cannot read the placement state {text!r}")
    return State("S", int(match[1]), parse_blocks(match[2]))


def format_placement(placement: Placement) -> str:
    return " ".join(map(str, placement))


def parse_placement(text: str) -> Placement:
    return tuple(parse_state(part) for part in text.split())


def num_elements(shape: Sequence[int]) -> int:
    return math.prod(shape)
