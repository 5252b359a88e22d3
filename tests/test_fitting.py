"""Limits of memory are of counted bytes: what fits by count is found where estimates say that it does not."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import autotp
from autotp.errors import InfeasibleError
from autotp.hardware.catalogue import load_cluster


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
    with pytest.warns(UserWarning, match=r"does not fit the devices: no plan fits .* more than the limit of"):
        plan = autotp.plan(model, inputs, mesh="tp=2", cluster=cluster(1e7), optimizer="sgd")
    solver = plan.summary["solver"]
    assert not solver["fits"] and solver["memory_limit_bytes"] == 1e7
    assert max(plan.summary["predicted"]["memory_bytes"]) > 1e7
