"""Functions with a backward of their own: a trace sees only their forward, so its gradient must be the one they give."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from autotp.errors import CaptureError

MAX_ELEMENTS = 2**20  # of all tensors of a trial; larger ones are tried with smaller dims
SMALL = 16  # dims up to this stay as they are
SCALES = (1.0, 8.0)  # of random inputs: functions often do otherwise far from zero
CLOSE = 1e-9  # in float64


class OwnGradientError(CaptureError):
    """A function with a backward of its own, other than its forward's, was applied to something that has a gradient."""


@contextmanager
def checked() -> Iterator[None]:
    """Inside, a function may have a backward of its own if that gives the gradients of what its forward computes.

    It is run on random inputs to see that, once for all calls with the same arguments other than tensors' values and sizes;
    OwnGradientError is raised where it is not so.
    """
    apply, known = torch.autograd.Function.apply, set[tuple[object, ...]]()

    def check(cls: Any, *args: Any, **kwargs: Any) -> Any:
        leaves = pytree.tree_leaves((args, kwargs))
        has_gradient = any(isinstance(x, Tensor) and x.requires_grad for x in leaves)
        call = (cls, *((x.dim(), x.requires_grad) if isinstance(x, Tensor) else repr(x) for x in leaves))
        is_foreign = cls.__module__.partition(".")[0] != "torch" and call not in known
        if torch.is_grad_enabled() and has_gradient and is_foreign:
            _try(cls, apply.__func__, args, kwargs)  # type: ignore[attr-defined]
            known.add(call)
        return apply.__func__(cls, *args, **kwargs)  # type: ignore[attr-defined]

    with mock.patch.object(torch.autograd.Function, "apply", classmethod(check)):
        yield


def _try(cls: Any, apply: Any, args: Any, kwargs: Any) -> None:
    """Raise OwnGradientError unless the function's gradients are those that its forward has without it."""
    why = "gives other gradients than its forward has"
    try:
        with _disable_current_modes(), torch.enable_grad():
            alike = all(_is_alike(cls, apply, args, kwargs, scale) for scale in SCALES)
    except Exception as error:  # noqa: BLE001 - whatever a stranger's code raises on inputs that are not its usual ones
        alike, why = False, f"cannot be tried on random inputs ({type(error).__name__}: {error})"
    if not alike:
        raise OwnGradientError(
            f"torch.autograd.Function {cls.__qualname__} has a backward of its own, which a capture would lose, and which "
            f"{why}. Make an operator of it by torch.library.custom_op and register_autograd, or write it with torch's "
            "operators"
        )


def _is_alike(cls: Any, apply: Any, args: Any, kwargs: Any, scale: float) -> bool:
    leaves, structure = pytree.tree_flatten((args, kwargs))
    given = _samples(leaves, scale)
    trained = [x for x in given if isinstance(x, Tensor) and x.requires_grad]
    own_args, own_kwargs = pytree.tree_unflatten(given, structure)
    own = _tensors(apply(cls, *own_args, **own_kwargs))
    plain = _tensors(_forward(cls, own_args, own_kwargs))
    seeds = [torch.randn(y.shape, dtype=y.dtype, generator=_generator()) for y in own]
    gradients = [
        torch.autograd.grad(results, trained, seeds, allow_unused=True, materialize_grads=True)
        for results in (own, plain)
    ]
    return all(torch.allclose(a, b, rtol=CLOSE, atol=CLOSE) for a, b in zip(*gradients, strict=True))


def _forward(cls: Any, args: Any, kwargs: Any) -> Any:
    """What a function's forward computes, as autograd sees it when the function is not there."""
    if cls.setup_context is not torch.autograd.Function.setup_context:
        return cls.forward(*args, **kwargs)
    names = ("save_for_backward", "save_for_forward", "mark_dirty", "mark_non_differentiable", "set_materialize_grads")
    needed = tuple(isinstance(x, Tensor) and x.requires_grad for x in args)
    context = SimpleNamespace(**dict.fromkeys(names, _ignore), needs_input_grad=needed)
    return cls.forward(context, *args, **kwargs)


def _ignore(*args: Any) -> None:
    pass


def _samples(leaves: Sequence[Any], scale: float) -> list[Any]:
    """Random float64 tensors in place of tensors of floats, zeros in place of others; equal dims stay equal."""
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    large = sorted({extent for x in tensors for extent in x.shape if extent > SMALL})
    shrinks = sum(x.numel() for x in tensors) > MAX_ELEMENTS
    extents = {extent: SMALL + 1 + i for i, extent in enumerate(large)} if shrinks else {}
    generator = _generator()
    found = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            shape = [extents.get(extent, extent) for extent in leaf.shape]
            if leaf.is_floating_point():
                value = scale * torch.randn(shape, dtype=torch.float64, generator=generator)
                found.append(value.requires_grad_(leaf.requires_grad))
            else:
                found.append(torch.zeros(shape, dtype=leaf.dtype))
        else:
            found.append(leaf)
    return found


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _tensors(results: Any) -> list[Tensor]:
    return [x for x in pytree.tree_leaves(results) if isinstance(x, Tensor) and x.requires_grad]
