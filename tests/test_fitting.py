"""Limits of memory are of counted bytes: what fits by count is found where estimates say that it does not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import autotp
from autotp.errors import InfeasibleError, PlanError
from autotp.hardware.catalogue import load_cluster
from autotp.planning import fitting
from autotp.planning.dry_run import counted


def deep(width: int = 1024, layers: int = 12) -> tuple[nn.Module, tuple[torch.Tensor]]:
    """Gradients and activations of about equal size: never all there at once."""
    layers_ = [nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(layers)]
    return nn.Sequential(*layers_), (torch.zeros(width, width),)


def cluster(num_bytes: float):
    found = load_cluster("dgx-h100")
    device = replace(found.device(0), memory_bytes=int(num_bytes), process_bytes=0)
    return replace(found, device_profiles={device.name: device})


def test_a_limit_between_count_and_estimate_is_kept_by_the_plan_that_fits() -> None:
    model, inputs = deep()
    free = autotp.plan(model, inputs, mesh="tp=2", cluster=cluster(80e9), optimizer="sgd")
    predicted = free.summary["predicted"]
    count, estimate = max(predicted["memory_bytes"]), max(predicted["estimated_bytes"])
    assert estimate > 1.15 * count
    for limited in (
        autotp.plan(model, inputs, mesh="tp=2", cluster=cluster(1.05 * count), optimizer="sgd"),
        autotp.plan(model, inputs, mesh="tp=2", cluster=cluster(80e9), memory_bytes=1.05 * count, optimizer="sgd"),
    ):
        assert limited.summary["solver"]["fits"]
        assert limited.summary["solver"]["memory_limit_bytes"] == pytest.approx(1.05 * count, abs=1)
        assert limited.summary["predicted"]["step_s"] == pytest.approx(predicted["step_s"])
        assert max(limited.summary["predicted"]["memory_bytes"]) <= 1.05 * count


def test_what_does_not_fit_by_count_is_refused_or_says_so_where_no_limit_was_asked_for() -> None:
    model, inputs = deep(layers=4)
    with pytest.raises(InfeasibleError, match="Neither a smaller batch"):
        autotp.plan(model, inputs, mesh="tp=2", cluster=cluster(80e9), memory_bytes=1e7, optimizer="sgd")
    with pytest.warns(UserWarning, match=r"does not fit: rank 0 \(.*\) needs .* more than its .*\. Neither a smaller"):
        plan = autotp.plan(model, inputs, mesh="tp=2", cluster=cluster(1e7), optimizer="sgd")
    solver = plan.summary["solver"]
    assert not solver["fits"] and solver["memory_limit_bytes"] == 1e7
    most = max(plan.summary["predicted"]["memory_bytes"])
    shortage = plan.summary["shortage"]
    assert shortage["missing_bytes"] == most - 1e7 > 0 and shortage["needed_bytes"] == most and not shortage["remedies"]


def test_what_does_not_fit_is_not_run_unasked() -> None:
    model, inputs = deep(layers=4)
    limit = cluster(
        0.75 * max(autotp.plan(model, inputs, mesh="tp=1", cluster=cluster(80e9)).summary["predicted"]["memory_bytes"])
    )
    with pytest.warns(UserWarning, match="What would do: 2 times the devices"):
        plan = autotp.plan(model, inputs, mesh="tp=1", cluster=limit)
    assert plan.summary["shortage"]["remedies"][0]["what"] == "2 times the devices (tp=2)"
    mesh = SimpleNamespace(mesh_dim_names=("tp",), mesh=torch.zeros(1))
    with pytest.raises(PlanError, match=r"the plan does not fit: .* What would do: 2 times .* must_fit=False"):
        autotp.parallelize(model, plan, mesh)  # type: ignore[arg-type]


def test_checkpointing_is_named_where_it_helps() -> None:
    layers = [nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.Tanh()) for _ in range(6)]
    model, inputs = nn.Sequential(*layers), (torch.zeros(8192, 64),)

    def needed(level: str, **options: float) -> float:
        given = {"mesh": "tp=2", "cluster": cluster(80e9), "optimizer": "sgd", "checkpointing": level, **options}
        return max(autotp.plan(model, inputs, **given).summary["predicted"]["memory_bytes"])  # type: ignore[arg-type]

    limit = 1.3 * needed("full", objective="memory")  # type: ignore[arg-type]
    assert limit < needed("none", objective="memory")  # type: ignore[arg-type]
    with pytest.raises(InfeasibleError, match=r"activation checkpointing \(--checkpointing full\)"):
        needed("none", memory_bytes=limit)
    assert needed("full", memory_bytes=limit) <= limit


def test_a_limit_that_only_the_estimate_keeps_is_not_kept() -> None:
    model, inputs = deep(layers=4)
    free = autotp.plan(model, inputs, mesh="tp=2", cluster=cluster(80e9), objective="memory", optimizer="sgd")
    count = max(free.summary["predicted"]["memory_bytes"])

    def high(captured, plan, *args):  # type: ignore[no-untyped-def]
        found = counted(captured, plan, *args)
        solver = {**found.summary["solver"], "fits": False}
        return replace(found, summary={**found.summary, "solver": solver})

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InfeasibleError, match="no plan was found that fits"):
        patch.setattr(fitting, "counted", high)
        autotp.plan(model, inputs, mesh="tp=2", cluster=cluster(80e9), memory_bytes=2 * count, optimizer="sgd")
