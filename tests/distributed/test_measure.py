"""`autotp measure` over real processes: what is known exactly is found exactly."""

from pathlib import Path

import pytest

import autotp
from autotp.capture.model_file import load_model
from autotp.errors import PlanError
from autotp.measuring.run_plan import measure_plan

MODEL = Path(__file__).parents[2] / "examples" / "nanogpt.py"


@pytest.mark.distributed
def test_a_plan_is_run_and_compared() -> None:
    source = load_model(str(MODEL), {"layers": 1})
    plan = autotp.plan(source, mesh="tp=2", cluster="cpu", strategy="megatron", optimizer="adamw")
    found = measure_plan(source, plan, num_steps=3, bound=1e-9)
    assert len(found.misses()) >= 1, "no prediction is exact to a billionth"
    assert [len(steps) for steps in found.rank_steps_s] == [3, 3]
    assert sum(each.measured for each in found.parts_s.values()) == pytest.approx(found.step_s.measured)
    operators = {name for name, facts in plan.nodes.items() if facts.kind == "op"}
    assert set(found.nodes) == operators
    linears = [both for name, both in found.nodes.items() if plan.nodes[name].op == "aten.linear.default"]
    assert len(linears) == 5 and all(b.forward_s.measured > 0 and b.backward_s.measured > 0 for b in linears)
    predicted = {name for name, each in found.communication_s.items() if each.predicted}
    assert predicted == {name for name, each in found.communication_s.items() if each.measured}, "what is priced runs"
    assert {value.node for value in plan.moves} == {name for name, both in found.moves.items() if _takes(both)}
    assert found.memory_parts_bytes["parameters"].error == 0.0
    assert found.memory_parts_bytes["optimizer"].error == pytest.approx(0.0, abs=1e-3), "but for the step counts"
    assert set(found.memory_parts_bytes) == {"parameters", "gradients", "optimizer", "activations", "transient"}
    assert all(each.error == pytest.approx(0.0, abs=0.1) for each in found.memory_bytes)


def _takes(both: object) -> bool:
    return bool(both.forward_s.measured + both.backward_s.measured)  # type: ignore[attr-defined]


def test_a_plan_for_gpus_that_are_not_here_is_refused() -> None:
    source = load_model(str(MODEL))
    plan = autotp.plan(source, mesh="tp=2", cluster="dgx-h100")
    with pytest.raises(PlanError, match="this machine has 0: plan for"):
        measure_plan(source, plan)
