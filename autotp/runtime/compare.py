"""How far two tensors are apart, relative to what matters."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

# Of the largest gradient: under a tensor's scale where its error is told.
FLOOR = 1e-3
# The same where it is judged. Some gradients are zero in truth (of a bias before batch_norm): what is left of the sum that
# makes them is rounding on the scale of what was added, and no error.
ROUNDING_FLOOR = 1 / 8
ROUNDINGS = 16  # of an element on its way through the model, in units of the dtype's epsilon
LENGTH = 4096  # of the longest sum, where it is not known
FLOAT32_MOST = 1e-5  # what float32 is excused, however long its sums


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


def tolerance(dtypes: Iterable[torch.dtype], length: int = LENGTH) -> float:
    """The relative error that the least precise of these dtypes excuses in a model whose longest sum has `length` terms.

    Elements are rounded to the dtype, and sums are taken in another order: n roundings of random sign are √n roundings
    large (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 2.8). Halves are added up in float32.
    Whatever the length, float32 is excused no more than `FLOAT32_MOST`.
    """
    bounds = [0.0]
    for dtype in dtypes:
        if dtype.is_floating_point or dtype.is_complex:
            wide = torch.float32 if dtype.itemsize < 4 else dtype
            bound = ROUNDINGS * torch.finfo(dtype).eps + torch.finfo(wide).eps * math.sqrt(length)
            is_single = torch.finfo(dtype).bits == 32
            bounds.append(min(bound, FLOAT32_MOST) if is_single else bound)
    return max(bounds)
