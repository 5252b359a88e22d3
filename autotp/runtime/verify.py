"""The sharded model against the whole one: outputs, every gradient, parameters and buffers after an SGD step."""

import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from autotp.errors import VerificationError
from autotp.placement import held_spans
from autotp.runtime.compare import FLOOR, ROUNDING_FLOOR, largest, relative_error, tolerance
from autotp.runtime.layout import take
from autotp.runtime.module import ParallelModule

KINDS = ("output", "gradient", "parameter")
LEARNING_RATE = 0.1

Run = Callable[[nn.Module], Sequence[Tensor]]  # calls a module on the inputs; its flat output tensors


@dataclass(frozen=True)
class Reference:
    """What the whole model gives: flat outputs; gradients by name (training); state by name after an SGD step."""

    outputs: tuple[Tensor, ...]
    gradients: Mapping[str, Tensor | None]
    state: Mapping[str, Tensor]

    @property
    def scale(self) -> float:
        """The largest gradient; of a model that is not trained the largest output."""
        gradients = [gradient for gradient in self.gradients.values() if gradient is not None]
        return largest(gradients or [x for x in self.outputs if x.is_floating_point()])


@dataclass(frozen=True)
class RankReport:
    """One rank's findings by kind: the largest error as it is told and as it is judged (see `compare`), and `worst`, the
    name that is judged worst; `digests`: of what replicas share.
    """

    rank: int
    told: Mapping[str, float]
    errors: Mapping[str, float]
    worst: Mapping[str, str]
    digests: Mapping[tuple[str, tuple[int, ...]], str]
    parameter_bytes: int
    problems: tuple[str, ...] = field(default=())


def scalar_of(outputs: Sequence[Tensor]) -> Tensor:
    """A differentiable scalar: the output itself if that is one scalar, else a fixed random-weighted sum of all floats.

    Raises VerificationError where no output has a gradient.
    """
    floats = [x for x in outputs if x.is_floating_point() and x.requires_grad]
    if not floats:
        raise VerificationError("no output of the model depends on a trainable parameter: verify it with mode='infer'")
    if len(outputs) == 1 and floats[0].dim() == 0:
        return floats[0]
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros((), device=floats[0].device)
    for x in floats:
        weights = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
        dtype = torch.promote_types(x.dtype, torch.float32)
        total = total + (x.to(dtype) * weights.to(dtype)).sum()
    return total


def reference_of(module: nn.Module, run: Run, mode: str) -> Reference:
    """Run the whole module (a copy of it) as `verify_rank` runs the sharded one."""
    whole = copy.deepcopy(module)
    outputs, gradients = _step(whole, run, mode)
    return Reference(outputs, gradients, {name: x.detach().clone() for name, x in _state(whole).items()})


def verify_rank(module: ParallelModule, run: Run, reference: Reference) -> RankReport:
    """Compare this rank's module with the whole one. Every rank must call it; the module is stepped once."""
    sharding = module.sharding
    outputs, gradients = _step(module, run, sharding.mode)
    told: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    found: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    problems = []

    def compare(kind: str, name: str, actual: Tensor, expected: Tensor, scale: float) -> None:
        told[kind][name] = relative_error(actual, expected, scale, FLOOR * reference.scale)
        found[kind][name] = relative_error(actual, expected, scale, ROUNDING_FLOOR * reference.scale)

    if len(outputs) != len(reference.outputs):
        problems.append(f"{len(outputs)} outputs instead of {len(reference.outputs)}")
    for index, (actual, expected) in enumerate(zip(outputs, reference.outputs, strict=False)):
        compare("output", str(index), actual, expected, largest([expected]))
    digests: dict[tuple[str, tuple[int, ...]], str] = {}
    for index, x in enumerate(outputs):
        digests["output", (index,)] = _digest(x)
    for name, gradient in gradients.items():
        expected_gradient = reference.gradients.get(name)
        if expected_gradient is None:
            if gradient is not None and largest([gradient]) > 0.0:
                problems.append(f"{name} has a gradient, in the whole model it has none")
            continue
        actual = torch.zeros_like(_local(module, name, expected_gradient)) if gradient is None else gradient
        compare("gradient", name, actual, _local(module, name, expected_gradient), largest([expected_gradient]))
        digests[_key(module, name, "gradient ")] = _digest(actual)
    for name, tensor in _state(module).items():
        if name not in reference.state:
            continue  # a constant of the captured graph, which is no state of the model
        compare(
            "parameter", name, tensor, _local(module, name, reference.state[name]), largest([reference.state[name]])
        )
        digests[_key(module, name)] = _digest(tensor)
    return RankReport(
        sharding.rank,
        {kind: max(errors.values(), default=0.0) for kind, errors in told.items()},
        {kind: max(errors.values(), default=0.0) for kind, errors in found.items()},
        {kind: max(errors, key=lambda name: errors[name], default="") for kind, errors in found.items()},
        digests,
        sum(parameter.numel() * parameter.element_size() for parameter in module.parameters()),
        tuple(problems),
    )


