"""Models of our own with attention in many forms."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zoo_case import BATCH, HEADS, HIDDEN, LAYERS, SEQ, TRANSFORMER, WIDTH, Case, floats, integers, padding

HEAD = WIDTH // HEADS


class Encoder(nn.Module):
    """`nn.TransformerEncoder` with a key padding mask."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.encoder(x, src_key_padding_mask=padding)


class SelfAttention(nn.Module):
    """`nn.MultiheadAttention` that also returns its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention(x, x, x, need_weights=True)


class Alibi(nn.Module):
    """Attention by einsum with a bias per head, and a causal mask made of -inf."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Parameter(torch.randn(WIDTH, HEADS, HEAD) * 0.1) for _ in range(3))
        self.out = nn.Parameter(torch.randn(HEADS, HEAD, WIDTH) * 0.1)
        self.register_buffer("slopes", 2.0 ** -torch.arange(1, HEADS + 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("bsm,mhd->bhsd", x, w) for w in (self.query, self.key, self.value))
        position = torch.arange(x.shape[1])
        bias = self.slopes[:, None, None] * (position[None, :] - position[:, None])
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * HEAD**-0.5 + bias
        scores = scores.masked_fill(position[None, :] > position[:, None], float("-inf"))
        return torch.einsum("bhqd,hdm->bqm", scores.softmax(-1) @ v, self.out)


class DiffusionBlock(nn.Module):
    """A diffusion transformer's block: the condition shifts, scales and gates."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, elementwise_affine=False) for _ in range(2))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(approximate="tanh"), nn.Linear(HIDDEN, WIDTH))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, dim=-1)
        y = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(y).reshape(*x.shape[:2], 3, HEADS, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate1 * self.out(y)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class DiffusionTransformer(nn.Module):
    """Noise prediction on image patches, conditioned on a time and a class."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(4, WIDTH, 2, stride=2)
        self.positions = nn.Parameter(torch.randn(1, 16, WIDTH) * 0.02)
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.classes = nn.Embedding(10, WIDTH)
        self.blocks = nn.ModuleList(DiffusionBlock() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * 2 * 4)

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        frequencies = torch.exp(-torch.arange(WIDTH // 2) / (WIDTH // 2) * 4.0)
        angles = time[:, None] * frequencies[None]
        condition = self.time(torch.cat([angles.cos(), angles.sin()], dim=-1)) + self.classes(label)
        y = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            y = block(y, condition)
        y = self.head(self.norm(y)).view(x.shape[0], 4, 4, 2, 2, 4)
        return torch.einsum("nhwpqc->nchpwq", y).reshape(x.shape)


class Perceiver(nn.Module):
    """Learned queries attend to a padded sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(6, WIDTH) * 0.1)
        self.norm = nn.LayerNorm(WIDTH)
        self.query, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.key_value = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch = x.shape[0]
        q = self.query(self.latents).expand(batch, -1, -1).unflatten(-1, (HEADS, HEAD)).transpose(1, 2)
        k, v = (part.unflatten(-1, (HEADS, HEAD)).transpose(1, 2) for part in self.key_value(self.norm(x)).chunk(2, -1))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.bool()[:, None, None, :])
        return self.head(self.out(y.transpose(1, 2).flatten(2)).mean(1))


class LinearAttention(nn.Module):
    """Attention without a softmax: features of keys and values are added up first."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.view(*x.shape[:2], HEADS, HEAD) for part in self.qkv(x).split(WIDTH, dim=-1))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        state = torch.einsum("bshd,bshe->bhde", k, v)
        norm = torch.einsum("bshd,bhd->bsh", q, k.sum(1))
        return self.out((torch.einsum("bshd,bhde->bshe", q, state) / norm[..., None]).flatten(2))


class TabularTransformer(nn.Module):
    """Every column is a token; categories by one embedding with offsets, numbers by a weight each."""

    def __init__(self) -> None:
        super().__init__()
        self.categories = nn.Embedding(40, WIDTH)
        self.register_buffer("offsets", torch.tensor([0, 10, 20, 30]))
        self.weight, self.bias = (nn.Parameter(torch.randn(6, WIDTH) * 0.1) for _ in range(2))
        self.cls = nn.Parameter(torch.zeros(1, 1, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))

    def forward(self, numbers: Tensor, categories: Tensor, target: Tensor) -> Tensor:
        tokens = [self.cls.expand(numbers.shape[0], -1, -1), numbers[..., None] * self.weight + self.bias]
        tokens.append(self.categories(categories + self.offsets))
        return F.mse_loss(self.head(self.encoder(torch.cat(tokens, dim=1))[:, 0]).squeeze(-1), target)


class GraphAttention(nn.Module):
    """Attention over the edges of a graph: gathers by edge, scatters by node."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, WIDTH, bias=False)
        self.source, self.target = (nn.Parameter(torch.randn(HEADS, HEAD) * 0.3) for _ in range(2))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        h = self.project(x).view(-1, HEADS, HEAD)
        scores = F.leaky_relu((h * self.source).sum(-1)[source] + (h * self.target).sum(-1)[target], 0.2).exp()
        total = x.new_zeros(x.shape[0], HEADS).index_add(0, target, scores)
        messages = h[source] * (scores / total[target])[..., None]
        return self.head(F.elu(torch.zeros_like(h).index_add(0, target, messages).flatten(1)))


def tokens() -> dict[str, Any]:
    return {"x": floats(BATCH, SEQ, WIDTH)}


def masked() -> dict[str, Any]:
    return {"x": floats(BATCH, SEQ, WIDTH), "mask": padding()}


def key_padding() -> dict[str, Any]:
    return {"x": floats(BATCH, SEQ, WIDTH), "padding": padding() == 0}


def source_and_target() -> dict[str, Any]:
    mask = nn.Transformer.generate_square_subsequent_mask(SEQ // 2)
    return {"src": floats(BATCH, SEQ, WIDTH), "tgt": floats(BATCH, SEQ // 2, WIDTH), "tgt_mask": mask}


def noisy_images() -> dict[str, Any]:
    return {"x": floats(BATCH, 4, 8, 8), "time": torch.linspace(0, 1, BATCH), "label": integers(10, BATCH)}


def table() -> dict[str, Any]:
    return {"numbers": floats(BATCH, 6), "categories": integers(10, BATCH, 4), "target": floats(BATCH)}


def graph() -> dict[str, Any]:
    return {"x": floats(12, WIDTH), "edges": torch.cat([integers(12, 2, 40), torch.arange(12).expand(2, 12)], dim=1)}


transformer = partial(
    nn.Transformer, WIDTH, HEADS, LAYERS, LAYERS, dim_feedforward=HIDDEN, batch_first=True
)  # fmt: skip
CASES = [
    Case("nn.TransformerEncoder", TRANSFORMER, Encoder, key_padding),
    Case("nn.Transformer", TRANSFORMER, transformer, source_and_target),
    Case("nn.MultiheadAttention", TRANSFORMER, SelfAttention, tokens),
    Case("alibi-einsum", TRANSFORMER, Alibi, tokens),
    Case("diffusion-transformer", TRANSFORMER, DiffusionTransformer, noisy_images),
    Case("perceiver", TRANSFORMER, Perceiver, masked),
    Case("linear-attention", TRANSFORMER, LinearAttention, tokens),
    Case("tabular-transformer", TRANSFORMER, TabularTransformer, table),
    Case("graph-attention", "other", GraphAttention, graph),
]
