"""The timeline of one step, simulated from a plan: a compute and a communication stream per distinct device.

The runtime waits for every collective, so that nothing overlaps: a collective starts when the slowest rank is ready, and
what follows starts when it has ended. The end of the last event is the predicted step time, and all of the communication
stream is exposed. Micro-batches follow one another; of checkpointed regions the forward is part of the backward.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from autotp.graph import Value
from autotp.plans import Plan
from autotp.redistribute import COLLECTIVES

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


@dataclass(frozen=True, slots=True)
class Timeline:
    """What the ranks of one kind do when; `busy_share`: of the slowest rank's compute time, how much they need."""

    label: str
    ranks: tuple[int, ...]
    busy_share: float
    events: tuple[Event, ...]

    @property
    def step_s(self) -> float:
        return max((event.end_s for event in self.events), default=0.0)

    @property
    def exposed_communication_s(self) -> float:
        return sum(event.duration_s for event in self.events if event.stream == "communication")


def timeline(plan: Plan) -> list[Event]:
    """Events of the slowest rank in order: the graph forwards, then backwards, per micro-batch, then the optimizer."""
    found, now_s = [], 0.0
    for what, node, stream, phase, duration_s in _pieces(plan):
        if duration_s:
            module = plan.nodes[node].module if node else ""
            found.append(Event(what, node, module, stream, phase, now_s, duration_s))
            now_s += duration_s
    return found


def timelines(plan: Plan) -> list[Timeline]:
    """One per kind of rank: of equal devices with equal work one for all.

    A rank with less to compute, or a faster device, takes its share of the slowest rank's time for every operator, and
    then waits: the same share for all of them, that of the whole step.
    """
    slowest = timeline(plan)
    compute_s = plan.summary["balance"]["compute_s"]
    most_s = max(compute_s) or 1.0
    kinds: dict[tuple[str, float], list[int]] = {}
    for rank in range(plan.mesh.num_ranks):
        kinds.setdefault((plan.cluster["devices"][rank], round(compute_s[rank] / most_s, 6)), []).append(rank)
    return [
        Timeline(f"{device}, ranks {', '.join(map(str, ranks))}", tuple(ranks), share, _scaled(slowest, share))
        for (device, share), ranks in kinds.items()
    ]


def _scaled(events: list[Event], share: float) -> tuple[Event, ...]:
    return tuple(
        Event(e.what, e.node, e.module, e.stream, e.phase, e.start_s, e.duration_s * share)
        if e.stream == "compute" and share < 1.0
        else e
        for e in events
    )


Piece = tuple[str, str, str, str, float]


def _pieces(plan: Plan) -> Iterator[Piece]:
    names = list(plan.nodes)
    for _ in range(int(plan.summary.get("training", {}).get("accumulation", 1))):
        for name in names:
            yield from _forward(plan, name)
        if plan.mode == "train":
            for name in reversed(names):
                yield from _backward(plan, name)
    yield "optimizer step", "", "compute", "optimizer", plan.summary["predicted"]["compute_parts_s"]["optimizer"]


def _forward(plan: Plan, name: str) -> Iterator[Piece]:
    node = plan.nodes[name]
    yield _short(node.op), name, "compute", "forward", node.forward_s
    for index in range(len(node.outputs)):
        for move in plan.moves.get(Value(name, index), ()):
            yield move.forward, name, _stream(move.forward), "forward", move.forward_s


def _backward(plan: Plan, name: str) -> Iterator[Piece]:
    node = plan.nodes[name]
    for index in reversed(range(len(node.outputs))):
        for move in reversed(plan.moves.get(Value(name, index), ())):
            yield move.forward, name, _stream(move.forward), "backward", move.again_s
            yield move.backward, name, _stream(move.backward), "backward", move.backward_s
    yield _short(node.op), name, "compute", "backward", node.backward_s


def _short(op: str) -> str:
    parts = op.split(".")
    return (parts[1] if len(parts) > 1 else op).rstrip("_")


def _stream(action: str) -> str:
    return "communication" if action in COLLECTIVES else "compute"


def chrome_trace(plan: Plan) -> dict[str, Any]:
    """What chrome://tracing and Perfetto read: microseconds, a process per kind of rank, a thread per stream."""
    found: list[dict[str, Any]] = []
    for pid, one in enumerate(timelines(plan)):
        named = [("process_name", 0, f"{one.label} (predicted)")]
        named += [("thread_name", tid, stream) for tid, stream in enumerate(STREAMS)]
        found += [
            {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}} for kind, tid, name in named
        ]
        found += [
            {
                "name": event.what, "cat": event.phase, "ph": "X", "pid": pid, "tid": STREAMS.index(event.stream),
                "ts": event.start_s * 1e6, "dur": event.duration_s * 1e6,
                "args": {"node": event.node, "module": event.module},
            }
            for event in one.events
        ]  # fmt: skip
    return {"displayTimeUnit": "ms", "traceEvents": found}
