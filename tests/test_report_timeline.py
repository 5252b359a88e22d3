"""The timeline as it is drawn: from the simulation, a pair of rows per kind of rank, no gap hidden and none invented."""

from dataclasses import replace

import numpy as np
import pytest
from report_plans import ROOT, small_plan

import autotp
from autotp.capture.model_file import load_model
from autotp.plans import Plan
from autotp.report.axes import NARROW
from autotp.report.plots import timeline_figure
from autotp.report.sections import sections
from autotp.report.style import svg
from autotp.report.timeline import busy, outline, shown_timelines, words_of
from autotp.timeline import Event, timelines


def event(start_s: float, duration_s: float) -> Event:
    return Event("linear", "n", "m", "compute", "forward", start_s, duration_s)


def test_a_moment_is_as_busy_as_its_events_say() -> None:
    shares = busy([event(6.0, 1.0), event(0.0, 2.0), event(2.0, 1.5)], 8.0, 4)
    assert shares.tolist() == [1.0, 0.75, 0.0, 0.5]
    assert busy([], 8.0, 3).tolist() == [0.0, 0.0, 0.0]


def test_no_second_is_lost_or_added() -> None:
    rng = np.random.default_rng(0)
    ends = np.cumsum(rng.random(200))
    events = [event(float(b), float(a)) for a, b in zip(rng.random(199) * np.diff(ends), ends[:-1], strict=True)]
    shares = busy(events, float(ends[-1]), 37)
    assert shares.sum() * ends[-1] / 37 == pytest.approx(sum(e.duration_s for e in events))


def test_an_outline_has_a_corner_where_something_changes() -> None:
    times, shares = outline(np.array([1.0, 1.0, 0.999, 0.5, 0.0, 0.0]), 12.0)
    assert times.tolist() == [0.0, 6.0, 8.0, 12.0]
    assert shares.tolist() == [1.0, 0.5, 0.0, 0.0]


def unlike(plan: Plan) -> Plan:
    """The same plan, as if its second rank needed half the time for what it computes."""
    compute_s = plan.summary["balance"]["compute_s"][0]
    balance = {**plan.summary["balance"], "compute_s": [compute_s / 2, compute_s]}
    return replace(plan, summary={**plan.summary, "balance": balance})


def test_every_kind_of_rank_has_a_row_per_stream_and_a_name() -> None:
    plan = unlike(small_plan())
    assert [words_of(plan, one) for one in shown_timelines(plan)] == [
        "H100-SXM5-80GB, rank 1",
        "H100-SXM5-80GB, rank 0",
    ]
    for width in (7.6, NARROW):
        (ax,) = timeline_figure(plan, width).axes
        assert [tick.get_text() for tick in ax.get_yticklabels()] == ["compute", "communication"] * 2
    text = svg(timeline_figure(plan))
    for words in ("rank 1", "rank 0", "forward", "backward", "optimizer", "communication"):
        assert words in text
    (one,) = timelines(small_plan())
    assert words_of(small_plan(), one) == "H100-SXM5-80GB, each of 2"


def drawn_s(plan: Plan, row: int) -> float:
    """Seconds that a row's bars stand for: their area by their full height."""
    (ax,) = timeline_figure(plan).axes
    y, area = ax.get_yticks()[row], 0.0
    for shape in ax.collections:
        points = shape.get_paths()[0].vertices
        if abs(points[:, 1].mean() - y) < 0.5:
            x, z = points[:, 0], points[:, 1]
            area += abs(np.dot(x, np.roll(z, -1)) - np.dot(z, np.roll(x, -1))) / 2
    return float(area / 0.8)


def test_bars_stand_for_the_seconds_of_the_simulation() -> None:
    plan = unlike(small_plan())
    for index, one in enumerate(shown_timelines(plan)):
        for offset, stream in enumerate(("compute", "communication")):
            simulated_s = sum(e.duration_s for e in one.events if e.stream == stream)
            assert drawn_s(plan, 2 * index + offset) == pytest.approx(simulated_s, rel=0.03)


def test_the_page_says_whose_timelines_it_shows() -> None:
    text = {section.key: " ".join(section.text) for section in sections(unlike(small_plan()))}["timeline"]
    assert "each of the 2 kinds of devices" in text


def test_what_is_hidden_has_a_row_of_its_own_and_what_is_waited_for_does_not_hide() -> None:
    model = load_model(str(ROOT / "examples" / "llama.py"), {"size": "8b", "layers": 1}, 16, 512)
    plan = autotp.plan(model, mesh="dp=2", cluster="dgx-h100", dtype="bf16", overlap=True)
    assert any(event.stream == "overlapped" for one in timelines(plan) for event in one.events)
    (ax,) = timeline_figure(plan).axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["compute", "communication", "beside it"]
    for row, stream in enumerate(("compute", "communication", "overlapped")):
        seconds = sum(e.duration_s for e in shown_timelines(plan)[0].events if e.stream == stream)
        assert drawn_s(plan, row) == pytest.approx(seconds, rel=0.03)
