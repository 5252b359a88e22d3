"""Seconds of an operator on a rank, forward and backward, on the shards of one strategy.

What an operator reads, writes and keeps is in `families` and `memory`, what its kernels take is in `work`.
"""

from collections.abc import Sequence
from dataclasses import replace

from autotp.cost.collective import move_time_s
from autotp.cost.families import (
    ATTENTION,
    CREATION,
    FACTORS,
    FREE,
    FREE_FORWARD,
    LOOKUPS,
    PASSES_GRADIENT,
    PRODUCTS,
    is_identity,
    named_operands,
)
from autotp.cost.fusion import NOTHING, Fused
from autotp.cost.local import Coordinates, local_bytes, local_extents
from autotp.cost.memory import saved_bytes_extra, saved_operands
from autotp.cost.operator_key import operator_key
from autotp.cost.shared_heads import copies_s
from autotp.cost.training import Training, bytes_of, optimizer_state_bytes
from autotp.cost.work import Work, local_product
from autotp.graph import FLOATS, Node, TensorSpec
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.profile import DeviceProfile
from autotp.mesh import Mesh
from autotp.redistribute import Collective
from autotp.rules.rule import OpRule
from autotp.rules.strategy import Strategy

# Backward of fused attention: five products where the forward has two, because scores are computed again
# (FlashAttention-2, arXiv 2307.08691, section 4.1).
_ATTENTION_BACKWARD = 2.5


def operator_time_s(
    node: Node,
    rule: OpRule,
    strategy: Strategy,
    specs_in: Sequence[TensorSpec],
    specs_out: Sequence[TensorSpec],
    device: DeviceProfile,
    mode: str,
    mesh: Mesh,
    cluster: ClusterProfile | None = None,
    at: Coordinates = None,
    fused: Fused = NOTHING,
    is_repeated: bool = False,
) -> tuple[float, float]:
    """(forward, backward) seconds of a node under a strategy; backward is 0 in mode `infer` and without a gradient.

    `fused`: what a compiler keeps in registers. `is_repeated`: the forward is run again in backward, and counted there.
    On the rank at these coordinates, or on the one with the most work. With a cluster, communication inside the local
    operator is part of it. What was measured on the device is taken as it is. Raises ProfileError where the device has no
    rate for the dtype.
    """
    inner = (0.0, 0.0)
    if cluster is not None:
        inner = inner_time_s(node, rule, strategy, device, mode, mesh, cluster)
    if device.operator_times_s:
        measured = device.operator_times_s.get(operator_key(node, rule, strategy, specs_in, at))
        if measured is not None:
            both = measured[0] + inner[0], (measured[1] if mode == "train" else 0.0) + inner[1]
            return _repeated(both, is_repeated and mode == "train")
    sizes_in = [local_bytes(spec, placement, at) for spec, placement in zip(specs_in, strategy.operands, strict=True)]
    sizes_out = [local_bytes(spec, placement, at) for spec, placement in zip(specs_out, strategy.results, strict=True)]
    sizes_in = [0 if index in fused.operands else size for index, size in enumerate(sizes_in)]
    sizes_out = [0 if index in fused.results else size for index, size in enumerate(sizes_out)]
    is_trained = mode == "train" and any(spec.has_gradient for spec in specs_out)
    extra = saved_bytes_extra(node, strategy, specs_in, at) if is_trained else 0
    work = replace(_work(node, rule, strategy, specs_out, device, at), launches=not fused.operands)
    forward_s = _forward_s(node, work, sizes_in, sizes_out, extra)
    backward_s = 0.0
    if is_trained:
        backward_s = _backward_s(node, work, (sizes_in, specs_in), (sizes_out, specs_out), extra)
    copies = copies_s(node, strategy, specs_in, device, at, is_trained=is_trained)
    both = forward_s + copies[0] + inner[0], backward_s + copies[1] + inner[1]
    return _repeated(both, is_repeated and mode == "train")


def _repeated(seconds: tuple[float, float], is_repeated: bool) -> tuple[float, float]:
    forward_s, backward_s = seconds
    return forward_s, backward_s + (forward_s if is_repeated else 0.0)


def _work(
    node: Node,
    rule: OpRule,
    strategy: Strategy,
    specs_out: Sequence[TensorSpec],
    device: DeviceProfile,
    at: Coordinates,
) -> Work:
    """What the rank computes, with the seconds that the forward's floating-point operations take by themselves."""
    op, (scale, letters) = node.short_op, rule.work
    if not scale or not specs_out or specs_out[0].dtype not in FLOATS:
        return Work(op, device, 0.0, None, "")
    dtype = specs_out[0].dtype
    flops = scale * local_extents(rule, strategy, letters, at=at)
    if op in ATTENTION:
        skipped = 0.5 if node.argument("is_causal", False) else 1.0  # blocks above the diagonal are not computed
        return Work(op, device, skipped * flops / device.attention_rate(dtype), None, dtype)
    factors = named_operands(node, FACTORS[op]) if op in PRODUCTS else []
    product = local_product(rule, (factors[0], factors[1]), strategy, at) if len(factors) == 2 else None
    return Work(op, device, flops / device.matmul_rate(dtype), product, dtype)


