"""A mixture of experts of our own: a top-k router, and experts computed densely by einsum over stacked weights.

The experts' weights are `[experts, width, hidden]`, so they can be divided by expert or inside every expert.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Experts(nn.Module):
    def __init__(self, width: int, hidden: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(width, experts, bias=False)
        self.gate = nn.Parameter(torch.randn(experts, width, hidden) * width**-0.5)
        self.up = nn.Parameter(torch.randn(experts, width, hidden) * width**-0.5)
        self.down = nn.Parameter(torch.randn(experts, hidden, width) * hidden**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x)
        lowest = scores.topk(self.top_k, dim=-1).values[..., -1:]
        weights = scores.masked_fill(scores < lowest, float("-inf")).softmax(dim=-1)
        hidden = F.silu(torch.einsum("bsm,emf->bsef", x, self.gate)) * torch.einsum("bsm,emf->bsef", x, self.up)
        return torch.einsum("bsef,efm,bse->bsm", hidden, self.down, weights)


class Block(nn.Module):
    def __init__(self, width: int, hidden: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.experts = Experts(width, hidden, experts, top_k)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.experts(self.norm(x))


class MixtureOfExperts(nn.Module):
    def __init__(self, vocab: int, width: int, hidden: int, experts: int, top_k: int, layers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Block(width, hidden, experts, top_k) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, ids: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits for every token, or the mean cross-entropy where labels are given."""
        x = self.tokens(ids)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return logits if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def build_model(
    vocab: int = 256, width: int = 32, hidden: int = 64, experts: int = 8, top_k: int = 2, layers: int = 2
) -> nn.Module:
    return MixtureOfExperts(vocab, width, hidden, experts, top_k, layers)


def example_inputs(vocab: int = 256, batch: int = 4, seq: int = 32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids, labels = (torch.randint(vocab, (batch, seq), generator=generator) for _ in range(2))
    return {"ids": ids, "labels": labels}
