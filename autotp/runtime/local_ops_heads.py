"""Attention of some query heads over key heads that ranks share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autotp.runtime.local_ops_random import Seeded


class SharedHeadsShard(nn.Module):
    """Keys and values have all their heads, queries this rank's: each reads the key head of its group, `key_heads[i]`."""

    def __init__(self, communicators: object, key_heads: Sequence[int]) -> None:
        super().__init__()
        self.key_heads = tuple(key_heads)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if not self.key_heads:  # no head here; the (empty) result stays in the graph of all three
            nothing = query.sum(-1, keepdim=True) + 0 * (key.sum() + value.sum())
            return nothing.expand(*query.shape[:-1], value.shape[-1])
        heads = torch.tensor(self.key_heads, device=query.device)
        key, value = (x.index_select(-3, heads) for x in (key, value))
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)

    def extra_repr(self) -> str:
        return f"key_heads={self.key_heads}"


class SeededSharedHeads(Seeded):
    """The same with dropout, drawn under the seed of this rank's part."""

    def __init__(
        self, communicators: object, op: str, name: str, coordinates: Sequence[int], key_heads: Sequence[int]
    ) -> None:
        super().__init__(communicators, op, name, coordinates)
        self._operator = SharedHeadsShard(communicators, key_heads)
