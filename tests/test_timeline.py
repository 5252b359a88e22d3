"""The simulated step: its end is the predicted step, its communication the exposed one, and its trace is readable."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autotp.api import plan
from autotp.plan_file import save
from autotp.timeline import chrome_trace, timelines

MODEL = str(Path(__file__).parents[1] / "examples" / "nanogpt.py")


@pytest.mark.parametrize(("checkpointing", "accumulation"), [("none", 1), ("full", 1), ("none", 3)])
def test_the_last_event_ends_with_the_predicted_step(checkpointing: str, accumulation: int) -> None:
    found = plan(MODEL, mesh="tp=2", cluster="dgx-h100", strategy="megatron", checkpointing=checkpointing,
                 accumulation=accumulation)  # fmt: skip
    predicted = found.summary["predicted"]
    (one,) = timelines(found)
    assert one.step_s == pytest.approx(predicted["step_s"])
    inside_s = predicted["communication_by_kind_s"]["inside_operators"]
    local_s = sum(predicted["communication_by_kind_s"].get(name, 0.0) for name in ("slice", "pad", "keep"))
    assert one.exposed_communication_s == pytest.approx(predicted["exposed_communication_s"] - inside_s - local_s)
    ends = [event.end_s for event in one.events]
    assert ends == sorted(ends) and all(
        a == pytest.approx(b.start_s) for a, b in zip(ends, one.events[1:], strict=False)
    )


def test_unlike_devices_have_a_process_each_and_the_faster_one_waits() -> None:
    found = plan(MODEL, mesh="tp=2", cluster="dgx-h100", strategy="megatron")
    balance = {**found.summary["balance"], "compute_s": [1.0, 0.5]}
    slow, fast = timelines(replace(found, summary={**found.summary, "balance": balance}))
    assert (slow.busy_share, fast.busy_share) == (1.0, 0.5)
    assert fast.exposed_communication_s == slow.exposed_communication_s
    compute = [sum(e.duration_s for e in one.events if e.stream == "compute") for one in (slow, fast)]
    assert compute[1] == pytest.approx(compute[0] / 2)


def test_the_trace_is_written_by_the_command(tmp_path: Path) -> None:
    found = plan(MODEL, mesh="tp=2", cluster="dgx-h100", strategy="megatron")
    save(found, tmp_path / "a.plan.json")
    program = "import sys; from autotp.cli.main import main; sys.argv = ['autotp', *sys.argv[1:]]; main()"
    command = [sys.executable, "-c", program, "show", "a.plan.json", "--trace", "a.trace.json"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    events = json.loads((tmp_path / "a.trace.json").read_text())["traceEvents"]
    assert events == json.loads(json.dumps(chrome_trace(found)["traceEvents"]))
    assert {event["ph"] for event in events} == {"M", "X"}
    assert {event["tid"] for event in events} == {0, 1}
