"""Models of our own without attention: convolutions, recurrence, embeddings, mixers, adapters."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zoo_case import BATCH, CONVOLUTION, HIDDEN, OTHER, SEQ, VOCAB, WIDTH, Case, floats, integers


class DoubleConvolution(nn.Sequential):
    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, out_channels, 3, padding=1), nn.GroupNorm(8, out_channels), nn.SiLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.SiLU(inplace=True),
        )  # fmt: skip


class UNet(nn.Module):
    """Down by pooling, up by a transposed convolution and by interpolation, with skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = DoubleConvolution(3, 16), DoubleConvolution(16, 32)
        self.middle = DoubleConvolution(32, 64)
        self.up2, self.join2 = nn.ConvTranspose2d(64, 32, 2, stride=2), DoubleConvolution(64, 32)
        self.up1, self.join1 = nn.Upsample(scale_factor=2), DoubleConvolution(48, 16)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.middle(F.avg_pool2d(b, 2))
        b = self.join2(torch.cat([self.up2(c), b], dim=1))
        return self.head(self.join1(torch.cat([self.up1(b), a], dim=1)))


class MobileNet(nn.Module):
    """Depthwise and pointwise convolutions, squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(16)
        self.expand, self.norm1 = nn.Conv2d(16, 64, 1, bias=False), nn.BatchNorm2d(64)
        self.depthwise, self.norm2 = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False), nn.BatchNorm2d(64)
        self.squeeze, self.excite = nn.Conv2d(64, 16, 1), nn.Conv2d(16, 64, 1)
        self.project, self.norm3 = nn.Conv2d(64, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = F.hardswish(self.norm0(self.stem(images)))
        y = F.hardswish(self.norm1(self.expand(x)))
        y = F.hardswish(self.norm2(self.depthwise(y)))
        y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return self.head((x + self.norm3(self.project(y))).mean((2, 3)))


class TemporalConvolution(nn.Module):
    """Causal dilated convolutions over time with gates and skips, as in WaveNet."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 32)
        self.filters = nn.ModuleList(nn.Conv1d(32, 64, 2, dilation=2**i) for i in range(3))
        self.mixes = nn.ModuleList(nn.Conv1d(32, 64, 1) for _ in range(3))
        self.head = nn.Conv1d(32, VOCAB, 1)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids).transpose(1, 2)
        total = torch.zeros_like(x)
        for convolution, mix in zip(self.filters, self.mixes, strict=True):
            y = F.glu(convolution(F.pad(x, (convolution.dilation[0], 0))), dim=1)
            residual, skip = mix(y).chunk(2, dim=1)
            x, total = x + residual, total + skip
        return F.cross_entropy(self.head(F.relu(total))[..., :-1], ids[:, 1:])


