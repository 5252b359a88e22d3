"""Memory is compared device by device: each with its own limit, and the one with the least room is named."""

from dataclasses import replace

import pytest
from report_plans import ROOT, small_plan

import autotp
from autotp.capture.model_file import load_model
from autotp.hardware.catalogue import load_cluster
from autotp.plans import Plan
from autotp.report.answer import answer, facts
from autotp.report.frames import frame
from autotp.report.plots import _ranks
from autotp.report.room import least_room, rooms, whose
from autotp.report.sections import sections

GIB = 2**30


def unlike(held: list[float], limits: list[float]) -> Plan:
    plan = small_plan()
    predicted = {**plan.summary["predicted"], "memory_bytes": held}
    fits = all(a <= b for a, b in zip(held, limits, strict=True))
    solver = {**plan.summary["solver"], "memory_limit_bytes": min(limits), "memory_limits_bytes": limits, "fits": fits}
    return replace(plan, summary={**plan.summary, "predicted": predicted, "solver": solver})


def test_the_fullest_device_is_not_the_one_that_limits() -> None:
    plan = unlike([60.0 * GIB, 20.0 * GIB], [80.0 * GIB, 24.0 * GIB])
    assert least_room(plan).rank == 1 and least_room(plan).free_bytes == 4 * GIB
    assert "rank 1 (H100-SXM5-80GB), the device with the least room, needs 20.0 GiB of 24.0 GiB" in answer(plan)[2]
    assert any(f.value == "20.0 GiB" and "of 24.0 GiB on" in f.what and not f.is_bad for f in facts(plan))
    text = {section.key: section.text for section in sections(plan)}["memory"][0]
    assert text.startswith("Rank 1 (") and "its limit is 24.0 GiB" in text
    assert frame(plan, "memory")["limit_bytes"].tolist() == [80 * GIB, 24 * GIB]
    assert "80.0 GiB (H100-SXM5-80GB), 24.0 GiB (" in frame(plan, "solver").set_index("what")["value"]["memory limit"]


def test_what_does_not_fit_names_the_device() -> None:
    plan = unlike([60.0 * GIB, 30.0 * GIB], [80.0 * GIB, 24.0 * GIB])
    assert answer(plan)[2].startswith(
        "It does not fit: rank 1 (H100-SXM5-80GB), the device with the least room, needs 30"
    )


def test_equal_devices_need_no_name() -> None:
    plan = small_plan()
    assert whose(plan) == "the fullest device"
    assert "It fits: the fullest device needs" in answer(plan)[2]


@pytest.mark.parametrize("asked", [None, 2e9, 30e9])
def test_a_plan_knows_every_devices_limit(asked: float | None) -> None:
    cluster = load_cluster(str(ROOT / "examples" / "mixed-box.json"))
    model = load_model(str(ROOT / "examples" / "mlp.py"))
    plan = autotp.plan(model, mesh=4, cluster=cluster, memory_bytes=asked)
    capacity = {name: device.memory_bytes for name, device in cluster.device_profiles.items()}
    assert len(set(capacity.values())) > 1
    wanted = [min(asked or capacity[room.device], capacity[room.device]) for room in rooms(plan)]
    assert [room.limit_bytes for room in rooms(plan)] == wanted
    assert plan.summary["solver"]["memory_limit_bytes"] == min(room.limit_bytes for room in rooms(plan))


def test_bars_of_unlike_devices_are_named() -> None:
    plan = unlike([60.0 * GIB, 20.0 * GIB], [80.0 * GIB, 24.0 * GIB])
    assert [label for label, _ in _ranks(plan, [1, 2])] == ["rank 0", "rank 1"]
    cluster = {**plan.cluster, "devices": ["L40S", "L4", *plan.cluster["devices"][2:]]}
    assert [label for label, _ in _ranks(replace(plan, cluster=cluster), [1, 2])] == ["0: L40S", "1: L4"]
