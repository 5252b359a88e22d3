"""Operators by name: `aten.add.Tensor` is namespace, operator and overload."""

from typing import Any

import torch

from autotp.errors import RuleError


def overload(op: str) -> "torch._ops.OpOverload | None":
    """The torch operator of a name like `aten.add.Tensor`; None where it is not one."""
    found: object = torch.ops
    for part in op.split("."):
        found = getattr(found, part, None)
        if found is None:
            return None
    return found if isinstance(found, torch._ops.OpOverload) else None


def full_name(op: Any) -> str:
    """The name of an operator given as `mylib::scale`, `aten.add.Tensor`, `torch.ops.mylib.scale` or a custom_op.

    Without an overload the only one, or `default`, is meant. Raises RuleError where there is no such operator.
    """
    given = getattr(op, "_opoverload", op)  # what torch.library.custom_op returns
    name = given if isinstance(given, str) else str(given)
    name = name.replace("::", ".")
    if overload(name) is None and overload(f"{name}.default") is not None:
        name += ".default"
    if overload(name) is None:
        raise RuleError(
            f"torch has no operator {op!r}: name it as in 'mylib::scale', after the library that defines it was imported"
        )
    return name
