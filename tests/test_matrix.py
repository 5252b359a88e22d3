"""Real plans of the examples on simulated ranks: right numbers, everything split, and just the collectives priced."""

import functools
from pathlib import Path

import pytest
import torch
from traces import check_issued, check_prices, record

from autotp.api import as_cluster
from autotp.capture.export import capture
from autotp.capture.model_file import load_model
from autotp.cost.training import Training
from autotp.errors import AutoTPError
from autotp.mesh import Mesh
from autotp.plan_file import dumps, loads
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.simulate import run_ranks
from autotp.runtime.verify import reference_of, summarise, verify_rank

EXAMPLES = Path(__file__).parents[1] / "examples"
MODELS = ("mlp", "nanogpt", "llama", "gpt2", "resnet", "moe")
VARIANTS = {"uneven": ("nanogpt", {"heads": 6, "width": 48, "vocab": 250, "layers": 1})}
MESHES = ("tp=2", "tp=3", "tp=4", "dp=2,tp=2")


@functools.cache
def subject(name, mode):
    """The captured example, its flat inputs and what the whole model makes of them; a name may be that of VARIANTS."""
    file, settings = VARIANTS.get(name, (name, {}))
    source = load_model(str(EXAMPLES / f"{file}.py"), settings, None, None)
    torch.manual_seed(0)
    model, inputs = source.build(), source.example_inputs()
    captured = capture(model, inputs, mode=mode, outputs="loss" if mode == "train" else "all")
    flat = captured.flatten_inputs((), inputs)
    return captured, flat, reference_of(captured.module, lambda module: module(*flat), mode)


@functools.cache
def planned_for(name, mesh, mode="train", **options):
    captured, _, _ = subject(name, mode)
    return make_plan(captured, Mesh.parse(mesh), as_cluster("cpu"), Options(Training(mode), **options), {}).plan


def cell(name, mesh, mode="train", **options):
    """Plan and run one combination: the plan, the summary, and the number of collectives of all ranks."""
    captured, flat, reference = subject(name, mode)
    plan = loads(dumps(planned_for(name, mesh, mode, **options)))  # what runs is what was saved
    check_prices(captured.graph, plan)

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plan, rank, communicators)
        trace, forward = record(communicators), []

        def run(m):
            found = m.graph_module(*flat)
            forward.extend(trace)
            return found

        report = verify_rank(module, run, reference)
        check_issued(captured.graph, plan, rank, forward, trace[len(forward) :])
        return report, [call[:3] for call in trace]

    reports, traces = zip(*run_ranks(plan.mesh, rank_main), strict=True)
    summary = summarise(reports, reference, captured.module)
    assert summary["ok"], summary["problems"]
    assert all(trace == traces[0] for trace in traces), "ranks issue different collectives, or in another order"
    return plan, summary, sum(map(len, traces))


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


@pytest.mark.parametrize(
    "name, mesh", list(zip(MODELS, ("dp=2,tp=2", "tp=3", "tp=2", "tp=4", "tp=3", "dp=2,tp=2"), strict=True))
)
def test_the_quickest_plan_in_little_memory_is_right(name, mesh):
    """Without a limit these models run quickest unsplit."""
    most, least = (
        max(planned_for(name, mesh, **options).summary["predicted"]["memory_bytes"])
        for options in ({"strategy": "replicated"}, {"objective": "memory", "gap": 1.0})
    )
    plan, _, num_calls = cell(name, mesh, memory_bytes=least + 0.4 * (most - least), gap=0.2)
    assert num_calls and least <= max(plan.summary["predicted"]["memory_bytes"]) < most


@pytest.mark.parametrize("mesh", ("tp=3", "dp=2,tp=2"))
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strategy", ("megatron", "greedy"))
def test_plans_that_people_would_write_are_right(name, mesh, strategy):
    if (name, strategy) == ("resnet", "megatron"):
        with pytest.raises(AutoTPError, match="no Megatron plan"):
            cell(name, mesh, strategy=strategy)
    else:
        cell(name, mesh, strategy=strategy, objective="memory")


@pytest.mark.parametrize("name", MODELS)
def test_a_replicated_plan_says_nothing(name):
    _, _, num_calls = cell(name, "tp=2", strategy="replicated")
    assert num_calls == 0


@pytest.mark.parametrize(
    "name, mesh", list(zip(MODELS, ("tp=2", "tp=3", "dp=2,tp=2", "tp=4", "dp=2,tp=2", "tp=3"), strict=True))
)
def test_inference(name, mesh):
    _, summary, num_calls = cell(name, mesh, "infer", objective="memory", gap=1.0)
    assert num_calls and summary["max_relative_error"]["gradient"] == 0.0
