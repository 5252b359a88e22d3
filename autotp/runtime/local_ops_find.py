"""Operators by name."""

import torch

from autotp.errors import RuleError


def find_operator(op: str) -> "torch._ops.OpOverload":
    """The torch operator of a name like `aten.add.Tensor`. Raises RuleError where there is none."""
    found: object = torch.ops
    for part in op.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise RuleError(f"torch {torch.__version__} has no operator {op!r}")
    return found
