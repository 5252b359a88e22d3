"""Positions of indices in a shard, and the lookup in a cut vocabulary."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autotp.placement import Spans


def local_positions(indices: Tensor, held: Spans) -> tuple[Tensor, Tensor]:
    """(position in the shard, whether the shard has it) of every index; the position is 0 where it has not."""
    position = torch.zeros_like(indices)
    is_held = torch.zeros_like(indices, dtype=torch.bool)
    offset = 0
    for start, length in held:
        inside = (indices >= start) & (indices < start + length)
        position = torch.where(inside, indices - start + offset, position)
        is_held = is_held | inside
        offset += length
    return position, is_held


class EmbeddingShard(nn.Module):
    """Looks up the rows that this rank holds; others are zero, so that the ranks' results add up to the whole."""

    def __init__(self, communicators: object, held: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.held: Spans = tuple((start, length) for start, length in held)

    def forward(
        self,
        weight: Tensor,
        indices: Tensor,
        padding_idx: int = -1,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Tensor:
        position, is_held = local_positions(indices, self.held)
        if weight.shape[0] == 0:  # no row to point at; the (empty) sum keeps weight in the autograd graph
            return weight.sum(0).expand(*indices.shape, weight.shape[1])
        padding, offset = -1, 0
        for start, length in self.held:
            if start <= padding_idx < start + length:
                padding = padding_idx - start + offset
            offset += length
        found = torch.embedding(weight, position, padding, scale_grad_by_freq, sparse)
        return found.masked_fill(~is_held.unsqueeze(-1), 0.0)

    def extra_repr(self) -> str:
        return f"held={self.held}"
