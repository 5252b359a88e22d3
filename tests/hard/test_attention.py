"""Attention as real models write it: fused projections, grouped queries, biases, masks, rotary tables."""

import pytest
import torch
from hard import agrees, floats, integers
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS, HEAD, SEQ = 24, 6, 4, 5


def attend(q, k, v, **options):
    """q, k, v of [batch, seq, heads, head]."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).flatten(2)


class Fused(nn.Module):
    """One projection for queries, keys and values, taken apart in one of many ways."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.out(attend(*getattr(self, self.layout)(self.qkv(x)), is_causal=True))

    def chunk(self, y):
        return [part.unflatten(-1, (HEADS, HEAD)) for part in y.chunk(3, dim=-1)]

    def split(self, y):
        return [part.view(*y.shape[:2], -1, HEAD) for part in y.split(WIDTH, dim=-1)]

    def slices(self, y):
        return [y[..., i * WIDTH : (i + 1) * WIDTH].view(*y.shape[:2], HEADS, HEAD) for i in range(3)]

    def three_major(self, y):
        return y.view(*y.shape[:2], 3, HEADS, HEAD).unbind(2)

    def three_minor(self, y):
        y = y.view(*y.shape[:2], HEADS, 3, HEAD)
        return y[..., 0, :], y[..., 1, :], y[..., 2, :]

    def per_head(self, y):
        return y.view(*y.shape[:2], HEADS, 3 * HEAD).split(HEAD, dim=-1)

    def permuted(self, y):
        return y.reshape(*y.shape[:2], 3, HEADS, HEAD).permute(2, 0, 1, 3, 4).unbind(0)


@pytest.mark.parametrize("layout", ["chunk", "split", "slices", "three_major", "three_minor", "per_head", "permuted"])
def test_fused_projections(layout):
    agrees(Fused(layout), {"x": floats(2, SEQ, WIDTH)}, min_split=0.95, seeds=(0,))


class Grouped(nn.Module):
    def __init__(self, heads, kv_heads, *, fused, repeat):
        super().__init__()
        self.heads, self.kv_heads, self.fused, self.repeat = heads, kv_heads, fused, repeat
        q, kv = heads * HEAD, kv_heads * HEAD
        self.qkv = nn.Linear(WIDTH, q + 2 * kv, bias=False)
        self.query, self.key, self.value = nn.Linear(WIDTH, q), nn.Linear(WIDTH, kv), nn.Linear(WIDTH, kv)
        self.out = nn.Linear(q, WIDTH)

    def forward(self, x):
        sizes = [self.heads * HEAD, self.kv_heads * HEAD, self.kv_heads * HEAD]
        parts = self.qkv(x).split(sizes, dim=-1) if self.fused else (self.query(x), self.key(x), self.value(x))
        q, k, v = (part.unflatten(-1, (-1, HEAD)) for part in parts)
        if self.repeat:
            k, v = (part.repeat_interleave(self.heads // self.kv_heads, dim=2) for part in (k, v))
        return self.out(attend(q, k, v, is_causal=True, enable_gqa=not self.repeat))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "mesh"), [(6, 3, "tp=2"), (6, 2, "tp=4"), (8, 1, "tp=4"), (4, 2, "tp=3")]
)
@pytest.mark.parametrize("fused", [False, True])
def test_grouped_queries_whose_heads_do_not_divide(heads, kv_heads, mesh, fused):
    for repeat in (False, True):
        agrees(
            Grouped(heads, kv_heads, fused=fused, repeat=repeat), {"x": floats(2, SEQ, WIDTH)}, mesh=mesh, seeds=(0,)
        )


class Biased(nn.Module):
    """Scores with a bias per head: learnt for every distance (T5), or a slope (alibi)."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.distances = nn.Embedding(2 * SEQ, HEADS)
        self.register_buffer("slopes", 2.0 ** -torch.arange(1, HEADS + 1))

    def forward(self, x):
        position = torch.arange(x.shape[1])
        distance = position[None] - position[:, None]
        if self.kind == "relative":
            bias = self.distances(distance + SEQ).permute(2, 0, 1)[None]
        else:
            bias = self.slopes[:, None, None] * distance
        q, k, v = (part.unflatten(-1, (HEADS, HEAD)) for part in self.qkv(x).chunk(3, dim=-1))
        return self.out(attend(q, k, v, attn_mask=bias.to(x.dtype)))


@pytest.mark.parametrize("kind", ["relative", "alibi"])
def test_biases_are_split_by_head(kind):
    agrees(Biased(kind), {"x": floats(2, SEQ, WIDTH)}, min_split=0.95)


class Masked(nn.Module):
    """Every form of a mask as a tensor, in one operator or by hand."""

    def __init__(self, by_hand):
        super().__init__()
        self.by_hand = by_hand
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("causal", torch.ones(SEQ, SEQ, dtype=torch.bool).tril())

    def forward(self, x, padding):
        q, k, v = (part.unflatten(-1, (HEADS, HEAD)) for part in self.qkv(x).chunk(3, dim=-1))
        mask = self.causal & padding.bool()[:, None, None, :]
        if not self.by_hand:
            return self.out(attend(q, k, v, attn_mask=mask))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / HEAD**0.5
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        scores = scores + torch.zeros_like(scores).masked_fill(padding[:, None, None, :] == 0, -1e9)
        return self.out(torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2))


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("mesh", ["tp=2", "dp=2"])
def test_masks_as_tensors(by_hand, mesh):
    padding = torch.tensor([[1] * SEQ, [1, 1, 1, 0, 0]])
    agrees(Masked(by_hand), {"x": floats(2, SEQ, WIDTH), "padding": padding}, mesh=mesh, seeds=(0,))


class Rotary(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        angles = torch.outer(torch.arange(SEQ).double(), 10.0 ** -torch.arange(HEAD // 2).double())
        self.register_buffer("angles", angles, persistent=False)

    def rotate(self, x):
        angles = self.angles[None, :, None, :]
        if self.kind == "halves":
            a, b = x.chunk(2, dim=-1)
            angles = torch.cat([angles, angles], dim=-1)
            return x * angles.cos() + torch.cat([-b, a], dim=-1) * angles.sin()
        if self.kind == "interleaved":
            a, b = x[..., ::2], x[..., 1::2]
            turned = torch.stack([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], dim=-1)
            return turned.flatten(-2)
        turns = torch.polar(torch.ones_like(angles), angles)
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turns).flatten(-2)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (HEADS, HEAD)) for part in self.qkv(x).chunk(3, dim=-1))
        return self.out(attend(self.rotate(q), self.rotate(k), v, is_causal=True))


@pytest.mark.parametrize("kind", ["halves", "interleaved", "complex"])
def test_rotary_tables(kind):
    agrees(Rotary(kind), {"x": floats(2, SEQ, WIDTH)}, min_split=0.95)


def test_hugging_face_models_keep_causal_and_grouped_attention_as_attributes():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=1, num_attention_heads=HEADS,
        num_key_value_heads=3, max_position_embeddings=16,
    )  # fmt: skip
    ids = integers(32, 2, SEQ)
    captured = agrees(transformers.LlamaForCausalLM(config), {"input_ids": ids, "labels": ids}, seeds=())
    (attention,) = (node for node in captured.graph if node.short_op == "scaled_dot_product_attention")
    assert attention.argument("is_causal") and attention.argument("enable_gqa")
    assert attention.argument("attn_mask") is None
