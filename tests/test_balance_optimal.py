"""The planner's sizes against every other choice, and the bound against the best of them."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autotp.capture.export import capture
from autotp.cost.problem import ProblemBuilder, Training, with_limit
from autotp.errors import InfeasibleError
from autotp.hardware.catalogue import load_cluster
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.profile import CollectiveProfile, LinkProfile
from autotp.mesh import Mesh
from autotp.planning.attempts import Attempts
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.rules.registry import rules_of
from autotp.solver.brute_force import brute_force

NUM_PROBLEMS = 102


def cluster_of(speeds, memory_bytes, bus_bytes_per_s=1e18, latency_s=0.0, exact=1.0) -> ClusterProfile:
    """Devices of these speeds, which never wait for memory, on links of one bandwidth, of broadcasts and exchanges `exact`
    times that."""
    like = load_cluster("cpu")
    one = next(iter(like.device_profiles.values()))
    devices = [
        dataclasses.replace(
            one, name=f"device {speed:g} {room:g}", memory_bytes=int(room), matmul_flops_per_s={"float32": speed},
            matmul_efficiency=1.0, attention_efficiency=1.0, memory_bytes_per_s=1e18, launch_s=0.0, process_bytes=0,
        )
        for speed, room in zip(speeds, memory_bytes, strict=True)
    ]  # fmt: skip
    kinds = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")
    collective = CollectiveProfile((2,), (latency_s,), (bus_bytes_per_s,), 0.0)
    fast = dataclasses.replace(collective, bus_bytes_per_s=(exact * bus_bytes_per_s,))
    collectives = dict.fromkeys(kinds, collective) | {"all_to_all": fast, "broadcast": fast}
    link = LinkProfile("shared_memory", collectives, "made up", "2026-11-24", False)
    names = tuple(device.name for device in devices)
    return dataclasses.replace(
        like, name="test", devices=names, device_profiles={d.name: d for d in devices}, ranks_per_node=len(devices),
        links={"intra": link},
    )  # fmt: skip


class Heads(nn.Module):
    """Attention that can be cut by heads and by nothing else."""

    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def plan_of_heads(memory_bytes):
    x = torch.zeros(1, 32, 64, 32)
    captured = capture(Heads(), (x, x.clone(), x.clone()), mode="infer")
    cluster = cluster_of((1e12, 1e12, 0.5e12), memory_bytes)
    return make_plan(captured, Mesh.parse("tp=3"), cluster, Options(Training("infer")), {}).plan


def heads_of(plan):
    (strategy,) = (s for name, s in plan.strategies.items() if "scaled_dot" in plan.nodes[name].op)
    return strategy.results[0][0].blocks


def test_heads_follow_speed_and_the_bound_proves_it():
    plan = plan_of_heads((1e12, 1e12, 1e12))
    assert heads_of(plan) == ((13, 13, 6),)
    assert plan.summary["balance"]["gap"] < 1e-6


def test_what_has_no_room_on_the_slow_device_goes_to_the_fast_ones():
    free = plan_of_heads((1e12, 1e12, 1e12)).summary["predicted"]["memory_bytes"]
    per_head = free[2] / 6
    plan = plan_of_heads((1e12, 1e12, 4.5 * per_head))
    assert heads_of(plan) == ((14, 14, 4),)
    assert plan.summary["predicted"]["memory_bytes"][2] <= 4.5 * per_head


class Layer(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.down(self.up(x))


@functools.cache
def small_model(index):
    """A captured model whose dims have few granules."""
    torch.manual_seed(index)
    model, x = (
        (nn.Linear(3, 4, bias=False), torch.zeros(2, 3)),
        (Layer(1, 4), torch.zeros(1, 1)),
        (nn.Sequential(nn.Linear(1, 3), nn.ReLU()), torch.zeros(1, 1)),
    )[index % 3]
    return capture(model, (x,), mode="train" if index < 3 else "infer")


@functools.cache
def random_case(seed):
    """A model, a mesh of unlike devices with little memory, and its problem with every division as a strategy."""
    rng = np.random.default_rng(seed)
    index = int(rng.integers(0, 6))
    captured, mesh = small_model(index), Mesh.parse("tp=2")
    rules = rules_of(captured.graph)
    classes = {node.name: node.name for node in captured.graph}
    speeds = rng.choice([1.0, 1.7, 2.0, 3.3, 5.0], 2, replace=False) * 1e6
    rooms = np.round(10 ** rng.uniform(1.5, 3.0, 2))
    bandwidth, exact = 10 ** rng.uniform(6, 9), float(rng.choice([1.0, 20.0]))
    cluster = cluster_of(speeds, rooms, bus_bytes_per_s=bandwidth, latency_s=1e-7, exact=exact)
    options = Options(Training("train" if index < 3 else "infer"))
    attempts = Attempts(captured.graph, rules, classes, mesh, cluster, options)
    shares = attempts.all_divisions()
    assert shares is not None, "this test is of cases that are solved jointly"
    problem = ProblemBuilder(captured.graph, rules, classes, mesh, cluster, options.training, shares).build()
    return captured, mesh, cluster, options, with_limit(problem, list(map(float, rooms))).problem


@pytest.mark.parametrize("part", range(6))
def test_the_planner_finds_what_exhaustive_search_finds(part):
    num_feasible = num_uneven = 0
    for seed in range(part, NUM_PROBLEMS, 6):
        captured, mesh, cluster, options, problem = random_case(seed)
        try:
            best = brute_force(problem).cost_s
        except InfeasibleError:
            best = math.inf
        if best == math.inf:
            with pytest.raises(InfeasibleError):
                make_plan(captured, mesh, cluster, options, {})
            continue
        plan = make_plan(captured, mesh, cluster, options, {}).plan
        assert plan.summary["solver"]["fits"]
        assert plan.summary["predicted"]["step_s"] == pytest.approx(best, rel=1e-6)
        assert plan.summary["balance"]["bound_s"] <= best * (1 + 1e-6)
        num_feasible += 1
        num_uneven += len(set(plan.summary["balance"]["shares"]["tp"])) > 1
    assert num_feasible >= 5 and num_uneven
