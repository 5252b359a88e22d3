"""Logs of nccl-tests in every form, and the clusters that are made of them."""

import json
from pathlib import Path

import pytest
from autotp.cli.main import main

from autotp.cost.collective import collective_time_s
from autotp.errors import ProfileError
from autotp.hardware.catalogue import load_cluster
from autotp.hardware.import_nccl import catalogue_name, import_logs
from autotp.hardware.nccl_tests import read_log
from autotp.mesh import Mesh

SHARED = Path(__file__).parents[2] / "shared" / "data" / "nccl_tests"


def ranks(num_nodes: int, per_node: int, group: str = " Group  0", device: str = "NVIDIA H100 80GB HBM3") -> str:
    return "\n".join(
        f"#  Rank {rank:2}{group} Pid {100 + rank} on node-{rank // per_node} device {rank % per_node:2} [0x0f] {device}"
        for rank in range(num_nodes * per_node)
    )


NEW = f"""# nccl-tests version 2.17.6 nccl-headers=22605 nccl-library=22605
# Collective test starting: all_gather_perf
# nThread 1 nGpus 1 minBytes 1024 maxBytes 1048576 step: 2(factor)
#
# Using devices
{ranks(1, 8)}
#
#       size         count      type   redop    root     time   algbw   busbw  #wrong     time   algbw   busbw  #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)             (us)  (GB/s)  (GB/s)
           0             0     float    none      -1     0.05    0.00    0.00       0     0.05    0.00    0.00       0
        1024            32     float    none      -1    20.00    0.05    0.04     N/A    19.00    0.05    0.05     N/A
     1048576         32768     float    none      -1    50.00   20.97   18.35       0    49.00   21.40   18.72       0
# Out of bounds values : 0 OK
"""
OLD = f"""{ranks(1, 2, group="")}
#       size         count    type   redop     time   algbw   busbw  error     time   algbw   busbw  error
        1024           256   float     sum    20.00    0.05    0.05  0e+00    19.00    0.05    0.05  0e+00
     1048576        262144   float     sum    50.00   20.97   20.97  2e-07    49.00   21.40   21.40  2e-07
"""
WIDE = "\n".join(
    f"[1,0]<stdout>:{line}"
    for line in f"""{ranks(2, 4)}
1024 256 float sum -1 20.00 0.05 0.05 19.0 21.0 20.9 1.2 0 19.00 0.05 0.05 18.0 20.0 19.9 1.1 0
1048576 262144 float sum -1 1.2e+02 8.7 8.7 119.0 121.0 120.9 1.2 0 119.00 8.7 8.7 118.0 120.0 119.9 1.1 0 2026-11-24
""".splitlines()
)
SPLIT = f"""# Collective test starting: reduce_scatter_perf
{ranks(1, 2)}
{ranks(1, 2, group=" Group  1").replace("node-0", "node-1")}
        1024           256     float     sum      -1    20.00    0.05    0.05      0    19.00    0.05    0.05      0
"""
JSON = json.dumps(
    {
        "version": 1,
        "nccl_version": "2.27.5",
        "args": ["./build/alltoall_perf", "-b", "1K"],
        "config": {"iters": 20},
        "devices": [
            {"rank": rank, "group": 0, "hostname": "a", "device": rank, "device_info": "[0000:0f:00] NVIDIA H200"}
            for rank in range(4)
        ],
        "results": [
            {"size": size, "count": size // 4, "type": "float", "redop": "none", "root": -1,
             "out_of_place": {"time": us, "alg_bw": 1, "bus_bw": 1, "nwrong": 0}, "in_place": {"time": us / 2}}
            for size, us in ((1024, 20.0), (1048576, 50.0))
        ],
    }
)  # fmt: skip


