"""Rebalancing over real processes: a rank that is slow is relieved, and one that dies leaves the others as they were."""

import copy
import dataclasses
import os
import time

import pytest
import torch
from torch import nn

from autotp.capture.export import capture
from autotp.cost.training import Training
from autotp.errors import RebalanceError, VerificationError
from autotp.hardware.catalogue import load_cluster
from autotp.hardware.profile import CollectiveProfile, LinkProfile
from autotp.mesh import Mesh
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.rebalancing import Rebalancer
from autotp.rewrite.parallelize import build_module
from autotp.rewrite.rebalance import rebalance
from autotp.runtime.communicator import init_mesh
from autotp.runtime.spawn import run_processes

pytestmark = pytest.mark.distributed
MESH = Mesh((("tp", 2),))
STEPS = 50


def quick_links():
    """The CPU cluster on links that make splitting a model of this size pay."""
    collective = CollectiveProfile((2,), (0.0,), (1e15,), 0.0)
    kinds = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")
    link = LinkProfile("shared_memory", dict.fromkeys(kinds, collective), "made up", "2026-11-24", False)
    cluster = load_cluster("cpu")
    profiles = {name: dataclasses.replace(d, launch_s=0.0) for name, d in cluster.device_profiles.items()}
    return dataclasses.replace(cluster, links={"intra": link}, device_profiles=profiles)


def captured_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 96), nn.GELU(), nn.Linear(96, 16))
    x = torch.randn(32, 16)
    return model, x, capture(model, (x,))


def train(module, x, after=lambda optimizer: None):
    optimizer, losses = torch.optim.AdamW(module.parameters(), lr=1e-2), []
    for _ in range(STEPS):
        loss = (module(x) - x.roll(1, 0)).square().mean()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        after(optimizer)
    return losses


def slow_rank(rank):
    model, x, captured = captured_model()
    expected = train(copy.deepcopy(model), x)
    plan = make_plan(captured, MESH, quick_links(), Options(Training("train")), {}).plan
    module = build_module(captured, plan, init_mesh(MESH))
    found, balancers = [], []

    def after(optimizer):
        if not balancers:
            balancers.append(Rebalancer(module, optimizer, plan, every=20))
        elif rank == 1:
            time.sleep(0.01)  # another process has the core
        event = balancers[0].step()
        if event is not None:
            found.append((event.slowdowns, event.plan.summary["balance"]["shares"]["tp"] if event.plan else None))

    losses = train(module, x, after)
    return expected, losses, found, [tuple(p.shape) for p in module.parameters()]


def test_a_slow_rank_is_noticed_and_relieved_and_no_loss_changes():
    first, second = run_processes(slow_rank, 2, timeout_s=120)
    for expected, losses, found, _ in (first, second):
        assert losses == pytest.approx(expected, rel=1e-4)
        slowdowns, shares = found[0]
        assert slowdowns[1] > 1.15 > slowdowns[0]
        assert shares[1] < shares[0]
    assert first[2] == second[2], "both ranks saw and did the same"
    assert first[3] != second[3], "the shards are of different sizes now"


class DieAt(list):
    """A trace that ends the process at its n-th collective."""

    def __init__(self, number):
        self.number = number

    def append(self, call):
        super().append(call)
        if len(self) == self.number:
            os._exit(1)


def dying_rank(rank, folder):
    _, x, captured = captured_model()
    options = [Options(Training("train"), objective="memory"), Options(Training("train"), strategy="replicated")]
    plans = [make_plan(captured, MESH, quick_links(), one, {}).plan for one in options]
    module = build_module(captured, plans[0], init_mesh(MESH))
    optimizer = torch.optim.AdamW(module.parameters())
    module(x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    before = [p.clone() for p in module.parameters()] + [s["exp_avg"].clone() for s in optimizer.state.values()]
    code = module.code
    if rank == 1:
        module.communicators["tp"].trace = DieAt(5)
    try:
        rebalance(module, optimizer, plans[1])
    except RebalanceError as error:
        after = [*module.parameters(), *(s["exp_avg"] for s in optimizer.state.values())]
        same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) and module.code == code
        (folder / "survivor").write_text(f"{same} {error}")


def test_a_rank_that_dies_on_the_way_leaves_the_others_as_they_were(tmp_path):
    with pytest.raises(VerificationError, match="rank 1 failed"):
        run_processes(dying_rank, 2, (tmp_path,), timeout_s=60)
    same, _, message = (tmp_path / "survivor").read_text().partition(" ")
    assert same == "True"
    assert "this rank keeps the old plan" in message
