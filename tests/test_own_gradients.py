"""Functions with a backward of their own: taken where it is their forward's, refused where it is another one."""

import pytest
import torch
from torch import nn

from autotp.capture.export import capture
from autotp.errors import CaptureError
from autotp.verification import verify


class Swish(torch.autograd.Function):
    """x · sigmoid(x), with its derivative written out."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return gradient * s * (1 + x * (1 - s))


class Scaled(torch.autograd.Function):
    """A product with a number and a sum of squares, by setup_context; two results."""

    @staticmethod
    def forward(x, factor):
        return x * factor, x.square().sum()

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.factor = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, gradient, of_sum):
        (x,) = ctx.saved_tensors
        return gradient * ctx.factor + 2 * x * of_sum, None


class Clipped(torch.autograd.Function):
    """The identity, whose gradient is cut off far from zero: alike for small inputs only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() < 6)


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Particular(torch.autograd.Function):
    """Takes the dims it was written for only."""

    @staticmethod
    def forward(ctx, x):
        return x.view(-1, 1024, 1024).clone().view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Model(nn.Module):
    def __init__(self, function, width=8, extra=()):
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.function, self.extra = function, extra

    def forward(self, x):
        y = self.function.apply(self.up(x), *self.extra)
        return self.down(y[0]).mean() + y[1] if isinstance(y, tuple) else self.down(y).mean()


@pytest.mark.parametrize(("function", "extra"), [(Swish, ()), (Scaled, (0.5,))])
def test_a_backward_that_is_the_forwards_is_taken_and_right(function, extra):
    torch.manual_seed(0)
    report = verify(Model(function, extra=extra).double(), (torch.randn(4, 8, dtype=torch.float64),), mesh="tp=2")
    assert report["ok"], report["problems"]


@pytest.mark.parametrize("function", [StraightThrough, Clipped])
def test_another_gradient_than_the_forwards_is_refused(function):
    with pytest.raises(CaptureError, match=rf"{function.__name__} has a backward of its own.*other gradients"):
        capture(Model(function), (torch.randn(4, 8),))


class Switched(torch.autograd.Function):
    """The identity, whose gradient is turned around where it is asked to be."""

    @staticmethod
    def forward(ctx, x, is_turned):
        ctx.is_turned = is_turned
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient if ctx.is_turned else gradient, None


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return Switched.apply(Switched.apply(self.linear(x), False), True).mean()


def test_a_function_is_tried_with_all_the_arguments_it_is_called_with():
    capture(Model(Switched, extra=(False,)), (torch.randn(4, 8),))
    with pytest.raises(CaptureError, match="Switched has a backward of its own"):
        capture(Twice(), (torch.randn(4, 8),))


def test_large_inputs_are_tried_with_smaller_dims():
    width = 1024
    captured = capture(Model(Swish, width), (torch.zeros(512, width),))
    assert any(node.short_op == "sigmoid" for node in captured.graph)
    with pytest.raises(CaptureError, match="cannot be tried on random inputs"):
        capture(Model(Particular, width), (torch.zeros(512, width),))


def test_without_gradients_there_is_nothing_to_lose():
    captured = capture(Model(StraightThrough), (torch.zeros(4, 8),), mode="infer")
    assert any(node.short_op == "round" for node in captured.graph)
