"""Unequal shards, padded or in exact sizes: what gloo takes for each, and which of them the cost model picks.

Every way takes turns with the other in one run, so that what else the machine does hits both. Sizes are rows of a
tensor; ratios are of medians. Needs as many idle cores as ranks to mean anything.
"""

import argparse
import statistics
import time

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table

from autotp.cost.moves import MovePrices
from autotp.graph import TensorSpec
from autotp.hardware.catalogue import load_cluster
from autotp.mesh import Mesh
from autotp.placement import P, R, shard
from autotp.redistribute import EXACT, PADDED, TABLE, Step
from autotp.runtime.communicator import GroupCommunicator
from autotp.runtime.moves import Redistribute
from autotp.runtime.spawn import run_processes

CASES = ((14, 2), (9, 7), (16, 0), (13, 1, 2), (6, 5, 5))


def steps_of(sizes: tuple[int, ...]) -> dict[str, Step]:
    cut = shard(0, [sizes])
    return {"all_gather": Step(0, (cut,), (R,)), "reduce_scatter": Step(0, (P,), (cut,))}


def rank_main(rank: int, sizes: tuple[int, ...], width: int, rounds: int) -> dict[str, dict[str, float]]:
    """Of every action the median seconds of every way."""
    communicator, mesh = GroupCommunicator(dist.group.WORLD, "tp"), Mesh((("tp", len(sizes)),))
    found = {}
    for action, step in steps_of(sizes).items():
        forward, _ = TABLE[step.source[0].kind, step.target[0].kind]
        ways = {
            by: Redistribute(step, forward, "none", (sum(sizes), width), mesh, rank, communicator, by=(by, PADDED))
            for by in (PADDED, EXACT[action])
        }
        x = torch.randn(sizes[rank] if step.source[0].kind == "S" else sum(sizes), width)
        taken: dict[str, list[float]] = {by: [] for by in ways}
        for _ in range(rounds + 2):
            for by, move in ways.items():
                dist.barrier()
                begun = time.perf_counter()
                move(x)
                dist.barrier()
                taken[by].append(time.perf_counter() - begun)
        found[action] = {by or "padded": statistics.median(times[2:]) for by, times in taken.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--width", type=int, default=65536, help="elements of a row, of float32")
    arguments = parser.parse_args()
    table = Table("sizes", "", "padded", "exact", "times as fast", "the cost model picks", box=None)
    for sizes in CASES:
        mesh = Mesh((("tp", len(sizes)),))
        spec = TensorSpec((sum(sizes), arguments.width), "float32", False)
        found = run_processes(rank_main, len(sizes), (sizes, arguments.width, arguments.rounds), timeout_s=300)[0]
        for action, step in steps_of(sizes).items():
            price = MovePrices(load_cluster("cpu"), mesh).of(step, spec)
            padded_s, exact_s = found[action]["padded"], found[action][EXACT[action]]
            table.add_row(
                " : ".join(map(str, sizes)), action, f"{padded_s * 1e3:.1f} ms", f"{exact_s * 1e3:.1f} ms",
                f"{padded_s / exact_s:.2f}", price.forward_by or "padded",
            )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
