"""Reductions that are no sums, along cut dims: what the rank finds in its part is combined over the ranks.

Results are complete on every rank, and so is the gradient that comes back: backward needs no more than this rank's part,
but for the number of ties.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autotp.placement import Spans
from autotp.runtime.local_ops_loss import HALF, Communicators, all_reduce


class Reduction(nn.Module):
    """`dims` are reduced, those of size one of a result with `keepdim`; `axes` cut them."""

    def __init__(
        self,
        communicators: Communicators,
        op: str,
        dims: Sequence[int],
        axes: Sequence[int],
        keepdim: bool,
        **more: Any,
    ) -> None:
        super().__init__()
        self.op, self.dims, self.axes, self.keepdim = op.split(".")[1], tuple(dims), tuple(axes), keepdim
        self.is_least = self.op in ("amin", "min", "argmin")
        self._communicators = dict(communicators)
        self.__dict__.update(more)

    def over_ranks(self, x: Tensor, how: str = "sum") -> Tensor:
        return all_reduce(x, self._communicators, self.axes, how)

    def squeezed(self, x: Tensor) -> Tensor:
        return x if self.keepdim else x.squeeze(self.dims)

    def unsqueezed(self, x: Tensor) -> Tensor:
        for dim in () if self.keepdim else self.dims:
            x = x.unsqueeze(dim)
        return x

    def turned(self, x: Tensor) -> Tensor:
        """Of what is asked for the least, the negative, so that it is the largest; its own inverse."""
        return x if not self.is_least else -x if x.is_floating_point() else ~x

    def largest(self, x: Tensor) -> Tensor:
        """The largest on all ranks, dims kept; NaN where there is one."""
        if not x.is_floating_point():
            return self.over_ranks(_amax(x, self.dims, torch.iinfo(x.dtype).min), "max")
        is_nan = x.isnan()
        parts = [
            _amax(x.masked_fill(is_nan, -torch.inf), self.dims, -torch.inf),
            is_nan.sum(self.dims, True).to(x.dtype),
        ]
        value, num_nan = self.over_ranks(torch.stack(parts), "max")
        largest: Tensor = value.masked_fill(num_nan > 0, torch.nan)
        return largest

    def extra_repr(self) -> str:
        return f"{self.op}, dims={self.dims}"


def _amax(x: Tensor, dims: tuple[int, ...], least: float) -> Tensor:
    if all(x.shape[dim] for dim in dims):
        return x.amax(dims, keepdim=True)
    return x.new_full([1 if dim in dims else size for dim, size in enumerate(x.shape)], least)


def _same(x: Tensor, value: Tensor) -> Tensor:
    """Where x is the value, which may be NaN."""
    return (x == value) | (x.isnan() & value.isnan()) if x.is_floating_point() else x == value


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in HALF else x


class ExtremeShard(Reduction):
    """amax, amin, max and min of all elements, any, all."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.op in ("any", "all"):
            is_all = self.op == "all"
            found = ((x == 0) if is_all else (x != 0)).sum(self.dims, True).clamp(max=1).to(torch.uint8)
            result = (self.over_ranks(found, "max") != 0) != is_all
            return self.squeezed(result).to(torch.uint8 if x.dtype == torch.uint8 else torch.bool)
        result = _Extreme.apply(x, self)  # type: ignore[no-untyped-call]
        return result  # type: ignore[no-any-return]


class _Extreme(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, op: ExtremeShard) -> Tensor:
        plain = x.to(torch.uint8) if x.dtype == torch.bool else x
        result = op.turned(op.largest(op.turned(plain))).to(x.dtype)
        ctx.save_for_backward(x, result)
        ctx.op = op
        return op.squeezed(result)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x, result), op = ctx.saved_tensors, ctx.op
        is_best = x == result if op.op.startswith("am") else _same(x, result)  # torch's amax gives NaN where it is NaN
        gradient = _wide(op.unsqueezed(gradients[0]))
        count = op.over_ranks(is_best.sum(op.dims, True).to(gradient.dtype))
        return (is_best * (gradient / count)).to(x.dtype), None


