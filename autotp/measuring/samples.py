"""Calls of torch's operators on tensors of chosen shapes, as nodes that the cost model prices, and their seconds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from autotp.graph import Node, Operand, TensorSpec, Value
from autotp.measuring.clock import seconds_of
from autotp.runtime.local_ops_find import find_operator


@dataclass(frozen=True)
class Sample:
    """A call: its node, its operands' specs, and the operator with all its arguments."""

    node: Node
    specs: tuple[TensorSpec, ...]
    operator: Any
    arguments: dict[str, Any]
    tensors: tuple[Tensor, ...]

    def run(self) -> Any:
        return self.operator(**self.arguments)


def sample(op: str, *args: Any) -> Sample:
    """The call of an operator, `aten.linear.default`, with these arguments; it is run once."""
    operator = find_operator(op)
    schema = operator._schema.arguments
    bound = {argument.name: argument.default_value for argument in schema}
    bound |= dict(zip([argument.name for argument in schema], args, strict=False))
    tensors: list[Tensor] = []

    def stand_in(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value)
            return Operand(len(tensors) - 1)
        return tuple(map(stand_in, value)) if isinstance(value, (list, tuple)) else value

    arguments = {key: stand_in(value) for key, value in bound.items()}
    outputs = tuple(map(_spec, tensors_of(operator(**bound))))
    inputs = tuple(Value(f"x{i}") for i in range(len(tensors)))
    node = Node("sample", "op", op, inputs, outputs, MappingProxyType(arguments))
    return Sample(node, tuple(map(_spec, tensors)), operator, bound, tuple(tensors))


def _spec(tensor: Tensor) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.requires_grad)


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors that an operator returned."""
    results = result if isinstance(result, list | tuple) else (result,)
    return [each for each in results if isinstance(each, Tensor)]


def times_s(run: Any, operands: Sequence[Tensor], device: torch.device, least_s: float) -> tuple[float, float]:
    """(forward, backward) seconds of `run()`; backward is 0 where no gradient flows to the operands."""
    wanted = [x for x in operands if x.requires_grad]
    with torch.set_grad_enabled(bool(wanted)):
        forward_s = seconds_of(run, device, least_s)
        outputs = [x for x in tensors_of(run()) if x.requires_grad] if wanted else []
    if not outputs:
        return forward_s, 0.0
    gradients = [torch.ones_like(x) for x in outputs]

    def backward() -> object:
        return torch.autograd.grad(outputs, wanted, gradients, retain_graph=True, allow_unused=True)

    return forward_s, seconds_of(backward, device, least_s)


# ---------------------------------------------------------------- what a profile is made from

FLOAT8 = "float8_e4m3fn"
TF32 = "tfloat32"  # float32 tensors, multiplied with fewer bits


@contextmanager
def precision(arguments: Sequence[object]) -> Iterator[None]:
    """Float32 products in TF32 meanwhile where `arguments` name that, else in full precision."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if TF32 in arguments else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def product(dtype: str, m: int, n: int, k: int, device: torch.device) -> Sample:
    """A linear layer without bias: [m, k] by a weight [n, k]."""
    return sample("aten.linear.default", _random((m, k), dtype, device), _random((n, k), dtype, device))


def float8_product(m: int, n: int, k: int, device: torch.device) -> Callable[[], Tensor]:
    """[m, k] by [k, n] in float8, with a scale for each factor, to bfloat16: torch has no linear layer of it."""
    x, weight = (_random(shape, "float32", device).detach().to(torch.float8_e4m3fn) for shape in ((m, k), (n, k)))
    one = torch.ones((), device=device)
    return lambda: torch._scaled_mm(x, weight.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def batched(dtype: str, batch: int, m: int, n: int, k: int, device: torch.device) -> Sample:
    shapes = (batch, m, k), (batch, k, n)
    return sample("aten.bmm.default", *(_random(shape, dtype, device) for shape in shapes))


def attention(dtype: str, batch: int, heads: int, seq: int, width: int, device: torch.device) -> Sample:
    """Causal fused attention."""
    q, k, v = (_random((batch, heads, seq, width), dtype, device) for _ in range(3))
    return sample("aten.scaled_dot_product_attention.default", q, k, v, None, 0.0, True)


POINTWISE = ("relu", "gelu", "silu", "tanh", "sigmoid", "exp", "sin", "neg", "rsqrt", "clone", "reciprocal")
OPERATORS = (
    *POINTWISE, "add", "mul", "div", "pow", "softmax", "layer_norm", "rms_norm", "dropout", "embedding",
    "cross_entropy_loss", "sum", "mean", "cat", "slice", "where",
)  # fmt: skip


def memory_bound(op: str, dtype: str, rows: int, columns: int, device: torch.device) -> Sample:
    """An operator that moves more than it computes, on a tensor [rows, columns]."""

    def random(*shape: int) -> Tensor:
        return _random(shape, dtype, device)

    def integers(limit: int) -> Tensor:
        if device.type == "meta":
            return torch.empty(rows, dtype=torch.int64, device=device)
        generator = torch.Generator().manual_seed(0)
        return torch.randint(limit, (rows,), generator=generator).to(device)

    x = random(rows, columns)
    if op in POINTWISE:
        return sample(f"aten.{op}.default", x)
    calls: dict[str, tuple[Any, ...]] = {
        "add": ("aten.add.Tensor", x, random(rows, columns)),
        "mul": ("aten.mul.Tensor", x, random(rows, columns)),
        "div": ("aten.div.Tensor", x, random(rows, columns)),
        "pow": ("aten.pow.Tensor_Scalar", x, 2),
        "softmax": ("aten.softmax.int", x, -1),
        "layer_norm": ("aten.layer_norm.default", x, [columns], random(columns), random(columns)),
        "rms_norm": ("aten.rms_norm.default", x, [columns], random(columns)),
        "dropout": ("aten.dropout.default", x, 0.1, True),
        "embedding": ("aten.embedding.default", x, integers(rows)),
        "cross_entropy_loss": ("aten.cross_entropy_loss.default", x, integers(columns)),
        "sum": ("aten.sum.dim_IntList", x, [-1]),
        "mean": ("aten.mean.dim", x, [-1], True),
        "cat": ("aten.cat.default", [x, random(rows, columns)], -1),
        "slice": ("aten.slice.Tensor", x, 1, 0, columns // 2),
        "where": ("aten.where.self", x > 0, x, random(rows, columns)),
    }
    return sample(*calls[op])


MAKERS: Mapping[str, Callable[..., Sample]] = {
    "product": product,
    "batched": batched,
    "attention": attention,
    "memory_bound": memory_bound,
}


def _random(shape: tuple[int, ...], dtype: str, device: torch.device) -> Tensor:
    """Positive, so that roots and logarithms are numbers; the same in every process. On the device `meta` a shape only."""
    if device.type == "meta":
        return torch.empty(shape, dtype=getattr(torch, dtype), device=device, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(shape, generator=generator) * 0.9 + 0.1
    return values.to(device=device, dtype=getattr(torch, dtype)).requires_grad_()