def _forward_s(node: Node, work: Work, sizes_in: Sequence[int], sizes_out: Sequence[int], extra: int) -> float:
    op = node.short_op
    if op in FREE or op in FREE_FORWARD or is_identity(node):
        return 0.0
    if op in CREATION:
        return work.forward_s(sum(sizes_out))
    read = sum(sizes_out) + sum(sizes_in[1:]) if op in LOOKUPS else sum(sizes_in)
    return work.forward_s(read + sum(sizes_out) + extra)


Sized = tuple[Sequence[int], Sequence[TensorSpec]]


def _backward_s(node: Node, work: Work, operands: Sized, results: Sized, extra: int) -> float:
    op = node.short_op
    (sizes_in, specs_in), (sizes_out, specs_out) = operands, results
    wanted = [i for i, spec in enumerate(specs_in) if spec.has_gradient]
    gradient = sum(size for size, spec in zip(sizes_out, specs_out, strict=True) if spec.has_gradient)
    if op in FREE or op in CREATION or is_identity(node) or not wanted:
        return 0.0
    if op in PRODUCTS:
        factors = named_operands(node, FACTORS[op])
        seconds = 0.0
        for i in wanted:
            if i in factors:  # a product of the gradient with the other factors
                others = sum(sizes_in[j] for j in factors if j != i)
                seconds += work.gradient_s(i == factors[0], gradient + others + sizes_in[i])
            elif sizes_in[i] != gradient:  # an added term that was broadcast
                seconds += work.backward_s(0.0, gradient + sizes_in[i])
        return seconds
    if op in PASSES_GRADIENT:
        wanted = [i for i in wanted if sizes_in[i] != gradient]
        return sum(work.backward_s(0.0, gradient + sizes_in[i]) for i in wanted)
    kept_in, kept_out = saved_operands(node, specs_in)
    num_bytes = gradient + extra + sum(sizes_in[i] for i in (*kept_in, *wanted)) + sum(sizes_out[i] for i in kept_out)
    if op in LOOKUPS:
        num_bytes += sum(sizes_out)  # rows are added to a gradient filled with zeros
    return work.backward_s(_ATTENTION_BACKWARD if op in ATTENTION else 1.0, num_bytes)


def inner_time_s(
    node: Node,
    rule: OpRule,
    strategy: Strategy,
    device: DeviceProfile,
    mode: str,
    mesh: Mesh,
    cluster: ClusterProfile,
) -> tuple[float, float]:
    """(forward, backward) seconds of the communication inside a node's local operator: `rule.inner`, on every axis."""
    seconds = {"forward": 0.0, "backward": 0.0}
    is_trained = mode == "train" and any(spec.has_gradient for spec in node.outputs)
    for axis, choice in enumerate(strategy.choices):
        letters = [letter for letter in rule.inner if choice.cut and letter in choice.cut]
        for inners in dict.fromkeys(rule.inner[letter] for letter in letters):  # parts cut together talk once
            for inner in inners:
                if inner.phase == "forward" or is_trained:
                    numel = local_extents(rule, strategy, inner.dims, skip_axis=axis)
                    sent = Collective(inner.kind, axis, numel, strided=False)
                    seconds[inner.phase] += move_time_s(
                        sent, inner.item_bytes, mesh.sizes[axis], cluster.link(mesh, axis), device
                    )
    return seconds["forward"], seconds["backward"]


def optimizer_time_s(numel: int, dtype: str, training: Training, device: DeviceProfile) -> float:
    """Seconds of the optimizer step of `numel` local elements: reads parameter, gradient and state, writes all but the
    gradient. Raises AutoTPError for an unknown optimizer."""
    state_bytes = optimizer_state_bytes(numel, dtype, training)
    if training.optimizer == "none":
        return 0.0
    gradient_bytes = bytes_of(training.gradient_dtype or dtype)
    num_bytes = numel * (2 * bytes_of(dtype) + gradient_bytes) + 2 * state_bytes
    factors, name = device.operator_factors, training.optimizer
    launches = factors.get(f"{name}.launches", 1.0)
    return factors.get(name, 1.0) * num_bytes / device.memory_bytes_per_s + launches * device.launch_s
