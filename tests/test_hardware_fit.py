"""Fits: lines and curves find what made their points, and odd devices are noticed."""

import numpy as np
import pytest

from autotp.cost.collective import bus_factor as priced_factor
from autotp.cost.collective import collective_time_s
from autotp.hardware.catalogue import load_cluster
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.curves import MatmulCurve
from autotp.hardware.fit import bus_factor, fit_line, link_json, thinned
from autotp.hardware.fit_products import curve_error, errors, fit_cpu, fit_gpu
from autotp.hardware.patterns import Pattern, patterns
from autotp.hardware.profile import COLLECTIVES
from autotp.hardware.spread import Spread, complaints, kinds_by_speed
from autotp.mesh import Mesh

SIZES = [2.0**i for i in range(10, 27)]


def test_a_line_is_found_again_despite_an_outlier() -> None:
    points = {size: 2e-5 + size / 1e9 for size in SIZES}
    assert fit_line(points) == pytest.approx((2e-5, 1e-9), rel=1e-3)
    points[2.0**16] *= 3
    assert fit_line(points) == pytest.approx((2e-5, 1e-9), rel=0.05)


def test_a_line_never_falls_nor_begins_below_zero() -> None:
    assert fit_line({1e3: 1.0, 1e6: 0.5}) == (0.75, 0.5e-6)
    latency_s, slope = fit_line({1e3: 1e-9, 1e6: 1e-3, 1e7: 2e-2})
    assert latency_s >= 0 and slope > 0
    assert fit_line({1e6: 1.0}) == (0.0, 1e-6)


def test_bytes_on_the_bus_are_counted_as_they_are_priced() -> None:
    assert all(bus_factor(kind, n) == priced_factor(kind, n) for kind in COLLECTIVES for n in (2, 3, 8))


def test_a_link_gives_its_points_between_them_and_its_line_beyond() -> None:
    measured = {kind: {2: {size: 1e-4 + size / 1e8 for size in SIZES}} for kind in ("all_reduce", "broadcast")}
    measured["all_reduce"][2][2.0**20] = 0.02  # a step that no line has
    data = load_cluster("cpu").to_json()
    data["links"]["intra"] = link_json("shared_memory", measured, "a test, and nothing else", "2026-11-24")
    link = ClusterProfile.from_json(data).links["intra"]
    assert collective_time_s("all_reduce", 2.0**20, 2, link) == pytest.approx(0.02)
    assert collective_time_s("all_reduce", 2.0**28, 2, link) == pytest.approx(1e-4 + 2.0**28 / 1e8, rel=0.1)
    assert set(link.collectives) == set(COLLECTIVES)
    assert "not measured: all_gather, reduce_scatter, all_to_all" in link.source
    assert not link.collective("all_gather").points


def test_a_larger_message_never_takes_less() -> None:
    assert thinned([(4.0, 1.0), (1.0, 2.0), (8.0, 3.0)]) == {1.0: 2.0, 4.0: 2.0, 8.0: 3.0}


def test_links_of_measured_groups_are_preferred() -> None:
    data = load_cluster("dgx-a100").to_json()
    slow = {
        kind: {**numbers, "latency_s": [1.0] * 3} for kind, numbers in data["links"]["intra"]["collectives"].items()
    }
    data["groups"] = {"2x4": {**data["links"]["intra"], "collectives": slow}}
    cluster = ClusterProfile.from_json(data)
    mesh = Mesh.parse("dp=2,tp=4")
    assert cluster.link(mesh, 0) == cluster.groups["2x4"] != cluster.link(mesh, 1)
    assert ClusterProfile.from_json(cluster.to_json()) == cluster


def test_patterns_are_the_groups_that_axes_form() -> None:
    quick = patterns(8, 4, is_full=False)
    assert [str(each) for each in quick] == ["2x1", "4x1", "2x4", "8x1"]
    full = {str(each) for each in patterns(8, 4, is_full=True)}
    assert {"2x1", "2x2", "2x4", "4x1", "4x2", "8x1", "3x1"} <= full
    for text in full - {"3x1", "5x1", "6x1", "7x1"}:
        pattern = Pattern.parse(text)
        mesh = Mesh((("a", 8 // pattern.size // pattern.stride), ("b", pattern.size), ("c", pattern.stride)))
        assert sorted(map(tuple, pattern.groups(8))) == sorted(mesh.groups(1))
    assert Pattern(2, 4).spans_nodes(8, 4) and not Pattern(2, 2).spans_nodes(8, 4)


PRODUCTS = [(m, n, k) for m in (16, 64, 256, 1024) for n, k in ((256, 256), (1024, 512), (512, 2048), (4096, 1024))]


def test_a_cpus_products_are_a_rate_and_factors_of_sizes() -> None:
    def seconds(m: int, n: int, k: int) -> float:
        return 2 * m * n * k / 1e11 * (m / 1024) ** -0.3 * (k / 2048) ** -0.1 + 2e-6

    curve = fit_cpu({shape: seconds(*shape) for shape in PRODUCTS}, 4, 2e10, 2e-6)
    assert curve_error(curve, {shape: seconds(*shape) for shape in PRODUCTS}, 4) < 0.03
    assert curve.time_s(128, 1024, 512, 4) == pytest.approx(seconds(128, 1024, 512), rel=0.1)


def test_a_gpus_products_are_tiles_and_waves() -> None:
    true = MatmulCurve(((128, 128, 2.4e14), (64, 64, 1.8e14)), 108, 1e-6, 1.5e12, 4.0, 3e-6)
    products = {shape: true.time_s(*shape, 2) for shape in PRODUCTS}
    fitted = fit_gpu(products, 2, 108, 2.7e14, 1.4e12, 4e-6)
    table = np.array([(*shape, seconds) for shape, seconds in products.items()])
    assert errors(fitted, table, 2).mean() < 0.05
    assert curve_error(fitted, products, 2) == pytest.approx(float(errors(fitted, table, 2).mean()))


def test_throttled_and_shared_devices_are_noticed() -> None:
    assert Spread.of([0.0] * 5) == Spread(0.0, 0.0, 0, 1.0)
    assert complaints("x", Spread.of([1.0, 1.01, 0.99, 1.0, 1.02])) == []
    assert "throttled" in complaints("x", Spread.of([1.0, 1.0, 1.1, 1.2, 1.3, 1.3]))[0]
    assert "shared" in complaints("x", Spread.of([1.0, 1.6, 1.0, 1.01, 1.7, 1.0]))[0]


def test_a_slower_device_of_the_same_name_is_kept_apart() -> None:
    same = [[1.0, 1.1, 1.0], [1.05, 1.0, 1.2]]
    assert kinds_by_speed(["a", "a"], same) == ["a", "a"]
    assert kinds_by_speed(["a", "a", "b"], [*same[:1], [1.5, 1.6, 1.5], [9.0, 9.0, 9.0]]) == [
        "a", "a (slower, rank 1)", "b",
    ]  # fmt: skip
    assert kinds_by_speed(["a", "a"], [[1.0, 1.0, 1.0], [1.5, 1.0, 1.5]]) == ["a", "a"], "noise is no other device"
