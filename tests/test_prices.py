"""Shadow prices agree with finite differences, and with planning again."""

from dataclasses import replace

import numpy as np
import pytest
from report_plans import ROOT

import autotp
from autotp.analysis.explain import stored_problem
from autotp.analysis.prices import link_row, memory_row, used_links, with_prices
from autotp.analysis.what_if import changed
from autotp.capture.model_file import load_model
from autotp.hardware.catalogue import load_cluster
from autotp.plan_file import dumps, loads
from autotp.plans import Plan
from autotp.solver.ilp import solve
from autotp.solver.prices import memory_prices


def planned(cluster: object = "dgx-h100", mesh: str = "tp=2", **options: object) -> Plan:
    model = load_model(str(ROOT / "examples" / "mlp.py"), {"width": 1024, "hidden": 4096}, batch=2048)
    return loads(dumps(autotp.plan(model, mesh=mesh, cluster=cluster, **options)))


def test_the_price_of_memory_is_the_slope_of_the_relaxation() -> None:
    problem, _ = stored_problem(planned())
    free = replace(problem, limit_bytes=np.full_like(problem.limit_bytes, np.inf))
    most = max(solve(free).memory_bytes)
    least = max(solve(free, objective="memory").memory_bytes)
    assert least < most
    tried = 0
    for share in (0.2, 0.4, 0.6, 0.8):
        limit = least + share * (most - least)
        seconds, prices = memory_prices(replace(problem, limit_bytes=np.array([limit])))
        step = 1e-4 * (most - least)
        below, _ = memory_prices(replace(problem, limit_bytes=np.array([limit - step])))
        above, _ = memory_prices(replace(problem, limit_bytes=np.array([limit + step])))
        slopes = ((below - seconds) / step, (seconds - above) / step)
        if slopes[0] == pytest.approx(slopes[1], rel=1e-3):  # not at a kink, where there is no slope
            assert prices[0] == pytest.approx(slopes[0], rel=0.01)
            assert prices[0] > 0
            tried += 1
    assert tried >= 2


def test_memory_that_is_not_needed_is_worth_nothing() -> None:
    row = memory_row(planned())
    assert row["price_s"] == pytest.approx(0, abs=1e-12)
    assert row["solved_again_s"] == pytest.approx(0, abs=1e-12)


def test_the_price_of_bandwidth_is_what_planning_again_saves() -> None:
    plan, cluster = planned(objective="time", force=["blocks.*.up=column"]), load_cluster("dgx-h100")
    assert used_links(plan) == ["intra"]
    again = planned(changed(cluster, ["link.intra.bandwidth*=1.1"]), force=["blocks.*.up=column"])
    row = link_row(plan, again, "intra")
    assert row["price_s"] > 0
    assert row["solved_again_s"] == pytest.approx(row["price_s"], rel=0.01)
    assert row["solved_again_s"] == pytest.approx(
        plan.summary["predicted"]["step_s"] - again.summary["predicted"]["step_s"], rel=0.01
    )


def test_a_plan_over_two_nodes_prices_both_links() -> None:
    plan = planned("dgx-h100-x2", "dp=2,tp=8")
    assert used_links(plan) == ["intra", "inter"]
    found = with_prices(plan, load_cluster("dgx-h100-x2"), lambda cluster: planned(cluster, "dp=2,tp=8"))
    rows = found.summary["shadow_prices"]
    assert [row["what"] for row in rows] == [
        "1 GiB more memory per device", "10% more bandwidth inside a node", "10% more bandwidth between nodes",
    ]  # fmt: skip
    assert all(row["solved_again_s"] >= row["price_s"] - 1e-12 for row in rows[1:])