class PlaceShard(Reduction):
    """max and min along a dim with the place, argmax, argmin: of equal ones the first place counts."""

    held: Spans
    extent: int

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        value, place = _Place.apply(x, self)  # type: ignore[no-untyped-call]
        return place if self.op.startswith("arg") else (value, place)


class _Place(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, op: PlaceShard) -> tuple[Tensor, Tensor]:
        plain = x.to(torch.uint8) if x.dtype == torch.bool else x
        best = op.turned(op.largest(op.turned(plain)))
        (dim,) = op.dims
        places = [torch.arange(start, start + length, device=x.device) for start, length in op.held]
        mine = torch.cat([torch.empty(0, dtype=torch.int64, device=x.device), *places])
        mine = mine.view([-1 if d == dim else 1 for d in range(x.dim())])
        first = _amax(torch.where(_same(plain, best), -mine, -op.extent), op.dims, -op.extent)
        place = -op.over_ranks(first, "max")
        ctx.save_for_backward(mine == place)
        ctx.op, ctx.dtype = op, x.dtype
        found = op.squeezed(best.to(x.dtype)), op.squeezed(place)
        ctx.mark_non_differentiable(found[1])
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (is_chosen,) = ctx.saved_tensors
        return (is_chosen * ctx.op.unsqueezed(gradients[0])).to(ctx.dtype), None


class MomentsShard(Reduction):
    """var, std, var_mean, std_mean over `count` elements on all ranks."""

    count: int
    correction: float

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        spread, mean = _Moments.apply(x, self)  # type: ignore[no-untyped-call]
        return (spread, mean) if self.op.endswith("_mean") else spread


class _Moments(torch.autograd.Function):
    """The mean first: squares of large values would cancel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, op: MomentsShard) -> tuple[Tensor, Tensor]:
        wide = _wide(x)
        mean = op.over_ranks(wide.sum(op.dims, True)) / op.count
        centred = wide - mean
        free = max(op.count - op.correction, 0.0)
        spread = op.over_ranks(centred.square().sum(op.dims, True)) / free
        spread = spread.sqrt() if op.op.startswith("std") else spread
        ctx.save_for_backward(centred, spread)
        ctx.op, ctx.free, ctx.dtype = op, free, x.dtype
        return op.squeezed(spread).to(x.dtype), op.squeezed(mean).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (centred, spread), op = ctx.saved_tensors, ctx.op
        of_spread, of_mean = (op.unsqueezed(gradient).to(centred.dtype) for gradient in gradients)
        if op.op.startswith("std"):
            of_spread = (of_spread / (2 * spread)).masked_fill(spread == 0, 0.0)
        return (centred * (2 / ctx.free) * of_spread + of_mean / op.count).to(ctx.dtype), None


class NormShard(Reduction):
    """The 2-norm; the gradient of a norm of zero is zero, as torch has it."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result = _Norm.apply(x, self)  # type: ignore[no-untyped-call]
        return result  # type: ignore[no-any-return]


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, op: NormShard) -> Tensor:
        norm = op.over_ranks(_wide(x).square().sum(op.dims, True)).sqrt()
        ctx.save_for_backward(x, norm)
        ctx.op = op
        return op.squeezed(norm).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, norm = ctx.saved_tensors
        scale = (ctx.op.unsqueezed(gradients[0]).to(norm.dtype) / norm).masked_fill(norm == 0, 0.0)
        return (x * scale).to(x.dtype), None


class LogSumExpShard(Reduction):
    """The largest is taken out first, on all ranks the same."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result = _LogSumExp.apply(x, self)  # type: ignore[no-untyped-call]
        return result  # type: ignore[no-any-return]


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, op: LogSumExpShard) -> Tensor:
        wide = _wide(x)
        largest = op.over_ranks(_amax(wide, op.dims, -torch.inf), "max")
        largest = largest.masked_fill(~largest.isfinite(), 0.0)
        result = op.over_ranks((wide - largest).exp().sum(op.dims, True)).log() + largest
        ctx.save_for_backward(x, result)
        ctx.op = op
        return op.squeezed(result).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, result = ctx.saved_tensors
        gradient = ctx.op.unsqueezed(gradients[0]).to(result.dtype)
        return (gradient * (_wide(x) - result).exp()).to(x.dtype), None
