"""Calls of operators out of torch's sample inputs: what the entries of op_db emit when traced as torch.export does."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from autotp.capture.planning import RUNNING_STATISTICS
from autotp.check.sample import Sample, is_float, literal, tensors_in

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db

DTYPES = (torch.float64, torch.float32, torch.int64, torch.bool, torch.complex128)  # the first that the entry takes
MAX_ELEMENTS = 20_000  # of all operands; larger samples show no more
ENTRIES: dict[str, Any] = {}
for _info in op_db:
    ENTRIES.setdefault(f"{_info.name} {_info.variant_test_name}".strip(), _info)


def samples_of(entry: str, max_samples: int) -> Iterator[Sample]:
    """Distinct calls that an entry's first samples lead to; nothing for entries that do not run on this machine."""
    info = ENTRIES[entry]
    dtypes = info.supported_dtypes("cpu")
    dtype = next((d for d in DTYPES if d in dtypes), None)
    seen: set[object] = set()
    if dtype is None:
        return
    wants_gradient = info.supports_autograd and dtype in info.supported_backward_dtypes("cpu")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = iter(info.sample_inputs("cpu", dtype, requires_grad=wants_gradient))
        for _ in range(max_samples):
            try:
                given = next(inputs, None)
                calls = [] if given is None else _traced(info.op, (given.input, *given.args), given.kwargs)
            except _NOT_HERE as error:
                if not any(words in str(error) for words in _WORDS):
                    raise
                continue
            if given is None:
                return
            for sample in calls:
                key = _key(sample)
                if key not in seen:
                    seen.add(key)
                    yield sample


# What cannot be traced (and so not captured) or not run on a CPU, by the words of torch's messages.
_NOT_HERE = (RuntimeError, AssertionError, NotImplementedError)
_WORDS = ("get value out of a tracing tensor", "Sparse CSR", "only supported on CUDA", "sparse", "Jiterator")


def _traced(function: Any, args: Any, kwargs: Any) -> list[Sample]:
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def flat(*values: Tensor) -> Any:
        rest = iter(values)
        a, k = pytree.tree_unflatten([next(rest) if isinstance(x, Tensor) else x for x in leaves], spec)
        return function(*a, **k)

    graph = make_fx(flat, pre_dispatch=True, tracing_mode="real")(*[t.detach() for t in tensors])
    recorder = _Recorder(graph)
    recorder.run(*tensors)
    return recorder.samples


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps every call of an operator that gives tensors and writes to none."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.samples: list[Sample] = []

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        is_operator = isinstance(target, torch._ops.OpOverload) and not target._schema.is_mutable
        before = pytree.tree_map_only(Tensor, _copied, (args, kwargs)) if is_operator else None
        made = super().call_function(target, args, kwargs)
        results = made if isinstance(made, (list, tuple)) else [made]
        if before is not None and results and all(isinstance(result, Tensor) for result in results):
            sample = Sample(str(target), tuple(before[0]), before[1], shapes_only="empty" in str(target))
            tensors = tensors_in(sample.bound())
            is_copied_whole = "as_strided" not in str(target) or all(map(_fills_its_storage, pytree.tree_leaves(args)))
            is_small = sum(t.numel() for t in tensors) <= MAX_ELEMENTS
            if is_copied_whole and is_small and all(t.layout is torch.strided for t in (*tensors, *results)):
                self.samples.append(_with_facts(sample, tensors))
        return made


def _fills_its_storage(value: Any) -> bool:
    """Whether a copy of a tensor has all of the memory that as_strided may reach from it."""
    return not isinstance(value, Tensor) or value.untyped_storage().nbytes() == value.numel() * value.itemsize


def _copied(tensor: Tensor) -> Tensor:
    is_plain = tensor.layout is torch.strided
    return tensor.detach().clone().requires_grad_(tensor.requires_grad) if is_plain else tensor


def _with_facts(sample: Sample, tensors: list[Tensor]) -> Sample:
    bound = sample.bound()
    flag = RUNNING_STATISTICS.get(sample.op.split(".")[1])
    names = ("running_mean", "running_var") if flag and bound[flag] else ()
    written = [bound[name] for name in names if bound[name] is not None]
    mutated = tuple(i for i, t in enumerate(tensors) if any(t is w for w in written))
    is_undefined = "linalg_eig." in sample.op  # the phase of complex eigenvectors, and so the gradient, is free
    constant = tuple(i for i, t in enumerate(tensors) if is_float(t) and (is_undefined or not t.requires_grad))
    return Sample(
        sample.op, sample.args, sample.kwargs, shapes_only=sample.shapes_only, mutated=mutated, constant=constant
    )


def _key(sample: Sample) -> object:
    """Equal for calls that differ in values of tensors alone."""
    described = pytree.tree_map_only(Tensor, lambda t: (tuple(t.shape), t.dtype, t.requires_grad), sample.bound())
    return sample.op, str(literal(tuple(described.items())))
