"""How the ranks of one axis divide a dim: cutting a tensor into their parts, and putting parts together again."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from autotp.placement import Blocks, Placement, Spans, held_spans, intersect, restrict, spans


@dataclass(frozen=True)
class Layout:
    """`dim` is a sequence of blocks, each divided over the `num_ranks` ranks of an axis.

    The blocks are those that the ranks of the axis have in common, that is inside what the other axes hold: their sum
    is the size of the dim once it is gathered along this axis. `whole` below is a tensor of that size.
    """

    dim: int
    blocks: Blocks
    num_ranks: int

    @classmethod
    def on_axis(
        cls, placement: Placement, axis: int, shape: Sequence[int], coordinates: Sequence[int], num_ranks: int
    ) -> "Layout | None":
        """The layout of one axis of a placement at a rank, for a tensor of whole `shape`; None where it is no shard."""
        state = placement[axis]
        if state.kind != "S":
            return None
        others = [i for i in range(len(placement)) if i != axis]
        held = held_spans(
            shape[state.dim], state.dim, tuple(placement[i] for i in others), [coordinates[i] for i in others]
        )
        return cls(state.dim, restrict(state.blocks, held), num_ranks)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Size of the dim at every rank."""
        return tuple(sum(block[rank] for block in self.blocks) for rank in range(self.num_ranks))

    @cached_property
    def extent(self) -> int:
        return sum(self.sizes)

    @cached_property
    def largest(self) -> int:
        return max(self.sizes)

    @cached_property
    def unit(self) -> int | None:
        """The one size that every rank has of every block, or None: then parts can be moved by reshaping alone."""
        sizes = set(itertools.chain.from_iterable(self.blocks))
        return sizes.pop() if len(sizes) == 1 else None

    @cached_property
    def pieces(self) -> tuple[tuple[int, int, int], ...]:
        """(rank, offset in its part, length) in the order of the whole dim, none empty."""
        offsets = [0] * self.num_ranks
        found = []
        for block in self.blocks:
            for rank, size in enumerate(block):
                if size:
                    found.append((rank, offsets[rank], size))
                offsets[rank] += size
        return tuple(found)

    def held(self, rank: int) -> Spans:
        """What a rank has of the whole dim."""
        return spans(self.blocks, rank)

    def part(self, whole: Tensor, rank: int) -> Tensor:
        """The part of one rank; a view where it is one run of elements."""
        return take(whole, self.dim, self.held(rank))

    def padded(self, part: Tensor) -> Tensor:
        """A part made as large as the largest one, zeros behind."""
        missing = self.largest - part.shape[self.dim]
        if not missing:
            return part
        shape = list(part.shape)
        shape[self.dim] = missing
        return torch.cat([part, part.new_zeros(shape)], self.dim)

    def trimmed(self, part: Tensor, rank: int) -> Tensor:
        """The inverse of `padded`."""
        return part if part.shape[self.dim] == self.sizes[rank] else part.narrow(self.dim, 0, self.sizes[rank])

    def placed(self, part: Tensor, rank: int) -> Tensor:
        """A whole tensor of zeros but for the part of one rank."""
        shape = list(part.shape)
        shape[self.dim] = self.extent
        whole, offset = part.new_zeros(shape), 0
        for start, length in self.held(rank):
            whole.narrow(self.dim, start, length).copy_(part.narrow(self.dim, offset, length))
            offset += length
        return whole

    def stacked(self, whole: Tensor) -> Tensor:
        """All ranks' padded parts: `[num_ranks, *shape of the largest part]`; a view where parts lie in rank order."""
        if self.unit is None:
            return torch.stack([self.padded(self.part(whole, rank)) for rank in range(self.num_ranks)])
        before, after = whole.shape[: self.dim], whole.shape[self.dim + 1 :]
        cut = whole.reshape(*before, len(self.blocks), self.num_ranks, self.unit, *after)
        return cut.movedim(self.dim + 1, 0).reshape(self.num_ranks, *before, self.largest, *after)

    def joined(self, stacked: Tensor) -> Tensor:
        """The inverse of `stacked`."""
        if self.unit is None:
            return self.ordered([self.trimmed(stacked[rank], rank) for rank in range(self.num_ranks)])
        before, after = stacked.shape[1 : 1 + self.dim], stacked.shape[self.dim + 2 :]
        cut = stacked.reshape(self.num_ranks, *before, len(self.blocks), self.unit, *after)
        return cut.movedim(0, self.dim + 1).reshape(*before, self.extent, *after)

    def ordered(self, parts: Sequence[Tensor]) -> Tensor:
        """The whole tensor from every rank's part."""
        return join(parts, self.dim, self.pieces)


def take(x: Tensor, dim: int, wanted: Spans) -> Tensor:
    """These elements of a dim; a view where they are one run."""
    runs = [x.narrow(dim, start, length) for start, length in wanted]
    return runs[0] if len(runs) == 1 else torch.cat(runs, dim) if runs else x.narrow(dim, 0, 0)


def join(parts: Sequence[Tensor], dim: int, pieces: Sequence[tuple[int, int, int]]) -> Tensor:
    """Pieces (which part, offset, length) one behind the other."""
    runs = [parts[which].narrow(dim, offset, length) for which, offset, length in pieces]
    return torch.cat(runs, dim) if runs else parts[0].narrow(dim, 0, 0)


def within(held: Spans, wanted: Spans) -> Spans:
    """Where the elements that are in both lie in a tensor that holds only `held`, one span for every run of both."""
    found, offset = [], 0
    for start, length in held:
        found += [(begin - start + offset, size) for begin, size in intersect(((start, length),), wanted)]
        offset += length
    return tuple(found)


def incoming(source: Layout, target: Layout, rank: int) -> tuple[tuple[int, int, int], ...]:
    """Pieces, as `join` wants them, that make a rank's part of what it gets from every rank in a change of layout."""
    found = []
    for sender in range(source.num_ranks):
        offset = 0
        for start, length in intersect(source.held(sender), target.held(rank)):
            found.append((start, (sender, offset, length)))
            offset += length
    return tuple(piece for _, piece in sorted(found))
