"""Do unequal shards pay where one rank is slow? Two gloo ranks, each on a core of its own, one shared with a competitor.

The competitor is a process that computes on the second rank's core for a bounded time. `autotp profile` measures the
machine beside it, and the planner plans for what was measured. Another module starts with even shards, for a machine
without a competitor, and is rebalanced while it trains (`autotp.rebalancing`). Then the even plan, the planned one, the
rebalanced one and others, of which the slow rank has more or less in whole heads, take steps in turn, in an order drawn
anew every round: so what else the machine does hits all of them. Exits with 1 where the planned split is not 1.2 times
faster than the even one, or it or the rebalanced one more than 10% slower than the best of all; with 2 where it cannot
run. Needs two idle cores, and some minutes.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from autotp.capture.export import Captured, capture
from autotp.cost.training import Training
from autotp.hardware.catalogue import load_cluster
from autotp.hardware.cluster import ClusterProfile
from autotp.measuring.items import Effort
from autotp.measuring.profile import profile
from autotp.mesh import Mesh
from autotp.plan_file import dumps, loads
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.plans import Plan
from autotp.rebalancing import Rebalanced, Rebalancer
from autotp.rewrite.parallelize import build_module
from autotp.runtime.communicator import init_mesh
from autotp.runtime.module import ParallelModule
from autotp.runtime.spawn import run_processes

MESH = Mesh((("tp", 2),))
HEADS, WIDTH = 24, 768
FASTER, NEAR = 1.2, 1.10
WATCHED = 8  # steps between comparisons of the ranks
LEAST = Effort(
    "least", 2, 0.0005, 600.0, (1024, 65536), tuple((m, n, 32) for m in (16, 64) for n in (32, 64)), ((2, 16, 16, 16),),
    ((1, 2, 16, 16),), ((4, 16), (32, 64), (64, 64)), ("float32",), (64, 64, 64), ((2, 16), (2, 1024)),
)  # fmt: skip
COMPETITOR = "import sys, time\nend = time.time() + float(sys.argv[1])\nwhile time.time() < end: pass"


class Block(nn.Module):
    """A transformer layer with 24 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, seq, _ = x.shape
        y = self.norm1(x)
        q, k, v = (part(y).view(batch, seq, HEADS, -1).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, seq, WIDTH)
        x = x + self.out(y)
        return (x + self.down(F.gelu(self.up(self.norm2(x))))).square().mean()


