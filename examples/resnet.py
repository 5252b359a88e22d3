"""A small residual network of our own: convolutions, batch normalisation, pooling, a linear classifier."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out_channels:
            convolution = nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        y += self.shortcut(x)
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(self, width: int, stages: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)
        )
        layers, channels = [], width
        for stage in range(stages):
            for index in range(blocks):
                layers.append(Block(channels, width * 2**stage, stride=2 if stage and not index else 1))
                channels = width * 2**stage
        self.stages = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits of the classes, or the mean cross-entropy where labels are given."""
        logits = self.head(self.pool(self.stages(self.stem(images))).flatten(1))
        return logits if labels is None else F.cross_entropy(logits, labels)


def build_model(width: int = 16, stages: int = 3, blocks: int = 2, classes: int = 16) -> nn.Module:
    return ResNet(width, stages, blocks, classes)


def example_inputs(batch: int = 8, pixels: int = 16, classes: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, pixels, pixels, generator=generator)
    return {"images": images, "labels": torch.randint(classes, (batch,), generator=generator)}
