"""What a measurement makes of the ranks' findings: parts add up to the step, and every prediction finds its measurement."""

from dataclasses import replace
from pathlib import Path

import pytest

import autotp
from autotp.capture.model_file import load_model
from autotp.measurement import Measurement
from autotp.measuring.run_plan import compare
from autotp.measuring.run_rank import RankRun
from autotp.plans import Plan
from autotp.timeline import WAIT

MODEL = Path(__file__).parents[1] / "examples" / "mlp.py"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return autotp.plan(str(MODEL), mesh="tp=2", cluster="cpu", strategy="megatron")


def run_of(plan: Plan, factor: float = 1.0) -> RankRun:
    """A rank that took exactly what the plan predicts, times a factor."""
    predicted, times = plan.summary["predicted"], plan.summary["training"]["accumulation"]
    nodes = {
        name: [times * factor * facts.forward_s, times * factor * facts.backward_s]
        for name, facts in plan.nodes.items()
        if facts.kind == "op"
    }
    moves = {
        value.node: [
            times * factor * sum(each) for each in zip(*((m.forward_s, m.backward_s) for m in all_of), strict=True)
        ]
        for value, all_of in plan.moves.items()
    }
    actions = {name: factor * seconds for name, seconds in predicted["communication_by_kind_s"].items()}
    inside_s = actions.pop("inside_operators")
    optimizer_s = factor * predicted["compute_parts_s"]["optimizer"]
    rest_s = factor * predicted["step_s"] - optimizer_s
    memory = predicted["memory_parts_bytes"][0]
    sizes = {name: size for name, size in memory.items() if name != "process"}
    peak = sum(size for name, size in memory.items() if name != "process")
    operators = {name: plan.nodes[name].op.split(".")[1] for name in nodes}
    steps = [[rest_s / 3, 2 * rest_s / 3, optimizer_s]] * 3
    return RankRun(steps, nodes, moves, actions, [inside_s, 0.0], operators, {**sizes, "peak": peak}, "cpu")


@pytest.mark.parametrize("accumulation", [1, 3])
def test_what_was_predicted_exactly_is_off_by_nothing(accumulation: int) -> None:
    plan = autotp.plan(str(MODEL), mesh="tp=2", cluster="cpu", strategy="megatron", accumulation=accumulation)
    found = compare(plan, [run_of(plan)] * 2, 3, 0.01)
    assert found.misses() == []
    rows = [found.step_s, *found.parts_s.values(), *found.communication_s.values(), *found.operators_s.values()]
    rows += [
        each for both in (*found.nodes.values(), *found.moves.values()) for each in (both.forward_s, both.backward_s)
    ]
    rows += [*found.memory_bytes, *found.memory_parts_bytes.values()]
    assert all(each.measured == pytest.approx(each.predicted, abs=1e-12) for each in rows)
    assert found.parts_s["other"].measured == pytest.approx(0.0, abs=1e-9)
    assert Measurement.from_json(found.to_json()) == found


def test_the_slowest_rank_is_what_a_step_takes(plan: Plan) -> None:
    found = compare(plan, [run_of(plan), run_of(plan, 2.0)], 3, 0.25)
    assert found.step_s.measured == pytest.approx(2 * found.step_s.predicted)
    assert found.misses() == [f"the step: predicted {found.step_s.predicted:.4g} s, measured "
                              f"{found.step_s.measured:.4g} s, off by -50.0%"]  # fmt: skip


def test_parts_add_up_to_the_step_whatever_the_profiler_adds(plan: Plan) -> None:
    run = run_of(plan)
    slow = {name: [3 * seconds for seconds in both] for name, both in run.nodes_s.items()}
    found = compare(plan, [replace(run, nodes_s=slow)] * 2, 3, 0.25)
    assert sum(each.measured for each in found.parts_s.values()) == pytest.approx(found.step_s.measured)


def test_of_what_is_sent_beside_computing_the_waiting_is_compared() -> None:
    source = load_model(str(MODEL.with_name("llama.py")), {"size": "8b", "layers": 1}, 16, 512)
    plan = autotp.plan(source, mesh="dp=2", cluster="dgx-h100", dtype="bf16", overlap=True)
    predicted = plan.summary["predicted"]
    hidden_s = predicted["communication_s"] - predicted["exposed_communication_s"]
    found = compare(plan, [run_of(plan)] * 2, 3, 0.25)
    assert hidden_s > 0 and found.communication_s[WAIT].predicted > 0
    total_s = sum(each.predicted for each in found.communication_s.values())
    assert total_s == pytest.approx(predicted["exposed_communication_s"])
    assert found.parts_s["communication"].predicted == pytest.approx(predicted["exposed_communication_s"])
