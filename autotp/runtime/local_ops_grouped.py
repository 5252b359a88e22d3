"""Products of many matrices, of which this rank has some: the experts of a mixture."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autotp.placement import Spans
from autotp.runtime.local_ops_find import find_operator


class GroupedShard(nn.Module):
    """The rows of the groups that this rank holds; other rows are zero, so that the ranks' results add up to the whole.

    Rows stay where they are: those of held groups are moved to the front, multiplied, and moved back. No size depends on
    how many rows a group has.
    """

    def __init__(self, communicators: object, op: str, held: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.op = op
        self.held: Spans = tuple((start, length) for start, length in held)
        self._operator = find_operator(op)

    def forward(self, rows: Tensor, weight: Tensor, offs: Tensor, *unused: Any, **options: Any) -> Tensor:
        if weight.shape[0] == 0:
            nothing = rows.new_zeros(rows.shape[0], weight.shape[2]) + 0 * (weight.sum() + rows.sum())
            return nothing.to(options.get("out_dtype") or rows.dtype)
        lengths = torch.diff(offs, prepend=offs.new_zeros(1))
        mine = torch.zeros_like(offs, dtype=torch.bool)
        for start, length in self.held:
            mine[start : start + length] = True
        group = torch.searchsorted(offs, torch.arange(rows.shape[0], device=rows.device, dtype=offs.dtype), right=True)
        is_held = torch.cat([mine, mine.new_zeros(1)])[group]  # rows after the last group are nobody's
        order = torch.argsort(~is_held, stable=True)
        local_offs = lengths[mine].cumsum(0).to(offs.dtype)
        # the last held group takes the other ranks' rows too, which are zero: every row has a group
        local_offs = torch.cat([local_offs[:-1], torch.full_like(offs[:1], rows.shape[0])])
        clean = rows.masked_fill(~is_held.unsqueeze(-1), 0)[order]
        made: Tensor = self._operator(clean, weight, local_offs, *unused, **options)
        return made[torch.argsort(order)]

    def extra_repr(self) -> str:
        return f"{self.op}, held={self.held}"
