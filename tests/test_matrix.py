"""Real plans of the examples on simulated ranks: right numbers, everything split, and just the collectives priced."""

import functools
from pathlib import Path

import pytest
import torch
from traces import check_prices, issued, planned

from autotp.api import as_cluster
from autotp.capture.export import capture
from autotp.capture.model_file import load_model
from autotp.cost.problem import Training
from autotp.mesh import Mesh
from autotp.plan_file import dumps, loads
from autotp.planner import make_plan
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.simulate import run_ranks
from autotp.runtime.verify import reference_of, summarise, verify_rank
from autotp.search import Options

EXAMPLES = Path(__file__).parents[1] / "examples"
MODELS = ("mlp", "nanogpt", "llama", "gpt2", "resnet", "moe")
MESHES = ("tp=2", "tp=3", "tp=4", "dp=2,tp=2")


@functools.cache
def subject(name, mode):
    """The captured example, its flat inputs and what the whole model makes of them."""
    source = load_model(str(EXAMPLES / f"{name}.py"), {}, None, None)
    torch.manual_seed(0)
    model, inputs = source.build(), source.example_inputs()
    captured = capture(model, inputs, mode=mode, outputs="loss" if mode == "train" else "all")
    flat = captured.flatten_inputs((), inputs)
    return captured, flat, reference_of(captured.module, lambda module: module(*flat), mode)


def cell(name, mesh, mode="train", **options):
    """Plan and run one combination: the plan, the summary, and every rank's collectives forward and backward."""
    captured, flat, reference = subject(name, mode)
    made = make_plan(captured, Mesh.parse(mesh), as_cluster("cpu"), Options(Training(mode), **options), {}).plan
    plan = loads(dumps(made))  # what runs is what was saved
    check_prices(captured.graph, plan)

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plan, rank, communicators)
        trace = []
        for communicator in communicators.values():
            communicator.trace = trace
        marks = []

        def run(m):
            found = m.graph_module(*flat)
            marks.append(len(trace))
            return found

        report = verify_rank(module, run, reference)
        return report, trace[: marks[0]], trace[marks[0] :]

    reports, forward, backward = zip(*run_ranks(plan.mesh, rank_main), strict=True)
    summary = summarise(reports, reference, captured.module)
    assert summary["ok"], summary["problems"]
    for rank in range(plan.mesh.num_ranks):
        sizes = dict(plan.mesh.axes)
        expected = planned(captured.graph, plan, rank)
        got = (issued(forward[rank], sizes), issued(backward[rank], sizes))
        for phase, real, priced in zip(("forward", "backward"), got, expected, strict=True):
            assert real == priced, (phase, rank, "not priced", real - priced, "not issued", priced - real)
        calls = [[call[:3] for call in trace] for trace in (*forward, *backward)]
        assert calls[rank] == calls[0] and calls[plan.mesh.num_ranks + rank] == calls[plan.mesh.num_ranks]
    return plan, summary, sum(map(len, (*forward, *backward)))


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("name", MODELS)
def test_verify_plans_are_right_and_split_everything(name, mesh):
    plan, summary, num_calls = cell(name, mesh, objective="memory", gap=1.0)
    assert max(summary["max_relative_error"].values()) < 1e-5
    assert plan.summary["coverage"]["split_matmul_flops_fraction"] >= 0.95
    whole = summary["whole_parameter_bytes"]
    for parameter in plan.parameters.values():
        local = torch.Size(parameter.local_shapes[0]).numel() * getattr(torch, parameter.dtype).itemsize
        if local == torch.Size(parameter.shape).numel() * getattr(torch, parameter.dtype).itemsize:
            assert local <= 0.05 * whole, f"{parameter.names} is replicated"
    assert num_calls
