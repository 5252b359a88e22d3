"""Losses and means whose elements are cut: sums over a count that all ranks agree on."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autotp.placement import Spans
from autotp.runtime.communicator import Communicator
from autotp.runtime.local_ops_embedding import local_positions
from autotp.runtime.local_ops_find import find_operator

Communicators = Mapping[int, Communicator]
NONE, MEAN, SUM = 0, 1, 2  # torch's numbers of `reduction`
HALF = (torch.float16, torch.bfloat16)


def all_reduce(x: Tensor, communicators: Communicators, axes: Sequence[int], op: str = "sum") -> Tensor:
    """Over several axes one after the other."""
    for axis in axes:
        x = communicators[axis].all_reduce(x, op)
    return x


class MeanShard(nn.Module):
    """The local sum over the whole count: ranks' results add up to the mean."""

    def __init__(self, communicators: Communicators, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(
        self, x: Tensor, dim: Sequence[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
    ) -> Tensor:
        wide = torch.float32 if (dtype or x.dtype) in HALF else dtype  # the sum may not fit where the mean does
        dims = list(range(x.dim())) if dim is None or len(dim) == 0 else list(dim)
        return (x.sum(dims, keepdim, dtype=wide) / self.count).to(dtype or x.dtype)

    def extra_repr(self) -> str:
        return f"count={self.count}"


class MeanLossShard(nn.Module):
    """An elementwise loss, summed here and divided by the whole count."""

    def __init__(self, communicators: Communicators, op: str, count: int) -> None:
        super().__init__()
        self.op, self.count = op, count
        self._operator = find_operator(op)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        total: Tensor = call_with(self._operator, args, kwargs, reduction=SUM)
        return total / self.count

    def extra_repr(self) -> str:
        return f"{self.op}, count={self.count}"


class CtcMeanShard(nn.Module):
    """ctc_loss, mean over samples that are cut: every sample's loss is divided by the length of its target first."""

    def __init__(self, communicators: Communicators, op: str, count: int) -> None:
        super().__init__()
        self.op, self.count = op, count
        self._operator = find_operator(op)

    def forward(self, log_probs: Tensor, targets: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if log_probs.shape[1] == 0:  # which torch refuses; the sum keeps log_probs in the autograd graph
            return log_probs.sum()
        losses: Tensor = call_with(self._operator, (log_probs, targets, *args), kwargs, reduction=NONE)
        lengths: Tensor = args[1]
        return (losses / lengths.clamp(min=1).to(losses.dtype)).sum() / self.count

    def extra_repr(self) -> str:
        return f"count={self.count}"


def call_with(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any], **changed: Any) -> Any:
    """Call an operator with some arguments changed, by schema name."""
    names = [argument.name for argument in operator._schema.arguments]
    return operator(**{**dict(zip(names, args, strict=False)), **kwargs, **changed})


def count_targets(target: Tensor, weight: Tensor | None, ignore_index: int, like: Tensor) -> Tensor:
    """A rank's part of what a mean loss divides by: the number of targets not ignored, or the sum of their weights."""
    is_used = target != ignore_index
    if weight is None:
        return is_used.sum().to(like.dtype)
    return torch.where(is_used, weight[torch.where(is_used, target, 0)], 0.0).sum()


class NllLossShard(nn.Module):
    """nll_loss, mean over tokens that are cut."""

    def __init__(self, communicators: Communicators, op: str, token_axes: Sequence[int]) -> None:
        super().__init__()
        self.op, self.token_axes = op, tuple(token_axes)
        self._operator, self._communicators = find_operator(op), dict(communicators)

    def forward(
        self, x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: int = MEAN, ignore_index: int = -100
    ) -> Tensor:
        total: Tensor = self._operator(x, target, weight, SUM, ignore_index)
        with torch.no_grad():
            count = count_targets(target, weight, ignore_index, torch.empty((), dtype=_wide(x.dtype)))
            count = all_reduce(count, self._communicators, self.token_axes)
        return total / count.to(total.dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which to count and to sum: half precision cannot tell 257 targets from 256."""
    return torch.float32 if dtype in HALF else dtype


class CrossEntropyShard(nn.Module):
    """cross_entropy_loss with classes cut, tokens cut, or both.

    Cut classes: the maximum, then the sum of exponentials and the target's logit (and, for label smoothing, the sum
    of all logits) are reduced over the ranks; the result is complete on every rank, and backward communicates nothing.
    Cut tokens: the mean divides by the number of targets on all ranks.
    """

    def __init__(
        self,
        communicators: Communicators,
        held: Sequence[tuple[int, int]],
        num_classes: int,
        class_axes: Sequence[int],
        token_axes: Sequence[int],
        num_tokens: int,
    ) -> None:
        super().__init__()
        self.held: Spans = tuple((start, length) for start, length in held)
        self.num_classes, self.num_tokens = num_classes, num_tokens
        self.class_axes, self.token_axes = tuple(class_axes), tuple(token_axes)
        self._communicators = dict(communicators)

    def forward(
        self,
        x: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        reduction: int = MEAN,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        if self.class_axes:
            logits = x.movedim(1, -1) if x.dim() > 1 else x
            losses: Tensor = _ClassesCut.apply(logits, target, self, ignore_index, label_smoothing)  # type: ignore[no-untyped-call]
            if reduction == NONE:
                return losses.to(x.dtype)
            total = losses.sum()
        else:
            total = torch.ops.aten.cross_entropy_loss.default(x, target, weight, SUM, ignore_index, label_smoothing)
        if reduction == SUM:
            return total.to(x.dtype)
        if target.is_floating_point():
            return (total / self.num_tokens).to(x.dtype)
        with torch.no_grad():
            count = count_targets(target, weight, ignore_index, torch.empty((), dtype=_wide(x.dtype)))
            count = all_reduce(count, self._communicators, self.token_axes)
        return (total / count.to(total.dtype)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"held={self.held} of {self.num_classes} classes"


class _ClassesCut(torch.autograd.Function):
    """Loss of every token from this rank's logits `[..., classes held]`; zero for ignored targets."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, op: CrossEntropyShard, ignore_index: int, smoothing: float
    ) -> Tensor:
        wide = logits.to(_wide(logits.dtype))
        low = wide.new_full((*wide.shape[:-1], 1), -torch.inf)  # a rank may hold no class at all
        largest = all_reduce(torch.cat([wide, low], -1).amax(-1), op._communicators, op.class_axes, "max")
        exponentials = (wide - largest.unsqueeze(-1)).exp()
        position, is_held = local_positions(target, op.held)
        padded = torch.cat([wide, torch.zeros_like(low)], -1)
        picked = padded.gather(-1, position.unsqueeze(-1)).squeeze(-1).masked_fill(~is_held, 0.0)
        parts = [exponentials.sum(-1), picked] + ([wide.sum(-1)] if smoothing else [])
        sums = all_reduce(torch.stack(parts), op._communicators, op.class_axes)
        loss = largest + sums[0].log() - (1 - smoothing) * sums[1]
        if smoothing:
            loss = loss - smoothing / op.num_classes * sums[2]
        is_used = target != ignore_index
        ctx.save_for_backward(exponentials / sums[0].unsqueeze(-1), position, is_held, is_used)
        ctx.smoothing, ctx.num_classes, ctx.dtype = smoothing, op.num_classes, logits.dtype
        return torch.where(is_used, loss, 0.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        softmax, position, is_held, is_used = ctx.saved_tensors
        wanted = torch.zeros_like(softmax)
        if softmax.shape[-1]:
            wanted.scatter_(-1, position.unsqueeze(-1), (is_held.to(softmax.dtype) * (1 - ctx.smoothing)).unsqueeze(-1))
        wanted += ctx.smoothing / ctx.num_classes
        per_token = torch.where(is_used, gradient, 0.0).unsqueeze(-1)
        return ((softmax - wanted) * per_token).to(ctx.dtype), None, None, None, None
