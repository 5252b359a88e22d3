"""Sums of looked-up rows in a cut vocabulary."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autotp.placement import Spans
from autotp.runtime.local_ops_embedding import local_positions
from autotp.runtime.local_ops_find import find_operator

SUM, MEAN = 0, 1  # torch's numbers of `mode`


class EmbeddingBagShard(nn.Module):
    """Sums (or means) over the rows that this rank holds, so that the ranks' results add up to the whole.

    The three further results say which indices are in which bag: they are made of the whole indices.
    """

    def __init__(self, communicators: object, op: str, held: Sequence[tuple[int, int]], num_rows: int) -> None:
        super().__init__()
        self.op, self.num_rows = op, num_rows
        self.held: Spans = tuple((start, length) for start, length in held)
        self._operator = find_operator(op)

    def forward(
        self,
        weight: Tensor,
        indices: Tensor,
        offsets: Tensor,
        scale_grad_by_freq: bool = False,
        mode: int = SUM,
        sparse: bool = False,
        per_sample_weights: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        position, is_held = local_positions(indices, self.held)
        is_padding = torch.zeros_like(indices, dtype=torch.bool)
        if padding_idx is not None:
            is_padding = indices == padding_idx % self.num_rows  # torch counts negative ones from the end
        # Which index is in which bag depends on what is padding alone; its form on whether a gradient is wanted.
        table = weight.new_zeros(2, 1).requires_grad_(weight.requires_grad)
        one = None if per_sample_weights is None else torch.ones_like(per_sample_weights)
        last = None if padding_idx is None else 0
        arguments = (offsets, False, mode, False, one, include_last_offset, last)
        about = self._operator(table, torch.where(is_padding, 0, 1), *arguments[: self._num_arguments()])
        counted = (is_held & ~is_padding).to(weight.dtype)
        scale = counted if per_sample_weights is None else counted * per_sample_weights
        if weight.shape[0] == 0:  # no row to point at: the (empty) sum keeps weight in the autograd graph
            found = weight.sum(0).expand(about[0].shape[0], weight.shape[1]) + 0 * scale.sum()
            return found, about[1], about[2], about[3]
        arguments = (offsets, False, SUM, False, scale, include_last_offset, None)
        found = self._operator(weight, position, *arguments[: self._num_arguments()])[0]
        if mode == MEAN:
            found = found / about[2][: found.shape[0]].clamp(min=1).unsqueeze(-1).to(found.dtype)
        return found, about[1], about[2], about[3]

    def _num_arguments(self) -> int:
        return len(self._operator._schema.arguments) - 2

    def extra_repr(self) -> str:
        return f"held={self.held}"
