"""Memory is a hard limit: what does not fit is not planned, what would help is computed, and its price is a curve."""

import itertools
import re

import pytest

from autotp.api import timed_plan
from autotp.capture.model_file import load_model
from autotp.cost.training import Training
from autotp.errors import InfeasibleError
from autotp.planning.search import Options
from autotp.report.units import parse_bytes


def planned(mesh="tp=2", batch=4, memory_curve=False, **options):
    source = load_model("examples/mlp.py", {"width": 512, "hidden": 2048, "batch": batch})
    asked = Options(Training("train", options.pop("optimizer", "adamw")), **options)
    return timed_plan(
        source, mesh=mesh, cluster="dgx-h100", dtype=None, options=asked, memory_curve=memory_curve
    ).plan.summary


def test_what_the_message_says_would_do_does():
    parts = planned(objective="memory")["predicted"]["memory_parts_bytes"][0]
    limit = parts["process"] + 0.75 * (sum(parts.values()) - parts["process"])
    with pytest.raises(InfeasibleError) as caught:
        planned(memory_bytes=limit)
    message = str(caught.value)
    times, mesh = re.search(r"(\d+) times the devices \((tp=\d+)\)", message).groups()
    assert mesh == f"tp={2 * int(times)}"
    assert planned(mesh, memory_bytes=limit)["solver"]["fits"]
    if "--optimizer sgd" in message:
        assert planned(memory_bytes=limit, optimizer="sgd")["solver"]["fits"]


def test_a_smaller_batch_is_named_where_activations_are_what_is_too_large():
    small, large = (max(planned(batch=b, objective="memory")["predicted"]["memory_bytes"]) for b in (1024, 8192))
    with pytest.raises(InfeasibleError) as caught:
        planned(batch=8192, memory_bytes=(small + large) / 2)
    batch = int(re.search(r"--batch (\d+)", str(caught.value))[1])
    assert batch < 8192
    assert planned(batch=batch, memory_bytes=(small + large) / 2)["solver"]["fits"]


def test_no_remedy_is_said_where_none_helps():
    with pytest.raises(InfeasibleError, match="Neither a smaller batch"):
        planned(memory_bytes=parse_bytes("1kB"))


def test_the_curve_falls_and_keeps_its_limits():
    points = planned(memory_curve=True)["memory_curve"]
    assert len(points) >= 4
    assert all(point["memory_bytes"] <= point["limit_bytes"] for point in points)
    times = [point["step_s"] for point in points]
    assert all(later <= earlier * 1.02 for earlier, later in itertools.pairwise(times))
    assert times[0] > times[-1], "less memory must cost something here, or this test shows nothing"