def log(folder: Path, text: str, name: str = "log.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "name", "collective", "num_ranks", "num_nodes", "last_s"),
    [
        (NEW, "a.txt", "all_gather", 8, 1, 50e-6),
        (OLD, "allreduce.log", "all_reduce", 2, 1, 50e-6),
        (WIDE, "run_all_reduce_2.txt", "all_reduce", 8, 2, 120e-6),
        (JSON, "a.json", "all_to_all", 4, 1, 50e-6),
    ],
)
def test_every_form_is_read(
    text: str, name: str, collective: str, num_ranks: int, num_nodes: int, last_s: float, tmp_path: Path
) -> None:
    (found,) = read_log(log(tmp_path, text, name))
    assert (found.collective, len(found.hosts), found.num_nodes) == (collective, num_ranks, num_nodes)
    assert dict(found.times_s) == {1024: pytest.approx(20e-6), 1048576: pytest.approx(last_s)}
    assert found.devices[0] in ("NVIDIA H100 80GB HBM3", "NVIDIA H200")


def test_split_groups_are_runs_of_their_own(tmp_path: Path) -> None:
    found = read_log(log(tmp_path, SPLIT))
    assert [(each.collective, set(each.hosts)) for each in found] == [
        ("reduce_scatter", {"node-0"}), ("reduce_scatter", {"node-1"}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing\n", "does not say which collective"),
        ("# Collective test starting: all_reduce_perf\n", "no lines of ranks"),
        (NEW.split("#       size")[0], "no rows of results"),
        ('{"results": []}', "is no JSON of nccl-tests"),
        ("{", "is no JSON of nccl-tests"),
        (NEW.replace(ranks(1, 8), ranks(1, 1)), "is of one rank"),
    ],
)
def test_what_is_no_log_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=message):
        read_log(log(tmp_path, text))
    with pytest.raises(ProfileError, match="cannot read the log"):
        read_log(tmp_path / "none.txt")


def test_a_cluster_of_one_node_prices_as_measured(tmp_path: Path) -> None:
    logs = [*read_log(log(tmp_path, NEW)), *read_log(log(tmp_path, NEW.replace("all_gather", "all_reduce"), "b.txt"))]
    cluster = import_logs(logs, "mine", "2026-11-24")
    assert cluster.devices == ("H100-SXM5-80GB",) * 8 and cluster.ranks_per_node == 8
    link = cluster.link(Mesh.parse("tp=8"), 0)
    assert link.kind == "nvlink" and link.is_measured and "not measured: reduce_scatter" in link.source
    assert collective_time_s("all_gather", 1048576, 8, link) == pytest.approx(50e-6)


def test_several_nodes_need_a_link_inside_one(tmp_path: Path) -> None:
    two = read_log(log(tmp_path, WIDE, "all_reduce.txt"))
    with pytest.raises(ProfileError, match="no log is of ranks on one node alone"):
        import_logs(two, "mine", "2026-11-24")
    base = load_cluster("dgx-h100")
    cluster = import_logs(two, "mine", "2026-11-24", base=base)
    assert cluster.links["intra"] == base.links["intra"] and cluster.ranks_per_node == 4
    whole = cluster.link(Mesh.parse("tp=8"), 0)
    assert collective_time_s("all_reduce", 1048576, 8, whole) == pytest.approx(120e-6)
    one_each = cluster.link(Mesh.parse("dp=2,tp=4"), 0)
    assert one_each.collective("all_reduce").bus_bytes_per_s[0] * 4 == whole.collective("all_reduce").bus_bytes_per_s[0]


def test_devices_are_known_by_what_drivers_call_them() -> None:
    assert catalogue_name("NVIDIA A100-SXM4-80GB") == "A100-SXM4-80GB"
    assert catalogue_name("NVIDIA H200") == "H200-SXM-141GB"
    assert catalogue_name("NVIDIA L4") == "L4"
    with pytest.raises(ProfileError, match=r"no device 'NVIDIA Z9'.*--device"):
        catalogue_name("NVIDIA Z9")


@pytest.mark.parametrize("path", sorted(SHARED.glob("*.txt")), ids=lambda path: path.stem)
def test_real_logs_are_read_whole(path: Path) -> None:
    (found,) = read_log(path)
    rows = [line for line in path.read_text().splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert len(found.times_s) == len([row for row in rows if row.split()[0] != "0"])
    assert len(found.hosts) == 8 * found.num_nodes


def test_the_command_imports_and_the_cluster_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "mine.json"
    monkeypatch.setattr(
        "sys.argv", ["autotp", "profile", "import", str(log(tmp_path, NEW)), "-o", str(output), "--json"]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert load_cluster(output).name == "mine"
