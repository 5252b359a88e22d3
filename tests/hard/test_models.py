"""What models do besides attention: shared weights, experts, buffers, odd inputs and outputs, odd shapes and dtypes."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from hard import agrees, floats, integers
from torch import nn
from torch.nn import functional as F

from autotp.errors import CaptureError
from autotp.verification import verify

WIDTH = 12


class Tied(nn.Module):
    """One table for the words of an encoder, of a decoder, and for the scores of words."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Embedding(20, WIDTH), nn.Embedding(20, WIDTH)
        self.decoder.weight = self.encoder.weight
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 20, bias=False)
        self.head.weight = self.encoder.weight

    def forward(self, source, target):
        y = self.mix(self.encoder(source).mean(1, keepdim=True) + self.decoder(target[:, :-1]))
        return F.cross_entropy(self.head(y).flatten(0, 1), target[:, 1:].flatten())


def test_tied_weights():
    captured = agrees(Tied(), {"source": integers(20, 2, 4), "target": integers(20, 2, 5, seed=1)}, min_split=0.95)
    (names,) = (names for names in captured.tied.values() if len(names) > 1)
    assert set(names) == {"encoder.weight", "decoder.weight", "head.weight"}


class UsedTwice(nn.Module):
    """A weight and its transpose, a layer run three times."""

    def __init__(self):
        super().__init__()
        self.weight, self.layer = nn.Parameter(floats(WIDTH, 8)), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        for _ in range(3):
            x = torch.tanh(self.layer(x)) + torch.relu(x @ self.weight) @ self.weight.T
        return x, self.weight.square().sum()


def test_parameters_used_twice():
    agrees(UsedTwice(), {"x": floats(4, WIDTH)}, min_split=0.95)


class GateUp(nn.Module):
    """Gate and up projection in one matrix, as halves or interleaved."""

    def __init__(self, interleaved):
        super().__init__()
        self.interleaved = interleaved
        self.up, self.down = nn.Linear(WIDTH, 32), nn.Linear(16, WIDTH)

    def forward(self, x):
        y = self.up(x)
        gate, up = (y[..., ::2], y[..., 1::2]) if self.interleaved else y.chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


@pytest.mark.parametrize("interleaved", [False, True])
def test_gates_in_one_matrix(interleaved):
    agrees(GateUp(interleaved), {"x": floats(4, WIDTH)}, min_split=0.95)


class Experts(nn.Module):
    """Tokens go to their best experts through tables of places, every expert with room for so many."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(WIDTH, 4, bias=False)
        self.up, self.down = nn.Parameter(floats(4, WIDTH, 16)), nn.Parameter(floats(4, 16, WIDTH))

    def forward(self, x):
        weight, expert = self.router(x).softmax(-1).topk(2, dim=-1)
        chosen = F.one_hot(expert, 4).to(x.dtype)
        place = ((chosen.flatten(0, 1).cumsum(0) - 1) * chosen.flatten(0, 1)).sum(-1).view_as(expert).long()
        dispatch = torch.einsum("tke,tkc->tec", chosen, F.one_hot(place, 2 * len(x)).to(x.dtype))
        combine = torch.einsum("tke,tkc,tk->tec", chosen, F.one_hot(place, 2 * len(x)).to(x.dtype), weight)
        y = torch.bmm(F.gelu(torch.bmm(torch.einsum("tec,tm->ecm", dispatch, x), self.up)), self.down)
        return torch.einsum("tec,ecm->tm", combine, y)


@pytest.mark.parametrize("mesh", ["tp=2", "tp=3"])
def test_experts_are_split_among_ranks_and_inside(mesh):
    agrees(Experts(), {"x": floats(6, WIDTH)}, mesh=mesh, seeds=(0, 1, 2), min_split=0.95)


class GroupedExperts(nn.Module):
    """Experts by a grouped matmul over tokens sorted by expert."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(16, 4, bias=False)
        self.up, self.down = nn.Parameter(floats(4, 16, 32)), nn.Parameter(floats(4, 32, 16))

    def forward(self, x):
        scores, expert = self.router(x).softmax(-1).max(-1)
        order = expert.argsort(stable=True)
        ends = F.one_hot(expert, 4).sum(0).cumsum(0).to(torch.int32)
        y = F.gelu(F.grouped_mm(x[order], self.up, offs=ends))
        y = F.grouped_mm(y, self.down, offs=ends)
        return torch.zeros_like(x).index_copy(0, order, y) * scores[:, None]


