"""Measurements: the round trip, what is off by more than the bound, and what a wrong file says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotp.errors import AutoTPError
from autotp.measurement import Compared, Directions, Measurement, load, save

SAMPLE = Measurement(
    plan_identity="0123456789abcdef",
    fingerprint="f",
    model={"origin": None, "dtype": None},
    mode="train",
    mesh="tp=2",
    cluster="cpu",
    date="2026-11-24",
    environment={"torch": "2.13.0"},
    num_steps=3,
    bound=0.15,
    rank_steps_s=((0.1, 0.11, 0.12), (0.1, 0.1, 0.13)),
    step_s=Compared(0.1, 0.11),
    spread_s=0.01,
    parts_s={"forward": Compared(0.04, 0.05), "other": Compared(0.0, 0.001)},
    communication_s={"all_reduce": Compared(0.01, 0.02)},
    operators_s={"linear": Compared(0.08, 0.09)},
    nodes={"linear": Directions(Compared(0.04, 0.05), Compared(0.04, 0.04))},
    moves={"linear": Directions(Compared(0.005, 0.01), Compared(0.005, 0.01))},
    memory_bytes=(Compared(1000, 1001), Compared(1000, 990)),
    memory_parts_bytes={"parameters": Compared(500, 500)},
)


def test_a_measurement_survives_its_file(tmp_path: Path) -> None:
    save(SAMPLE, tmp_path / "measured.json")
    assert load(tmp_path / "measured.json") == SAMPLE


def test_what_is_off_by_more_than_the_bound_is_said_in_words() -> None:
    assert SAMPLE.misses() == []
    off = replace(SAMPLE, step_s=Compared(0.1, 0.2), memory_bytes=(Compared(1200, 1000), Compared(1000, 1000)))
    assert off.misses() == [
        "the step: predicted 0.1 s, measured 0.2 s, off by -50.0%",
        "memory of rank 0: predicted 1200 bytes, measured 1000 bytes, off by +20.0%",
    ]
    assert replace(off, bound=0.6).misses() == []
    assert Compared(1.0, 0.0).error is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("autotp_measurement",), 2, "autotp_measurement"),
        (("step_s", "measured"), -1, r"step_s\.measured: -1"),
        (("rank_steps_s",), [], "rank_steps_s"),
        (("nodes", "linear", "forward_s"), None, r"nodes\.linear: 'forward_s' is a required"),
        (("bound",), 0, "bound"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(
    path: tuple[str, ...], value: Any, message: str, tmp_path: Path
) -> None:
    data = SAMPLE.to_json()
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    (tmp_path / "wrong.json").write_text(json.dumps(data))
    with pytest.raises(AutoTPError, match=rf"wrong\.json is no measurement: .*{message}"):
        load(tmp_path / "wrong.json")


def test_a_missing_and_a_broken_file_are_errors_of_ours(tmp_path: Path) -> None:
    with pytest.raises(AutoTPError, match="cannot read the measurement"):
        load(tmp_path / "none.json")
    (tmp_path / "half.json").write_text(json.dumps(SAMPLE.to_json())[:-20])
    with pytest.raises(AutoTPError, match="cannot read the measurement"):
        load(tmp_path / "half.json")
