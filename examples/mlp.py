"""A stack of two-layer perceptrons with residuals: the smallest model worth splitting."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width, hidden) for _ in range(layers)))
        self.head = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        """The prediction, or its mean squared error where a target is given."""
        y = self.head(self.blocks(x))
        return y if target is None else F.mse_loss(y, target)


def build_model(width: int = 64, hidden: int = 256, layers: int = 2) -> nn.Module:
    return MLP(width, hidden, layers)


def example_inputs(width: int = 64, batch: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(batch, width, generator=generator) for name in ("x", "target")}
