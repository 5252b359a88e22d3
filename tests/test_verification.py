"""What `verify` sees, and what it does not mistake for an error."""

import torch
from torch import nn

from autotp.capture.export import capture
from autotp.mesh import Mesh
from autotp.placement import R
from autotp.rewrite.localise import localise
from autotp.rules.registry import rules_of
from autotp.rules.strategy import Choice, Strategy
from autotp.verification import verify


class StochasticDepth(nn.Module):
    """Leaves out the branch of some samples, drawn anew in every step, and adds noise to the rest."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        y = self.down(torch.relu(self.up(x)))
        keep = x.new_empty(x.shape[0], 1).bernoulli_(0.8)
        return x + y * keep / 0.8 * (0.9 + torch.rand(x.shape[0], 1, dtype=x.dtype)).floor() + torch.randn_like(y)


def test_draws_that_are_no_dropout_are_fixed_on_both_sides():
    result = verify(StochasticDepth().double(), {"x": torch.randn(6, 8, dtype=torch.float64)}, mesh="tp=2")
    assert result["ok"], result["problems"]


class WithCache(nn.Module):
    """Returns more when it is called than what is captured: as Hugging Face's models do with their caches."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        y = self.linear(x)
        more = {} if torch.compiler.is_exporting() else {"cache": y.detach(), "length": 3}
        return {"loss": y.square().mean(), **more, "logits": y}


def test_what_a_model_returns_beyond_what_was_captured_is_left_out():
    result = verify(WithCache().double(), {"x": torch.randn(6, 8, dtype=torch.float64)}, mesh="tp=2")
    assert result["ok"], result["problems"]


class Views(nn.Module):
    def forward(self, x):
        return x.view(4, 6)


def test_views_become_reshapes_even_where_nothing_is_split():
    captured = capture(Views(), {"x": torch.randn(2, 12)}, mode="infer")
    node = next(node for node in captured.graph if node.kind == "op")
    whole = Strategy((Choice("whole"),), ((R,),), ((R,),))
    call = localise(node, rules_of(captured.graph)[node.name], whole, Mesh.parse("tp=2"), (0,))
    assert call.op == "aten.reshape.default"  # a gathered tensor need not have the strides of the whole
    assert tuple(call.arguments["shape"]) == (4, 6)