def summarise(
    reports: Sequence[RankReport], reference: Reference, module: nn.Module, bound: float | None = None
) -> dict[str, Any]:
    """All ranks' reports as one: `ok`, `ranks`, the largest errors, bytes of parameters, and `problems` in words.

    `module` is the whole one. Errors may be as large as `bound`, by default what the dtypes of parameters and outputs
    excuse. Replicas must be equal to the bit.
    """
    errors = {kind: max(report.errors[kind] for report in reports) for kind in KINDS}
    if bound is None:
        bound = tolerance([x.dtype for x in (*module.parameters(), *reference.outputs)])
    problems = [f"rank {report.rank}: {problem}" for report in reports for problem in report.problems]
    for kind in KINDS:
        if not errors[kind] <= bound:
            worst = max(reports, key=lambda report: report.errors[kind])
            problems.append(f"{kind} {worst.worst[kind]} on rank {worst.rank} is off by {errors[kind]:.2g}")
    first: dict[tuple[str, tuple[int, ...]], tuple[int, str]] = {}
    for report in reports:
        for key, digest in report.digests.items():
            owner, expected = first.setdefault(key, (report.rank, digest))
            if digest != expected:
                problems.append(f"{key[0]} on rank {report.rank} differs from its replica on rank {owner}")
    return {
        "ok": not problems,
        "ranks": len(reports),
        "max_relative_error": {kind: _finite(max(report.told[kind] for report in reports)) for kind in KINDS},
        "tolerance": bound,
        "parameter_bytes_per_rank": [report.parameter_bytes for report in reports],
        "whole_parameter_bytes": sum(p.numel() * p.element_size() for p in module.parameters()),
        "problems": problems,
    }


def _finite(error: float) -> float | None:
    """JSON has no infinity: an error without a number is None."""
    return error if math.isfinite(error) else None


def _step(module: nn.Module, run: Run, mode: str) -> tuple[tuple[Tensor, ...], dict[str, Tensor | None]]:
    """Forward and, in training, backward and an SGD step; outputs and gradients by name."""
    with torch.set_grad_enabled(mode == "train"):
        outputs = tuple(run(module))
    gradients: dict[str, Tensor | None] = {}
    if mode == "train":
        scalar_of(outputs).backward()  # type: ignore[no-untyped-call]
        for name, parameter in module.named_parameters(remove_duplicate=False):
            gradients[name] = parameter.grad
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=LEARNING_RATE)
    return tuple(x.detach().clone() for x in outputs), gradients


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _local(module: ParallelModule, name: str, whole: Tensor) -> Tensor:
    placement = module.sharding.placements[name]
    for dim, extent in enumerate(whole.shape):
        whole = take(whole, dim, held_spans(extent, dim, placement, module.sharding.coordinates))
    return whole


def _key(module: ParallelModule, name: str, prefix: str = "") -> tuple[str, tuple[int, ...]]:
    """Name and the coordinates on the axes that cut the tensor: ranks with equal keys hold replicas."""
    states = module.sharding.placements[name]
    cut = (c for state, c in zip(states, module.sharding.coordinates, strict=True) if state.kind == "S")
    return prefix + name, tuple(cut)


def _digest(x: Tensor) -> str:
    return hashlib.sha256(x.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
