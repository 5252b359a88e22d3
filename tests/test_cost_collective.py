"""Collectives: hand-computed numbers, laws, and measured times where the reference data are present."""

import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autotp.cost.collective import bus_factor, collective_time_s, move_time_s
from autotp.errors import AutoTPError, ProfileError
from autotp.hardware.catalogue import list_clusters, load_cluster, load_device
from autotp.hardware.curves import CollectivePoints
from autotp.hardware.profile import COLLECTIVES, CollectiveProfile, LinkProfile
from autotp.mesh import Mesh
from autotp.redistribute import Collective

DATA = Path(__file__).parents[2] / "shared" / "data"
LINK = LinkProfile(
    "nvlink",
    {kind: CollectiveProfile((2, 8), (10e-6, 10e-6), (100e9, 100e9), 1e-6) for kind in COLLECTIVES},
    "made up for tests",
    "2026-11-22",
    False,
)


def test_factors_are_those_of_nccl_tests() -> None:
    assert [bus_factor(kind, 4) for kind in COLLECTIVES] == [1.5, 0.75, 0.75, 0.75, 1.0]
    with pytest.raises(AutoTPError, match="'gossip' is no collective"):
        bus_factor("gossip", 2)


def test_seconds_by_hand() -> None:
    # 100 MB over 8 ranks: 10 us, and 1.75 * 100 MB / 100 GB/s = 1.75 ms
    assert collective_time_s("all_reduce", 1e8, 8, LINK) == pytest.approx(10e-6 + 1.75e-3)
    assert collective_time_s("all_gather", 1e8, 8, LINK) == pytest.approx(10e-6 + 0.875e-3)
    assert collective_time_s("all_reduce", 1e8, 10, LINK) == pytest.approx(12e-6 + 1.8e-3)
    assert collective_time_s("all_reduce", 0, 2, LINK) == pytest.approx(10e-6)
    assert all(collective_time_s(kind, 1e8, 1, LINK) == 0 for kind in COLLECTIVES)


def test_a_strided_move_pays_its_copies() -> None:
    device = load_device("H100-SXM5-80GB")
    num_bytes = 2 * 1_000_000
    copy_s = device.launch_s + 2 * num_bytes / device.memory_bytes_per_s
    for kind, num_copies in (("all_gather", 1), ("reduce_scatter", 1), ("all_to_all", 2)):
        plain = move_time_s(Collective(kind, 0, 1_000_000, strided=False), 2, 4, LINK, device)
        assert plain == collective_time_s(kind, num_bytes, 4, LINK)
        strided = move_time_s(Collective(kind, 0, 1_000_000, strided=True), 2, 4, LINK, device)
        assert strided == pytest.approx(plain + num_copies * copy_s)
    assert move_time_s(Collective("all_gather", 0, 1_000_000, strided=True), 2, 1, LINK, device) == 0


@pytest.mark.parametrize("name", list_clusters())
@pytest.mark.parametrize("kind", COLLECTIVES)
def test_laws_on_every_shipped_link(name: str, kind: str) -> None:
    for link in load_cluster(name).links.values():
        is_measured = bool(link.collective(kind).points)
        # below 1 MiB measured times jump between protocols and launches: what was measured holds there, not the law
        sizes = [2**20, 2**22, 2**23, 2**25, 2**30] if is_measured else [0, 1, 2**10, 2**20, 2**25, 2**30]
        for num_ranks in (2, 3, 4, 8, 16):
            times = [collective_time_s(kind, size, num_ranks, link) for size in sizes]
            assert times == sorted(times) and len(set(times)) > 4 and times[0] > 0
        floor = [link.collective(kind).at(num_ranks)[0] for num_ranks in (2, 4, 8, 16, 32)]
        assert floor == sorted(floor), "latency grows with ranks"
        # an all_reduce does the work of a reduce_scatter and an all_gather, and never takes longer than they do by
        # more than the latency of one
        both = collective_time_s("reduce_scatter", 2**25, 4, link) + collective_time_s("all_gather", 2**25, 4, link)
        assert collective_time_s("all_reduce", 2**25, 4, link) <= 1.05 * both


def test_measured_points_are_kept_and_a_line_goes_on_from_the_last() -> None:
    points = {2: CollectivePoints((1e3, 1e5), (1e-5, 1e-3)), 4: CollectivePoints((1e3, 1e5), (3e-5, 3e-3))}
    profile = CollectiveProfile((2, 8), (10e-6, 10e-6), (100e9, 100e9), 1e-6, points)
    link = replace(LINK, collectives={"all_reduce": profile})

    def seconds(num_bytes: float, num_ranks: int) -> float:
        return collective_time_s("all_reduce", num_bytes, num_ranks, link)

    assert seconds(1e3, 2) == seconds(0, 2) == pytest.approx(1e-5)
    assert seconds(1e4, 2) == pytest.approx(1e-4)  # half way in log-log
    assert seconds(1e4, 3) == pytest.approx(2e-4)  # between two sizes of groups
    assert seconds(1e5 + 1e9, 2) == pytest.approx(1e-3 + 1e-2)
    assert seconds(1e9, 8) == pytest.approx(10e-6 + 1.75e-2)  # a larger group than any measured: the line


def test_a_link_without_a_collective_says_so() -> None:
    bare = LinkProfile("pcie", {"all_reduce": LINK.collectives["all_reduce"]}, "made up", "2026-11-22", False)
    with pytest.raises(ProfileError, match="pcie link has no numbers for broadcast"):
        collective_time_s("broadcast", 1, 2, bare)


def measured(file: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Number of ranks, all on one node -> bytes, seconds."""
    rows = defaultdict(list)
    with (DATA / "all_reduce" / file).open() as lines:
        for row in csv.DictReader(lines):
            if row["num_workers"] == row["devices_per_node"]:
                seconds = float(row["median_ms_max_over_ranks"]) / 1e3
                rows[int(row["num_workers"])].append((float(row["bytes"]), seconds))
    return {n: (np.array(found)[:, 0], np.array(found)[:, 1]) for n, found in rows.items()}


@pytest.mark.skipif(not DATA.exists(), reason="needs the reference data beside the repository")
@pytest.mark.parametrize("cluster, file", [("dgx-a100", "a100_dgx"), ("dgx-h100", "h100_dgx")])
def test_measured_all_reduces(cluster: str, file: str) -> None:
    link = load_cluster(cluster).links["intra"]
    for num_ranks, (num_bytes, seconds) in measured(f"{file}_all_reduce.csv").items():
        predicted = np.array([collective_time_s("all_reduce", size, num_ranks, link) for size in num_bytes])
        error = np.abs(predicted / seconds - 1)
        large = num_bytes >= 2**20
        print(f"{cluster}, {num_ranks} ranks: median error {np.median(error[large]):.1%} from 1 MiB on, ", end="")
        print(f"{np.median(error[~large]):.1%} below")
        assert np.median(error[large]) < 0.10
        assert np.median(error[~large]) < 0.50


@pytest.mark.skipif(not DATA.exists(), reason="needs the reference data beside the repository")
def test_measured_all_reduces_of_two_nodes() -> None:
    cluster = load_cluster("dgx-h100-x2")
    link = cluster.link(Mesh.parse("tp=16"), 0)
    lines = (DATA / "nccl_tests" / "oci_h100_2node_16gpu_allreduce.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    error = [abs(collective_time_s("all_reduce", float(r[0]), 16, link) / (float(r[5]) * 1e-6) - 1) for r in rows]
    print(f"two H100 nodes from 1 GiB on: median error {np.median(error):.1%}")
    assert len(rows) == 5 and np.median(error) < 0.40
