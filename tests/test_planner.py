"""Plans: their predictions, baselines, limits and file."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autotp
from autotp.api import timed_plan
from autotp.capture.model_file import ModelSource, load_model
from autotp.cost.problem import Training
from autotp.errors import InfeasibleError, PlanError, ProfileError, RuleError
from autotp.plan_file import dumps, load, loads, save
from autotp.planning.search import Options
from autotp.plans import VERSION, Plan
from autotp.solver.evaluate import evaluate
from autotp.solver.ilp import solve
from autotp.solver.serialise import from_dict

ROOT = Path(__file__).parent.parent
EXAMPLES = ["mlp", "nanogpt", "llama", "gpt2", "resnet", "moe"]


def source(name: str, **options: Any) -> ModelSource:
    return load_model(str(ROOT / f"examples/{name}.py"), options)


def planned(model: ModelSource, mesh: str, cluster: str = "cpu", mode: str = "train", **options: Any) -> Plan:
    options = {"training": Training(mode), **options}
    return timed_plan(model, mesh=mesh, cluster=cluster, dtype=None, options=Options(**options)).plan


def step_s(plan: Plan) -> float:
    return plan.summary["predicted"]["step_s"]


def wide() -> ModelSource:
    """Large enough that splitting pays."""
    return source("mlp", width=2048, hidden=8192, batch=2048)


def test_equal_input_gives_equal_bytes_and_the_file_gives_the_plan_again(tmp_path: Path) -> None:
    first, second = (planned(source("nanogpt"), "dp=2,tp=2") for _ in range(2))
    assert dumps(first) == dumps(second)
    save(first, tmp_path / "one.plan.json")
    assert dumps(load(tmp_path / "one.plan.json")) == dumps(first)
    assert [path.name for path in tmp_path.iterdir()] == ["one.plan.json"]


@pytest.mark.parametrize("objective", ["time", "memory"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_folding_changes_no_total(name: str, objective: str) -> None:
    """On one axis, without a binding limit, equal layers are optimal."""
    options = {"layers": 4} if name == "nanogpt" else {}
    plans = [planned(source(name, **options), "tp=2", objective=objective, is_folded=fold) for fold in (True, False)]
    folded, unfolded = plans
    if objective == "memory":
        assert max(memory(folded)) == pytest.approx(max(memory(unfolded)), rel=1e-9)
    else:
        assert step_s(folded) == pytest.approx(step_s(unfolded), rel=1e-6)
    variables = [plan.summary["solver"]["num_variables"] for plan in plans]
    assert variables[0] <= variables[1]


def memory(plan: Plan) -> list[float]:
    return plan.summary["predicted"]["memory_bytes"]


def test_the_best_plan_is_no_slower_than_any_that_people_would_write() -> None:
    best = planned(wide(), "tp=2")
    for strategy in ("greedy", "replicated", "megatron"):
        assert step_s(best) <= step_s(planned(wide(), "tp=2", strategy=strategy)) * (1 + 1e-7)
    baselines = best.summary["baselines"]
    assert baselines["megatron"]["step_s"] == pytest.approx(step_s(planned(wide(), "tp=2", strategy="megatron")))
    assert baselines["replicated"]["step_s"] == pytest.approx(step_s(planned(wide(), "tp=2", strategy="replicated")))
    one = planned(wide(), "tp=1")
    assert baselines["single_device"]["step_s"] == pytest.approx(step_s(one), rel=1e-6)
    assert step_s(best) < 0.7 * step_s(one), "two devices must pay for this model, or nothing was compared"


def test_megatron_is_column_and_row_and_null_where_a_model_has_no_such_plan() -> None:
    plan = planned(source("llama"), "tp=2", strategy="megatron")
    cut = {p.names[0]: {s.dim for s in p.placement if s.kind == "S"} for p in plan.parameters.values()}
    layer = "model.layers.0."
    assert all(cut[f"{layer}{name}_proj.weight"] == {0} for name in ("self_attn.q", "self_attn.v", "mlp.up"))
    assert all(cut[f"{layer}{name}_proj.weight"] == {1} for name in ("self_attn.o", "mlp.down"))
    assert planned(source("resnet"), "tp=2").summary["baselines"]["megatron"] is None


def test_a_search_that_met_its_time_limit_says_so() -> None:
    plan = planned(source("nanogpt"), "dp=2,tp=2", objective="memory", time_limit_s=1.0)
    solver = plan.summary["solver"]
    assert solver["status"] == "feasible" and solver["gap"] > 0
    assert planned(source("nanogpt"), "dp=2,tp=2", time_limit_s=30.0).summary["solver"]["status"] == "optimal"


def test_predictions_add_up() -> None:
    for mesh in ("tp=2", "dp=2,tp=2"):
        predicted = planned(source("mlp"), mesh, objective="memory").summary["predicted"]
        assert predicted["step_s"] == pytest.approx(predicted["compute_s"] + predicted["exposed_communication_s"])
        parts = predicted["memory_parts_bytes"]
        assert [sum(part.values()) for part in parts] == pytest.approx(predicted["memory_bytes"])


def test_the_stored_problem_has_the_plans_price() -> None:
    plan = planned(source("gpt2"), "tp=2", objective="memory")
    problem = from_dict(plan.problem)
    again = solve(dataclasses.replace(problem, limit_bytes=problem.limit_bytes * math.inf), objective="memory")
    assert again.cost_s == pytest.approx(step_s(plan), rel=1e-6)
    estimated = max(plan.summary["predicted"]["estimated_bytes"])
    assert max(evaluate(problem, again.choices).memory_bytes) == pytest.approx(estimated, rel=1e-9)


def test_a_memory_limit_is_kept_and_costs_time() -> None:
    free = planned(source("mlp"), "tp=2")
    least = planned(source("mlp"), "tp=2", objective="memory")
    limit = (max(memory(free)) + max(memory(least))) / 2
    tight = planned(source("mlp"), "tp=2", memory_bytes=limit)
    assert max(memory(least)) <= max(memory(tight)) <= limit < max(memory(free))
    assert step_s(free) < step_s(tight) <= step_s(least)


def test_what_cannot_fit_says_by_how_much_and_on_which_device() -> None:
    least = max(memory(planned(source("mlp"), "tp=2", objective="memory")))
    with pytest.raises(InfeasibleError, match=r"more than the limit of .* are needed on .*; .* would do"):
        planned(source("mlp"), "tp=2", memory_bytes=least - 4096)


def test_inference_has_no_gradients_and_no_backward() -> None:
    plan = planned(source("nanogpt"), "tp=2", mode="infer", objective="memory")
    parts = plan.summary["predicted"]["memory_parts_bytes"][0]
    assert parts["gradients"] == parts["optimizer"] == 0
    assert not any(move.backward_s for moves in plan.moves.values() for move in moves)
    assert not any(node.backward_s for node in plan.nodes.values())


@torch.library.custom_op("autotp_tests::strange", mutates_args=())
def strange(x: torch.Tensor) -> torch.Tensor:
    return x.flip(0)


@strange.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Custom(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return strange(strange(x)) + 1


def test_an_operator_without_a_rule_is_replicated_warned_about_once_and_listed_or_fatal() -> None:
    inputs = (torch.zeros(8),)
    with pytest.warns(UserWarning, match=r"no rule for autotp_tests.strange.default .*: it runs whole") as caught:
        plan = autotp.plan(Custom(), inputs, mesh="tp=2", cluster="cpu", mode="infer")
    assert len(caught) == 1 and plan.fallback_ops == ("autotp_tests.strange.default",)
    with pytest.raises(RuleError, match=r"autotp_tests\.strange"):
        autotp.plan(Custom(), inputs, mesh="tp=2", cluster="cpu", mode="infer", strict=True)


def test_a_mesh_larger_than_the_cluster_is_refused() -> None:
    with pytest.raises(ProfileError, match="16"):
        planned(source("mlp"), "tp=16", "dgx-h100")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "not a plan: the JSON is broken at line 1"),
        (lambda text: text[: len(text) // 2], "the JSON is broken"),
        (lambda text: "{}", "the field autotp_plan is missing"),
        (lambda text: text.replace(f'"autotp_plan": {VERSION}', '"autotp_plan": 99'), "the plan has version 99"),
        (lambda text: text.replace('"fingerprint"', '"finger"'), "the plan is corrupt"),
        (lambda text: text.replace("float32[", "float32("), "the plan is corrupt"),
        (lambda text: json.dumps(list(json.loads(text))), "not a plan"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(change: Any, message: str) -> None:
    text = change(dumps(planned(source("mlp"), "tp=2")))
    with pytest.raises(PlanError, match=message):
        loads(text)


def test_a_plan_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot read the plan"):
        load(tmp_path / "none.plan.json")
