"""The memory of a plan to the byte: the rank's own module is run on fake tensors, and its live storage is counted.

What is counted is what will be allocated, because it is the same code: parameters, what autograd saves, gradients as they
come while saved tensors go, redistributions' buffers, and what is held only for a moment. Nothing is computed or sent.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)

from autotp.capture.export import Captured
from autotp.cost.training import Training, bytes_of, optimizer_state_bytes, step_transient_bytes
from autotp.graph import TensorSpec
from autotp.hardware.cluster import ClusterProfile
from autotp.planning.kernel_storage import KernelStorage
from autotp.planning.search import limits_of, stated
from autotp.plans import Plan
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.communicator import Call, Clock, Communicator
from autotp.runtime.live import LiveStorage
from autotp.runtime.local_ops_random import Seeded
from autotp.runtime.module import ParallelModule

MAX_COUNTED = 2  # ranks with shards of other sizes that are run one by one

KEPT_BY_CPU = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})  # mkldnn's kernels, which fake tensors do not choose
MAX_REAL_BYTES = 4 * 2**30

Parts = dict[str, int]


@dataclass
class ShapeCommunicator:
    """A Communicator that sends nothing: results have the right shapes."""

    axis: str
    rank: int
    size: int
    trace: list[Call] | None = None
    clock: Clock | None = None

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    def all_gather(self, x: Tensor) -> Tensor:
        return x.contiguous().new_empty((self.size, *x.shape))

    def reduce_scatter(self, x: Tensor) -> Tensor:
        return x.contiguous().new_empty(x.shape[1:])

    def all_to_all(self, parts: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        sent = torch.cat([part.reshape(-1) for part in parts])
        sizes = [torch.Size(shape).numel() for shape in shapes]
        received = sent.new_empty(sum(sizes))
        return [piece.view(tuple(shape)) for piece, shape in zip(torch.split(received, sizes), shapes, strict=True)]

    def begin(self, collective: str, x: Tensor) -> Callable[[], Tensor]:
        sent = x.contiguous()
        result = self.all_reduce(x) if collective == "all_reduce" else self.reduce_scatter(sent)
        return lambda sent=sent: result  # type: ignore[misc]  # what is sent lives until the result is asked for

    def broadcasts(self, x: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        return [x.new_empty(tuple(shape)) for shape in shapes]


@dataclass(frozen=True)
class _Run:
    """What one rank's step did: its tracker, and the numbers of storages of parameters and buffers, and of gradients."""

    live: LiveStorage
    owned: frozenset[int]
    gradients: frozenset[int]
    trained: tuple[tuple[int, str], ...]  # elements and dtype
    own_bytes: int
    input_bytes: int


def _mode(captured: Captured, plan: Plan, rank: int, device_kind: str) -> AbstractContextManager[object]:
    """Fake tensors; real ones, as long as they are few, where a CPU keeps what fake tensors do not show."""
    has_hidden = device_kind == "cpu" and any(node.short_op in KEPT_BY_CPU for node in captured.graph)
    if has_hidden and sum(plan.summary["predicted"]["memory_parts_bytes"][rank].values()) < MAX_REAL_BYTES:
        return nullcontext()
    return FakeTensorMode(allow_non_fake_inputs=True)


def _run(captured: Captured, plan: Plan, rank: int, training: Training, device_kind: str) -> _Run:
    with _mode(captured, plan, rank, device_kind):
        communicators: dict[str, Communicator] = {
            name: ShapeCommunicator(name, coordinate, size)
            for (name, size), coordinate in zip(plan.mesh.axes, plan.mesh.coordinates(rank), strict=True)
        }
        module = build_for_rank(captured, plan, rank, communicators)
        if device_kind == "cuda":
            _use_fused_dropout(module.graph_module)
        live = KernelStorage()
        owned = frozenset(live.hold([*module.parameters(), *module.buffers()]))
        own_bytes = live.peak_bytes()
        trained = [p for p in module.parameters() if p.requires_grad and plan.mode == "train"]
        inputs = [torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in _inputs(captured)]
        if training.accumulation > 1:
            for parameter in trained:
                parameter.grad = torch.empty_like(parameter)
            live.hold(p.grad for p in trained if p.grad is not None)
            if training.reduce_once:  # what earlier micro-batches left to this one, the last
                with module.no_sync():
                    run_step(module, inputs, LiveStorage())
                live.hold(module.reductions.held_tensors())
        run_step(module, inputs, live)
        gradients = frozenset(live.numbers(p.grad for p in trained if p.grad is not None))
    sizes = tuple((p.numel(), str(p.dtype).removeprefix("torch.")) for p in trained)
    return _Run(live, owned, gradients, sizes, own_bytes, _num_bytes(inputs))


def rank_memory(captured: Captured, plan: Plan, rank: int, training: Training, device_kind: str = "cpu") -> Parts:
    """Bytes of one rank at the peak of a step, by what they are for: their sum is the peak.

    `activations` are tensors of the forward (inputs too) that are alive then, `transient` all else. The step is not the
    first: the optimizer has its state, and gradients were freed after the last one unless they are accumulated.
    """
    run = _run(captured, plan, rank, training, device_kind)
    state_bytes = sum(optimizer_state_bytes(numel, dtype, training) for numel, dtype in run.trained)
    parts = {"parameters": run.own_bytes, "gradients": 0, "optimizer": state_bytes, "activations": 0, "transient": 0}
    for number, (num_bytes, phase) in run.live.at_peak().items():
        if number not in run.owned:
            kind = "gradients" if number in run.gradients else "activations" if phase == "forward" else "transient"
            parts[kind] += num_bytes
    if training.optimizer == "none" or not run.trained:
        return parts
    gradients = sum(numel * bytes_of(dtype) for numel, dtype in run.trained)
    transient = step_transient_bytes(run.trained, training, device_kind)
    stepping = {**parts, "gradients": gradients, "activations": run.input_bytes, "transient": transient}
    return max(parts, stepping, key=lambda one: sum(one.values()))


