"""How near to the best a plan is, is said for the devices' shares too; plans that are compared are judged alike."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from autotp.cli.explain import _text
from report_plans import ROOT, small_plan

import autotp
from autotp.capture.model_file import load_model
from autotp.hardware.catalogue import load_cluster
from autotp.plans import Plan
from autotp.report.answer import facts
from autotp.report.frames import frame
from autotp.report.proof import proof_of
from autotp.report.sections import sections


@cache
def mixed(strategy: str) -> Plan:
    cluster = load_cluster(str(ROOT / "examples" / "mixed-box.json"))
    model = load_model(str(ROOT / "examples" / "nanogpt.py"), {"layers": 1})
    return autotp.plan(model, mesh="tp=4", cluster=cluster, strategy=strategy)


def changed(plan: Plan, part: str, **values: Any) -> Plan:
    return replace(plan, summary={**plan.summary, part: {**plan.summary[part], **values}})


def words_of(plan: Plan) -> str:
    texts = [text for section in sections(plan) if section.key == "solver" for text in section.text]
    return " ".join([*texts, *(fact.value for fact in facts(plan))])


@pytest.mark.parametrize("strategy", ["megatron", "replicated"])
def test_baselines_are_judged_as_the_plan_is(strategy: str) -> None:
    plan = mixed(strategy)
    own_s, apart_s = plan.summary["predicted"]["step_s"], plan.summary["balance"]["apart_s"]
    assert plan.summary["baselines"][strategy]["step_s"] == pytest.approx(own_s, rel=1e-12)
    assert strategy == "replicated" or own_s < 0.999 * apart_s, "ranks meet after every operator: this compares nothing"


def test_of_unlike_devices_the_bound_for_any_shares_counts() -> None:
    plan = changed(mixed("optimal"), "balance", uneven_axes=["tp"], gap=0.043, bound_s=0.25)
    assert plan.summary["solver"]["status"] == "optimal"
    assert proof_of(plan).word == "within 4.3% of optimal"
    words = words_of(plan)
    assert "no step is shorter than 250 ms" in words and "within 4.3% of optimal" in words and "proven" not in words
    rows = frame(plan, "solver").set_index("what")["value"]
    assert (rows["bound for any shares"], rows["gap to it"]) == ("250 ms", "4.3000%")
    assert "whatever the devices' shares" in words_of(changed(plan, "balance", gap=0.0))


def test_of_equal_devices_the_solvers_does() -> None:
    plan = changed(small_plan(), "balance", gap=0.043)
    assert proof_of(plan).word == "proven optimal" and "bound for any shares" not in set(frame(plan, "solver")["what"])
    plan = changed(plan, "solver", status="feasible", gap=0.02)
    assert "within 2.0% of optimal" in words_of(plan) and "by 2.00% at most" in words_of(plan)
    assert "no proof was sought" in words_of(changed(plan, "solver", status="heuristic", strategy="greedy"))


def test_explain_says_how_its_totals_are_counted() -> None:
    nothing = {"node": "x", "op": "linear", "module": "", "count": 1, "alternatives": [], "num_left_out": 0}
    data = {**nothing, "untried": "", "with_batches": False}
    told = " ".join(str(each) for each in _text(data, mixed("megatron")))
    assert "these totals add up the slowest one operator by operator" in told
    assert "slowest one" not in " ".join(str(each) for each in _text(data, small_plan()))
