"""The integer program against every combination tried, with an independent price of every combination."""

import dataclasses
import heapq
import math
from collections.abc import Callable

import highspy
import numpy as np
import pytest
from solver_problems import large_problem, random_problem

from autotp.errors import AutoTPError, InfeasibleError, SolverError
from autotp.solver.baselines import fixed, solve_restricted
from autotp.solver.brute_force import brute_force
from autotp.solver.evaluate import evaluate, fits
from autotp.solver.greedy import greedy
from autotp.solver.ilp import solve
from autotp.solver.problem import Flow, Problem, Solution
from autotp.solver.serialise import from_dict, to_dict

SEEDS = range(110)  # each without a limit, and with one that binds


def limited(problem: Problem, free: Solution, share: float) -> Problem:
    """With limits at this share of what the quickest plan holds on every device."""
    return dataclasses.replace(problem, limit_bytes=np.array(free.memory_bytes) * share)


def outcome(answer: Callable[[], Solution]) -> Solution | str:
    try:
        return answer()
    except InfeasibleError:
        return "infeasible"


def same(problem: Problem, found: Solution | str, expected: Solution | str, objective: str) -> None:
    if isinstance(found, str) or isinstance(expected, str):
        assert found == expected
        return
    again = evaluate(problem, found.choices)
    assert (again.cost_s, again.memory_bytes, again.arcs) == (found.cost_s, found.memory_bytes, found.arcs)
    assert fits(found.memory_bytes, problem)
    assert found.status == "optimal" and found.gap <= 1e-6
    if objective == "memory":
        assert max(found.memory_bytes) == pytest.approx(max(expected.memory_bytes), rel=1e-7)
        tolerance = 1e-6
    else:
        tolerance = 2e-7  # the docstring of `ilp` promises 1e-7 of the cost
    assert found.cost_s == pytest.approx(expected.cost_s, rel=tolerance, abs=1e-15)


@pytest.mark.parametrize("first", range(0, len(SEEDS), 10))
def test_the_integer_program_equals_brute_force(first: int) -> None:
    """220 problems of one and two axes and of arbitrary graphs, half of them with limits of bytes."""
    num_limited = 0
    for seed in SEEDS[first : first + 10]:
        problem = random_problem(seed)
        free = outcome(lambda problem=problem: brute_force(problem))
        same(problem, outcome(lambda problem=problem: solve(problem)), free, "time")
        if isinstance(free, str):
            continue
        tight = limited(problem, free, (0.99, 0.9, 0.7, 0.4)[seed % 4])
        expected = outcome(lambda tight=tight: brute_force(tight))
        same(tight, outcome(lambda tight=tight: solve(tight)), expected, "time")
        num_limited += not isinstance(expected, str)
    assert num_limited >= 1, "no limit could be kept: these problems test nothing"


@pytest.mark.parametrize("seed", range(200, 230))
def test_fewest_bytes_equal_brute_force(seed: int) -> None:
    problem = random_problem(seed)
    expected = outcome(lambda: brute_force(problem, objective="memory"))
    same(problem, outcome(lambda: solve(problem, objective="memory")), expected, "memory")


@pytest.mark.parametrize("seed", range(300, 312))
def test_cbc_finds_the_same(seed: int) -> None:
    problem = random_problem(seed)
    free = outcome(lambda: brute_force(problem))
    same(problem, outcome(lambda: solve(problem, backend="cbc")), free, "time")


def cheapest_arcs_s(flow: Flow, made: int, wanted: frozenset[int]) -> float:
    """Least seconds of arcs that lead from `made` to all of `wanted`: Dijkstra over sets of reached states."""
    seconds = {frozenset([made]): 0.0}
    queue = [(0.0, 0, frozenset([made]))]
    counter = 0
    while queue:
        spent, _, reached = heapq.heappop(queue)
        if spent > seconds[reached]:
            continue
        if wanted <= reached:
            return spent
        for source, target, cost in zip(flow.arc_source, flow.arc_target, flow.arc_cost_s, strict=True):
            if int(source) in reached and int(target) not in reached and math.isfinite(cost):
                more = reached | {int(target)}
                if spent + cost < seconds.get(more, math.inf):
                    seconds[more] = spent + float(cost)
                    counter += 1
                    heapq.heappush(queue, (seconds[more], counter, more))
    return math.inf


