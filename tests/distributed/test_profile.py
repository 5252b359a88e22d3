"""`autotp profile` over real processes: the whole way to a plan, and ranks that die or hang."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import autotp
from autotp.errors import ProfileError
from autotp.hardware.catalogue import load_cluster
from autotp.hardware.journal import journal_path
from autotp.hardware.profile import COLLECTIVES
from autotp.measuring.items import Effort
from autotp.measuring.profile import profile

TINY = Effort(
    "tiny", 3, 0.0005, 600.0, (1024, 65536), tuple((m, n, 32) for m in (16, 64) for n in (32, 64)), ((2, 16, 16, 16),),
    ((1, 2, 16, 16),), ((4, 16), (32, 64), (64, 64)), ("float32",), (64, 64, 64), ((2, 16), (2, 1024)),
)  # fmt: skip
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.distributed
def test_a_profile_is_resumed_written_and_planned_with(tmp_path: Path) -> None:
    output = tmp_path / "mine.json"
    broken = disturbed(output, TINY, lambda ranks: os.kill(ranks[1], signal.SIGKILL))
    assert "rank 1 failed" in broken and "exit code -9" in broken and "run the same command again" in broken
    assert not output.exists()
    kept = len(journal_path(output).read_text().splitlines()) - 1
    assert kept >= 3
    found = profile(output, num_ranks=2, devices="cpu", effort=TINY)
    assert found is not None and found.num_resumed >= kept and found.num_rounds == 3
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]
    cluster = load_cluster(output)
    assert cluster == found.cluster and cluster.max_ranks == 2
    (device,) = cluster.device_profiles.values()
    assert (
        device.is_measured and device.memory_bytes > 1e8 and {"gelu", "gelu.backward"} <= set(device.operator_factors)
    )
    assert set(device.together_factors) == {"product", "memory_bound", "attention"}
    link = cluster.links["intra"]
    assert link.kind == "shared_memory" and set(link.collectives) == {*COLLECTIVES, "send_recv"}
    assert link.collective("all_reduce").points[2].num_bytes == (1024, 65536)
    plan = autotp.plan(str(EXAMPLES / "mlp.py"), mesh="tp=2", cluster=str(output))
    assert plan.cluster["name"] == "mine" and plan.summary["predicted"]["step_s"] > 0


@pytest.mark.distributed
def test_a_rank_that_hangs_is_noticed(tmp_path: Path) -> None:
    output = tmp_path / "mine.json"
    message = disturbed(output, TINY, lambda ranks: os.kill(ranks[1], signal.SIGSTOP), group_timeout_s=4.0)
    assert "ranks [1] were still silent" in message and "rank 0 failed" in message
    assert not output.exists() and journal_path(output).exists()


def disturbed(output: Path, effort: Effort, disturb: Callable[[list[int]], None], group_timeout_s: float = 60.0) -> str:
    """The error of a profile whose ranks' processes, in the order of ranks, are disturbed while it is measured."""
    before = set(children())
    failed: list[str] = []

    def run() -> None:
        try:
            endless = replace(effort, num_rounds=10**6, budget_s=6000.0)
            profile(output, num_ranks=2, devices="cpu", effort=endless, group_timeout_s=group_timeout_s)
        except ProfileError as error:
            failed.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    journal, deadline = journal_path(output), time.monotonic() + 60
    while not journal.exists() or len(journal.read_text().splitlines()) < 4:
        assert time.monotonic() < deadline and thread.is_alive(), failed
        time.sleep(0.05)
    ranks = sorted(
        pid for pid in set(children()) - before if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    disturb(ranks)
    thread.join(60)
    assert not thread.is_alive() and failed
    assert not set(ranks) & set(children()), "no process is left behind"
    return failed[0]


def children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def test_what_cannot_be_measured_is_said_before_anything_is(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="links are measured between ranks"):
        profile(tmp_path / "a.json", num_ranks=1, devices="cpu")
    with pytest.raises(ProfileError, match="there is no folder"):
        profile(tmp_path / "none" / "a.json", num_ranks=2, devices="cpu")
    with pytest.raises(ProfileError, match="it is a folder"):
        profile(tmp_path, num_ranks=2, devices="cpu")
    with pytest.raises(ProfileError, match="cannot read --devices 'tpu'"):
        profile(tmp_path / "a.json", devices="tpu")
    with pytest.raises(ProfileError, match="has 0 GPUs"):
        profile(tmp_path / "a.json", devices="0,1")


def test_a_folder_that_takes_no_file_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"cannot write /proc/mine\.json"):
        profile("/proc/mine.json", num_ranks=2, devices="cpu")  # not even the superuser may
    tmp_path.chmod(0o500)
    if os.geteuid():
        with pytest.raises(ProfileError, match="Permission denied"):
            profile(tmp_path / "a.json", num_ranks=2, devices="cpu")
