"""Unequal shards, padded or in exact sizes: the cheaper way is chosen, stored, told, run and counted."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from autotp.cli.main import app
from test_balance_optimal import cluster_of
from torch import nn
from traces import check_issued, check_prices, record
from typer.testing import CliRunner

from autotp.capture.export import capture
from autotp.cost.moves import MovePrices
from autotp.cost.training import Training
from autotp.graph import TensorSpec
from autotp.hardware.profile import CollectiveProfile
from autotp.mesh import Mesh
from autotp.placement import P, R, shard
from autotp.plan_file import dumps, loads
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.redistribute import PADDED, Step, exact, in_words
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.simulate import run_ranks
from autotp.runtime.verify import reference_of, summarise, verify_rank

KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")


def links(num_ranks, latency_s=1e-5, **bus_bytes_per_s):
    """Equal devices on a link whose collectives have 1 GB/s where nothing else is said; None leaves one out."""
    cluster = cluster_of((1e12,) * num_ranks, (1e12,) * num_ranks)
    speeds = dict.fromkeys(KINDS, 1e9) | bus_bytes_per_s
    found = {
        kind: CollectiveProfile((2,), (latency_s,), (speed,), 0.0)
        for kind, speed in speeds.items()
        if speed is not None
    }
    rates = {"float32": 1e12, "float64": 1e12}
    devices = {n: dataclasses.replace(d, matmul_flops_per_s=rates) for n, d in cluster.device_profiles.items()}
    cluster = dataclasses.replace(cluster, device_profiles=devices)
    return dataclasses.replace(cluster, links={"intra": dataclasses.replace(cluster.links["intra"], collectives=found)})


def priced(sizes, source, target, elements=1 << 20, **given):
    """(forward way, backward way, price) of a step of a tensor whose first dim is cut in these sizes."""
    step = Step(0, (source or shard(0, [sizes]),), (target or shard(0, [sizes]),))
    mesh = Mesh((("tp", len(sizes)),))
    price = MovePrices(links(len(sizes), **given), mesh).of(step, TensorSpec((sum(sizes), elements), "float32", True))
    return price.forward_by, price.backward_by, price


def test_who_has_nothing_sends_nothing():
    cut = shard(0, [(14, 0, 2)])
    sent = exact("all_gather", (16, 3), Step(0, (cut,), (R,)))
    assert [(each.kind, each.num_elements) for each in sent] == [("broadcast", 42), ("broadcast", 6)]


def test_gathers_by_hand():
    # 4 ranks, 13 1 1 1 rows of 4 MiB: padded 3/4 * 52 rows, in exact sizes 16 of them, and 4 latencies
    by, _, price = priced((13, 1, 1, 1), None, R)
    copies_s = 2 * 16 * 2**22 / 1e18
    assert by == "broadcast" and price.forward_s == pytest.approx(4e-5 + 16 * 2**22 / 1e9 + copies_s, rel=1e-9)
    assert price.forward_s < 1e-5 + 39 * 2**22 / 1e9
    assert priced((4, 4, 4, 3), None, R)[0] == PADDED
    assert priced((4, 4, 4, 4), None, R)[0] == PADDED
    assert priced((16, 0, 0, 0), None, R)[0] == "broadcast"


def test_a_small_message_is_padded_since_every_broadcast_has_its_latency():
    assert priced((13, 1, 1, 1), None, R, elements=16)[0] == PADDED


def test_sums_by_hand():
    # 4 ranks, 13 1 1 1: the first one receives three blocks of 13 rows either way; an exchange is fast over gloo
    by, _, price = priced((13, 1, 1, 1), P, None, all_to_all=4e9)
    assert by == "all_to_all" and price.forward_s == pytest.approx(1e-5 + 39 * 2**22 / 4e9, rel=1e-6)
    assert priced((13, 1, 1, 1), P, None)[0] == PADDED
    assert priced((4, 4, 4, 4), P, None, all_to_all=4e9)[0] == PADDED


def test_a_link_without_numbers_for_a_way_is_not_asked_for_it():
    assert priced((13, 1, 1, 1), None, R, broadcast=None)[0] == PADDED


def test_both_ways_of_a_step_are_chosen():
    forward, backward, _ = priced((13, 1, 1, 1), R, None)
    assert (forward, backward) == (PADDED, "broadcast")


def test_every_rank_counts_the_most_of_its_groups():
    outer = shard(0, [(5, 1)])
    inner = shard(0, [(4, 1), (0, 1)])
    step = Step(1, (outer, inner), (outer, R))
    assert [one.num_elements for one in exact("all_gather", (6, 3), step)] == [12, 3]
    (received,) = exact("reduce_scatter", (6, 3), step)
    assert received.num_elements == 24


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 40), nn.Linear(40, 16)

    def forward(self, x):
        return (x + self.down(torch.relu(self.up(self.norm(x))))).square().mean()


@pytest.mark.parametrize("shares", [(14, 2), (13, 1, 3), (1, 0, 1)])
@pytest.mark.parametrize("speeds", [{"broadcast": 1e13}, {"all_to_all": 1e13}])
def test_what_is_chosen_is_what_runs(shares, speeds):
    torch.manual_seed(1)
    model, x = Layers().double(), torch.randn(9, 16, dtype=torch.float64)
    captured = capture(model, (x,), mode="train")
    size = len(shares)
    cluster = links(size, latency_s=1e-9, **speeds)
    mesh = Mesh((("tp", size),))
    made = make_plan(
        captured, mesh, cluster, Options(Training("train", "sgd"), forbid=("norm=whole",)), {}, ((shares,),)
    )
    plan = loads(dumps(made.plan))
    ways = {by for moves in plan.moves.values() for move in moves for by in (move.forward_by, move.backward_by)}
    assert ways & speeds.keys(), f"nothing is sent by {speeds}: {ways}"
    check_prices(captured.graph, plan)
    reference = reference_of(captured.module, lambda module: module(x), "train")

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plan, rank, communicators)
        trace, forward = record(communicators), []

        def run(m):
            found = m.graph_module(x)
            forward.extend(trace)
            return found

        report = verify_rank(module, run, reference)
        check_issued(captured.graph, plan, rank, forward, trace[len(forward) :])
        return report

    summary = summarise(run_ranks(mesh, rank_main), reference, captured.module)
    assert summary["ok"] and max(summary["max_relative_error"].values()) < 1e-12, summary


def test_it_is_told(tmp_path: Path):
    captured = capture(Layers(), (torch.randn(9, 16),), mode="train")
    options = Options(Training("train", "sgd"), forbid=("norm=whole",))
    cluster = links(2, latency_s=1e-9, broadcast=1e13, all_to_all=1e13)
    plan = make_plan(captured, Mesh.parse("tp=2"), cluster, options, {}, (((14, 2),),)).plan
    (tmp_path / "plan.json").write_text(dumps(plan))
    run = CliRunner().invoke(app, ["show", str(tmp_path / "plan.json"), "--collectives", "--json"])
    rows = json.loads(run.output)["redistributions"]
    told = {row[f"{way}_by"] for row in rows for way in ("forward", "backward") if f"{way}_by" in row}
    assert told == {"broadcast", "all_to_all"}
    assert in_words("all_gather", "broadcast") == "all_gather in exact sizes by broadcast"
    frame = plan.to_frame("redistributions")
    assert any("in exact sizes" in text for text in [*frame["forward"], *frame["backward"]])


@pytest.mark.parametrize("speeds", [{}, {"broadcast": 5e9}, {"all_to_all": 9e9}])
def test_no_sizes_cost_less_than_the_bound_takes_them_to(speeds):
    mesh, spec = Mesh((("tp", 4),)), TensorSpec((16, 1 << 20), "float32", False)
    prices = MovePrices(links(4, **speeds), mesh)
    for ends in (lambda cut: (cut, R), lambda cut: (P, cut)):
        even = Step(0, *((end,) for end in ends(shard(0, [(4, 4, 4, 4)]))))
        price = prices.of(even, spec)
        least_s = prices.least_s(price.forward, price.forward_s, even, spec)
        for sizes in ((5, 4, 4, 3), (13, 1, 1, 1), (16, 0, 0, 0), (8, 8, 0, 0)):
            uneven = Step(0, *((end,) for end in ends(shard(0, [sizes]))))
            assert prices.of(uneven, spec).forward_s >= least_s * (1 - 1e-9)
