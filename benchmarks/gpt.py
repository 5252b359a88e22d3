"""A GPT as Korthikanti et al. 2022 trained it (arXiv 2205.05198, figure 2): a model file for `autotp plan`.

Dropout, GELU, four times as wide inside, attention of separate operators (its causal mask is a part of their fused
softmax, so there is none here), output layer tied to the embedding, bf16.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZES = {  # heads, hidden, layers
    "tiny": (4, 64, 2),
    "22b": (64, 6144, 48),
    "175b": (96, 12288, 96),
    "530b": (128, 20480, 105),
    "1t": (160, 25600, 128),
}
VOCAB, SEQ, DROPOUT = 51200, 2048, 0.1


class Layer(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first_norm, self.second_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.out = nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first_norm(x)
        query, key, value = (
            f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value)
        )
        scores = torch.matmul(query, key.transpose(2, 3))
        weights = F.dropout(torch.softmax(scores, -1), DROPOUT, True)
        attended = torch.matmul(weights, value).transpose(1, 2).flatten(2)
        x = x + F.dropout(self.out(attended), DROPOUT, True)
        return x + F.dropout(self.down(F.gelu(self.up(self.second_norm(x)))), DROPOUT, True)


class Gpt(nn.Module):
    def __init__(self, heads: int, hidden: int, layers: int, vocab: int, seq: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, hidden), nn.Embedding(seq, hidden)
        self.layers = nn.ModuleList(Layer(hidden, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        x = F.dropout(x, DROPOUT, True)
        for layer in self.layers:
            x = layer(x)
        logits = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def build_model(size: str = "tiny", layers: int | None = None, vocab: int = VOCAB, seq: int = SEQ) -> nn.Module:
    heads, hidden, num_layers = SIZES[size]
    return Gpt(heads, hidden, layers or num_layers, vocab, seq).to(torch.bfloat16)


def example_inputs(batch: int = 4, vocab: int = VOCAB, seq: int = SEQ) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids, labels = (torch.randint(vocab, (batch, seq), generator=generator) for _ in range(2))
    return {"ids": ids, "labels": labels}
