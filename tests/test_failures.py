"""Models that cannot be captured: the message has the module's path, the line of its code, and what helps."""

import inspect
import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import flex_attention

from autotp.api import plan
from autotp.capture.export import capture
from autotp.errors import CaptureError, RuleError
from autotp.verification import verify

LIBRARY = torch.library.Library("autotp_failures", "DEF")
LIBRARY.define("shapeless(Tensor x) -> Tensor")
LIBRARY.impl("shapeless", lambda x: x * 2, "CPU")


@torch.library.custom_op("autotp_failures::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


doubled.register_fake(torch.empty_like)
doubled.register_autograd(lambda ctx, gradient: gradient * 2)


class Tripled(torch.autograd.Function):
    """Its gradient is not that of its forward."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 3


class Opaque:
    def __init__(self, value):
        self.value = value


class Block(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.linear, self.kind = nn.Linear(4, 4), kind

    def forward(self, x):
        return getattr(self, self.kind)(self.linear(x))

    def branch(self, y):
        return y if y.sum() > 0 else -y

    def loop(self, y):
        for i in (y > 0).any(0).nonzero():
            y = y + i
        return y

    def number(self, y):
        return y[: int(y.sum().item())]

    def selected(self, y):
        return y[y > 0].sum()

    def listed(self, y):
        return y * sum(y.sum(0).tolist())

    def outside(self, y):
        return torch.from_numpy(y.detach().numpy())

    def shapeless(self, y):
        return torch.ops.autotp_failures.shapeless(y)

    def chosen(self, y):
        return torch.cond(y.sum() > 0, lambda a: a.sin(), lambda a: a.cos(), (y,))

    def sparse(self, y):
        return torch.sparse.mm(y.to_sparse(), self.linear.weight)

    def own_gradient(self, y):
        return Tripled.apply(y)

    def opaque(self, y):
        return Opaque(y)

    def flexible(self, y):
        return flex_attention(y[None, None], y[None, None], y[None, None])

    def wrong(self, y):
        return self.linear(y[:, :3])


class Model(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4), Block(kind)])

    def forward(self, x):
        return self.blocks[1](self.blocks[0](x))


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("branch", "masks or torch.where"),
        ("loop", "masks or torch.where"),
        ("number", "masks or torch.where"),
        ("selected", "a form of fixed shape, such as a mask"),
        ("listed", "must not depend on the values in its tensors"),
        ("outside", "torch.library.custom_op"),
        ("shapeless", "torch.library.register_fake"),
        ("chosen", "choose by torch.where"),
        ("sparse", "use dense ones"),
        ("own_gradient", "register_autograd, or write it with torch's operators"),
        ("opaque", "dataclasses"),
        ("flexible", "scaled_dot_product_attention"),
        ("wrong", "must run with these inputs"),
    ],
)
def test_a_failure_names_the_module_the_line_and_the_remedy(kind, remedy):
    with warnings.catch_warnings(), pytest.raises(CaptureError) as raised:
        warnings.simplefilter("ignore")
        capture(Model(kind), {"x": torch.randn(3, 4)})
    message = str(raised.value)
    assert remedy in message
    assert "\n" not in message
    if kind == "opaque":  # which is found when all has run
        assert "Opaque" in message and "the model's own forward (Model, " in message
        return
    assert "module blocks.1" in message
    assert __file__ in message
    (line,) = re.findall(r'\.py(?::|", line )(\d+)', message)
    assert int(line) in {*lines_of(getattr(Block, kind)), *lines_of(Block.forward)}


def lines_of(function):
    lines, first = inspect.getsourcelines(function)
    return range(first, first + len(lines))


def test_a_backward_of_its_own_is_no_matter_where_nothing_is_trained():
    assert capture(Model("own_gradient"), {"x": torch.randn(3, 4)}, mode="infer").graph


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.down(torch.ops.autotp_failures.doubled(self.up(x)))


def test_an_unknown_operator_runs_whole_is_warned_of_and_listed():
    inputs = {"x": torch.randn(3, 4, dtype=torch.float64)}
    with pytest.warns(UserWarning, match=r"no rule for autotp_failures\.doubled\.default"):
        result = verify(Doubled().double(), inputs, mesh="tp=2")
    assert result["ok"], result["problems"]
    assert result["fallback_ops"] == ["autotp_failures.doubled.default"]


def test_an_unknown_operator_is_refused_when_strict():
    with pytest.raises(RuleError, match=r"no rule for autotp_failures\.doubled\.default .*register_rule"):
        plan(Doubled(), {"x": torch.randn(3, 4)}, mesh="tp=2", cluster="cpu", strict=True)
