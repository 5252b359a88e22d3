"""What is forced, forbidden, explained and compared: each total is the one that planning again gives."""

from dataclasses import replace

import pytest
from report_plans import ROOT, small_plan

import autotp
from autotp.analysis.compare import compare, differences
from autotp.analysis.explain import explain, find_node, stored_problem, to_json
from autotp.capture.model_file import load_model
from autotp.errors import AutoTPError, InfeasibleError, PlanError
from autotp.plan_file import dumps, loads
from autotp.plans import Plan
from autotp.report.words import describe_strategy, short_op
from autotp.solver.ilp import solve


def planned(**options: object) -> Plan:
    model = load_model(str(ROOT / "examples" / "mlp.py"))
    return autotp.plan(model, mesh="tp=4", cluster="dgx-h100", **options)


def words(plan: Plan, module: str) -> tuple[str, ...]:
    node = next(n for n, facts in plan.nodes.items() if facts.module == module and short_op(facts.op) == "linear")
    return describe_strategy("linear", plan.strategies[node])


LINEAR = next(f.module for f in small_plan("mlp").nodes.values() if short_op(f.op) == "linear")


@pytest.mark.parametrize("objective", ["memory"])
def test_forced_totals_are_those_of_planning_again(objective: str) -> None:
    plan = loads(dumps(planned(objective=objective)))
    found = explain(plan, LINEAR)
    assert found.alternatives[0].is_chosen
    assert found.alternatives[0].cost_s == pytest.approx(plan.summary["predicted"]["step_s"])
    assert found.num_left_out == 0
    tried = 0
    for row in found.alternatives:
        forced = planned(objective=objective, force=[f"{LINEAR}={row.words}"])
        assert words(forced, LINEAR) == (row.words,)
        assert row.cost_s == pytest.approx(forced.summary["predicted"]["step_s"], rel=1e-6)
        tried += 1
    assert tried >= 3
    assert all(row.wins_if for row in found.alternatives if not row.is_chosen)


def test_an_alternative_wins_where_it_is_said_to() -> None:
    """A small model is not split on slow links, and is on fast ones."""
    model = load_model(str(ROOT / "examples" / "mlp.py"), {"width": 1024}, batch=512)
    plan = loads(dumps(autotp.plan(model, mesh="tp=2", cluster="dgx-h100")))
    found = explain(plan, LINEAR)
    winners = [row for row in found.alternatives if "communication at least" in row.wins_if]
    assert winners
    for row in winners:
        factor = float(row.wins_if.split("at least ")[1].split(" times")[0])
        problem, _ = stored_problem(plan)
        faster = replace(problem, flows=tuple(replace(f, arc_cost_s=f.arc_cost_s / factor) for f in problem.flows))
        index = plan.problem["members"][found.node]
        chosen = plan.problem["strategies"][index][solve(faster).choices[index]]
        assert " / ".join(plan.problem["words"][chosen]) == row.words


def test_the_stored_problem_is_the_plans() -> None:
    plan = loads(dumps(planned()))
    assert solve(stored_problem(plan)[0]).cost_s == pytest.approx(plan.summary["predicted"]["step_s"])


def test_forbidding_what_a_plan_does_makes_it_do_something_else() -> None:
    before = words(planned(objective="memory"), LINEAR)
    after = planned(objective="memory", forbid=[f"{LINEAR}={before[0]}"])
    assert words(after, LINEAR) != before
    assert after.summary["solver"]["forbid"] == [f"{LINEAR}={before[0]}"]
    assert after.summary["solver"]["status"] == "optimal"


def test_a_plan_with_constraints_explains_itself_within_them() -> None:
    plan = planned(forbid=[f"{LINEAR}=column"])
    assert "column (n)" not in [row.words for row in explain(plan, LINEAR).alternatives]


@pytest.mark.parametrize(
    ("force", "error", "message"),
    [
        (["x"], AutoTPError, "write it as pattern=word"),
        (["=column"], AutoTPError, "write it as pattern=word"),
        (["nothing.here=column"], AutoTPError, "no module, parameter or node is called so"),
        ([f"{LINEAR}=colum"], AutoTPError, "did you mean column"),
        ([f"{LINEAR}=dp:column"], AutoTPError, "has no axis 'dp'"),
        ([f"{LINEAR}=column", f"{LINEAR}=row"], InfeasibleError, "leave .* without a strategy"),
    ],
)
def test_constraints_that_cannot_be_met_say_so(force: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        planned(force=force)


def test_only_the_optimal_strategy_takes_constraints() -> None:
    with pytest.raises(AutoTPError, match="choose optimal"):
        planned(force=[f"{LINEAR}=column"], strategy="greedy")


def test_layers_that_are_decided_together_are_not_forced_alone() -> None:
    with pytest.raises(AutoTPError, match="no-fold"):
        autotp.plan(load_model(str(ROOT / "examples" / "nanogpt.py"), {"layers": 5}), mesh="tp=2", cluster="dgx-h100",
                    force=["blocks.2.*=whole"])  # fmt: skip


def test_names_are_found_by_their_ends_and_others_are_refused() -> None:
    plan = small_plan("mlp")
    parameter = next(p.names[0] for p in plan.parameters.values())
    assert plan.parameters[find_node(plan, parameter)].names[0] == parameter
    with pytest.raises(PlanError, match="no node, parameter or module 'nothing'"):
        find_node(plan, "nothing")
    assert to_json(explain(plan, LINEAR), plan)["alternatives"][0]["more_s"] == pytest.approx(0, abs=1e-12)


def test_plans_are_compared_by_amount_and_by_module() -> None:
    one, two = planned(objective="memory"), planned(strategy="replicated")
    assert differences(one, one) == []
    found = {d.module: (d.first, d.second) for d in differences(one, two)}
    assert any(second == "whole" for _, second in found.values())
    amounts = {name: (a, b) for name, a, b in compare(one, two)}
    assert amounts["step_s"] == (one.summary["predicted"]["step_s"], two.summary["predicted"]["step_s"])
    assert amounts["moved_bytes"][1] == 0 < amounts["moved_bytes"][0]
