"""Counted memory of every model of the zoo against real steps of at least 64 MB: `make test-memory`."""

import argparse
import multiprocessing
import sys
import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from zoo import ZOO
from zoo_case import BATCH

from autotp.api import as_cluster
from autotp.capture.build import cast_floats
from autotp.capture.export import capture
from autotp.cost.training import Training
from autotp.mesh import Mesh
from autotp.planning.dry_run import rank_memory
from autotp.planning.planner import make_plan
from autotp.planning.search import Options

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_dry_run import measured_bytes

MESHES = ("tp=1", "tp=2")
LEAST_BYTES = 64e6
MAX_REPEATS = 1024  # a model of which so many batches are small stays small
BELOW, ABOVE = 0.98, 1.10


def compare(name: str, mesh: str) -> tuple[int, int]:
    """(predicted, measured) bytes at the peak of rank 0's training step, with AdamW, of a batch that is large enough."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    case, training, repeats = ZOO[name], Training(optimizer="adamw"), 16
    while True:
        torch.manual_seed(0)
        model, inputs = case.build(), repeated(cast_floats(case.inputs(), torch.float32), repeats)
        captured = capture(model, inputs, outputs="all")
        plan = make_plan(captured, Mesh.parse(mesh), as_cluster("dgx-h100"), Options(training), {}).plan
        predicted = sum(rank_memory(captured, plan, 0, training).values())
        if predicted >= 1.1 * LEAST_BYTES or repeats >= MAX_REPEATS:
            break
        repeats = min(MAX_REPEATS, repeats * max(2, ceil(1.2 * LEAST_BYTES / predicted)))
    args, kwargs = ((), inputs) if isinstance(inputs, Mapping) else (inputs, {})
    return predicted, measured_bytes(captured, plan, captured.flatten_inputs(args, kwargs), training)


def repeated(inputs: Any, times: int) -> Any:
    """The same inputs with so many batches one after the other."""

    def more(x: Any) -> Any:
        return torch.cat([x] * times) if isinstance(x, Tensor) and x.dim() and x.shape[0] == BATCH else x

    return pytree.tree_map(more, inputs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="models; all by default")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    wrong = 0
    jobs = [(name, mesh) for name in options.names or ZOO for mesh in MESHES]
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        for (name, mesh), (predicted, measured) in zip(jobs, pool.map(compare, *zip(*jobs, strict=True)), strict=True):
            is_right = BELOW * measured <= predicted <= ABOVE * measured
            wrong += not is_right
            small = " (a small model)" if measured < LEAST_BYTES else ""
            verdict = "ok   " if is_right else "WRONG"
            print(f"{verdict} {name} {mesh}: {predicted / measured:.3f} of {measured / 1e6:.0f} MB{small}", flush=True)
    print(f"{len(jobs) - wrong} of {len(jobs)} within {BELOW:.0%} to {ABOVE:.0%} of the measured peak")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
