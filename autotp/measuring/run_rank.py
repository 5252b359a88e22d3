"""One rank of `autotp measure`: runs its part of a plan, times steps, asks where time and memory went."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from autotp.api import as_dtype, capture_for_planning
from autotp.capture.build import cast_floats
from autotp.capture.export import Captured
from autotp.capture.model_file import ModelSource, reload_model
from autotp.graph import Graph
from autotp.measuring.clock import synchronise
from autotp.measuring.devices import device_name
from autotp.measuring.tracing import node_times
from autotp.plan_file import loads
from autotp.plans import Plan
from autotp.rewrite.parallelize import build_module
from autotp.runtime.communicator import init_mesh
from autotp.runtime.live import LiveStorage
from autotp.runtime.module import ParallelModule
from autotp.runtime.moves import Redistribute
from autotp.runtime.verify import scalar_of
from autotp.timeline import WAIT

WARM_UP, PROFILED, NUM_MEMORY_STEPS = 2, 3, 4
OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}


@dataclass(frozen=True)
class RunTask:
    """What every rank is told. `origin`: of the model; `plan`: its text."""

    origin: Mapping[str, Any]
    plan: str
    num_steps: int


@dataclass(frozen=True)
class RankRun:
    """What one rank found. Seconds by step: forward, backward, optimizer; of nodes and moves: [forward, backward].

    `actions_s`: of redistributions, by action, and of waiting for gradients at the end of backward passes. `inside_s`: of
    collectives inside operators, [forward, backward].
    """

    steps_s: list[list[float]]
    nodes_s: dict[str, list[float]]
    moves_s: dict[str, list[float]]
    actions_s: dict[str, float]
    inside_s: list[float]
    operators: dict[str, str]
    memory_bytes: dict[str, int]
    device: str


def run_rank(rank: int, task: RunTask) -> RankRun:
    """Called by all ranks of an initialised process group."""
    plan = loads(task.plan)
    kind = plan.cluster["device_profiles"][plan.cluster["devices"][rank]]["kind"]
    device = torch.device("cuda", torch.cuda.current_device()) if kind == "cuda" else torch.device("cpu")
    source = reload_model(task.origin)
    captured, _ = capture_for_planning(source, None, mode=plan.mode, dtype=plan.model.get("dtype"))
    running = run_of(source, captured, plan, device)
    module, step = running.module, Step(running)
    for _ in range(WARM_UP):
        step.run()
    steps = [step.run() for _ in range(task.num_steps)]
    times = node_times(module, step.run, PROFILED)
    # a backend's thread may hold on to what it sent for a moment longer than the step does: the least of some steps
    memory = min((_memory(step, running) for _ in range(NUM_MEMORY_STEPS)), key=lambda found: found["peak"])
    nodes, moves, actions = _attributed(module, captured.graph, times.nodes)
    actions[WAIT] = times.waited_s
    inside = [sum(both[way] for name, both in times.inside.items() if name in captured.graph.nodes) for way in (0, 1)]
    operators = {name: captured.graph[name].short_op for name in nodes}
    return RankRun(steps, nodes, moves, actions, inside, operators, memory, device_name(device))


@dataclass(frozen=True)
class Running:
    """This rank's module with random weights; `call` runs it on the example's inputs and returns its tensors."""

    module: ParallelModule
    call: Callable[[], list[Tensor]]
    optimizer: torch.optim.Optimizer | None
    device: torch.device
    accumulation: int = 1
    reduces_once: bool = False


def run_of(source: ModelSource, captured: Captured, plan: Plan, device: torch.device) -> Running:
    """What a step of a plan needs. Called by all ranks."""
    torch.manual_seed(0)
    module = build_module(captured, plan, init_mesh(plan.mesh, device.type), init=_init)
    inputs = cast_floats(source.example_inputs(), as_dtype(plan.model.get("dtype")))
    inputs = pytree.tree_map_only(Tensor, lambda x: x.to(device), inputs)
    args, kwargs = ((), inputs) if isinstance(inputs, Mapping) else (inputs, {})

    def call() -> list[Tensor]:
        return [x for x in pytree.tree_leaves(module(*args, **kwargs)) if isinstance(x, Tensor)]

    accumulation = int(plan.summary.get("training", {}).get("accumulation", 1)) if plan.mode == "train" else 1
    return Running(module, call, _optimizer(plan, module), device, accumulation, plan.reduces_once)


def _init(name: str, shard: Tensor) -> None:
    """Weights of an ordinary scale: what is multiplied must be no denormal number, which CPUs are slow at."""
    if shard.is_floating_point():
        torch.nn.init.ones_(shard) if shard.dim() < 2 else torch.nn.init.normal_(shard, std=0.02)


def _optimizer(plan: Plan, module: ParallelModule) -> torch.optim.Optimizer | None:
    name = plan.summary.get("training", {}).get("optimizer", "none")
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return OPTIMIZERS[name](parameters, lr=1e-4) if plan.mode == "train" and name != "none" and parameters else None


class Step:
    """A training step, or a forward; all ranks begin it together."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def run(self, mark: Callable[[str], None] = lambda phase: None) -> list[float]:
        """Seconds of forward, backward and optimizer; `mark` is told which one begins."""
        running, is_trained = self._running, self._running.module.sharding.mode == "train"
        dist.barrier()
        synchronise(running.device)
        found = [0.0, 0.0, 0.0]
        at = [time.perf_counter()]
        for number in range(1, running.accumulation + 1):
            is_held = running.reduces_once and number < running.accumulation
            mark("forward")
            with torch.set_grad_enabled(is_trained):
                outputs = running.call()
            found[0] += self._since(at)
            if is_trained:
                mark("backward")
                with running.module.no_sync() if is_held else nullcontext():
                    scalar_of(outputs).backward()  # type: ignore[no-untyped-call]
                found[1] += self._since(at)
        if is_trained:
            mark("optimizer")
            if running.optimizer is not None:
                running.optimizer.step()
            running.module.zero_grad(set_to_none=True)
            found[2] += self._since(at)
        return found

    def _since(self, at: list[float]) -> float:
        """Seconds since the last time that this was asked."""
        synchronise(self._running.device)
        at.append(time.perf_counter())
        return at[-1] - at[-2]


