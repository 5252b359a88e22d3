"""What shows unlike ranks, run as a user would: too long for every run, `make test-degrees` runs it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.distributed
sys.path.insert(0, str(ROOT / "examples"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_the_example_relieves_its_slow_rank_and_learns_as_the_whole_model() -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    result = run(*torchrun, str(ROOT / "examples" / "heterogeneous.py"), "--steps", "31", "--slow", "0.2")
    assert result.returncode == 0, result.stderr[-4000:]
    first, second = map(int, re.search(r"now \[(\d+), (\d+)\]", result.stdout).groups())
    assert first > second
    losses = dict(re.findall(r"step +(\d+)  loss ([\d.]+)", result.stdout))
    example = __import__("heterogeneous")
    torch.manual_seed(0)
    model = example.Regression()
    x = torch.randn(example.BATCH, example.WIDTH, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for number in range(31):
        loss = model(x, x.flip(1))
        if number % 10 == 0:
            assert float(losses[str(number)]) == pytest.approx(loss.item(), rel=1e-4)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert len(losses) == 4


def test_the_benchmark_measures_plans_and_rebalances() -> None:
    benchmark = str(ROOT / "benchmarks" / "heterogeneous.py")
    result = run(benchmark, "--least", "--rounds", "2", "--batch", "1", "--seq", "32", "--seconds", "300", "--json")
    assert result.returncode in (0, 1), result.stderr[-4000:]  # which of them is a matter of the machine
    found = json.loads(result.stdout.splitlines()[-1])
    assert {"planned", "even", "18 : 6 heads"} <= found["ratios"].keys() and found["ratios"]["planned"] == 1
    assert all(len(times) == 2 and min(times) > 0 for times in found["seconds"].values())
    assert found["shares"]["even"] == [1, 1]
    if "rebalanced" in found["shares"]:
        first, second = found["shares"]["rebalanced"]
        assert (first > second) == (found["slowdowns"][1] > found["slowdowns"][0])
