"""What would have to change for another split to win: each claim is checked by solving, or planning, for that case."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from report_plans import ROOT, llama_plan
from solver_problems import random_problem, with_overlap

import autotp
from autotp.analysis.batches import batch_wins, options_of
from autotp.analysis.explain import Explanation, explain, plan_words, stored_problem
from autotp.analysis.wins import sped_up
from autotp.capture.model_file import load_model
from autotp.plan_file import dumps, loads
from autotp.plans import Plan
from autotp.report.units import parse_bytes
from autotp.solver.evaluate import evaluate
from autotp.solver.ilp import solve
from autotp.solver.problem import Problem

UP = "blocks.*.up"
SIZES = {"width": 512, "hidden": 1024, "layers": 1}


@cache
def planned(batch: int = 512, **options: object) -> Plan:
    model = load_model(str(ROOT / "examples" / "mlp.py"), SIZES, batch=batch)
    return loads(dumps(autotp.plan(model, mesh="tp=2", cluster="dgx-h100", **options)))


@cache
def explained() -> Explanation:
    return explain(planned(), UP, try_batches=batch_wins)


def column_wins_if() -> list[str]:
    return next(row.wins_if for row in explained().alternatives if row.words == "column (n)").split(", or ")


def best_within(limit_bytes: float) -> str:
    problem, _ = stored_problem(planned())
    found = solve(replace(problem, limit_bytes=np.full_like(problem.limit_bytes, limit_bytes)))
    stored, index = planned().problem, planned().problem["members"][explained().node]
    return " / ".join(stored["words"][stored["strategies"][index][found.choices[index]]])


def test_the_plan_splits_nothing_here() -> None:
    assert explained().alternatives[0].words == "whole" and explained().alternatives[0].is_chosen


def test_less_memory_makes_another_split_win() -> None:
    (words,) = [each for each in column_wins_if() if each.startswith("at most")]
    limit_bytes = parse_bytes(words.removeprefix("at most ").removesuffix(" of memory per device"))
    needed = explained().alternatives[0].memory_bytes
    assert needed is not None and limit_bytes < needed
    assert best_within(limit_bytes - 2**19) == "column (n)"
    assert best_within(needed) == "whole"


def test_more_memory_makes_another_split_win() -> None:
    tight = planned(memory_bytes=float(max(planned().summary["predicted"]["memory_bytes"]) - 2**20))
    found = explain(tight, UP)
    assert found.alternatives[0].words == "column (n)"
    words = next(row.wins_if for row in found.alternatives if row.words == "whole").split(", or ")[-1]
    limit_bytes = parse_bytes(words.removeprefix("at least ").removesuffix(" of memory per device"))
    needed = explained().alternatives[0].memory_bytes
    assert needed is not None and max(stored_problem(tight)[0].limit_bytes) < limit_bytes < needed + 2**20


def test_a_larger_batch_makes_another_split_win() -> None:
    (words,) = [each for each in column_wins_if() if "batch" in each]
    batch = int(words.removeprefix("a batch of ").removesuffix(" or more"))
    assert batch > 512
    assert plan_words(planned(batch), explained().node) == ("column (n)",)
    assert explained().with_batches and explained().untried == ""


def test_what_only_another_batch_allows_is_a_row_too() -> None:
    def trier(plan: Plan, node: str, add: object, progress: object) -> str:
        add("dim 7", "a batch of 9 or more")  # type: ignore[operator]
        add("whole", "never said of what is chosen")  # type: ignore[operator]
        return ""

    rows = {row.words: row for row in explain(planned(), UP, try_batches=trier).alternatives}
    assert (rows["dim 7"].cost_s, rows["dim 7"].wins_if) == (None, "a batch of 9 or more")
    assert rows["whole"].wins_if == ""


def test_batches_that_cannot_be_tried_say_why() -> None:
    assert "not of a model file" in batch_wins(llama_plan(), "linear", lambda *_: None)
    gone = planned()
    origin = {**gone.model["origin"], "path": "gone.py"}
    reason = batch_wins(replace(gone, model={**gone.model, "origin": origin}), explained().node, lambda *_: None)
    assert "gone.py" in reason


@pytest.mark.parametrize(
    "asked",
    [{}, {"memory_bytes": 2e9}, {"force": ("blocks.*.up=column",), "fold": False}, {"objective": "memory"}],
)
def test_a_plan_knows_what_was_asked_for_it(asked: dict[str, object]) -> None:
    found = options_of(planned(**asked))
    assert found.memory_bytes == asked.get("memory_bytes")
    assert found.force == asked.get("force", ())
    assert found.objective == asked.get("objective", "time")
    assert found.training.mode == "train"


def test_what_is_sent_beside_computing_is_sped_up_too() -> None:
    problem = next(p for p in (with_overlap(random_problem(seed), seed) for seed in range(9)) if _is_beside(p))
    choices = [0] * len(problem.nodes)
    faster = sped_up(problem, 4.0)
    for flow, same in zip(faster.flows, problem.flows, strict=True):
        assert np.array_equal(flow.weighed_s(), same.weighed_s() / 4)
        assert np.array_equal(flow.weighed_s(0.0), same.weighed_s(0.0) / 4)
    assert [node.cost_s.tolist() for node in faster.nodes] == [node.cost_s.tolist() for node in problem.nodes]
    assert evaluate(faster, choices).cost_s <= evaluate(problem, choices).cost_s


def _is_beside(problem: Problem) -> bool:
    return any(flow.arc_beside_s is not None and flow.arc_beside_s.any() for flow in problem.flows)
