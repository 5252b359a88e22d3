"""Partial sums in half precision that are added up in float32: asked for, kept, priced, executed and shown."""

import dataclasses

import pytest
import torch
from placed import distribute
from test_matrix import EXAMPLES
from torch import nn
from traces import check_issued, check_prices, record

import autotp
from autotp.api import as_cluster
from autotp.capture.export import capture
from autotp.capture.inputs import describe
from autotp.capture.model_file import load_model
from autotp.cost.moves import MovePrices
from autotp.cost.training import Training
from autotp.errors import AutoTPError
from autotp.graph import TensorSpec
from autotp.mesh import Mesh
from autotp.placement import B, P, R, shard
from autotp.plan_file import dumps, loads
from autotp.planning.planner import make_plan
from autotp.planning.replan import replan
from autotp.planning.search import Options
from autotp.redistribute import Step
from autotp.report.moves import moved_values
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.moves import Redistribute
from autotp.runtime.simulate import run_ranks

CLUSTER = as_cluster("dgx-h100")


class Halves(nn.Module):
    """Whose partial sums are in half precision, beside a head in float32; all sizes divide by 2, 3 and 4."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 48)).bfloat16()
        self.head = nn.Linear(48, 12)

    def forward(self, x):
        return self.head(self.layers(x.bfloat16()).float())


def example(reduce_dtype, mesh="tp=2"):
    torch.manual_seed(0)
    model, inputs = Halves(), {"x": torch.randn(12, 48)}
    captured = capture(model, inputs)
    options = Options(Training(reduce_dtype=reduce_dtype), objective="memory", gap=0.5)
    plan = make_plan(captured, Mesh.parse(mesh), as_cluster("cpu"), options, {"inputs": describe(inputs)}).plan
    return captured, inputs, loads(dumps(plan))


@pytest.mark.parametrize("mesh", ["tp=2", "tp=3", "dp=2,tp=2"])
@pytest.mark.parametrize("reduce_dtype", [None, "float32"])
def test_what_is_priced_is_what_is_sent(reduce_dtype, mesh):
    captured, inputs, plan = example(reduce_dtype, mesh)
    assert plan.reduce_dtype == reduce_dtype
    check_prices(captured.graph, plan)

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plan, rank, communicators)
        trace = record(communicators)
        result = module(**inputs)
        num_forward = len(trace)
        result.sum().backward()
        check_issued(captured.graph, plan, rank, trace[:num_forward], trace[num_forward:])
        assert result.dtype == torch.float32
        assert all(p.grad.dtype == p.dtype for p in module.parameters())
        return {call.dtype for call in trace if call.collective in ("all_reduce", "reduce_scatter")}

    for dtypes in run_ranks(plan.mesh, rank_main):
        assert ("torch.bfloat16" in dtypes) == (reduce_dtype is None)


@pytest.mark.parametrize("reduce_dtype", [None, "float32"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_half_precision_model_verifies_both_ways(dtype, reduce_dtype):
    source = load_model(str(EXAMPLES / "nanogpt.py"), {"layers": 1})
    plan = autotp.plan(source, mesh="tp=3", dtype=dtype, objective="memory", reduce_dtype=reduce_dtype)
    found = autotp.verify(source, plan=plan)
    assert found["ok"], found["problems"]


def test_reductions_of_halves_send_twice_the_bytes_and_are_cast():
    plain, wide = (MovePrices(CLUSTER, Mesh.parse("tp=4"), dtype) for dtype in (None, "float32"))
    half, single = (TensorSpec((4096, 8192), dtype, True) for dtype in ("bfloat16", "float32"))
    device = CLUSTER.device(0)
    rows = shard(0, ((1024,) * 4,))
    for step in (Step(0, (P,), (R,)), Step(0, (P,), (rows,)), Step(0, (R,), (B,))):
        a, b, c = plain.of(step, half), wide.of(step, half), plain.of(step, single)
        numel, out = 4096 * 8192, 4096 * 8192 // (4 if step.target[0].kind == "S" else 1)
        casts_s = 2 * device.launch_s + (numel + out) * 6 / device.memory_bytes_per_s
        reduced = "backward" if step.target == (B,) else "forward"
        assert getattr(b, f"{reduced}_s") == pytest.approx(getattr(c, f"{reduced}_s") + casts_s)
        assert getattr(b, f"{reduced}_s") > 1.5 * getattr(a, f"{reduced}_s")
        other = "forward" if reduced == "backward" else "backward"
        assert getattr(b, f"{other}_s") == getattr(a, f"{other}_s")  # a gather adds nothing up
        assert wide.of(step, single) == c


def test_a_sum_of_halves_is_rounded_once():
    """On three ranks 256 + 1 + 1 is lost in bfloat16, one after the other, and not in float32."""
    mesh, parts = Mesh.parse("tp=3"), [256.0, 1.0, 1.0]
    for target in (R, shard(0, ((2, 1, 1),))):

        def rank_main(rank, communicators, target=target):
            communicator, found = communicators["tp"], []
            for reduce_dtype in (None, "float32"):
                actions = ("all_reduce", "none") if target == R else ("reduce_scatter", "all_gather")
                step = Step(0, (P,), (target,))
                move = Redistribute(step, *actions, (4,), mesh, rank, communicator, reduce_dtype)
                communicator.trace = []
                found.append(move(torch.full((4,), parts[rank], dtype=torch.bfloat16)))
                assert communicator.trace[0].dtype == f"torch.{reduce_dtype or 'bfloat16'}"
            assert "float32" in str(move) and found[1].dtype == torch.bfloat16
            return found[1]

        whole = torch.full((4,), 258.0, dtype=torch.bfloat16)
        for got, wanted in zip(run_ranks(mesh, rank_main), distribute(whole, (target,), mesh), strict=True):
            assert torch.equal(got, wanted)


def test_it_is_shown_and_only_known_dtypes_are_taken():
    _, _, plan = example("float32")
    source = load_model(str(EXAMPLES / "mlp.py"))
    made = autotp.plan(source, mesh="tp=2", dtype="bf16", strategy="megatron", reduce_dtype="fp32")
    assert made.reduce_dtype == loads(dumps(made)).reduce_dtype == "float32"
    wider = [moved for moved in moved_values(plan) if moved.reduce_dtype]
    assert wider and all(moved.reduce_dtype == "float32" and "in float32" in moved.actions for moved in wider)
    _, _, same = example(None)
    kept = dataclasses.replace(plan, summary={**plan.summary, "training": same.summary["training"]})
    for moved, before in zip(moved_values(plan), moved_values(kept), strict=True):
        assert moved.num_bytes >= before.num_bytes and not before.reduce_dtype
    assert "reduce_dtype" in plan.to_frame("redistributions")
    with pytest.raises(AutoTPError, match=r"unknown reduce_dtype 'int8': choose one of float32"):
        example("int8")


def test_plans_for_other_sizes_of_the_inputs_price_it_too():
    _, _, plan = example("float32")
    torch.manual_seed(0)
    captured = capture(Halves(), {"x": torch.randn(24, 48)})
    larger = replan(captured, plan)
    prices = MovePrices(as_cluster("cpu"), larger.mesh, "float32")
    reduced = [(captured.graph.spec(value), move) for value, found in larger.moves.items() for move in found]
    reduced = [(spec, move) for spec, move in reduced if "reduce" in move.forward and spec.dtype == "bfloat16"]
    assert reduced
    for spec, move in reduced:
        assert move.forward_s == pytest.approx(prices.of(move.step, spec).forward_s)
