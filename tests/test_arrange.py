"""Unlike devices and links between pairs: which device sits where, and what it changes."""

import dataclasses
import itertools

import pytest

from autotp.api import timed_plan
from autotp.capture.model_file import load_model
from autotp.cost.training import Training
from autotp.errors import ProfileError
from autotp.hardware.arrange import arrangements
from autotp.hardware.catalogue import load_cluster
from autotp.hardware.cluster import ClusterProfile, Island
from autotp.mesh import Mesh
from autotp.planning.search import Options

BOX = "pcie-2xa100-2xrtx4090"


def two_pairs(*pairs):
    """Four equal devices, two pairs of which are joined by NVLink."""
    box, pcie = load_cluster(BOX), load_cluster("pcie-4xrtx4090")
    islands = tuple(Island("nvlink", pair) for pair in pairs)
    return dataclasses.replace(pcie, links=box.links, islands=islands)


def test_an_axis_has_the_link_of_the_island_that_its_groups_lie_on():
    mesh = Mesh.parse("dp=2,tp=2")
    near, far = two_pairs((0, 1), (2, 3)), two_pairs((0, 2), (1, 3))
    assert near.link(mesh, 1).kind == "nvlink" and near.link(mesh, 0).kind == "pcie"
    assert far.link(mesh, 1).kind == "pcie" and far.link(mesh, 0).kind == "nvlink"
    assert two_pairs((0, 1)).link(mesh, 1).kind == "pcie", "the slowest group is waited for"
    assert load_cluster(BOX).link(Mesh.parse("tp=2"), 0).kind == "nvlink"


def test_an_arranged_cluster_is_the_same_machine():
    box = load_cluster(BOX)
    for order in itertools.permutations(range(4)):
        other = box.arranged(order)
        assert [other.devices[r] for r in range(4)] == [box.devices[i] for i in order]
        (island,) = other.islands
        assert {order[r] for r in island.ranks} == {0, 1}
        assert ClusterProfile.from_json(other.to_json()) == other


def test_equal_devices_have_one_arrangement_and_islands_are_found():
    assert arrangements(load_cluster("dgx-h100"), Mesh.parse("dp=2,tp=4")) == (tuple(range(8)),)
    assert len(arrangements(load_cluster(BOX), Mesh.parse("tp=4"))) == 1, "one axis over all has no order"
    mesh = Mesh.parse("dp=2,tp=2")
    cluster = two_pairs((0, 2), (1, 3))
    assert any(cluster.arranged(order).link(mesh, 1).kind == "nvlink" for order in arrangements(cluster, mesh))


def planned(cluster, **options):
    source = load_model("examples/mlp.py", {"width": 2048, "hidden": 8192, "batch": 64})
    asked = Options(Training("train"), **options)
    return timed_plan(source, mesh="dp=2,tp=2", cluster=cluster, dtype=None, options=asked).plan


def test_the_planner_seats_devices_so_that_traffic_is_on_fast_links():
    """On the diagonals of a mesh no axis can use the fast links: whoever sits there must change places."""
    diagonal, rows = two_pairs((0, 3), (1, 2)), two_pairs((0, 1), (2, 3))
    kept = planned(diagonal, keeps_order=True).summary["predicted"]["step_s"]
    seated, best = (planned(cluster) for cluster in (diagonal, rows))
    assert kept > 1.02 * best.summary["predicted"]["step_s"], "seating must matter here, or this test shows nothing"
    assert seated.summary["predicted"]["step_s"] == pytest.approx(best.summary["predicted"]["step_s"])
    order = seated.summary["balance"]["device_order"]
    assert order != [0, 1, 2, 3]
    assert seated.cluster == diagonal.arranged(order).to_json()
    assert best.summary["balance"]["device_order"] == [0, 1, 2, 3]


def test_bad_islands_are_refused():
    data = load_cluster(BOX).to_json()
    for islands, message in (
        ([{"link": "none", "ranks": [0, 1]}], "needs a link"),
        ([{"link": "nvlink", "ranks": [0, 9]}], "and its ranks"),
        ([{"link": "nvlink", "ranks": [0]}], "islands.0.ranks"),
    ):
        with pytest.raises(ProfileError, match=message):
            ClusterProfile.from_json({**data, "islands": islands})
