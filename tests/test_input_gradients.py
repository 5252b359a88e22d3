"""A part of a larger model: its inputs require gradients, which are complete and right on every rank."""

import pytest
import torch
from random_plans import random_plan
from torch import nn
from traces import check_issued, check_prices, record

import autotp
from autotp.capture.export import capture
from autotp.capture.inputs import describe, restore
from autotp.errors import AutoTPError, CaptureError
from autotp.mesh import Mesh
from autotp.plan_file import dumps, loads
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.module import ParallelModule
from autotp.runtime.simulate import run_ranks
from autotp.variants import Source, with_variants


class Part(nn.Module):
    """The first input and the last require gradients; the mask between them has none."""

    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(12), nn.Linear(12, 20), nn.Linear(20, 12)
        self.up.weight.requires_grad_(False)

    def forward(self, x, mask, condition):
        y = self.down(nn.functional.gelu(self.up(self.norm(x))))
        return x + (y * condition).masked_fill(mask, 0.0)


def example(batch=6, needs=True):
    torch.manual_seed(0)
    model = Part().double()
    inputs = {
        "x": torch.randn(batch, 12, dtype=torch.float64).requires_grad_(needs),
        "mask": torch.rand(batch, 12) < 0.3,
        "condition": torch.randn(batch, 1, dtype=torch.float64).requires_grad_(needs),
    }
    return model, inputs


def gradients(module, inputs):
    leaves = {name: x.detach().clone().requires_grad_(x.requires_grad) for name, x in inputs.items()}
    module(**leaves).square().sum().backward()
    return [leaves["x"].grad, leaves["condition"].grad]


def check(captured, plan, inputs, whole, of=None):
    def rank_main(rank, communicators):
        module = build_for_rank(captured, plan, rank, communicators)
        module = with_variants(module, of) if of is not None else module
        trace = record(communicators)
        module(**inputs)
        forward = len(trace)
        found = gradients(module, inputs)
        if of is None:
            check_issued(captured.graph, plan, rank, trace[:forward], trace[2 * forward :])
        return found

    for found in run_ranks(plan.mesh, rank_main):
        for a, b in zip(found, whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("mesh", ["tp=2", "tp=3", "dp=2,tp=2"])
def test_any_plan_gives_the_gradients_of_inputs(mesh):
    model, inputs = example()
    captured, whole = capture(model, inputs), gradients(model, inputs)
    for seed in range(8):
        check(captured, random_plan(captured, Mesh.parse(mesh), seed), inputs, whole)


def test_a_plan_file_keeps_which_inputs_have_gradients_and_other_sizes_have_them_too():
    model, inputs = example()
    captured = capture(model, inputs)
    plan = loads(dumps(autotp.plan(model, inputs, mesh="tp=3", objective="memory", dynamic="batch")))
    check_prices(captured.graph, plan)
    check(captured, plan, inputs, gradients(model, inputs))
    again = capture(model, restore(plan.model["inputs"]))
    assert again.inputs.needs_gradient == (True, False, True) and again.graph.fingerprint() == plan.fingerprint
    _, larger = example(batch=8)
    check(captured, plan, larger, gradients(model, larger), Source(model, captured, plan))


def test_a_gradient_that_was_not_planned_is_refused():
    model, inputs = example(needs=False)
    captured = capture(model, inputs)
    (module,) = run_ranks(
        Mesh.parse("tp=1"), lambda r, c: build_for_rank(captured, random_plan(captured, Mesh.parse("tp=1")), r, c)
    )
    _, wanted = example()
    with pytest.raises(CaptureError, match=r"input x requires a gradient.*example input that requires it"):
        module(**wanted)
    with torch.no_grad():
        module(**wanted)
    assert restore(describe(wanted))["x"].requires_grad


def test_a_part_of_a_batch_has_no_gradient():
    model, inputs = example()
    captured, mesh = capture(model, inputs), Mesh.parse("dp=1")
    plan = random_plan(captured, mesh)

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plan, rank, communicators, inputs="local")
        assert isinstance(module, ParallelModule)
        module(**inputs)

    with pytest.raises(AutoTPError, match="inputs='whole'"):
        run_ranks(mesh, rank_main)