def kept_bytes(captured: Captured, plan: Plan, rank: int, training: Training, device_kind: str = "cpu") -> int:
    """Bytes of tensors of the forward that are alive when it ends: what backward needs, and the inputs."""
    run = _run(captured, plan, rank, training, device_kind)
    alive = run.live.alive_before("backward")
    return sum(num_bytes for number, num_bytes in alive.items() if number not in run.owned)


def run_step(module: ParallelModule, inputs: Sequence[Tensor], live: LiveStorage) -> None:
    """Forward and backward of flat inputs under a tracker, the outputs held until the end as a user holds the loss."""
    live.phase = "forward"
    live.hold(inputs)
    with live:
        with torch.set_grad_enabled(module.sharding.mode == "train"):
            outputs = module.graph_module(*inputs)
        live.phase = "backward"
        trained = [x for x in outputs if x.requires_grad]
        if trained:
            torch.autograd.backward(trained, [torch.empty_like(x) for x in trained])


def _use_fused_dropout(module: fx.GraphModule) -> None:
    """Dropout keeps a mask of bools on a GPU; on a CPU one of its input's dtype. In place, regions included."""
    for child in module.modules():
        if isinstance(child, Seeded) and child.op == "aten.dropout.default":
            child._operator = _fused_dropout
        if isinstance(child, fx.GraphModule):
            for node in child.graph.nodes:
                if node.target is torch.ops.aten.dropout.default:
                    node.target = _fused_dropout
            child.recompile()


def _fused_dropout(x: Tensor, p: float, train: bool) -> Tensor:
    result: Tensor = torch.ops.aten.native_dropout.default(x, p, train)[0] if train and p else x.view_as(x)
    return result


def _inputs(captured: Captured) -> list[TensorSpec]:
    return [node.outputs[0] for node in captured.graph if node.kind == "input"]


def _num_bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def counted(
    captured: Captured, plan: Plan, training: Training, cluster: ClusterProfile, limit_bytes: float | None = None
) -> Plan:
    """The plan with its memory counted: bytes by rank, whether they fit, and `memory_method` in its predictions.

    `limit_bytes`: of every device, what it has where None. Ranks whose shards have equal sizes are counted once, at most
    MAX_COUNTED of them; the others are taken to differ from the nearest counted one by as much as their estimates do, and
    baselines from their estimates as this plan does. What torch cannot run on fake tensors (results whose shapes depend
    on values) stays estimated, and the plan says so.
    """
    estimated = plan.summary["predicted"]["memory_parts_bytes"]
    devices = [cluster.device(rank) for rank in range(plan.mesh.num_ranks)]
    limits = limits_of(limit_bytes, [device.memory_bytes for device in devices])
    ranks = _representatives(plan)
    chosen = sorted(set(ranks), key=lambda rank: (-sum(estimated[rank].values()), rank))[:MAX_COUNTED]
    try:
        found = {rank: rank_memory(captured, plan, rank, training, devices[rank].kind) for rank in chosen}
    except (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException) as error:
        warnings.warn(f"memory is estimated, because the model cannot run on fake tensors: {error}")
        return _with_memory(plan, estimated, "estimated", limits)
    parts = []
    for rank, same in enumerate(ranks):
        nearest = same if same in found else chosen[-1]
        scale = sum(estimated[rank].values()) / sum(estimated[nearest].values()) if same not in found else 1.0
        process_bytes = int(devices[rank].process_bytes)
        parts.append({name: int(scale * size) for name, size in found[nearest].items()} | {"process": process_bytes})
    return _with_memory(plan, parts, "counted", limits)


def _with_memory(plan: Plan, parts: Sequence[Parts], method: str, limits: Sequence[float]) -> Plan:
    totals = [sum(one.values()) for one in parts]
    predicted = {**plan.summary["predicted"], "memory_bytes": totals, "memory_parts_bytes": list(parts)}
    estimated_bytes = plan.summary["predicted"]["memory_bytes"]
    scale = max(totals) / max(estimated_bytes)
    baselines = {}
    for name, row in plan.summary["baselines"].items():
        num_bytes = scale * row["memory_bytes"] if row else 0.0
        baselines[name] = row and {**row, "memory_bytes": num_bytes, "fits": num_bytes <= min(limits)}
    fits = all(total <= limit for total, limit in zip(totals, limits, strict=True))
    return replace(
        plan,
        summary={
            **plan.summary,
            "predicted": {**predicted, "memory_method": method, "estimated_bytes": estimated_bytes},
            "baselines": baselines,
            "solver": {**plan.summary["solver"], "fits": fits, **stated(limits)},
        },
    )


def _representatives(plan: Plan) -> list[int]:
    """For every rank the first one whose shards have the same sizes everywhere, on a device of the same kind."""
    placements = [p for s in plan.strategies.values() for p in (*s.operands, *s.results)]
    placements += [p for moves in plan.moves.values() for move in moves for p in (move.step.source, move.step.target)]
    cuts = {(axis, state.blocks) for placement in placements for axis, state in enumerate(placement) if state.blocks}
    uneven = [(axis, block) for axis, blocks in sorted(cuts) for block in blocks if len(set(block)) > 1]
    first: dict[tuple[object, ...], int] = {}
    found = []
    for rank in range(plan.mesh.num_ranks):
        at = plan.mesh.coordinates(rank)
        key = (plan.cluster["devices"][rank], *(block[at[axis]] for axis, block in uneven))
        found.append(first.setdefault(key, rank))
    return found
