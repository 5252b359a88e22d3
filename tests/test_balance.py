"""Shares of unlike devices: what is chosen, against every other choice, and the modules that come of it."""

import dataclasses
from typing import Any

import pytest

from autotp.api import timed_plan
from autotp.balance import uneven_axes
from autotp.capture.model_file import ModelSource, load_model
from autotp.cost.problem import Training
from autotp.hardware.catalogue import load_cluster
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.placement import apportion
from autotp.plans import Plan
from autotp.search import Options


def cluster_of(*names: str) -> ClusterProfile:
    """Devices of the catalogue side by side, on the links of a PCIe machine."""
    pcie, dgx = load_cluster("pcie-4xrtx4090"), load_cluster("dgx-a100")
    known = {"small": next(iter(pcie.device_profiles.values())), "large": next(iter(dgx.device_profiles.values()))}
    profiles = {known[name].name: known[name] for name in names}
    devices = tuple(known[name].name for name in names)
    return dataclasses.replace(pcie, name="mixed", devices=devices, device_profiles=profiles)


def big_mlp() -> ModelSource:
    return load_model("examples/mlp.py", {"width": 4096, "hidden": 16384, "batch": 4096})


def planned(model: ModelSource, mesh: str, cluster: ClusterProfile, **options: Any) -> Plan:
    return timed_plan(model, mesh=mesh, cluster=cluster, dtype=None, options=Options(Training("train"), **options)).plan


def test_apportion_is_within_one_of_the_exact_share() -> None:
    for units in range(40):
        for weights in ((1, 1, 1), (3, 2, 1), (0, 5, 2), (261, 261, 239, 239)):
            sizes = apportion(units, weights)
            assert sum(sizes) == units
            assert all(abs(n - units * w / sum(weights)) < 1 for n, w in zip(sizes, weights, strict=True))
    assert apportion(14, (1, 1, 1, 1)) == (4, 4, 3, 3)


def test_an_axis_is_uneven_where_the_devices_of_a_group_differ() -> None:
    mesh = Mesh.parse("dp=2,tp=2")
    assert uneven_axes(mesh, cluster_of("large", "large", "small", "small")) == (0,)
    assert uneven_axes(mesh, cluster_of("large", "small", "large", "small")) == (1,)
    assert uneven_axes(mesh, cluster_of("large", "large", "large", "large")) == ()


def test_unlike_devices_get_shares_by_which_they_end_together() -> None:
    plan = planned(big_mlp(), "tp=4", cluster_of("large", "large", "small", "small"))
    balance = plan.summary["balance"]
    large, _, small, _ = shares = balance["shares"]["tp"]
    assert large > small and shares == [large, large, small, small]
    assert plan.summary["step_s"] < balance["even_step_s"]
    compute = balance["compute_s"]
    assert max(compute) < 1.05 * min(compute)


def test_devices_that_are_alike_get_even_shares() -> None:
    balance = planned(big_mlp(), "tp=4", cluster_of(*["small"] * 4)).summary["balance"]
    assert len(set(balance["shares"]["tp"])) == 1 and balance["num_tried"] == 1


@pytest.mark.parametrize("given", [300, 400, 500, 600, 700, 800, 900])
def test_no_other_share_of_two_devices_is_faster(given: int) -> None: ...
