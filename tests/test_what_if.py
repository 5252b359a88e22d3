"""Changed clusters: what is changed costs less or more, by as much as it should."""

import pytest

from autotp.analysis.what_if import changed
from autotp.cost.collective import collective_time_s
from autotp.errors import AutoTPError
from autotp.hardware.catalogue import load_cluster
from autotp.hardware.cluster import ClusterProfile

CLUSTER = load_cluster("dgx-h100-x2")


def all_reduce_s(cluster: ClusterProfile, num_bytes: float, link: str = "intra") -> float:
    return collective_time_s("all_reduce", num_bytes, 8 if link == "intra" else 2, cluster.links[link])


def test_twice_the_bandwidth_halves_what_is_beyond_the_latency() -> None:
    twice = changed(CLUSTER, ["link.intra.bandwidth*=2"])
    for num_bytes in (1e6, 3e7, 1e9):
        latency_s = CLUSTER.links["intra"].collective("all_reduce").at(8)[0]
        before, after = all_reduce_s(CLUSTER, num_bytes), all_reduce_s(twice, num_bytes)
        assert after - latency_s == pytest.approx((before - latency_s) / 2, rel=0.02) or before <= latency_s
        assert all_reduce_s(twice, num_bytes, "inter") == all_reduce_s(CLUSTER, num_bytes, "inter")
    assert "link.intra.bandwidth*=2" in twice.name
    assert not twice.links["intra"].is_measured
    assert ClusterProfile.from_json(twice.to_json()) == twice


def test_half_the_latency_counts_for_small_messages() -> None:
    quick = changed(CLUSTER, ["link.latency/=2"])
    assert all_reduce_s(quick, 1e3) == pytest.approx(all_reduce_s(CLUSTER, 1e3) / 2, rel=0.1)
    assert all_reduce_s(quick, 1e9) == pytest.approx(all_reduce_s(CLUSTER, 1e9), rel=0.01)


def test_devices_change_too_and_changes_add_up() -> None:
    device = next(iter(changed(CLUSTER, ["device.memory=141GB", "device.matmul*=2"]).device_profiles.values()))
    before = next(iter(CLUSTER.device_profiles.values()))
    assert device.memory_bytes == 141_000_000_000
    assert device.matmul_flops_per_s["bfloat16"] == 2 * before.matmul_flops_per_s["bfloat16"]
    curve, old = device.matmul_curves["bfloat16"], before.matmul_curves["bfloat16"]
    assert curve.arithmetic_s(4096, 4096, 4096) == pytest.approx(old.arithmetic_s(4096, 4096, 4096) / 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bandwidth", "cannot read"),
        ("link.intra.bandwith*=2", "did you mean bandwidth"),
        ("link.outer.bandwidth*=2", "has no link outer, only intra, inter"),
        ("device.A100.memory*=2", "has no device A100"),
        ("link.bandwidth*=-1", "not a positive number"),
        ("link.bandwidth*=lots", "not a positive number"),
    ],
)
def test_changes_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(AutoTPError, match=message):
        changed(CLUSTER, [text])
