"""Which degree: the rows of a sweep, and what they are said to mean."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

import autotp
from autotp.analysis.sweeps import degrees, findings
from autotp.errors import AutoTPError
from autotp.hardware.catalogue import load_cluster
from autotp.plan_file import dumps, loads
from autotp.report.frames import frame


def row(degree: int, step_s: float, communication_s: float = 0.0, *, fits: bool = True) -> dict[str, object]:
    return {"mesh": f"tp={degree}", "num_ranks": degree, "step_s": step_s, "communication_s": communication_s,
            "memory_bytes": 2**30 // degree, "fits": fits, "megatron_s": None}  # fmt: skip


def mlp(width: int, batch: int) -> tuple[nn.Module, tuple[torch.Tensor]]:
    model = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
    return model.to(torch.bfloat16), (torch.zeros(batch, width, dtype=torch.bfloat16),)


def test_degrees_are_powers_of_two_and_all() -> None:
    assert degrees(1) == [1] and degrees(8) == [1, 2, 4, 8] and degrees(6) == [1, 2, 4, 6]
    with pytest.raises(AutoTPError, match="at least 1"):
        degrees(0)


def test_findings_say_what_the_rows_do() -> None:
    small = list(findings([row(1, 1.0), row(2, 1.5, 1.0)]))
    assert small[0].startswith("one device is fastest: 1e+03 ms") and "dominates from tp=2 on: 67%" in small[1]
    large = list(findings([row(1, 4.0, fits=False), row(2, 2.0), row(4, 1.5, 0.3)]))
    assert "does not fit on one device (1 GiB); tp=2 is the first that fits" in large[0]
    assert "tp=4 is fastest" in large[1] and "2.67 times as fast" in large[1] and "never dominates: 20%" in large[2]
    hopeless = list(findings([row(1, 4.0, fits=False), row(2, 2.0, fits=False)]))
    assert hopeless[0].startswith("does not fit at any degree: tp=2 needs least")


def test_the_plan_of_a_sweep_is_the_fastest_that_fits() -> None:
    model, inputs = mlp(4096, 4096)
    found = autotp.sweep(model, inputs, devices=4, cluster="dgx-h100")
    rows = found.summary["sweep"]
    assert [one["num_ranks"] for one in rows] == [1, 2, 4]
    assert str(found.mesh) == min(rows, key=lambda one: one["step_s"])["mesh"] == "tp=4"
    assert rows[0]["communication_s"] == 0 and rows[2]["step_s"] < rows[0]["step_s"]
    assert list(frame(loads(dumps(found)), "scaling")["mesh"]) == ["tp=1", "tp=2", "tp=4"]


def test_small_models_stay_on_one_device_and_large_ones_cannot() -> None:
    tiny = autotp.sweep(*mlp(64, 8), devices=4, cluster="dgx-h100")
    assert str(tiny.mesh) == "tp=1" and "one device is fastest" in tiny.summary["sweep_findings"][0]
    cluster = load_cluster("dgx-h100")
    device = replace(cluster.device(0), memory_bytes=500_000_000, process_bytes=0)
    short = replace(cluster, device_profiles={device.name: device})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a degree that does not fit is a row, not a warning
        found = autotp.sweep(*mlp(4096, 256), devices=4, cluster=short)
    assert [one["fits"] for one in found.summary["sweep"]] == [False, False, True]
    hopeless = autotp.sweep(*mlp(4096, 256), devices=2, cluster="dgx-h100", memory_bytes=1e6)
    assert not any(one["fits"] for one in hopeless.summary["sweep"])
    assert hopeless.summary["solver"]["memory_limit_bytes"] == 1e6 and dumps(hopeless).count("Infinity") == 0