def step(module: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    module(x).backward()
    optimizer.step()
    optimizer.zero_grad()


def plans_for(captured: Captured, measured: ClusterProfile) -> list[tuple[str, str]]:
    """(name, text) of the plan for the machine as it was measured, of the even one, and of others."""
    options = Options(Training("train", "sgd"), keeps_order=True)
    found = [("planned", make_plan(captured, MESH, measured, options, {}).plan)]
    names = [("even", ((1, 1),))]
    names += [(f"{HEADS - given} : {given} heads", ((HEADS - given, given),)) for given in range(6, HEADS // 2, 2)]
    for name, shares in names:
        found.append((name, make_plan(captured, MESH, measured, options, {}, (shares,)).plan))
    return [(name, dumps(plan)) for name, plan in found]


def broadcast(value: object) -> object:
    message = [value]
    dist.broadcast_object_list(message, src=0)
    return message[0]


def relieved(
    module: ParallelModule, optimizer: torch.optim.Optimizer, plan: Plan, x: torch.Tensor
) -> Rebalanced | None:
    """Train until the balancer acts; None where it never does."""
    balancer = Rebalancer(module, optimizer, plan, every=WATCHED)
    found = None
    for _ in range(3 * WATCHED):
        step(module, optimizer, x)
        found = balancer.step()
        if found is not None and found.plan is not None:
            break
    balancer.stop()
    return found


def rank_main(rank: int, rounds: int, shape: tuple[int, int], measured: str) -> dict[str, object] | None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    x = torch.randn(*shape, WIDTH)
    captured, device_mesh = capture(Block(), (x,)), init_mesh(MESH)

    def built(text: str) -> tuple[ParallelModule, torch.optim.Optimizer]:
        module = build_module(captured, loads(text), device_mesh)
        return module, torch.optim.SGD(module.parameters(), lr=1e-3)

    options = Options(Training("train", "sgd"))
    undisturbed = dumps(make_plan(captured, MESH, load_cluster("cpu"), options, {}, (((1, 1),),)).plan)
    plans = broadcast(plans_for(captured, load_cluster(measured)) if rank == 0 else None)
    contenders = {name: built(text) for name, text in plans}
    shares = {name: loads(text).summary["balance"]["shares"]["tp"] for name, text in plans}
    moved = built(undisturbed)
    event = relieved(*moved, loads(undisturbed), x)
    if event is not None and event.plan is not None:
        contenders["rebalanced"], shares["rebalanced"] = moved, event.plan.summary["balance"]["shares"]["tp"]
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    draw = random.Random(0)
    for turn in range(rounds + 1):
        order = list(contenders)
        draw.shuffle(order)
        for name in order:
            dist.barrier()
            begun = time.perf_counter()
            step(*contenders[name], x)
            dist.barrier()
            if turn:
                taken[name].append(time.perf_counter() - begun)
    slower = list(event.slowdowns) if event is not None else None
    return {"slowdowns": slower, "seconds": taken, "shares": shares} if rank == 0 else None


@contextmanager
def competing(core: int, seconds: float) -> Iterator[None]:
    """Another process computes on a core, for so many seconds at most."""
    competitor = subprocess.Popen([sys.executable, "-c", COMPETITOR, str(seconds)])
    try:
        os.sched_setaffinity(competitor.pid, {core})
        yield
    finally:
        competitor.kill()
        competitor.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=600, help="at most so long the competitor computes")
    parser.add_argument("--profile", help="a cluster profile made beside such a competitor, instead of a new one")
    parser.add_argument("--least", action="store_true", help="measure as little as can be: to see that all of it runs")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        print("two cores are needed, one for each rank", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, cores)  # each rank keeps to one of them
    shape = (arguments.batch, arguments.seq)
    with competing(cores[1], arguments.seconds), tempfile.TemporaryDirectory() as folder:
        measured = arguments.profile
        if measured is None:
            measured = str(Path(folder, "measured.json"))
            effort = LEAST if arguments.least else None
            profile(measured, num_ranks=2, devices="cpu", budget_s=arguments.seconds / 4, effort=effort)
        results = run_processes(rank_main, 2, (arguments.rounds, shape, measured), timeout_s=2 * arguments.seconds)
    found = results[0]
    seconds = found["seconds"]
    # of every round the ratio, of which the median: a round is disturbed as a whole
    ratios = {name: median(one / ours for one, ours in zip(times, seconds["planned"], strict=True))
              for name, times in seconds.items()}  # fmt: skip
    best = min(ratios, key=lambda name: ratios[name])
    near = [name for name in ("planned", "rebalanced") if ratios.get(name, math.inf) <= NEAR * ratios[best]]
    ok = ratios["even"] >= FASTER and len(near) == 2
    if arguments.json:
        print(json.dumps({"ok": ok, "ratios": ratios, **found}))
        return 0 if ok else 1
    table = Table("plan", "shares", "median step", "of the planned one's", box=None)
    for name in sorted(ratios, key=lambda name: ratios[name]):
        shares = " : ".join(map(str, found["shares"][name]))
        table.add_row(name, shares, f"{median(seconds[name]) * 1e3:.0f} ms", f"{ratios[name]:.2f}")
    if found["slowdowns"] is None:
        print("the balancer saw no slow rank")
    else:
        print(
            f"the balancer saw that rank 1 is {found['slowdowns'][1] / found['slowdowns'][0]:.2f} times slower than rank 0"
        )
    Console().print(table)
    print(
        f"planned is {ratios['even']:.2f} times faster than even, {1 / ratios[best] - 1:.0%} slower than the best ({best}); "
        f"rebalanced is {ratios.get('rebalanced', math.nan) - 1:.0%} slower than planned"
    )
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