@pytest.mark.parametrize("seed", range(400, 440))
def test_the_judge_prices_trees_as_a_search_over_sets_does(seed: int) -> None:
    problem, rng = random_problem(seed), np.random.default_rng(seed)
    choices = [int(rng.integers(len(node.cost_s))) for node in problem.nodes]
    expected = sum(node.count * float(node.cost_s[s]) for node, s in zip(problem.nodes, choices, strict=True))
    for flow in problem.flows:
        wanted = frozenset(int(consumer.wants[choices[consumer.node]]) for consumer in flow.consumers)
        expected += flow.count * cheapest_arcs_s(flow, int(flow.makes[choices[flow.producer]]), wanted)
    assert evaluate(problem, choices).cost_s == pytest.approx(expected, rel=1e-12)


def test_what_does_not_fit_is_refused_with_the_bytes_that_would() -> None:
    problem = random_problem(3)
    least = brute_force(problem, objective="memory")
    tight = dataclasses.replace(problem, limit_bytes=np.array(least.memory_bytes) * 0.9)
    with pytest.raises(InfeasibleError, match=r"no plan fits the memory limit: at least .* more than the limit of .*"):
        solve(tight)
    with pytest.raises(InfeasibleError):
        brute_force(tight)
    assert solve(dataclasses.replace(problem, limit_bytes=np.full(len(least.memory_bytes), max(least.memory_bytes))))


@pytest.mark.parametrize(("num_layers", "axes"), [(8, (3,)), (2, (2, 2))])
def test_a_deep_model_is_solved_by_its_relaxation_twice_alike(num_layers: int, axes: tuple[int, ...]) -> None:
    problem = large_problem(num_layers, axes)
    first, second = solve(problem), solve(problem)
    assert first == second and first.status == "optimal" and first.gap <= 1e-7
    assert first.cost_s <= greedy(problem).cost_s
    assert first.cost_s <= fixed(problem, [0] * len(problem.nodes)).cost_s


def test_fewer_strategies_are_never_better_and_keep_their_indices() -> None:
    problem = large_problem(2, (2,))
    whole = solve(problem)
    allowed = [[s, 0] for s in whole.choices]
    found = solve_restricted(problem, allowed)
    assert found.cost_s == pytest.approx(whole.cost_s, rel=1e-7)
    assert all(s in some for s, some in zip(found.choices, allowed, strict=True))
    assert solve_restricted(problem, [[0]] * len(problem.nodes)).cost_s >= whole.cost_s


def test_a_stopped_search_says_so() -> None:
    problem = limited(large_problem(4, (3,)), solve(large_problem(4, (3,))), 0.6)
    with pytest.raises(SolverError, match="stopped by its limit"):
        solve(problem, time_limit_s=1e-9)
    stopped = solve(problem, node_limit=1)
    assert stopped.status in ("optimal", "feasible") and (stopped.status == "optimal" or stopped.gap > 0)


def test_problems_survive_json() -> None:
    for seed in range(500, 510):
        problem = random_problem(seed)
        again = from_dict(to_dict(problem))
        assert to_dict(again) == to_dict(problem)
        choices = [0] * len(problem.nodes)
        assert evaluate(again, choices) == evaluate(problem, choices)


def test_what_presolve_spoils_is_solved_without(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(3)
    expected, times = solve(problem), []

    class Spoilt(highspy.Highs):
        def getModelStatus(self) -> highspy.HighsModelStatus:
            times.append(self.getOptionValue("presolve")[1])
            return super().getModelStatus() if times[-1] == "off" else highspy.HighsModelStatus.kSolveError

    monkeypatch.setattr(highspy, "Highs", Spoilt)
    assert solve(problem) == expected
    assert {"choose", "off"} == set(times)


def test_unknown_words_are_refused() -> None:
    with pytest.raises(AutoTPError, match="objective"):
        solve(random_problem(0), objective="beauty")
    with pytest.raises(AutoTPError, match="solver"):
        solve(random_problem(0), backend="oracle")
