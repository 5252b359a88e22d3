"""Samples of every registered operator, with the arguments that change its rule."""

from typing import Any

import torch
from torch import Tensor

from autotp.check.sample import Sample

torch.manual_seed(1)


def op(name: str, *args: Any, **kwargs: Any) -> Sample:
    """A sample of an operator with these arguments; those of Sample by their names."""
    about = {key: kwargs.pop(key) for key in ("tiles", "mutated", "constant", "min_cuts") if key in kwargs}
    name = name if "." in name else f"{name}.default"
    return Sample(f"aten.{name}", args, kwargs, **about)


def draw(name: str, *args: Any, **kwargs: Any) -> Sample:
    """A sample of an operator whose values are drawn, or not defined."""
    name = name if "." in name else f"{name}.default"
    return Sample(f"aten.{name}", args, kwargs, shapes_only=True)


def f(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def positive(*shape: int) -> Tensor:
    return f(*shape).abs() + 0.5


def distinct(*shape: int) -> Tensor:
    """No two equal, so that order is defined."""
    n = torch.Size(shape).numel()
    return (torch.randperm(n).to(torch.float64) - n / 2).view(shape) / 3


def ints(high: int, *shape: int) -> Tensor:
    return torch.randint(0, high, shape)


def mask(*shape: int) -> Tensor:
    return torch.rand(shape) < 0.6


def causal_bias(*shape: int) -> Tensor:
    """A mask of zeros and -inf with every row open somewhere, plus random biases."""
    bias = f(*shape).masked_fill(torch.rand(shape) < 0.3, -torch.inf)
    bias[..., 0] = 0.3
    return bias


def some_targets(high: int, *shape: int) -> Tensor:
    """Class indices, some of them ignored."""
    target = ints(high, *shape)
    target.view(-1)[::3] = -100
    return target


MATMUL = [
    op("linear", f(2, 3, 4), f(5, 4), f(5), min_cuts=4),
    op("linear", f(2, 3, 4), f(5, 4), min_cuts=4),
    op("linear", f(3, 4), f(5, 4), f(5)),
    op("linear", f(4), f(5, 4), f(5)),
    op("linear", f(3, 4), f(1, 4), f(1)),
    op("linear", f(3, 1), f(5, 1)),
    op("matmul", f(2, 3, 4), f(4, 5), min_cuts=4),
    op("matmul", f(2, 3, 4, 5), f(2, 3, 5, 6), min_cuts=5),
    op("matmul", f(2, 1, 4, 5), f(3, 5, 6), min_cuts=5),
    op("matmul", f(4), f(4)),
    op("matmul", f(3, 4), f(4), min_cuts=2),
    op("matmul", f(4), f(2, 4, 3), min_cuts=3),
    op("matmul", f(2, 3, 4), f(4), min_cuts=3),
    op("bmm", f(2, 3, 4), f(2, 4, 5), min_cuts=4),
    op("mm", f(3, 4), f(4, 5), min_cuts=3),
    op("mv", f(3, 4), f(4), min_cuts=2),
    op("dot", f(4), f(4)),
    op("outer", f(3), f(4), min_cuts=2),
    op("ger", f(3), f(4), min_cuts=2),
    op("addmm", f(5), f(3, 4), f(4, 5), min_cuts=3),
    op("addmm", f(3, 5), f(3, 4), f(4, 5), beta=0.5, alpha=2.0, min_cuts=3),
    op("addmm", f(3, 1), f(3, 4), f(4, 5), min_cuts=3),
    op("baddbmm", f(2, 3, 5), f(2, 3, 4), f(2, 4, 5), beta=0.5, alpha=2.0, min_cuts=4),
    op("baddbmm", f(2, 1, 5), f(2, 3, 4), f(2, 4, 5), min_cuts=4),
    op("einsum", "bqhd,bkhd->bhqk", (f(2, 3, 4, 5), f(2, 6, 4, 5)), min_cuts=5),
    op("einsum", "bqd,bkd,bk->bq", (f(2, 3, 5), f(2, 6, 5), f(2, 6)), min_cuts=4),
    op("einsum", "...ij,jk->...ik", (f(2, 3, 4), f(4, 5)), min_cuts=4),
    op("einsum", "ij,jk", (f(3, 4), f(4, 5)), min_cuts=3),
    op("einsum", "ii->i", (f(3, 3),), min_cuts=0),
    op("einsum", "ij->i", (f(3, 4),), min_cuts=2),
    op("einsum", "bij,bjk->bik", (f(1, 3, 4), f(2, 4, 5)), min_cuts=4),
]

POINTWISE = [
    op("add.Tensor", f(2, 3, 4), f(3, 1), min_cuts=3),
    op("add.Tensor", f(2, 3), f(2, 3), alpha=0.5),
    op("add.Tensor", f(2, 3), 1.5),
    op("add.Scalar", f(2, 3), 1.5),
    op("sub.Tensor", f(2, 3), f(3)),
    op("mul.Tensor", f(2, 3), f(3)),
    op("mul.Tensor", f(2, 3), 2.0),
    op("mul.Scalar", f(2, 3), 2.0),
    op("mul.Tensor", ints(5, 2, 3), ints(5, 2, 3)),
    op("multiply.Tensor", f(2, 3), f(3)),
    op("div.Tensor", f(2, 3), positive(3)),
    op("div.Tensor_mode", f(2, 3), positive(3), rounding_mode="floor"),
    op("div.Tensor", ints(9, 2, 3), ints(5, 2, 3) + 1),
    op("divide.Tensor", f(2, 3), positive(3)),
    op("true_divide.Tensor", f(2, 3), positive(3)),
    op("where.self", mask(2, 3), f(2, 3), f(3)),
    op("where.ScalarOther", mask(2, 3), f(2, 3), 0.0),
    op("where.ScalarOther", mask(2, 3), f(2, 3), -1.0),
    op("where.ScalarSelf", mask(2, 1), 2.0, f(2, 3)),
    op("masked_fill.Scalar", f(2, 3), mask(2, 1), 0),
    op("masked_fill.Scalar", f(2, 3), mask(2, 1), -2.5),
    op("masked_fill.Tensor", f(2, 3), mask(2, 3), torch.tensor(1.5, dtype=torch.float64)),
    op("lerp.Scalar", f(2, 3), f(2, 3), 0.3),
    op("lerp.Tensor", f(2, 3), f(2, 3), f(3)),
    op("addcmul", f(2, 3), f(3), f(2, 3), value=0.5),
    op("addcdiv", f(2, 3), f(3), positive(2, 3), value=0.5),
    op("dropout", f(2, 3), 0.0, True),
    op("dropout", f(2, 3), 0.3, False),
    draw("dropout", torch.ones(8, 12), 0.5, True),
    draw("bernoulli", torch.full((8, 12), 0.5)),
    draw("rand_like", f(8, 12)),
    draw("randn_like", f(2, 3)),
    draw("randint_like", f(2, 3), 5),
    op("copy", f(2, 3), f(3), constant=(0, 1)),
    op("neg", f(2, 3), min_cuts=2),
    op("negative", f(2, 3)),
    op("clone", f(2, 3)),
    op("contiguous", f(2, 3)),
    op("alias", f(2, 3)),
    op("detach", f(2, 3)),
    op("lift_fresh_copy", f(2, 3)),
    op("to.dtype", f(2, 3).float(), torch.float64),
    op("to.dtype", ints(5, 2, 3), torch.float64),
    op("to.dtype", f(2, 3), torch.int64),
    op("_to_copy", f(2, 3).float(), dtype=torch.float64),
    op("type_as", f(2, 3).float(), f(2, 3)),
    op("type_as", f(2, 3).float(), f(1)),
    op("zeros_like", f(2, 3)),
    op("ones_like", f(2, 3)),
    draw("empty_like", f(2, 3)),
    op("full_like", f(2, 3), 2.5),
    op("bitwise_not", mask(2, 3)),
    op("floor_divide", ints(9, 2, 3), ints(3, 3) + 1),
    op("__and__.Tensor", mask(2, 3), mask(3)),
    op("__or__.Tensor", mask(2, 3), mask(3)),
    op("__xor__.Tensor", mask(2, 3), mask(3)),
    op("fill.Scalar", f(2, 3), 0.5),
    op("relu", f(2, 3)),
    op("gelu", f(2, 3), approximate="tanh"),
    op("silu", f(2, 3)),
    op("tanh", f(2, 3)),
    op("sigmoid", f(2, 3)),
    op("rsqrt", positive(2, 3)),
    op("sqrt", positive(2, 3)),
    op("exp", f(2, 3)),
    op("log", positive(2, 3)),
    op("softplus", f(2, 3)),
    op("pow.Tensor_Scalar", f(2, 3), 2),
    op("pow.Tensor_Tensor", positive(2, 3), f(3)),
    op("clamp", f(2, 3), -0.5, 0.5),
    op("clamp.Tensor", f(2, 3), f(3), f(3) + 3),
    op("maximum", f(2, 3), f(3)),
    op("max.other", f(2, 3), f(3)),
    op("min.other", f(2, 3), f(3)),
    op("le.Tensor", f(2, 3), f(3)),
    op("ge.Scalar", f(2, 3), 0.1),
    op("eq.Tensor", ints(2, 2, 3), ints(2, 3)),
    op("ne.Scalar", ints(2, 2, 3), 1),
    op("logical_not", mask(2, 3)),
    op("isnan", f(2, 3)),
]

VIEWS = [
    op("view", f(2, 3, 8), (2, 3, 2, 4), min_cuts=4),
    op("view", f(2, 3, 2, 4), (6, 8), min_cuts=4),
    op("view", f(4, 6), (8, 3)),
    op("view", f(2, 3, 5), (3, 2, 5)),
    op("view", f(2, 1, 6), (1, 2, -1, 3), min_cuts=3),
    op("reshape", f(4, 3).t(), (3, 2, 2), min_cuts=3),
    op("reshape", f(2, 0, 3), (0, 3), min_cuts=0),
    op("reshape", f(6), (6, 1)),
    op("_unsafe_view", f(2, 3, 8), (6, 8), min_cuts=3),
    op("view_as", f(6, 4), f(2, 3, 4), min_cuts=3),
    op("reshape_as", f(6, 4), f(2, 3, 4), min_cuts=3),
    op("flatten.using_ints", f(2, 3, 4), 1, 2, min_cuts=3),
    op("unflatten.int", f(2, 12, 3), 1, (3, 4), min_cuts=4),
    op("unflatten.int", f(2, 12), -1, (3, -1), min_cuts=3),
    op("squeeze", f(2, 1, 3)),
    op("squeeze.dim", f(2, 1, 3), 1),
    op("squeeze.dim", f(2, 1, 3), 2),
    op("squeeze.dims", f(2, 1, 3, 1), (1, 3)),
    op("unsqueeze", f(2, 3), 1),
    op("ravel", f(2, 3), min_cuts=2),
    op("expand", f(1, 3, 1), (2, 3, 4), min_cuts=3),
    op("expand", f(3), (2, -1), min_cuts=2),
    op("expand_as", f(3, 1), f(2, 3, 4), min_cuts=3),
    op("broadcast_to", f(3, 1), (2, 3, 4), min_cuts=3),
    op("transpose.int", f(2, 3, 4), 0, -1, min_cuts=3),
    op("swapaxes", f(2, 3, 4), 0, -1, min_cuts=3),
    op("swapdims", f(2, 3, 4), 0, 1, min_cuts=3),
    op("t", f(2, 3), min_cuts=2),
    op("t", f(3)),
    op("numpy_T", f(2, 3, 4), min_cuts=3),
    op("mT", f(2, 3, 4), min_cuts=3),
    op("adjoint", f(2, 3, 4), min_cuts=3),
    op("permute", f(2, 3, 4), (2, 0, -2), min_cuts=3),
    op("movedim.int", f(2, 3, 4), 0, 2, min_cuts=3),
    op("movedim.intlist", f(2, 3, 4), (0, 1), (2, 0), min_cuts=3),
    op("moveaxis.int", f(2, 3, 4), 0, 2, min_cuts=3),
    op("split.Tensor", f(2, 6), 2, -1, min_cuts=2),
    op("split.Tensor", f(2, 7), 4, 1, min_cuts=2),
    op("split.Tensor", f(2, 7), 3, 1),
    op("split.sizes", f(2, 7), (4, 3), 1, min_cuts=2),
    op("split_with_sizes", f(2, 9), (4, 2, 3), -1, min_cuts=2),
    op("split_with_sizes", f(9, 2), (3, 3, 3), min_cuts=2),
    op("chunk", f(2, 12), 3, -1, min_cuts=2),
    op("chunk", f(2, 1), 1, -1),
    op("chunk", f(7, 2), 3, min_cuts=1),
    op("chunk", f(8, 2), 3, min_cuts=2),
    op("tensor_split.sections", f(6, 2), 3, min_cuts=2),
    op("cat", (f(2, 3), f(2, 3)), 1, min_cuts=2),
    op("cat", (f(2, 3), f(2, 4)), -1, min_cuts=2),
    op("cat", (f(2, 3), f(2, 1)), -1),
    op("cat", (f(2, 3, 4), f(0)), 1, min_cuts=0),
    op("concat", (f(2, 3), f(4, 3))),
    op("concatenate", (f(2, 3), f(4, 3))),
    op("unbind.int", f(2, 3, 4), 1, min_cuts=2),
    op("stack", (f(2, 3), f(2, 3)), -1, min_cuts=2),
    op("slice.Tensor", f(2, 6), 1, 0, 3, tiles=(0, 3, 6), min_cuts=2),
    op("slice.Tensor", f(2, 6), -1, -3, 2**63 - 1, tiles=(0, 3, 6), min_cuts=2),
    op("slice.Tensor", f(9, 2), 0, 4, 6, tiles=(0, 4, 6, 9), min_cuts=2),
    op("slice.Tensor", f(2, 6), 1, 0, 5, tiles=(0, 5, 6)),
    op("slice.Tensor", f(2, 6), 1, 1, 4),
    op("slice.Tensor", f(2, 6), 1, 0, 6, 2),
    op("slice.Tensor", f(3, 6), 0, 0, 2**63 - 1, min_cuts=2),
    op("slice.Tensor", f(3, 6), 1, 5, 6),
    op("narrow", f(2, 6), 1, 3, 3, tiles=(0, 3, 6), min_cuts=2),
    op("narrow", f(2, 6), 1, 1, 3),
    op("select.int", f(2, 3, 4), 1, -1, min_cuts=2),
    op("slice_scatter", f(2, 6), f(2, 3), 1, 1, 4),
    op("select_scatter", f(2, 6), f(2), 1, -1),
    op("pad", f(2, 3, 4), (1, 2), min_cuts=2),
    op("pad", f(2, 3, 4), (0, 0, -1, 2), min_cuts=2),
    op("pad", f(2, 3, 4), (1, 2), "constant", 1.5, min_cuts=2),
    op("pad", f(2, 3, 4), (1, 2), "reflect", min_cuts=2),
    op("constant_pad_nd", f(2, 3, 4), (1, 2), min_cuts=2),
    op("roll", f(2, 3, 4), (1, 2), (1, 2)),
    op("roll", f(2, 3), (1,), min_cuts=0),
    op("flip", f(2, 3, 4), (1,), min_cuts=2),
    op("tril", f(2, 3, 4), 1),
    op("triu", f(2, 3, 4)),
    op("repeat", f(2, 3), (2, 1, 4), min_cuts=4),
    op("tile", f(2, 3), (2,), min_cuts=3),
    op("repeat_interleave.self_int", f(2, 3), 2, 1, min_cuts=3),
    op("repeat_interleave.self_int", f(2, 3), 2, 0, output_size=4, min_cuts=3),
    op("repeat_interleave.self_int", f(2, 3), 2, min_cuts=0),
    op("repeat_interleave.self_Tensor", f(2, 3), torch.tensor([1, 2]), 0, min_cuts=0),
]

REDUCTIONS = [
    op("sum.dim_IntList", f(2, 3, 4), (1,), min_cuts=3),
    op("sum.dim_IntList", f(2, 3, 4), (0, -1), True, min_cuts=3),
    op("sum.dim_IntList", f(2, 3), None, min_cuts=2),
    op("sum", f(2, 3), min_cuts=2),
    op("sum", ints(5, 2, 3), min_cuts=2),
    op("sum", mask(2, 3), min_cuts=2),
    op("mean.dim", f(2, 3, 4), (1,), min_cuts=3),
    op("mean.dim", f(2, 3, 4), (-1, 1), True, min_cuts=3),
    op("mean.dim", f(2, 3), None, dtype=torch.float64, min_cuts=2),
    op("mean", f(2, 3), min_cuts=2),
    op("aminmax", distinct(2, 3, 4), dim=1, min_cuts=2),
    op("prod.dim_int", f(2, 3, 4), 1, min_cuts=2),
    op("prod", f(2, 3), min_cuts=0),
    op("nansum", f(2, 3, 4), (1,), min_cuts=2),
    op("nanmean", f(2, 3, 4), (1,), min_cuts=2),
    op("median.dim", distinct(2, 3, 4), 1, min_cuts=2),
    op("count_nonzero.dim_IntList", ints(2, 2, 3, 4), (1,), min_cuts=2),
    op("cumsum", f(2, 3, 4), 1, min_cuts=2),
    op("diff", f(2, 3, 4), 1, -1, min_cuts=2),
    op("diff", f(2, 3, 4), 1, 1, f(2, 1, 4), min_cuts=2),
    op("sort", distinct(2, 3, 4), 1, min_cuts=2),
    op("sort.stable", distinct(2, 3, 4), stable=True, dim=0, descending=True, min_cuts=2),
    op("argsort", distinct(2, 3, 4), min_cuts=2),
    op("topk", distinct(2, 3, 4), 2, min_cuts=2),
    op("topk", distinct(2, 3, 4), 4, -1, min_cuts=2),
    op("cumprod", f(2, 3, 4), 1, min_cuts=2),
    op("cummax", distinct(2, 3, 4), 1, min_cuts=2),
    op("cummin", distinct(2, 3, 4), 1, min_cuts=2),
    op("logcumsumexp", f(2, 3, 4), 1, min_cuts=2),
]

NORMALISATION = [
    op("softmax.int", f(2, 3, 4), -1, min_cuts=2),
    op("softmax.int", f(2, 3, 4), 1, min_cuts=2),
    op("log_softmax.int", f(2, 3, 4), -1, min_cuts=2),
    op("_softmax", f(2, 3, 4), -1, False, min_cuts=2),
    op("_log_softmax", f(2, 3, 4), -1, False, min_cuts=2),
    op("layer_norm", f(2, 3, 4), (4,), f(4), f(4), min_cuts=2),
    op("layer_norm", f(2, 3, 4), (3, 4), None, None),
    op("rms_norm", f(2, 3, 4), (4,), f(4), 1e-5, min_cuts=2),
    op("group_norm", f(2, 6, 3), 3, f(6), f(6), min_cuts=2),
    op("group_norm", f(2, 6, 3, 2), 1),
    op("batch_norm", f(4, 3, 5), f(3), f(3), f(3), positive(3), True, 0.1, 1e-5, False, min_cuts=3, mutated=(3, 4)),
    op("batch_norm", f(4, 3), None, None, None, None, True, 0.1, 1e-5, False, min_cuts=2),
    op("batch_norm", f(4, 3, 2, 2), f(3), f(3), f(3), positive(3), False, 0.1, 1e-5, False, min_cuts=4, mutated=(3, 4)),
]

ATTENTION = [
    op("scaled_dot_product_attention", f(2, 3, 4, 5), f(2, 3, 6, 5), f(2, 3, 6, 7), causal_bias(4, 6), min_cuts=4),
    op(
        "scaled_dot_product_attention", f(2, 3, 4, 5), f(2, 3, 6, 5), f(2, 3, 6, 5), causal_bias(2, 1, 4, 6), min_cuts=4
    ),
    op(
        "scaled_dot_product_attention", f(2, 3, 4, 5), f(2, 3, 6, 5), f(2, 3, 6, 5), causal_bias(2, 3, 1, 6), min_cuts=4
    ),
    op(
        "scaled_dot_product_attention",
        f(2, 3, 4, 5),
        f(2, 3, 4, 5),
        f(2, 3, 4, 5),
        is_causal=True,
        scale=0.3,
        min_cuts=3,
    ),
    op(
        "scaled_dot_product_attention",
        f(2, 6, 4, 5),
        f(2, 3, 4, 5),
        f(2, 3, 4, 5),
        is_causal=True,
        enable_gqa=True,
        min_cuts=4,
    ),
    op(
        "scaled_dot_product_attention",
        f(2, 6, 4, 5),
        f(2, 3, 4, 5),
        f(2, 3, 4, 5),
        causal_bias(2, 6, 4, 4),
        enable_gqa=True,
        min_cuts=5,
    ),
    op("scaled_dot_product_attention", f(2, 6, 4, 5), f(2, 1, 4, 5), f(2, 1, 4, 5), enable_gqa=True, min_cuts=4),
    op("scaled_dot_product_attention", f(3, 4, 5), f(3, 6, 5), f(3, 6, 5), min_cuts=3),
    op("scaled_dot_product_attention", f(4, 5), f(6, 5), f(6, 5), min_cuts=2),
    draw("scaled_dot_product_attention", *[torch.ones(2, 4, 6, 5)] * 3, None, 0.5),
]

CONVOLUTION = [
    op("conv1d", f(2, 3, 7), f(4, 3, 3), f(4), min_cuts=3),
    op("conv2d", f(2, 3, 5, 5), f(4, 3, 3, 3), f(4), (2, 2), (1, 1), min_cuts=3),
    op("conv2d", f(2, 4, 5, 5), f(6, 2, 3, 3), f(6), (1, 1), (1, 1), (1, 1), 2, min_cuts=4),
    op("conv2d", f(2, 4, 5, 5), f(4, 1, 3, 3), None, (1, 1), (1, 1), (1, 1), 4, min_cuts=2),
    op("conv2d", f(3, 5, 5), f(4, 3, 3, 3), f(4), min_cuts=2),
    op("conv2d.padding", f(2, 3, 5, 5), f(4, 3, 3, 3), f(4), (1, 1), "same", min_cuts=3),
    op("conv3d", f(2, 3, 4, 4, 4), f(2, 3, 2, 2, 2), f(2), min_cuts=3),
    op("conv_transpose1d", f(2, 3, 5), f(3, 4, 3), f(4), min_cuts=3),
    op("conv_transpose2d.input", f(2, 4, 3, 3), f(4, 3, 2, 2), f(6), (2, 2), (0, 0), (0, 0), 2, min_cuts=4),
    op("conv_transpose3d.input", f(2, 3, 3, 3, 3), f(3, 2, 2, 2, 2), f(2), min_cuts=3),
    *(op(f"{kind}_pool1d", distinct(2, 3, 6), (2,), min_cuts=2) for kind in ("max", "avg")),
    *(op(f"{kind}_pool2d", distinct(2, 3, 6, 6), (3, 3), (2, 2), (1, 1), min_cuts=2) for kind in ("max", "avg")),
    *(op(f"{kind}_pool3d", distinct(2, 3, 4, 4, 4), (2, 2, 2), min_cuts=2) for kind in ("max", "avg")),
    op("avg_pool2d", f(3, 6, 6), (2, 2)),
    op("max_pool1d_with_indices", distinct(2, 3, 6), (2,), min_cuts=2),
    op("max_pool2d_with_indices", distinct(2, 3, 6, 6), (2, 2), min_cuts=2),
    op("max_pool3d_with_indices", distinct(2, 3, 4, 4, 4), (2, 2, 2), min_cuts=2),
    op("adaptive_avg_pool1d", f(2, 3, 6), (2,), min_cuts=2),
    op("adaptive_avg_pool2d", f(2, 3, 6, 5), (1, 1), min_cuts=2),
    op("adaptive_avg_pool2d", f(2, 3, 6, 6), (2, 3), min_cuts=2),
    op("adaptive_avg_pool3d", f(2, 3, 4, 4, 4), (2, 2, 2), min_cuts=2),
    op("adaptive_max_pool1d", distinct(2, 3, 6), (2,), min_cuts=2),
    op("adaptive_max_pool2d", distinct(2, 3, 6, 6), (2, 2), min_cuts=2),
    op("adaptive_max_pool3d", distinct(2, 3, 4, 4, 4), (2, 2, 2), min_cuts=2),
    op("upsample_nearest1d", f(2, 3, 4), (8,), min_cuts=2),
    op("upsample_nearest2d", f(2, 3, 4, 4), (8, 8), min_cuts=2),
    op("upsample_linear1d", f(2, 3, 4), (8,), False, min_cuts=2),
    op("upsample_bilinear2d", f(2, 3, 4, 4), (8, 8), False, min_cuts=2),
]

INDEXING = [
    op("embedding", f(7, 4), ints(7, 2, 3), min_cuts=4),
    op("embedding", f(7, 4), (torch.arange(8) % 7).view(2, 4), 5, min_cuts=4),
    op("embedding", f(7, 4), ints(7, 5), 2, True),
    op("index_select", f(2, 5, 4), 1, ints(5, 3), min_cuts=3),
    op("gather", f(2, 5, 4), 1, ints(5, 2, 3, 4), min_cuts=3),
    op("gather", f(3, 5, 4), 1, ints(5, 2, 3, 4), min_cuts=2),
    op("scatter.src", f(2, 5, 4), 1, torch.rand(2, 5, 4).argsort(1)[:, :3], f(2, 3, 4), min_cuts=2),
    op("scatter.src", ints(9, 2, 5, 4), 1, torch.rand(2, 5, 4).argsort(1)[:, :2], ints(9, 2, 3, 4), min_cuts=2),
    op("scatter.value", f(2, 5, 4), 1, ints(5, 2, 3, 4), 0.0, min_cuts=2),
    op("scatter.value", f(2, 5, 4), 1, ints(5, 2, 3, 4), 2.0, min_cuts=2),
    op("scatter.src", f(3, 5, 4), 1, torch.rand(2, 5, 4).argsort(1)[:, :3], f(2, 3, 4)),
    op("scatter_add", f(2, 5, 4), 1, ints(5, 2, 3, 4), f(2, 3, 4), min_cuts=2),
    op("index_add", f(2, 5, 4), 1, ints(5, 3), f(2, 3, 4), alpha=0.5, min_cuts=3),
    op("index_copy", f(2, 5, 4), 1, torch.tensor([4, 0, 2]), f(2, 3, 4), min_cuts=2),
    op("index.Tensor", f(4, 5, 3), [ints(4, 2, 3)], min_cuts=4),
    op("index.Tensor", f(4, 5, 3), [None, ints(5, 2, 3)], min_cuts=4),
    op("index.Tensor", f(4, 5, 3), [ints(4, 2, 1), ints(5, 3)], min_cuts=3),
    op("index.Tensor", f(4, 5, 3), [ints(4, 2), None, ints(3, 2)], min_cuts=2),
    op("index.Tensor", f(4, 5, 3), [mask(4)], min_cuts=0),
    op("index_put", f(4, 5), [ints(4, 2)], f(2, 5), True, min_cuts=0),
    op("histc", f(7), 4, min_cuts=0),
    op("one_hot", ints(5, 2, 3), 6, min_cuts=2),
]

LOSSES = [
    *(
        op("cross_entropy_loss", f(6, 5), some_targets(5, 6), None, reduction, -100, smoothing, min_cuts=2)
        for reduction in (0, 1, 2)
        for smoothing in (0.0, 0.3)
    ),
    op("cross_entropy_loss", f(6, 5), ints(5, 6), None, 1, 2, min_cuts=2),
    op("cross_entropy_loss", f(2, 5, 3), some_targets(5, 2, 3), None, 1, min_cuts=3),
    op("cross_entropy_loss", f(2, 5, 3), some_targets(5, 2, 3), None, 0, -100, 0.1, min_cuts=3),
    op("cross_entropy_loss", f(5), torch.tensor(3)),
    op("cross_entropy_loss", f(6, 5), some_targets(5, 6), positive(5), 1, constant=(2,)),
    op("cross_entropy_loss", f(6, 5), some_targets(5, 6), positive(5), 2, -100, 0.2, constant=(2,)),
    op("cross_entropy_loss", f(6, 5), some_targets(5, 6), positive(5), 1, -100, 0.2, constant=(2,)),
    op("cross_entropy_loss", f(6, 5), positive(6, 5), None, 1),
    op("cross_entropy_loss", f(2, 5, 3), positive(2, 5, 3), None, 0, min_cuts=2),
    *(op("nll_loss", f(6, 5), some_targets(5, 6), None, reduction) for reduction in (0, 1, 2)),
    op("nll_loss_nd", f(2, 5, 3), some_targets(5, 2, 3), positive(5), 1, min_cuts=2, constant=(2,)),
    *(op("mse_loss", f(2, 3), f(2, 3), reduction, min_cuts=2) for reduction in (0, 1, 2)),
    op("l1_loss", f(2, 3), f(2, 3)),
    op("smooth_l1_loss", f(2, 3), f(2, 3), 1, 0.7),
    op("huber_loss", f(2, 3), f(2, 3), 1, 0.7),
    op("kl_div", f(2, 3), positive(2, 3), 1),
    op("binary_cross_entropy", f(2, 3).sigmoid(), f(2, 3).sigmoid()),
    op("binary_cross_entropy_with_logits", f(2, 3), f(2, 3).sigmoid(), positive(3), positive(3), constant=(2, 3)),
    op("soft_margin_loss", f(2, 3), f(2, 3).sign(), constant=(1,)),
]

CREATION = [
    op("zeros", (2, 3), min_cuts=2),
    op("ones", (2, 3), min_cuts=2),
    op("full", (2, 3), 1.5, min_cuts=2),
    draw("empty.memory_format", (2, 3)),
    op("new_zeros", f(4), (2, 3), min_cuts=2),
    op("new_ones", f(2, 3), (2, 3), min_cuts=2),
    op("new_full", f(4), (2, 3), 0.5, min_cuts=2),
    draw("new_empty", f(4), (2, 3)),
    draw("rand", (2, 3)),
    draw("randn", (2, 3)),
    draw("randint", 5, (2, 3)),
    op("arange", 5, min_cuts=0),
    op("arange.start_step", 1, 9, 2, min_cuts=0),
    op("linspace", 0.0, 1.0, 5, min_cuts=0),
    op("eye", 3, min_cuts=0),
    op("scalar_tensor", 1.5, min_cuts=0),
    op("tril_indices", 3, 3, min_cuts=0),
    op("triu_indices", 3, 3, min_cuts=0),
]

SAMPLES = [
    *MATMUL, *POINTWISE, *VIEWS, *REDUCTIONS, *NORMALISATION, *ATTENTION, *CONVOLUTION, *INDEXING, *LOSSES, *CREATION
]  # fmt: skip
