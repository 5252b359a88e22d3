"""Batch normalisation in training with the batch cut: the statistics are those of the whole batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autotp.runtime.local_ops_loss import Communicators, all_reduce


class BatchNormShard(nn.Module):
    """batch_norm in training over `count` values per channel on all ranks; running statistics stay equal on them."""

    def __init__(self, communicators: Communicators, count: int, axes: Sequence[int]) -> None:
        super().__init__()
        self.count, self.axes = count, tuple(axes)
        self._communicators = dict(communicators)

    def forward(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
        cudnn_enabled: bool = True,
    ) -> Tensor:
        if not training:
            return torch.batch_norm(
                x, weight, bias, running_mean, running_var, False, momentum, eps, cudnn_enabled
            )  # a module that was planned for training is evaluated
        result, mean, variance = _BatchNorm.apply(x, weight, bias, self, eps)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            if running_mean is not None:
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            if running_var is not None:
                unbiased = variance * (self.count / max(self.count - 1, 1))
                running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        return result  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"count={self.count}"


class _BatchNorm(torch.autograd.Function):
    """Two sums forward (the mean first: squares of large values would cancel), two in one collective backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, op: BatchNormShard, eps: float) -> Any:
        dims = [0, *range(2, x.dim())]
        column = (1, -1, *(1,) * (x.dim() - 2))
        wide = x.to(torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else x
        mean = all_reduce(wide.sum(dims), op._communicators, op.axes) / op.count
        centred = wide - mean.view(column)
        variance = all_reduce(centred.square().sum(dims), op._communicators, op.axes) / op.count
        inverse = (variance + eps).rsqrt()
        normal = centred * inverse.view(column)
        result = normal if weight is None else normal * weight.view(column)
        result = result if bias is None else result + bias.view(column)
        ctx.save_for_backward(normal, inverse, weight)
        ctx.op, ctx.has_bias, ctx.dims, ctx.column = op, bias is not None, dims, column
        ctx.mark_non_differentiable(mean, variance)
        return result.to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        normal, inverse, weight = ctx.saved_tensors
        wide = gradient.to(normal.dtype)
        local = torch.stack([wide.sum(ctx.dims), (wide * normal).sum(ctx.dims)])
        total = all_reduce(local, ctx.op._communicators, ctx.op.axes) / ctx.op.count
        scale = inverse if weight is None else inverse * weight
        shared = total[0].view(ctx.column) + normal * total[1].view(ctx.column)
        into_x = ((wide - shared) * scale.view(ctx.column)).to(gradient.dtype)
        into_weight = None if weight is None else local[1].to(weight.dtype)
        return into_x, into_weight, local[0].to(gradient.dtype) if ctx.has_bias else None, None, None
