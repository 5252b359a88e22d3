"""Curves of products against hand-computed steps, and the operators that use them."""

from dataclasses import replace

import pytest
import torch
from cost_cases import call, whole

from autotp.cost.compute import operator_time_s
from autotp.cost.work import Product
from autotp.errors import ProfileError
from autotp.hardware.catalogue import load_cluster, load_device
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.curves import MatmulCurve, interpolated
from autotp.mesh import Mesh
from autotp.rules.registry import rule_for

# 4 units; a tile of 10 x 10 of a product with k = 50 is 10,000 flops, which a unit at 1e9 / 4 flops/s takes 40 us for
CURVE = MatmulCurve(((10, 10, 1e9),), 4, 1e-6, 1e12, 64.0, 5e-6)


def test_time_goes_up_by_a_wave_where_a_tile_is_begun() -> None:
    one_wave = CURVE.time_s(10, 40, 50, 4)
    assert one_wave == pytest.approx(41e-6 + 5e-6)
    assert CURVE.time_s(1, 31, 50, 4) == pytest.approx(one_wave)  # three tiles and a bit fill the wave as well
    assert CURVE.time_s(10, 41, 50, 4) == pytest.approx(2 * 41e-6 + 5e-6)
    assert CURVE.time_s(10, 10, 50, 4, batch=5) == pytest.approx(2 * 41e-6 + 5e-6)
    assert CURVE.time_s(0, 10, 50, 4) == 5e-6


def test_the_fastest_kernel_is_taken_and_memory_counts() -> None:
    two = replace(CURVE, tiles=((10, 10, 1e9), (5, 10, 0.9e9)))
    assert two.time_s(5, 40, 50, 4) < CURVE.time_s(5, 40, 50, 4)
    assert two.time_s(20, 40, 50, 4) == CURVE.time_s(20, 40, 50, 4)
    slow = replace(CURVE, memory_bytes_per_s=1e6)
    num_bytes = 4 * (10 * 50 + 50 * 40 + 10 * 40)
    assert slow.time_s(10, 40, 50, 4) == pytest.approx(num_bytes / 1e6 + 5e-6)


def test_scales_are_power_laws_between_their_points() -> None:
    scaled = replace(CURVE, scales=(("m", (10.0, 1000.0), (1.0, 100.0)),))
    assert scaled.time_s(10, 40, 50, 4) == pytest.approx(CURVE.time_s(10, 40, 50, 4))
    assert scaled.time_s(100, 40, 50, 4) - 5e-6 == pytest.approx(10 * (CURVE.time_s(100, 40, 50, 4) - 5e-6))
    assert interpolated(1e6, (10.0, 1000.0), (1.0, 100.0)) == pytest.approx(100.0)


def test_an_operator_and_its_backward_are_products_of_the_curve() -> None:
    x, weight = torch.empty(3, 10, 50, requires_grad=True), torch.empty(40, 50, requires_grad=True)
    case = call("linear", x, weight)
    device = replace(
        load_device("A100-SXM4-80GB"), matmul_curves={"float32": CURVE}, host_operator_s=0.0, operator_factors={}
    )
    rule = rule_for(case.node, case.specs)
    forward_s, backward_s = operator_time_s(
        case.node, rule, whole(case), case.specs, case.node.outputs, device, "train", Mesh.parse("tp=4")
    )
    assert forward_s == CURVE.time_s(30, 40, 50, 4)
    assert backward_s == CURVE.time_s(30, 50, 40, 4) + CURVE.time_s(50, 40, 30, 4)
    assert Product(30, 40, 50, 2).gradient_of(is_left=False) == Product(50, 40, 30, 2)
    slow_host = replace(device, host_operator_s=1.0)
    assert operator_time_s(
        case.node, rule, whole(case), case.specs, case.node.outputs, slow_host, "train", Mesh.parse("tp=4")
    ) == (1.0, 2.0)


def test_curves_and_points_survive_json_and_are_checked() -> None:
    data = load_cluster("dgx-a100").to_json()
    again = ClusterProfile.from_json(data)
    assert again == load_cluster("dgx-a100")
    assert again.device(0).matmul_curves["bfloat16"].tiles[0][:2] == (256, 128)
    data["links"]["intra"]["collectives"]["all_reduce"]["points"]["2"]["num_bytes"][0] = 1e12
    with pytest.raises(ProfileError, match=r"all_reduce\.points: num_bytes must ascend"):
        ClusterProfile.from_json(data)
