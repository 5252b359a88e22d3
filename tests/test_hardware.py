"""Profiles: every shipped file, the round trip, which link an axis runs on, and what a wrong file says."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from autotp.errors import ProfileError
from autotp.hardware.catalogue import list_clusters, list_devices, load_cluster, load_device
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.profile import COLLECTIVES, CollectiveProfile
from autotp.mesh import Mesh

SHIPPED = [
    "aws-p4d-x2",
    "aws-p5-x2",
    "aws-p5e-x2",
    "aws-p5en-x2",
    "aws-p6-b200-x2",
    "azure-nc96ads-a100-v4",
    "cpu",
    "dgx-a100",
    "dgx-a100-x2",
    "dgx-b300",
    "dgx-b300-x2",
    "dgx-h100",
    "dgx-h100-x2",
    "dgx-h200",
    "dgx-h200-x2",
    "dgx2-x2",
    "gb200-nvl72",
    "gcp-a3-high-x2",
    "gcp-a3-mega-x2",
    "pcie-2xa100-2xrtx4090",
    "pcie-4xrtx4090",
    "pcie-8xl4",
]


def test_the_catalogue_is_complete() -> None:
    assert list_clusters() == SHIPPED
    assert {"A100-SXM4-80GB", "H100-SXM5-80GB", "L4", "RTX-4090", "cpu-thread"} <= set(list_devices())


@pytest.mark.parametrize("name", list_devices())
def test_every_device_is_plausible_and_says_where_from(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    assert 1e9 <= device.memory_bytes <= 1e12 and 1e9 <= device.memory_bytes_per_s <= 1e13
    for dtype, peak in device.peak_flops_per_s.items():
        assert device.matmul_flops_per_s[dtype] < peak, "a measured ceiling lies below the datasheet's peak"
        assert device.matmul_rate(dtype) > 0.4 * peak, "a rate so low is a wrong unit"
    assert all(len(text) > 20 for text in device.source.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_every_cluster_survives_json_and_has_an_identity(name: str) -> None:
    cluster = load_cluster(name)
    text = json.dumps(cluster.to_json())
    again = ClusterProfile.from_json(json.loads(text))
    assert again == cluster and again.identity() == cluster.identity()
    other_order = ClusterProfile.from_json(json.loads(json.dumps(cluster.to_json(), sort_keys=True)))
    assert other_order.identity() == cluster.identity()
    assert replace(cluster, name="other").identity() != cluster.identity()
    for link in cluster.links.values():
        assert set(link.collectives) == set(COLLECTIVES)
        assert len(link.source) > 20


def test_measured_devices_and_links_are_marked() -> None:
    assert [name for name in list_devices() if load_device(name).is_measured] == [
        "A100-SXM4-80GB", "H100-SXM5-80GB", "cpu-thread",
    ]  # fmt: skip
    assert [name for name in SHIPPED if load_cluster(name).links["intra"].is_measured] == [
        "azure-nc96ads-a100-v4", "cpu", "dgx-a100", "dgx-a100-x2", "dgx-h100", "dgx-h100-x2",
    ]  # fmt: skip


def test_pairs_with_a_bridge_are_told_from_others() -> None:
    cluster = load_cluster("azure-nc96ads-a100-v4")
    mesh = Mesh.parse("dp=2,tp=2")
    pairs, across = (cluster.link(mesh, axis).collective("all_reduce").at(2)[1] for axis in (1, 0))
    assert pairs > 5 * across
    assert cluster.link(Mesh.parse("tp=4"), 0).collective("all_reduce").at(4)[1] == pytest.approx(across, rel=0.05)


def test_the_last_axis_lies_inside_a_node() -> None:
    cluster = load_cluster("dgx-h100-x2")
    nodes = Mesh.parse("dp=2,tp=8")
    assert [cluster.link(nodes, axis).kind for axis in (0, 1)] == ["infiniband", "nvlink"]
    one_node = Mesh.parse("dp=2,tp=4")
    assert [cluster.link(one_node, axis).kind for axis in (0, 1)] == ["nvlink", "nvlink"]
    assert cluster.link(Mesh.parse("tp=16"), 0).kind == "infiniband"
    # dp groups of 4x4: ranks r, r+4, r+8, r+12, two on each node
    wide = Mesh.parse("dp=4,tp=4")
    assert [cluster.link(wide, axis).kind for axis in (0, 1)] == ["infiniband", "nvlink"]


def test_a_group_with_more_ranks_on_a_node_has_more_of_its_network() -> None:
    cluster = load_cluster("dgx-a100-x2")

    def bandwidth(mesh: str) -> float:
        return cluster.link(Mesh.parse(mesh), 0).collective("all_gather").at(2)[1]

    one = bandwidth("dp=2,tp=8")
    assert bandwidth("dp=4,tp=4") == 2 * one
    inside = cluster.links["intra"].collective("all_gather").at(8)[1]
    assert bandwidth("tp=16") == min(8 * one, inside) == inside


def test_a_mesh_must_fit_the_cluster() -> None:
    cluster = load_cluster("dgx-h100")
    cluster.check(Mesh.parse("tp=8"))
    with pytest.raises(ProfileError, match=r"tp=9.*9 ranks.*dgx-h100 only 8"):
        cluster.check(Mesh.parse("tp=9"))
    with pytest.raises(ProfileError, match="only 8"):
        cluster.link(Mesh.parse("tp=16"), 0)


def test_latency_and_bandwidth_between_and_beyond_the_sizes_listed() -> None:
    profile = CollectiveProfile((2, 4), (10e-6, 20e-6), (100e9, 200e9), 1e-6)
    assert profile.at(3) == pytest.approx((15e-6, 150e9))
    assert profile.at(2) == pytest.approx((10e-6, 100e9))
    assert profile.at(7) == pytest.approx((23e-6, 200e9))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ProfileError, match=r"unknown cluster 'dgx-z9'.*dgx-a100, .*dgx-h100-x2"):
        load_cluster("dgx-z9")
    with pytest.raises(ProfileError, match=r"unknown device 'Z9'.*H100-SXM5-80GB"):
        load_device("Z9")
    with pytest.raises(ProfileError, match=r"cannot read the profile .*nowhere\.json"):
        load_cluster("nowhere.json")


def shipped(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(files("autotp.profiles").joinpath("clusters", f"{name}.json").read_text())
    return data


def test_a_file_of_the_users_may_name_catalogue_devices(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**shipped("dgx-h100"), "name": "mine"}))
    assert load_cluster(path).device(3) == load_device("H100-SXM5-80GB")
    assert load_cluster(str(path)).name == "mine"


def broken() -> dict[str, tuple[str, str]]:
    """What is wrong -> (the file's text, what the message must say)."""
    good = load_cluster("dgx-a100-x2").to_json()

    def edited(path: str, value: Any) -> str:
        data = json.loads(json.dumps(good))
        *keys, last = path.split("/")
        place = data
        for key in keys:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
        return json.dumps(data)

    device = "device_profiles/A100-SXM4-80GB"
    reduce = "links/intra/collectives/all_reduce"
    return {
        "cut off": (json.dumps(good)[:-40], "is not JSON"),
        "no object": ("[1, 2]", "not of type 'object'"),
        "infinite": (edited(f"{device}/memory_bytes_per_s", float("inf")), "is not JSON"),
        "no links": (edited("links", None), "'links' is a required property"),
        "no source": (edited(f"{device}/source/launch_s", None), "source: 'launch_s' is a required property"),
        "negative": (edited(f"{device}/launch_s", -1.0), r"A100-SXM4-80GB\.launch_s: -1\.0"),
        "zero rate": (edited(f"{device}/memory_bytes_per_s", 0), "memory_bytes_per_s: 0"),
        "unknown dtype": (edited(f"{device}/matmul_flops_per_s", {"bf16": 1e12}), "bf16"),
        "typo": (edited(f"{device}/memory", 1), "'memory' was unexpected"),
        "other version": (edited("schema_version", 2), "schema_version"),
        "unknown device": (edited("devices", ["Z9"]), "unknown device 'Z9'"),
        "no device": (edited("devices", []), "devices"),
        "unequal lists": (edited(f"{reduce}/latency_s", [1e-6]), "all_reduce: the lists must have equal lengths"),
        "falling sizes": (edited(f"{reduce}/num_ranks", [8, 4, 2]), "num_ranks must ascend"),
        "no all_reduce": (edited(reduce, None), "'all_reduce' is a required property"),
        "no inter": (edited("links/inter", None), "no link called inter"),
        "wrong name": (edited(f"{device}/name", "B100"), "holds a device named B100"),
    }


@pytest.mark.parametrize("what", broken())
def test_a_broken_file_is_refused_with_its_place(what: str, tmp_path: Path) -> None:
    text, message = broken()[what]
    path = tmp_path / "cluster.json"
    path.write_text(text)
    with pytest.raises(ProfileError, match=message) as error:
        load_cluster(path)
    assert "cluster.json" in str(error.value) or "unknown device" in str(error.value)


def test_a_dtype_without_a_rate_is_an_error_that_names_it() -> None:
    with pytest.raises(ProfileError, match=r"A100-SXM4-80GB has no matmul_flops_per_s for float64.*bfloat16"):
        load_device("A100-SXM4-80GB").matmul_rate("float64")
