"""What `verify` sees, and what it does not mistake for an error."""

import pytest
import torch
from torch import nn

from autotp.capture.export import capture
from autotp.mesh import Mesh
from autotp.placement import R
from autotp.rewrite.localise import localise
from autotp.rules.registry import rules_of
from autotp.rules.strategy import Choice, Strategy
from autotp.runtime import moves
from autotp.runtime.compare import tolerance
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


class Autocast(nn.Module):
    """Mixed precision inside the model, with a part that is kept out of it."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(8, 64), nn.Linear(64, 8), nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.down(nn.functional.gelu(self.up(x)))
            scores = (y @ x.T).softmax(-1)
            with torch.autocast("cpu", enabled=False):
                z = self.head(self.norm(y.float()))
        return z, scores, self.up(x)


def test_autocast_inside_a_model_becomes_casts():
    torch.manual_seed(0)
    model, x = Autocast(), torch.randn(6, 8)
    captured = capture(model, {"x": x})
    for found, expected in zip(captured.module(x), model(x), strict=True):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
    assert captured.graph["linear"].outputs[0].dtype == "bfloat16"
    assert captured.graph["linear_3"].outputs[0].dtype == "float32"
    result = verify(model, {"x": x}, mesh="tp=2")
    assert result["ok"], result["problems"]


def test_autocast_around_a_capture_is_left_to_whoever_runs():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)), torch.randn(6, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        captured = capture(model, (x,))
        assert captured.module(x)[0].dtype == torch.bfloat16
    assert captured.module(x)[0].dtype == torch.float32


class Sums(nn.Module):
    """A long sum, and a bias whose gradient is zero in truth."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(16, 96), nn.BatchNorm1d(96), nn.Linear(96, 8)

    def forward(self, x):
        return self.second(torch.relu(self.norm(self.first(x))))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_bounds_follow_the_dtype(dtype):
    torch.manual_seed(0)
    result = verify(Sums().to(dtype), {"x": torch.randn(256, 16, dtype=dtype)}, mesh="tp=3")
    assert result["ok"], result["problems"]
    eps = torch.finfo(dtype).eps
    assert 16 * eps < result["tolerance"] <= (16 + 16) * eps  # the longest sum has 256 terms


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_errors_that_matter_are_beyond_the_bounds(dtype, monkeypatch):
    """One rank's part of a sum left out is seen in any dtype."""

    torch.manual_seed(0)
    monkeypatch.setitem(moves._ACTIONS, "all_reduce", lambda x, way: way.communicator.all_reduce(x) - 0.5 * x)
    result = verify(Sums().to(dtype), {"x": torch.randn(32, 16, dtype=dtype)}, mesh="tp=2")
    assert not result["ok"]


def test_the_bound_of_float32_is_never_looser_than_1e5() -> None:
    assert tolerance([torch.float32], 10**6) == tolerance([torch.complex64, torch.float64], 10**6) == 1e-5
    assert tolerance([torch.float32], 16) < 3e-6 and tolerance([torch.float64], 10**6) < 1e-12
    assert tolerance([torch.float32, torch.bfloat16], 10**6) > 0.1  # the least precise counts


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_dropout_between_the_layers_of_a_recurrent_network_is_off_on_both_sides(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = Recurrent(kind(8, 12, num_layers=3, dropout=0.5, batch_first=True))
    for mesh in ("tp=2", "dp=3"):
        result = verify(model.double(), {"x": torch.randn(6, 5, 8).double()}, mesh=mesh)
        assert result["ok"], result["problems"]


class Recurrent(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.network(x)[0])
