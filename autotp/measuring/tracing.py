"""Where a step's time goes: by graph node, forward and backward, from torch's profiler.

A node's forward is a range around its call; its backward are the functions of autograd's engine that carry the sequence
numbers of what was called in that range.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.profiler import ProfilerActivity, profile, record_function

from autotp.runtime.module import ParallelModule
from autotp.runtime.reductions import WAIT

_NODE = "node:"
_ENGINE = "autograd::engine::evaluate_function"
_COLLECTIVES = ("_c10d_functional::", "c10d::")


@dataclass
class NodeTimes:
    """Seconds of every node of the rewritten graph in one step: [forward, backward]; `inside`: of these, collectives.

    `waited_s`: at the end of backward passes, for gradients that are added up beside them.
    """

    nodes: dict[str, list[float]] = field(default_factory=dict)
    inside: dict[str, list[float]] = field(default_factory=dict)
    waited_s: float = 0.0


class _Named(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        with record_function(_NODE + n.name):
            return super().run_node(n)


@contextmanager
def _node_by_node(module: ParallelModule) -> Iterator[None]:
    """Meanwhile the module's graph is interpreted, every node in a range of its name."""
    graph_module = module.graph_module
    graph_module.forward = _Named(graph_module).run
    try:
        yield
    finally:
        del graph_module.forward


def node_times(module: ParallelModule, step: Callable[[], object], num_steps: int) -> NodeTimes:
    """The mean over some steps. Called by all ranks, as the steps talk."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it talks to standard error, of files that nobody asked for
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with _node_by_node(module):
        step()
        with profile(activities=activities) as profiled:
            for _ in range(num_steps):
                step()
    found = NodeTimes()
    events = profiled.events() or []
    use_device = torch.cuda.is_available()
    by_sequence: dict[int, str] = {}
    for event in events:
        if event.sequence_nr >= 0 and not _is_backward(event):
            node = _enclosing(event)
            if node is not None:
                by_sequence[event.sequence_nr] = node
    for event in events:
        if event.name == WAIT:
            found.waited_s += _seconds(event, use_device) / num_steps
        elif event.name.startswith(_NODE):
            _add(found.nodes, event.name.removeprefix(_NODE), 0, _seconds(event, use_device) / num_steps)
        elif event.name.startswith(_ENGINE) and event.sequence_nr in by_sequence:
            _add(found.nodes, by_sequence[event.sequence_nr], 1, _seconds(event, use_device) / num_steps)
        elif event.name.startswith(_COLLECTIVES) and not _has_parent(event, _COLLECTIVES):
            node, way = _owner(event, by_sequence)
            if node is not None:
                _add(found.inside, node, way, _seconds(event, use_device) / num_steps)
    return found


def _seconds(event: Any, use_device: bool) -> float:
    return float(event.device_time_total if use_device else event.time_range.elapsed_us()) / 1e6


def _add(times: dict[str, list[float]], node: str, way: int, seconds: float) -> None:
    times.setdefault(node, [0.0, 0.0])[way] += seconds


def _parents(event: Any) -> Iterable[Any]:
    while event is not None:
        yield event
        event = event.cpu_parent


def _is_backward(event: Any) -> bool:
    return any(each.name.startswith(_ENGINE) for each in _parents(event))


def _has_parent(event: Any, names: tuple[str, ...]) -> bool:
    return any(each.name.startswith(names) for each in _parents(event.cpu_parent))


def _enclosing(event: Any) -> str | None:
    return next((e.name.removeprefix(_NODE) for e in _parents(event) if e.name.startswith(_NODE)), None)


def _owner(event: Any, by_sequence: dict[int, str]) -> tuple[str | None, int]:
    for each in _parents(event):
        if each.name.startswith(_ENGINE):
            return by_sequence.get(each.sequence_nr), 1
    return _enclosing(event), 0
