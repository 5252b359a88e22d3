"""Time a training step and a forward of our modules against a hand-written one and against peers, over gloo.

All run in the same processes, one thread each, in turn: what else the machine does hits all of them. They are judged by
CPU time, the least of all rounds. Exits with 1 if our module falls short (benchmarks/README.md says of what), with 2 if
the run is not done in time.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from contenders.model import Size, build
from judge import DTENSOR, HANDWRITTEN, OURS_MEGATRON, OURS_OPTIMAL, TRANSFORMERS, Row, failures, table
from measure import contenders_for, measure
from rich.console import Console
from torch.distributed.device_mesh import init_device_mesh

NAMES = {
    "handwritten": HANDWRITTEN, "megatron": OURS_MEGATRON, "optimal": OURS_OPTIMAL,
    "dtensor": DTENSOR, "transformers": TRANSFORMERS,
}  # fmt: skip


def main() -> int:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        if not run(arguments, folder):
            print(f"not done after {arguments.timeout} s: stopped", file=sys.stderr)
            return 2
        rows = [Row(**row) for row in json.loads((Path(folder) / "rows.json").read_text())]
    problems = failures(rows)
    if arguments.json:
        print(json.dumps({"ok": not problems, "failures": problems, "rows": [asdict(row) for row in rows]}))
        return 1 if problems else 0
    Console(width=None if sys.stdout.isatty() else 140).print(table(rows))
    print("\n".join(problems) or "ours does what is demanded of it")
    return 1 if problems else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["1x16", "4x256"], help="batch x sequence")
    parser.add_argument("--rounds", type=int, default=40, help="at most so many, of every contender in turn")
    parser.add_argument("--seconds", type=float, default=40, help="about so long at most per shape and kind of step")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=900, help="seconds until the whole run is stopped")
    parser.add_argument("--contenders", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--json", action="store_true")
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    return parser.parse_args()


def run(arguments: argparse.Namespace, folder: str) -> bool:
    """Run all ranks, which leave `rows.json` in the folder. False if they are not done in time."""
    deadline = time.monotonic() + arguments.timeout
    started = processes.start_processes(
        run_rank, (arguments, folder), arguments.ranks, join=False, start_method="spawn"
    )
    try:
        while time.monotonic() < deadline:
            if started.join(deadline - time.monotonic()):
                return True
        return False
    finally:
        for process in started.processes:
            process.kill()


def run_rank(rank: int, arguments: argparse.Namespace, folder: str) -> None:
    os.dup2(2, 1)  # what libraries print is no result
    warnings.simplefilter("ignore" if rank else "default")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    # what torchrun would set, for the contender that reads it
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(arguments.ranks))
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=arguments.ranks)
    device_mesh = init_device_mesh("cpu", (arguments.ranks,), mesh_dim_names=("tp",))
    size = Size(**{name: getattr(arguments, name) for name in asdict(Size())})
    checkpoint = Path(folder) / "checkpoint"
    if rank == 0:
        build(size).save_pretrained(checkpoint)
    dist.barrier()
    rows = []
    for shape in arguments.shapes:
        batch, sequence = map(int, shape.split("x"))
        ids = torch.randint(size.vocabulary, (batch, sequence), generator=torch.Generator().manual_seed(1))
        contenders = contenders_for(ids, size, [NAMES[name] for name in arguments.contenders], device_mesh, checkpoint)
        rows += measure(contenders, shape, ids, max_rounds=arguments.rounds, max_seconds=arguments.seconds)
    if rank == 0:
        (Path(folder) / "rows.json").write_text(json.dumps([asdict(row) for row in rows]))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