class VideoNet(nn.Module):
    """Three-dimensional convolutions and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv3d(3, 16, 3, padding=1), nn.BatchNorm3d(16)
        self.conv2, self.norm2 = (
            nn.Conv3d(16, 32, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.InstanceNorm3d(32),
        )
        self.head = nn.Linear(32, 6)

    def forward(self, video: Tensor) -> Tensor:
        x = F.max_pool3d(F.relu(self.norm1(self.conv1(video))), 2)
        return self.head(F.adaptive_avg_pool3d(F.relu(self.norm2(self.conv2(x))), 1).flatten(1))


class Autoencoder(nn.Module):
    """A variational autoencoder that returns a dict with two losses."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU()
        )
        self.to_latent, self.from_latent = nn.Linear(32 * 16, 2 * 16), nn.Linear(16, 32 * 16)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.LeakyReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh()
        )

    def forward(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        mean, log_variance = self.to_latent(self.encoder(images).flatten(1)).chunk(2, dim=1)
        latent = mean + noise * (0.5 * log_variance).exp()
        rebuilt = self.decoder(self.from_latent(latent).unflatten(1, (32, 4, 4)))
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
        return {"rebuilt": F.mse_loss(rebuilt, images), "divergence": divergence}


class Recurrent(nn.Module):
    """A recurrent tagger."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 32)
        self.rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](
            32, WIDTH, num_layers=2, batch_first=True, bidirectional=kind == "lstm"
        )
        self.head = nn.Linear(2 * WIDTH if kind == "lstm" else WIDTH, VOCAB)

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.head(self.rnn(self.embed(ids))[0]).transpose(1, 2), labels)


def lstm() -> nn.Module:
    return Recurrent("lstm")


def gru() -> nn.Module:
    return Recurrent("gru")


class Recommender(nn.Module):
    """Embedding bags and dense features meet in pairwise products, as in DLRM."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(64, 16, mode="sum") for _ in range(3))
        self.bottom = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(16 + 6, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
        self.register_buffer("pairs", torch.tril_indices(4, 4, -1))

    def forward(self, dense: Tensor, sparse: list[Tensor], clicked: Tensor) -> Tensor:
        x = self.bottom(dense)
        features = torch.stack([x, *(table(ids) for table, ids in zip(self.tables, sparse, strict=True))], dim=1)
        products = torch.bmm(features, features.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        logits = self.top(torch.cat([x, products], dim=1)).squeeze(1)
        return F.binary_cross_entropy_with_logits(logits, clicked)


class Mixer(nn.Module):
    """Linear layers over tokens and over channels in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(48, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.tokens = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.channels = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = F.unfold(images, 4, stride=4).transpose(1, 2)
        x = self.patches(x)
        x = x + self.tokens(self.norm1(x).mT).mT
        x = x + self.channels(self.norm2(x))
        return self.head(x.amax(1))


class Adapted(nn.Module):
    """Frozen linear layers with low-rank adapters, one head used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.base1, self.base2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.requires_grad_(False)
        self.down1, self.up1 = nn.Linear(WIDTH, 4, bias=False), nn.Linear(4, HIDDEN, bias=False)
        self.down2, self.up2 = nn.Linear(HIDDEN, 4, bias=False), nn.Linear(4, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.base1(x) + 2.0 * self.up1(self.down1(x)))
        y = self.base2(h) + 2.0 * self.up2(self.down2(h))
        return self.head(F.relu(self.head(x + y)))


class TwoTowers(nn.Module):
    """Queries and documents in one space, with a contrastive loss over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCAB, WIDTH, padding_idx=0)
        self.query = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 32))
        self.document = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 32))
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        q = F.normalize(self.query(self._mean(queries)), dim=-1)
        d = F.normalize(self.document(self._mean(documents)), dim=-1)
        scores = self.scale.exp() * q @ d.T
        target = torch.arange(scores.shape[0])
        return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2

    def _mean(self, ids: Tensor) -> Tensor:
        known = (ids != 0).float()[..., None]
        return (self.words(ids) * known).sum(1) / known.sum(1).clamp(min=1)


def pictures() -> dict[str, Any]:
    return {"x": floats(BATCH, 3, 16, 16)}


def images() -> dict[str, Any]:
    return {"images": floats(BATCH, 3, 16, 16)}


def noise() -> dict[str, Any]:
    return {"images": floats(BATCH, 3, 16, 16), "noise": floats(BATCH, 16)}


def video() -> dict[str, Any]:
    return {"video": floats(BATCH, 3, 4, 8, 8)}


def ids() -> dict[str, Any]:
    return {"ids": integers(VOCAB, BATCH, SEQ)}


def tagged() -> dict[str, Any]:
    return {"ids": integers(VOCAB, BATCH, SEQ), "labels": integers(VOCAB, BATCH, SEQ)}


def clicks() -> dict[str, Any]:
    sparse = [integers(64, BATCH, 3 + i) for i in range(3)]
    return {"dense": floats(BATCH, 13), "sparse": sparse, "clicked": integers(2, BATCH).float()}


def vectors() -> dict[str, Any]:
    return {"x": floats(BATCH, SEQ, WIDTH)}


def pairs() -> dict[str, Any]:
    return {"queries": integers(VOCAB, BATCH, 5), "documents": integers(VOCAB, BATCH, SEQ)}


CASES = [
    Case("unet", CONVOLUTION, UNet, pictures),
    Case("mobilenet", CONVOLUTION, MobileNet, images),
    Case("wavenet", CONVOLUTION, TemporalConvolution, ids),
    Case("video-convolution", CONVOLUTION, VideoNet, video),
    Case("autoencoder", CONVOLUTION, Autoencoder, noise),
    Case("lstm", OTHER, lstm, tagged),
    Case("gru", OTHER, gru, tagged),
    Case("recommender", OTHER, Recommender, clicks),
    Case("mixer", OTHER, Mixer, images),
    Case("adapters", OTHER, Adapted, vectors),
    Case("two-towers", OTHER, TwoTowers, pairs),
]
