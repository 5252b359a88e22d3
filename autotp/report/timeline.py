"""The timeline of one step, simulated from a plan: what the slowest rank does when, and the same as a Chrome trace.

Nothing overlaps: the runtime waits for every collective, so the ends of all events are the predicted step time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from autotp.graph import Value
from autotp.plans import Plan
from autotp.redistribute import COLLECTIVES
from autotp.report.words import short_op

STREAMS = ("compute", "communication")


@dataclass(frozen=True, slots=True)
class Event:
    """`phase`: forward, backward or optimizer. `what`: an operator or an action of the table of redistributions."""

    what: str
    node: str
    module: str
    stream: str
    phase: str
    start_s: float
    duration_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + self.duration_s


def timeline(plan: Plan) -> list[Event]:
    """Events in order: the graph forwards, then backwards, then the optimizer."""
    found, now_s = [], 0.0
    for what, node, stream, phase, duration_s in _pieces(plan):
        if duration_s:
            module = plan.nodes[node].module if node else ""
            found.append(Event(what, node, module, stream, phase, now_s, duration_s))
            now_s += duration_s
    return found


Piece = tuple[str, str, str, str, float]


def _pieces(plan: Plan) -> Iterator[Piece]:
    names = list(plan.nodes)
    for name in names:
        yield from _forward(plan, name)
    if plan.mode == "train":
        for name in reversed(names):
            yield from _backward(plan, name)
    yield "optimizer step", "", "compute", "optimizer", plan.summary["predicted"]["compute_parts_s"]["optimizer"]


def _forward(plan: Plan, name: str) -> Iterator[Piece]:
    node = plan.nodes[name]
    yield short_op(node.op), name, "compute", "forward", node.forward_s
    for index in range(len(node.outputs)):
        for move in plan.moves.get(Value(name, index), ()):
            yield move.forward, name, _stream(move.forward), "forward", move.forward_s


def _backward(plan: Plan, name: str) -> Iterator[Piece]:
    node = plan.nodes[name]
    for index in reversed(range(len(node.outputs))):
        for move in reversed(plan.moves.get(Value(name, index), ())):
            yield move.backward, name, _stream(move.backward), "backward", move.backward_s
    yield short_op(node.op), name, "compute", "backward", node.backward_s


def _stream(action: str) -> str:
    return "communication" if action in COLLECTIVES else "compute"


def merged(events: Iterable[Event]) -> list[Event]:
    """Neighbours of one stream and phase as one event, which is named after the longest of them."""
    found = []
    for _, group in groupby(events, key=lambda event: (event.stream, event.phase)):
        some = list(group)
        longest = max(some, key=lambda event: event.duration_s)
        duration_s = some[-1].end_s - some[0].start_s
        found.append(
            Event(
                longest.what, longest.node, longest.module, longest.stream, longest.phase, some[0].start_s, duration_s
            )
        )
    return found


def chrome_trace(plan: Plan) -> dict[str, Any]:
    """What chrome://tracing and Perfetto read: microseconds, a process for the rank, a thread per stream."""
    named = [
        {"name": "thread_name", "ph": "M", "pid": 0, "tid": tid, "args": {"name": stream}}
        for tid, stream in enumerate(STREAMS)
    ]
    process = {"name": "process_name", "ph": "M", "pid": 0, "args": {"name": "the slowest rank (predicted)"}}
    events = [
        {
            "name": event.what, "cat": event.phase, "ph": "X", "pid": 0, "tid": STREAMS.index(event.stream),
            "ts": event.start_s * 1e6, "dur": event.duration_s * 1e6,
            "args": {"node": event.node, "module": event.module},
        }
        for event in timeline(plan)
    ]  # fmt: skip
    return {"displayTimeUnit": "ms", "traceEvents": [process, *named, *events]}