def test_experts_by_a_grouped_matmul_are_split():
    model = GroupedExperts().bfloat16()  # torch captures no other one
    result = verify(model, {"x": floats(8, 16).bfloat16()}, mesh="tp=2")
    assert result["ok"], result["problems"]
    assert result["coverage"]["split_matmul_flops_fraction"] >= 0.95


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize("mesh", ["tp=2", "dp=2", "dp=2,tp=2"])
def test_batch_norm_has_the_statistics_of_the_whole_batch(mesh):
    agrees(Normed(), {"x": floats(6, 3, 5, 5)}, mesh=mesh, seeds=())


class Moving(nn.Module):
    """Buffers that are written to: a mean that moves, a counter, a part of a table."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("seen", torch.zeros(8, WIDTH))

    def forward(self, x):
        y = self.linear(x)
        self.mean.mul_(0.9).add_(y.detach().mean(0), alpha=0.1)
        self.steps += 1
        self.seen[2:6] = y.detach()
        return y - self.mean, self.steps * 2


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_buffers_that_are_updated_in_place(mode):
    agrees(Moving(), {"x": floats(4, WIDTH)}, mode=mode, seeds=())


@dataclass
class Result:
    loss: torch.Tensor
    hidden: tuple[torch.Tensor, ...]
    missing: torch.Tensor | None = None
    size: int = 3


class Pair(NamedTuple):
    first: torch.Tensor
    second: Any


class Returns(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.up, self.down = nn.Linear(WIDTH, 8), nn.Linear(8, WIDTH)

    def forward(self, x):
        a = self.up(x)
        b = self.down(torch.relu(a))
        loss = b.square().mean()
        return {
            "tuple": (a, b),
            "list": [b, [a, None]],
            "dict": {"loss": loss, "other": b.abs().sum(), "nothing": None, "number": 2, "name": "x"},
            "dataclass": Result(loss, (a, b)),
            "named tuple": Pair(b, {"a": a}),
            "nested dataclass": {"inner": Result(loss, (a,))},
            "same twice": (b, b, a),
            "input": (b, x),
        }[self.kind]


@pytest.mark.parametrize(
    "kind", ["tuple", "list", "dict", "dataclass", "named tuple", "nested dataclass", "same twice", "input"]
)
def test_what_models_return(kind):
    agrees(Returns(kind), {"x": floats(4, WIDTH)}, seeds=(0,))


class Takes(nn.Module):
    """None, numbers, strings, lists and dicts of tensors, keywords of any name."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, mask=None, *, scale=1.0, mode="sum", parts=(), table=None, **more):
        y = self.linear(x) * scale
        if mask is not None:
            y = y * mask
        for part in parts:
            y = y + part
        for value in (table or {}).values():
            y = y - value
        return y.sum(0) if mode == "sum" else y * more["power"]


def test_what_models_take():
    x = floats(4, WIDTH)
    agrees(Takes(), {"x": x, "mask": None, "scale": 2}, seeds=(0,))
    agrees(Takes(), {"x": x, "mask": x > 0, "parts": [x, x[:1]], "table": {"a": x, "b": x[:, :1]}}, seeds=(0,))
    agrees(Takes(), {"x": x, "mode": "each", "power": torch.tensor(3.0)}, seeds=(0,))
    agrees(Takes(), (x, None), seeds=(0,))


