"""The training example: split over two processes it learns exactly as in one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "train.py"
STEPS = 50


def run(launcher: list[str], written: Path) -> tuple[list[float], float]:
    """The losses, and the fraction of the parameters that the process holds."""
    command = [sys.executable, *launcher, str(EXAMPLE), "--steps", str(STEPS), "--write", str(written)]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=180, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert result.returncode == 0, result.stderr[-4000:]
    held = re.search(r"(\d+) of (\d+) parameters", result.stdout)
    assert held, result.stdout
    losses = json.loads(written.read_text())
    assert f"step {STEPS - 1:3d}  loss {losses[-1]:.6f}" in result.stdout
    return losses, int(held[1]) / int(held[2])


@pytest.mark.distributed
def test_the_split_model_learns_as_the_whole_one(tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    whole, _ = run([], tmp_path / "whole.json")
    split, held = run(torchrun, tmp_path / "split.json")
    assert len(whole) == len(split) == STEPS
    assert 0.5 <= held < 0.6  # else the comparison would show nothing
    assert whole[-1] < 0.5 * whole[0]  # nor if nothing were learnt
    assert split == pytest.approx(whole, rel=1e-4)
