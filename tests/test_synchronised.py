"""Ranks wait for each other in collectives, not after every operator: sizes are chosen for that, and a step is priced so."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import torch
from solver_problems import random_problem
from test_balance_optimal import cluster_of
from torch import nn
from torch.nn import functional as F

from autotp.capture.export import capture
from autotp.cost.training import Training
from autotp.mesh import Mesh
from autotp.planning.attempts import Attempts
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.planning.synchronised import BACKWARD, FORWARD
from autotp.rules.enumerate import even_shares
from autotp.rules.registry import rules_of
from autotp.solver.brute_force import brute_force
from autotp.solver.evaluate import evaluate
from autotp.solver.ilp import solve
from autotp.solver.problem import Region
from autotp.solver.restrict import restrict

SPEEDS = (1e12, 1e12, 0.5e12)


class Beside(nn.Module):
    """32 heads of attention, and a product that is made whole, with nothing sent in between."""

    def forward(self, q, k, v, a, b):
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return y, torch.matmul(a, b)


def plan_of(width, shares=None):
    x, a = torch.zeros(1, 32, 64, 32), torch.zeros(width, width)
    captured = capture(Beside(), (x, x.clone(), x.clone(), a, a.clone()), mode="infer")
    options = Options(Training("infer"), force=("matmul=whole",))
    return make_plan(captured, Mesh.parse("tp=3"), cluster_of(SPEEDS, (1e12,) * 3), options, {}, shares).plan


def heads_of(plan):
    (strategy,) = (s for name, s in plan.strategies.items() if "scaled_dot" in plan.nodes[name].op)
    return strategy.results[0][0].blocks[0]


def by_hand(heads, width):
    """Seconds of the slowest rank for its heads and the whole product: 2 operations, 64 x 64 halved by the mask, 32 + 32."""
    return max((n * 64 * 64 * 64 + 2 * width**3) / speed for n, speed in zip(heads, SPEEDS, strict=True))


@pytest.mark.parametrize("width", [80, 102])
def test_a_rank_that_is_slow_at_what_all_do_gets_less_of_what_is_divided(width):
    plan = plan_of(width)
    heads = heads_of(plan)
    best = min(by_hand((a, b, 32 - a - b), width) for a in range(33) for b in range(33 - a))
    assert by_hand(heads, width) == pytest.approx(best)
    assert best < 0.95 * by_hand((13, 13, 6), width), "operator by operator 13, 13, 6 is best"
    predicted, balance = plan.summary["predicted"], plan.summary["balance"]
    assert predicted["step_s"] == pytest.approx(best, rel=1e-3)
    assert predicted["step_s"] == pytest.approx(max(balance["compute_s"]), rel=1e-3)
    assert predicted["step_s"] == pytest.approx(
        sum(predicted["compute_parts_s"].values()) + predicted["communication_s"]
    )
    assert balance["bound_s"] <= best and balance["apart_s"] > 1.05 * best


class Two(nn.Module):
    """Two attentions of 13 heads each, with nothing sent in between."""

    def forward(self, q, k):
        one = F.scaled_dot_product_attention(q, k, k, is_causal=True)
        other = F.scaled_dot_product_attention(k, q, q, is_causal=True)
        return one, other


def test_what_does_not_divide_is_made_up_for_within_a_region_and_the_bound_knows_it():
    x = torch.zeros(1, 13, 64, 32)
    captured = capture(Two(), (x, x.clone()), mode="infer")
    cluster = cluster_of((1e12, 1.001e12), (1e12,) * 2)
    plan = make_plan(captured, Mesh.parse("tp=2"), cluster, Options(Training("infer")), {}).plan
    sizes = [s.results[0][0].blocks[0] for name, s in plan.strategies.items() if "scaled_dot" in plan.nodes[name].op]
    assert sorted(sizes) == [(6, 7), (7, 6)], "operator by operator both are 6, 7"
    head_s = 64 * 64 * 64 / 1e12
    assert plan.summary["predicted"]["step_s"] == pytest.approx(13 * head_s, rel=1e-3)
    bound_s = plan.summary["balance"]["bound_s"]
    assert 0.99 * 13 * head_s < bound_s < 13 * head_s and plan.summary["balance"]["gap"] > 1e-5


def test_the_step_is_between_the_busiest_rank_and_the_sum_of_the_slowest():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64), nn.LayerNorm(64), nn.Linear(64, 64))
    captured = capture(model, (torch.zeros(32, 64),))
    for bus in (1e9, 1e18):
        cluster = cluster_of((1e12, 0.4e12), (1e12,) * 2, bus_bytes_per_s=bus)
        for shares in ((1, 1), (3, 1), (5, 2)):
            given = make_plan(captured, Mesh.parse("tp=2"), cluster, Options(Training("train")), {}, ((shares,),)).plan
            predicted, balance = given.summary["predicted"], given.summary["balance"]
            computed = predicted["step_s"] - predicted["communication_s"]
            assert max(balance["compute_s"]) <= computed * (1 + 1e-9)
            assert predicted["step_s"] <= balance["apart_s"] * (1 + 1e-9)


def with_regions(problem, seed):
    """A random problem whose nodes stand in regions, with seconds of every device."""
    rng = np.random.default_rng(seed)
    num_devices = len(problem.limit_bytes)
    regions = []
    for _ in range(3):
        nodes = tuple(sorted(rng.choice(len(problem.nodes), min(3, len(problem.nodes)), replace=False).tolist()))
        seconds = tuple(rng.uniform(0, 4, (len(problem.nodes[v].cost_s), num_devices)) for v in nodes)
        regions.append(Region(nodes, seconds, int(rng.integers(1, 3))))
    return dataclasses.replace(problem, regions=tuple(regions))


@pytest.mark.parametrize("seed", range(20))
def test_the_program_finds_the_best_with_regions(seed):
    problem = with_regions(random_problem(seed), seed)
    assert solve(problem).cost_s == pytest.approx(brute_force(problem).cost_s, rel=1e-6)


def test_regions_by_hand():
    problem = with_regions(random_problem(0), 0)
    choices = [0] * len(problem.nodes)
    plain = evaluate(dataclasses.replace(problem, regions=()), choices).cost_s
    more = sum(region.count * max(sum(each[0] for each in region.seconds)) for region in problem.regions)
    assert evaluate(problem, choices).cost_s == pytest.approx(plain + more)
    smaller, _ = restrict(problem, [[0]] * len(problem.nodes))
    assert evaluate(smaller, choices).cost_s == pytest.approx(plain + more)


def found_for(model, mode):
    captured = capture(model, (torch.zeros(32, 64),), mode=mode)
    classes = {node.name: node.name for node in captured.graph}
    options = Options(Training(mode), strategy="megatron")
    mesh, cluster = Mesh.parse("tp=2"), cluster_of((1e12, 0.4e12), (1e12,) * 2, bus_bytes_per_s=1e9)
    attempts = Attempts(captured.graph, rules_of(captured.graph), classes, mesh, cluster, options)
    return attempts.within_limits(even_shares(mesh), math.inf)


def layers():
    def pair():
        return nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)

    return nn.Sequential(*pair(), nn.LayerNorm(64), *pair())


def test_regions_end_where_something_is_sent():
    found = found_for(layers(), "infer")
    names = found.planning.node_names
    regions = [[names[v] for (v, _), _ in members if "linear" in names[v]] for members in found.regions]
    assert [region for region in regions if region] == [["linear", "linear_1"], ["linear_2", "linear_3"]]


def test_all_work_of_a_step_is_in_some_region_once():
    found = found_for(layers(), "train")
    times = Counter()
    for members, count in found.regions.items():
        for key, occurrences in members:
            times[key] += count * occurrences
    graph, names = found.planning.graph, found.planning.node_names
    for v, name in enumerate(names):
        assert times[v, BACKWARD] == 1 and times[v, FORWARD] == 1, graph[name]
    assert len(found.regions) >= 4
    assert found.step_s <= found.solution.cost_s
