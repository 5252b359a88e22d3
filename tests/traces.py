"""The collectives that a plan prices, as every rank should issue them: computed from placements, not by the runtime."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from autotp.graph import ITEM_BYTES, Graph, TensorSpec
from autotp.placement import Placement, local_shape
from autotp.plans import Plan
from autotp.redistribute import COLLECTIVES, PADDED, Step, collective, sent_by, sent_dtype
from autotp.rules.registry import rules_of
from autotp.runtime.communicator import Call, Communicator

Phases = tuple[Counter, Counter]  # forward and backward


class Sent(NamedTuple):
    """`num_elements` as nccl-tests counts size: of all_gather what comes out, of the others what goes in."""

    collective: str
    axis: str
    item_bytes: int
    num_elements: int


def issued(trace: Sequence[Call], sizes: dict[str, int]) -> Counter:
    """What a communicator wrote down, as `Sent`."""
    return Counter(
        Sent(
            call.collective,
            call.axis,
            getattr(torch, call.dtype.removeprefix("torch.")).itemsize,
            math.prod(call.shape) * (sizes[call.axis] if call.collective == "all_gather" else 1),
        )
        for call in trace
    )


def record(communicators: Mapping[str, Communicator]) -> list[Call]:
    """The list to which all collectives of a rank are written from now on, in order."""
    trace: list[Call] = []
    for communicator in communicators.values():
        communicator.trace = trace
    return trace


def check_issued(graph: Graph, plan: Plan, rank: int, forward: Sequence[Call], backward: Sequence[Call]) -> None:
    """Fails where a rank issued a collective that the plan does not price, or none that it prices."""
    sizes = dict(plan.mesh.axes)
    for name, trace, priced in zip(
        ("forward", "backward"), (forward, backward), planned(graph, plan, rank), strict=True
    ):
        real = issued(trace, sizes)
        assert real == priced, f"{name}, rank {rank}: not priced {real - priced}, not issued {priced - real}"


def planned(graph: Graph, plan: Plan, rank: int) -> Phases:
    """What the moves of a plan, and the communication that rules say is inside operators, make one rank issue."""
    phases: Phases = (Counter(), Counter())
    for value, moves in plan.moves.items():
        spec = graph.spec(value)
        for move in moves:
            ways = ((move.forward, move.forward_by), (move.backward, move.backward_by))
            for phase, (action, by) in zip(phases, ways, strict=True):
                if by != PADDED:
                    phase.update(_in_exact_sizes(plan, by, move.step, spec, rank))
                elif action in COLLECTIVES:
                    numel = _elements(plan, action, move.step, spec.shape, rank, is_forward=phase is phases[0])
                    item_bytes = ITEM_BYTES[sent_dtype(action, spec.dtype, plan.reduce_dtype)]
                    phase[Sent(action, plan.mesh.names[move.step.axis], item_bytes, numel)] += 1
    rules = rules_of(graph)
    for node in graph:
        if node.kind == "op":
            for phase, sent in _inside(plan, node, rules[node.name], rank):
                phases[phase == "backward"][sent] += 1
    return phases


def _elements(plan: Plan, action: str, step: Step, shape: Sequence[int], rank: int, is_forward: bool) -> int:
    """Gathers and reduce-scatters of unequal shards are padded to the largest of the group."""
    source, target = (step.source, step.target) if is_forward else (step.target, step.source)
    here = plan.mesh.coordinates(rank)
    if action in ("all_reduce", "all_to_all"):
        return math.prod(local_shape(shape, source, here))
    cut: Placement = source if source[step.axis].kind == "S" else target
    size = plan.mesh.sizes[step.axis]
    group = [(*here[: step.axis], k, *here[step.axis + 1 :]) for k in range(size)]
    return size * max(math.prod(local_shape(shape, cut, coordinates)) for coordinates in group)


def _in_exact_sizes(plan: Plan, by: str, step: Step, spec: TensorSpec, rank: int) -> Counter:
    """A broadcast of every shard of the group that is not empty, or all of what the group adds up at once."""
    here, name = plan.mesh.coordinates(rank), plan.mesh.names[step.axis]
    ends = {end[step.axis].kind == "S": end for end in (step.source, step.target)}
    if by == "broadcast":
        group = [(*here[: step.axis], k, *here[step.axis + 1 :]) for k in range(plan.mesh.sizes[step.axis])]
        sizes = [math.prod(local_shape(spec.shape, ends[True], coordinates)) for coordinates in group]
    else:
        sizes = [math.prod(local_shape(spec.shape, ends[False], here))]
    return Counter(Sent(by, name, spec.item_bytes, size) for size in sizes if size)


def _inside(plan, node, rule, rank):
    """(phase, Sent) of every collective of a node's local operator; several letters of one axis talk once."""
    here = plan.mesh.coordinates(rank)
    strategy = plan.strategies[node.name]
    is_trained = plan.mode == "train" and any(spec.has_gradient for spec in node.outputs)
    for axis, choice in enumerate(strategy.choices):
        for inners in {rule.inner[letter] for letter in choice.cut or () if letter in rule.inner}:
            for inner in inners:
                if inner.phase == "forward" or is_trained:
                    numel = math.prod(_held(rule, strategy, here, letter, axis) for letter in inner.dims)
                    yield inner.phase, Sent(inner.kind, plan.mesh.names[axis], inner.item_bytes, numel)


def _held(rule, strategy, here, letter, without):
    """Elements of a letter that a rank has, cuts of one axis left out."""
    found = set(range(rule.extents[letter]))
    for axis, choice in enumerate(strategy.choices):
        if axis != without and choice.cut and letter in choice.cut:
            start, mine = 0, set()
            for block in choice.cut[letter]:
                begin = start + sum(block[: here[axis]])
                mine |= set(range(begin, begin + block[here[axis]]))
                start += sum(block)
            found &= mine
    return len(found)


def check_prices(graph: Graph, plan: Plan) -> None:
    """Every collective has its price, nothing else that is free has one, and the sums are those of the summary."""
    by_kind: dict[str, float] = {}
    for value, moves in plan.moves.items():
        for move in moves:
            for is_forward in (True, False):
                action, seconds = (move.forward, move.forward_s) if is_forward else (move.backward, move.backward_s)
                assert (seconds > 0) == (action != "none"), (value, move)
                if seconds:
                    by_kind[action] = by_kind.get(action, 0.0) + seconds
                by = move.forward_by if is_forward else move.backward_by
                if by != PADDED:
                    assert sent_by(action, by, graph.spec(value).shape, move.step), (value, move)
                elif action in COLLECTIVES:
                    moved = collective(action, graph.spec(value).shape, move.step)
                    both = (True, False) if action == "all_to_all" else (is_forward,)
                    most = max(
                        _elements(plan, action, move.step, graph.spec(value).shape, rank, way)
                        for rank in range(plan.mesh.num_ranks)
                        for way in both
                    )
                    assert moved is not None and moved.num_elements == most, (value, move, moved, most)
    stated = dict(plan.summary["predicted"]["communication_by_kind_s"])
    stated.pop("inside_operators")
    assert by_kind.keys() == stated.keys()
    assert all(math.isclose(by_kind[kind], stated[kind], rel_tol=1e-9) for kind in by_kind)
