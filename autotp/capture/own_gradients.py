"""Functions with a backward of their own: a trace sees only their forward, and its gradient would be another one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from autotp.errors import CaptureError


class OwnGradientError(CaptureError):
    """A function with a backward of its own was applied to something that has a gradient."""


@contextmanager
def refused() -> Iterator[None]:
    """Inside, applying such a function raises OwnGradientError, unless it is torch's own or nothing has a gradient."""
    apply = torch.autograd.Function.apply

    def checked(cls: Any, *args: Any, **kwargs: Any) -> Any:
        has_gradient = any(isinstance(x, Tensor) and x.requires_grad for x in pytree.tree_leaves((args, kwargs)))
        if torch.is_grad_enabled() and has_gradient and cls.__module__.partition(".")[0] != "torch":
            raise OwnGradientError(
                f"torch.autograd.Function {cls.__qualname__} has a backward of its own, which a capture would lose. Make "
                "an operator of it by torch.library.custom_op and register_autograd, or write it with torch's operators"
            )
        return apply.__func__(cls, *args, **kwargs)  # type: ignore[attr-defined]

    with mock.patch.object(torch.autograd.Function, "apply", classmethod(checked)):
        yield