def _memory(step: Step, running: Running) -> dict[str, int]:
    """Bytes at the peak of a step, by what they are for as `dry_run.rank_memory` has it; on a GPU as far as it is known."""
    module, optimizer, device = running.module, running.optimizer, running.device
    states = (
        [] if optimizer is None else [x for x in pytree.tree_leaves(optimizer.state_dict()) if isinstance(x, Tensor)]
    )
    held = [*module.parameters(), *module.buffers()]
    found = {"parameters": _bytes(held), "optimizer": _bytes(states)}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step.run()
        return {**found, "peak": int(torch.cuda.max_memory_allocated(device))}
    live = LiveStorage()
    owned = set(live.hold([*held, *states]))
    gradients: set[int] = set()

    def mark(phase: str) -> None:
        live.phase = phase
        if phase == "optimizer":
            gradients.update(live.numbers(p.grad for p in module.parameters() if p.grad is not None))

    with live:
        step.run(mark)
    found |= dict.fromkeys(("gradients", "activations", "transient"), 0)
    for number, (num_bytes, phase) in live.at_peak().items():
        if number not in owned:
            found["gradients" if number in gradients else "activations" if phase == "forward" else "transient"] += (
                num_bytes
            )
    return {**found, "peak": live.peak_bytes()}


def _bytes(tensors: Sequence[Tensor]) -> int:
    storages = {x.untyped_storage()._cdata: x.untyped_storage().nbytes() for x in tensors}
    return sum(storages.values())


def _attributed(
    module: ParallelModule, graph: Graph, times: Mapping[str, list[float]]
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, float]]:
    """Nodes of the planning graph, moves by the node whose value moves, and actions."""
    nodes: dict[str, list[float]] = {}
    moves: dict[str, list[float]] = {}
    actions: dict[str, float] = {}
    for node in module.graph_module.graph.nodes:
        both = times.get(node.name, [0.0, 0.0])
        child = module.graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(child, Redistribute):
            source = moves.setdefault(_moved(node, module), [0.0, 0.0])
            for way, (action, seconds) in enumerate(zip(child.actions, both, strict=True)):
                source[way] += seconds
                actions[action] = actions.get(action, 0.0) + seconds
        elif node.name in graph.nodes and graph[node.name].kind == "op":
            nodes[node.name] = both
    return nodes, moves, actions


def _moved(node: fx.Node, module: ParallelModule) -> str:
    """The node whose value a redistribution moves."""
    source = node
    while source.op == "call_module" and "redistribute" in str(source.target):
        (source,) = source.all_input_nodes
    is_item = source.op == "call_function" and getattr(source.target, "__name__", "") == "getitem"
    return source.all_input_nodes[0].name if is_item else source.name
