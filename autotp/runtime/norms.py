"""Norms of gradients that lie in shards: every element of the whole model counted once, the same bits on every rank."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from autotp.errors import PlanError
from autotp.placement import Placement
from autotp.runtime.communicator import Communicator

Gradients = Mapping[tuple[str, ...], list[Tensor]]  # by the axes over which they are divided


def by_axes(
    gradients: Iterable[tuple[Tensor, Placement]], axes: tuple[str, ...]
) -> dict[tuple[str, ...], list[Tensor]]:
    """Gradients by the names of the axes that cut them; in an order that all ranks share.

    Raises PlanError for a gradient that is still partial sums: it has no norm until it is reduced.
    """
    found: dict[tuple[str, ...], list[Tensor]] = {}
    for gradient, placement in gradients:
        if any(state.kind == "B" for state in placement):
            raise PlanError(
                "a gradient is kept as partial sums by the plan: its norm is known only after it is reduced"
            )
        cut = tuple(name for name, state in zip(axes, placement, strict=True) if state.kind == "S")
        found.setdefault(cut, []).append(gradient)
    return dict(sorted(found.items()))


def total_norm(gradients: Gradients, norm_type: float, communicators: Mapping[str, Communicator]) -> Tensor:
    """The norm of all gradients together, by one reduction per set of axes. Raises PlanError where `norm_type` <= 0."""
    if not norm_type > 0:
        raise PlanError(f"norm_type must be positive, not {norm_type}")
    is_largest = math.isinf(norm_type)
    totals = []
    for axes, group in gradients.items():
        norms = torch.stack([_norm(gradient, norm_type) for gradient in group])
        total = norms.amax() if is_largest else norms.pow(norm_type).sum()
        for axis in axes:
            total = communicators[axis].all_reduce(total, "max" if is_largest else "sum")
        totals.append(total)
    if not totals:
        return torch.tensor(0.0)
    together = torch.stack(totals)
    return together.amax() if is_largest else together.sum().pow(1.0 / norm_type)


def _norm(gradient: Tensor, norm_type: float) -> Tensor:
    """In float32 at least: squares of half-precision gradients overflow."""
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    if not gradient.numel():  # the largest element of an empty shard is not defined
        return gradient.new_zeros((), dtype=dtype)
    norm: Tensor = torch.linalg.vector_norm(gradient.to(dtype), norm_type)
    return norm
