"""Checkpointed regions: which there are, that they run right on split models, what they keep, and what they cost."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import autotp
from autotp.api import as_cluster
from autotp.capture.export import capture
from autotp.capture.model_file import load_model
from autotp.cost.training import Training
from autotp.errors import AutoTPError
from autotp.mesh import Mesh
from autotp.planning.dry_run import rank_memory
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.redistribute import COLLECTIVES
from autotp.regions import regions
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.recompute import Recomputed
from autotp.runtime.simulate import run_ranks

EXAMPLES = Path(__file__).parents[1] / "examples"


def captured_example(name: str, batch: int | None = None, **settings: object):
    source = load_model(str(EXAMPLES / f"{name}.py"), settings, batch, None)
    torch.manual_seed(0)
    return capture(source.build(), source.example_inputs(), outputs="loss"), source


def plan_of(captured, checkpointing: str, mesh: str = "tp=2", **options: object):
    asked = Options(Training(checkpointing=checkpointing), **options)
    return make_plan(captured, Mesh.parse(mesh), as_cluster("dgx-h100"), asked, {}).plan


def without(plan):
    """The same plan that keeps everything."""
    training = {**plan.summary["training"], "checkpointing": "none"}
    return replace(plan, summary={**plan.summary, "training": training})


def test_regions_are_blocks_or_the_core_of_attention() -> None:
    captured, _ = captured_example("llama")
    full = regions(captured.graph, "full")
    assert len(full) == 2
    assert all(
        {captured.graph[name].module.split(".")[2] for name in region} == {str(i)} for i, region in enumerate(full)
    )
    selective = regions(captured.graph, "selective")
    assert [[captured.graph[name].short_op for name in region] for region in selective] == [
        ["scaled_dot_product_attention"]
    ] * 2
    assert regions(captured.graph, "none") == ()
    with pytest.raises(AutoTPError, match=r"'some'.*none, selective, full"):
        regions(captured.graph, "some")


@pytest.mark.parametrize("checkpointing", ["selective", "full"])
@pytest.mark.parametrize("name", ["nanogpt", "gpt2"])
def test_a_checkpointed_module_is_right(name: str, checkpointing: str) -> None:
    captured, source = captured_example(name)
    plan = plan_of(captured, checkpointing, objective="memory")
    found = autotp.verify(source, plan=plan)
    assert found["ok"], found["problems"]


def test_the_forward_runs_again_with_the_same_random_numbers() -> None:
    captured, source = captured_example("gpt2", dropout=0.3)
    flat = captured.flatten_inputs((), source.example_inputs())

    def gradients(plan) -> list[torch.Tensor]:
        def rank_main(rank, communicators):
            torch.manual_seed(rank)
            module = build_for_rank(captured, plan, rank, communicators)
            for _ in range(2):  # the second call draws other numbers than the first
                (loss,) = module.graph_module(*flat)
            loss.backward()
            return [loss.detach(), *(p.grad for p in module.parameters())]

        return run_ranks(plan.mesh, rank_main)[1]

    found = plan_of(captured, "full", objective="memory")
    plain, again = gradients(without(found)), gradients(found)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_less_is_kept_and_the_collectives_of_a_block_are_priced_again() -> None:
    captured, _ = captured_example("nanogpt", batch=32)
    found = {}
    for checkpointing in ("none", "selective", "full"):
        plan = plan_of(captured, checkpointing, strategy="megatron")
        parts = rank_memory(captured, plan, 0, Training(checkpointing=checkpointing))
        found[checkpointing] = (sum(parts.values()), plan.summary["predicted"])
    assert found["full"][0] < found["selective"][0] < found["none"][0]
    none, full = found["none"][1], found["full"][1]
    assert full["compute_parts_s"]["forward"] == pytest.approx(none["compute_parts_s"]["forward"])
    assert full["compute_parts_s"]["backward"] > none["compute_parts_s"]["backward"]
    assert full["communication_s"] > 1.2 * none["communication_s"]


def test_what_is_issued_again_is_what_is_priced_again() -> None:
    captured, source = captured_example("nanogpt")
    flat = captured.flatten_inputs((), source.example_inputs())
    plan = plan_of(captured, "full", strategy="megatron")

    def issued(plan):
        def rank_main(rank, communicators):
            module = build_for_rank(captured, plan, rank, communicators)
            for communicator in communicators.values():
                communicator.trace = []
            (loss,) = module.graph_module(*flat)
            loss.backward()
            return sum(len(communicator.trace) for communicator in communicators.values())

        return run_ranks(plan.mesh, rank_main)[0]

    again = sum(move.again_s > 0 and move.forward in COLLECTIVES for moves in plan.moves.values() for move in moves)
    assert again > 0 and issued(plan) - issued(without(plan)) == again


def test_blocks_are_modules_of_the_rewritten_one_and_state_keeps_its_names() -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(3)))
    captured = capture(model, (torch.zeros(4, 16),))
    plan = plan_of(captured, "full", mesh="tp=1")
    (module,) = run_ranks(plan.mesh, lambda rank, c: build_for_rank(captured, plan, rank, c))
    assert sum(isinstance(child, Recomputed) for child in module.graph_module.children()) == 3
    assert set(module.state_dict()) == set(model.state_dict())


def test_accumulated_micro_batches_are_priced_each_and_the_optimizer_once() -> None:
    captured, _ = captured_example("nanogpt")
    mesh, cluster = Mesh.parse("tp=2"), as_cluster("dgx-h100")
    asked = [Options(Training(accumulation=n), strategy="megatron") for n in (1, 4)]
    once, four = (make_plan(captured, mesh, cluster, options, {}).plan for options in asked)
    a, b = once.summary["predicted"], four.summary["predicted"]
    assert b["communication_s"] == pytest.approx(4 * a["communication_s"])
    assert b["compute_parts_s"]["optimizer"] == a["compute_parts_s"]["optimizer"]
    assert b["compute_parts_s"]["forward"] == pytest.approx(4 * a["compute_parts_s"]["forward"])
