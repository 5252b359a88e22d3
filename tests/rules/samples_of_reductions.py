"""Samples of reductions that are combined over the ranks: ties, NaN, zeros, several dims, and every dtype that differs."""

import torch
from rules_samples import distinct, f, ints, mask, op


def tied(*shape: int) -> torch.Tensor:
    """Few values, so that many are equal."""
    return ints(3, *shape).double()


def with_nan(*shape: int) -> torch.Tensor:
    x = distinct(*shape)
    x.view(-1)[4] = torch.nan
    return x


def some_zero_rows() -> torch.Tensor:
    x = f(2, 3, 4)
    x[0, :, 1] = 0.0
    return x


def infinite() -> torch.Tensor:
    x = f(2, 3, 4)
    x[0, :, 1] = -torch.inf
    x[1, 2, 3] = torch.inf
    return x


EXTREMES = [
    op("amax", distinct(2, 3, 4), (1,), min_cuts=3),
    op("amax", tied(2, 5, 4), (1,), min_cuts=3),
    op("amax", tied(4, 5), min_cuts=2),
    op("amin", tied(2, 5, 4), (2, 0), True, min_cuts=3),
    op("amin", distinct(2, 3, 4), (1,), True, min_cuts=3),
    op("amax", ints(9, 4, 5), (0,), min_cuts=2),
    op("amin", ints(9, 4, 5) - 5, (0,), min_cuts=2),
    op("amax", mask(4, 5), (0,), min_cuts=2),
    op("amin", mask(4, 5), (0,), min_cuts=2),
    op("amax", with_nan(4, 5), (0,), min_cuts=2),
    op("max", tied(4, 5), min_cuts=2),
    op("min", tied(4, 5), min_cuts=2),
    op("min", with_nan(4, 5), min_cuts=2),
    op("min", ints(9, 4, 5) - 5, min_cuts=2),
    op("max.dim", distinct(2, 3, 4), 1, min_cuts=3),
    op("max.dim", tied(2, 5, 4), 1, min_cuts=3),
    op("max.dim", with_nan(4, 5), 0, min_cuts=2),
    op("min.dim", tied(2, 5, 4), 1, True, min_cuts=3),
    op("min.dim", ints(3, 4, 5), 0, min_cuts=2),
    op("argmax", tied(2, 5, 4), 1, min_cuts=3),
    op("argmin", tied(2, 5, 4), -1, True, min_cuts=3),
    op("argmax", with_nan(4, 5), 0, min_cuts=2),
    op("argmax", tied(4, 5), min_cuts=0),
    op("any.dim", mask(2, 3, 4), 1, min_cuts=3),
    op("any.dims", mask(2, 3, 4), (0, 2), True, min_cuts=3),
    op("all.dim", mask(2, 3, 4), 1, min_cuts=3),
    op("all", mask(2, 3), min_cuts=2),
    op("all", torch.ones(2, 3, dtype=torch.bool), min_cuts=2),
    op("any", ints(2, 4, 3).to(torch.uint8), min_cuts=2),
    op("any.dim", f(4, 3), 0, min_cuts=2),
]

MOMENTS = [
    op("var.correction", f(2, 3, 4), (1,), correction=1, min_cuts=3),
    op("var.correction", f(2, 3, 4) + 1000, (1, 2), min_cuts=3),
    op("var.dim", f(2, 3, 4), (1,), False, True, min_cuts=3),
    op("var", f(3, 4), min_cuts=2),
    op("std", f(3, 4), False, min_cuts=2),
    op("std.correction", f(2, 3, 4), (1,), correction=0, keepdim=True, min_cuts=3),
    op("std.correction", some_zero_rows(), (1,), correction=0.5, min_cuts=3),
    op("var_mean.correction", f(2, 3, 4), (1,), correction=0, min_cuts=3),
    op("std_mean.correction", f(2, 3, 4), (1,), correction=0, keepdim=True, min_cuts=3),
    op("norm.ScalarOpt_dim", f(2, 3, 4), 2, (1,), min_cuts=3),
    op("norm.ScalarOpt_dim", f(2, 3, 4), 1, (1,), min_cuts=2),
    op("norm.Scalar", f(3, 4), min_cuts=2),
    op("linalg_vector_norm", f(2, 3, 4), 2, (1,), min_cuts=3),
    op("linalg_vector_norm", some_zero_rows(), 2, (1,), True, min_cuts=3),
    op("linalg_vector_norm", f(2, 3, 4), 3, (1,), min_cuts=2),
    op("logsumexp", f(2, 3, 4), (1,), min_cuts=3),
    op("logsumexp", 1000 * f(2, 3, 4), (2, 0), True, min_cuts=3),
    op("logsumexp", infinite(), (1,), min_cuts=3),
]

OTHERS = [
    op("type_as", f(4, 3).float(), f(2, 5), min_cuts=2),
    op("type_as", f(4, 3).float(), f(4, 1), min_cuts=2),
]

INDEXING = [
    op("_unsafe_masked_index", f(4, 5, 3), mask(2, 3, 5, 3), [ints(4, 2, 3)], 0, min_cuts=4),
    op("_unsafe_masked_index", f(4, 5, 3), mask(2, 1), [None, ints(5, 2)], 1.5, min_cuts=2),
    op("_unsafe_masked_index", f(4, 5), mask(2, 3), [ints(4, 2, 3), ints(5, 3)], 0, min_cuts=2),
    op("_unsafe_masked_index_put_accumulate", f(4, 5), mask(3, 5), [ints(4, 3)], f(3, 5), min_cuts=2),
    op("_unsafe_masked_index_put_accumulate", f(4, 5), mask(4, 3), [None, ints(5, 3)], f(4, 3), min_cuts=2),
]

SAMPLES = [*INDEXING, *EXTREMES, *MOMENTS, *OTHERS]