class Frozen(nn.Module):
    """A frozen layer with an adapter, behind one whose result is cut off from gradients."""

    def __init__(self):
        super().__init__()
        self.first, self.base = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 16)
        self.base.requires_grad_(False)
        self.down, self.up = nn.Linear(WIDTH, 4, bias=False), nn.Linear(4, 16, bias=False)

    def forward(self, x):
        with torch.no_grad():
            x = self.first(x)
        return self.base(x) + 0.5 * self.up(self.down(x))


def test_frozen_parameters_and_adapters():
    agrees(Frozen(), {"x": floats(4, WIDTH)}, min_split=0.95)


class Numbers(nn.Module):
    """Integers, booleans, scalars: parameters and inputs without dims, counts, comparisons, indices."""

    def __init__(self):
        super().__init__()
        self.scale, self.table = nn.Parameter(torch.tensor(0.5)), nn.Parameter(floats(7, WIDTH))
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, ids, temperature):
        y = self.linear(self.table[ids] + x) * self.scale / temperature
        is_large = (y > 0.1) & ~(ids == 2)[..., None]
        count = is_large.sum()
        best = y.argmax(-1)
        any_large = is_large.any(dim=-1)
        return torch.where(is_large, y, y * 0.1), count, best, any_large, (best // 2 + ids % 3).clamp(max=4)


def test_integers_booleans_and_scalars():
    inputs = {"x": floats(4, WIDTH), "ids": integers(7, 4), "temperature": torch.tensor(2.0)}
    agrees(Numbers(), inputs, seeds=(0, 1, 2))


class Empty(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, nothing):
        y = torch.cat([self.linear(x), self.linear(nothing)], dim=0)
        return y, y[:0].sum() + y.sum(), self.linear(nothing)


def test_empty_tensors():
    agrees(Empty(), {"x": floats(4, WIDTH), "nothing": floats(0, WIDTH)}, seeds=(0, 1))


class Ones(nn.Module):
    """Dims of size one everywhere: a sequence of one token, one head, one channel."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 1)
        # a norm of one element divides what rounding leaves by its epsilon: a small one would show nothing but that
        self.conv, self.norm = nn.Conv1d(1, 4, 1), nn.LayerNorm(1, eps=1.0)

    def forward(self, x):
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 1, WIDTH).permute(2, 0, 3, 1, 4)
        y = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.norm(self.conv(y).squeeze(1)[..., None] + 1.0), y


def test_dims_of_size_one():
    agrees(Ones(), {"x": floats(1, 1, WIDTH)}, seeds=(0, 1))


class SeveralLosses(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.words, self.label = nn.Linear(WIDTH, 16), nn.Linear(16, 20), nn.Linear(16, 3)

    def forward(self, x, words, label):
        h = F.gelu(self.body(x))
        first = F.cross_entropy(self.words(h).transpose(1, 2), words, ignore_index=0)
        second = F.cross_entropy(self.label(h.mean(1)), label, label_smoothing=0.1)
        return {"words": first, "label": second, "total": first + 0.3 * second}


def test_several_losses():
    inputs = {"x": floats(4, 5, WIDTH), "words": integers(20, 4, 5), "label": integers(3, 4)}
    agrees(SeveralLosses(), inputs, min_split=0.95)


class Strides(nn.Module):
    """Windows over a sequence by strides."""

    def __init__(self, view):
        super().__init__()
        self.linear, self.view = nn.Linear(WIDTH, WIDTH), view

    def forward(self, x):
        y = self.linear(x)
        y = y.T if self.view else y
        return (
            y.as_strided((len(y) - 1, 2, WIDTH), (WIDTH, WIDTH, 1)) if not self.view else y.as_strided((2, 2), (1, 4))
        )


@pytest.mark.filterwarnings("ignore:no rule for aten.as_strided")
def test_strides_are_those_of_the_whole_tensor():
    agrees(Strides(False), {"x": floats(4, WIDTH)}, seeds=(0, 1, 2))
    with pytest.raises(CaptureError, match="make it contiguous"):
        agrees(Strides(True), {"x": floats(4, WIDTH)})
