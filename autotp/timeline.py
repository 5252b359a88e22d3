"""The timeline of one step, simulated from a plan: a compute and a communication stream per distinct device.

The runtime waits for every collective: it starts when the slowest rank is ready, and what follows starts when it has ended.
Only parameters' gradients may be added up beside the rest of the backward pass, where the plan says so and a device gains
by it: these are a stream of their own, one after the other, and what of them the plan counts as exposed is waited for at
the end of the backward pass. So the end of the last event is the predicted step time, and all of the communication stream
is exposed. Micro-batches follow one another; of checkpointed regions the forward is part of the backward.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from autotp.graph import Value
from autotp.plans import Move, Plan
from autotp.redistribute import COLLECTIVES, PADDED, REDUCTIONS

STREAMS = ("compute", "communication", "overlapped")
WAIT = "wait for gradients"


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
    found, now_s, free_s = [], 0.0, 0.0
    for what, node, stream, phase, duration_s in _pieces(plan):
        if duration_s:
            module = plan.nodes[node].module if node else ""
            if stream == "overlapped":
                free_s = max(now_s, free_s)
                found.append(Event(what, node, module, stream, phase, free_s, duration_s))
                free_s += duration_s
            else:
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
    num_batches = int(plan.summary.get("training", {}).get("accumulation", 1))
    begun = _begun(plan) if _is_overlapped(plan) else {}
    for batch in range(num_batches):
        is_reduced = not plan.reduces_once or batch == num_batches - 1
        for name in names:
            yield from _forward(plan, name)
        if plan.mode == "train":
            for name in reversed(names):
                yield from _backward(plan, name, is_reduced, is_overlapped=bool(begun))
                if is_reduced:
                    yield from begun.get(name, ())
        if is_reduced and begun:
            yield WAIT, "", "communication", "backward", _exposed_s(plan)
    yield "optimizer step", "", "compute", "optimizer", plan.summary["predicted"]["compute_parts_s"]["optimizer"]


def _is_overlapped(plan: Plan) -> bool:
    """Whether gradients are added up beside computing, and some device gains by it."""
    used = plan.cluster["devices"][: plan.mesh.num_ranks]
    profiles = [plan.cluster["device_profiles"][name] for name in used]
    return plan.overlaps and all(profile.get("overlap_efficiency", 0.0) > 0 for profile in profiles)


def _is_reduction(plan: Plan, name: str, move: Move) -> bool:
    return plan.nodes[name].kind == "parameter" and move.backward in REDUCTIONS


def _begun(plan: Plan) -> dict[str, list[Piece]]:
    """By the node after whose backward they begin, the sums of parameters' gradients."""
    first: dict[str, str] = {}
    for name, node in plan.nodes.items():
        for value in node.inputs:
            first.setdefault(value.node, name)
    found: dict[str, list[Piece]] = {}
    for value, moves in plan.moves.items():
        for move in reversed(moves):
            if _is_reduction(plan, value.node, move) and move.backward_by == PADDED:
                piece = (move.backward, value.node, "overlapped", "backward", move.backward_s)
                found.setdefault(first[value.node], []).append(piece)
    return found


def _exposed_s(plan: Plan) -> float:
    """Seconds that one backward pass waits for gradients at its end, as the plan's prediction has it."""
    predicted, training = plan.summary["predicted"], plan.summary["training"]
    sent_s = sum(piece[-1] for pieces in _begun(plan).values() for piece in pieces)
    hidden_s = predicted["communication_s"] - predicted["exposed_communication_s"]
    return float(max(0.0, sent_s - hidden_s / (1 if plan.reduces_once else training["accumulation"])))


def _forward(plan: Plan, name: str) -> Iterator[Piece]:
    node = plan.nodes[name]
    yield _short(node.op), name, "compute", "forward", node.forward_s
    for index in range(len(node.outputs)):
        for move in plan.moves.get(Value(name, index), ()):
            yield move.forward, name, _stream(move.forward), "forward", move.forward_s


def _backward(plan: Plan, name: str, is_reduced: bool, *, is_overlapped: bool) -> Iterator[Piece]:
    node = plan.nodes[name]
    for index in reversed(range(len(node.outputs))):
        for move in reversed(plan.moves.get(Value(name, index), ())):
            yield move.forward, name, _stream(move.forward), "backward", move.again_s
            is_beside = is_overlapped and move.backward_by == PADDED
            if not _is_reduction(plan, name, move) or (is_reduced and not is_beside):
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
        used = {event.stream for event in one.events} | {*STREAMS[:2]}
        named += [("thread_name", tid, stream) for tid, stream in enumerate(STREAMS) if stream in used]
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
