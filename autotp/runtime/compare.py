"""How far two tensors are apart, relative to what matters."""

from collections.abc import Iterable

import torch
from torch import Tensor

FLOOR = 1e-3  # of the largest gradient: some gradients are zero in truth, and their rounding is no error
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def largest(tensors: Iterable[Tensor]) -> float:
    """The largest magnitude of all elements of all tensors; 0 where there is none."""
    return max((float(t.detach().double().abs().max()) for t in tensors if t.numel()), default=0.0)


def relative_error(actual: Tensor, expected: Tensor, scale: float, floor: float = 0.0) -> float:
    """max|actual - expected| over the larger of `scale` and `floor`; infinite where a value is not finite.

    `scale` is max|whole| of the tensor of which `expected` is the local part. Tensors of another shape or dtype than
    expected, and differences on a scale of zero, are infinitely wrong.
    """
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return float("inf")
    if not actual.numel():
        return 0.0
    a, b = actual.detach().double(), expected.detach().double()
    if not (bool(torch.isfinite(a).all()) and bool(torch.isfinite(b).all())):
        return float("inf")
    difference = float((a - b).abs().max())
    if difference == 0.0:
        return 0.0
    bound = max(scale, floor)
    return difference / bound if bound > 0.0 else float("inf")


def tolerance(tensors: Iterable[Tensor]) -> float:
    """The error that the least precise of these tensors' dtypes excuses."""
    return max((TOLERANCES.get(t.dtype, 0.0) for t in tensors if t.is_floating_point()), default=1e-10)
