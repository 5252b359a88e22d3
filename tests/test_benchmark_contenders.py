"""The benchmark of a step: what it demands, that its contenders compute the same, and what they send."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("judge", BENCHMARKS / "judge.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "judge", module)
    spec.loader.exec_module(module)
    return module


def rows(judge: ModuleType, **changes: Any) -> list[Any]:
    """Rows that are in order, but for changes to ours."""
    base = judge.Row("", "1x16", "forward+backward", 1.0, 2.0, 9, 1e-6, 36, 1e6, 2e6)
    ours = replace(base, contender=judge.OURS_MEGATRON, cpu_s=1.04)
    names = (judge.HANDWRITTEN, judge.DTENSOR, judge.TRANSFORMERS, judge.OURS_OPTIMAL)
    slower = {judge.DTENSOR: 1.5, judge.TRANSFORMERS: 1.5}
    return [replace(ours, **changes), *(replace(base, contender=n, cpu_s=slower.get(n, 1.0)) for n in names)]


def test_what_is_in_order_passes(judge: ModuleType) -> None:
    assert judge.failures(rows(judge)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpu_s": 1.06}, "1.060 times the CPU time of hand-written Megatron"),
        ({"cpu_s": 1.51}, "times the CPU time of transformers"),
        ({"cpu_s": float("nan")}, "nan times"),
        ({"backward_bytes": 2e6 + 1}, "sends more in backward"),
        ({"max_error": 2e-4}, "is wrong by 0.0002"),
        ({"max_error": float("nan")}, "is wrong by nan"),
    ],
)
def test_what_falls_short_is_named(judge: ModuleType, changes: dict[str, float], message: str) -> None:
    found = judge.failures(rows(judge, **changes))
    assert any(message in sentence for sentence in found), found


def test_settings_are_not_mixed(judge: ModuleType) -> None:
    fast = [replace(row, shape="4x256", cpu_s=row.cpu_s / 100) for row in rows(judge)]
    assert judge.failures([*rows(judge), *fast]) == []


@pytest.mark.distributed
def test_contenders_compute_the_same_and_ours_sends_least() -> None:
    """A tiny run over real processes. Its times mean nothing, so only wrong results may fail it."""
    contenders = ["handwritten", "megatron", "optimal", "dtensor"]
    contenders += ["transformers"] if importlib.util.find_spec("accelerate") else []
    layers, hidden, tokens = 2, 64, 2 * 32
    command = [
        sys.executable, str(BENCHMARKS / "step_time.py"), "--json", "--rounds", "2", "--shapes", "2x32",
        "--layers", str(layers), "--hidden", str(hidden), "--ffn", "176", "--vocabulary", "512",
        "--contenders", *contenders,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert result.returncode in (0, 1), result.stderr[-4000:]
    found = {(row["contender"], row["kind"]): row for row in json.loads(result.stdout)["rows"]}
    assert len(found) == 2 * (1 + len(contenders))
    assert all(row["max_error"] < 1e-4 and row["cpu_s"] > 0 and row["wall_s"] > 0 for row in found.values())
    training = {name: row for (name, kind), row in found.items() if kind == "forward+backward"}
    one = tokens * hidden * 4  # one reduced activation: of two ranks each sends it once
    assert training["one process"]["backward_bytes"] == 0
    assert training["hand-written Megatron"]["backward_bytes"] == (2 * layers + 1) * one
    assert training["DTensor"]["backward_bytes"] == (5 * layers + 1) * one  # q, k, v, gate and up each for itself
    assert training["autotp, Megatron's plan"]["backward_bytes"] <= (2 * layers + 1) * one
