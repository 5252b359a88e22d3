"""Runs an operator whole and on simulated ranks, under one strategy, and compares values and gradients."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autotp.check.options import Option
from autotp.check.parts import compare, same_draws, scatter
from autotp.check.sample import (
    Sample,
    call,
    differentiate,
    is_float,
    keyword_only,
    literal,
    map_tensors,
    positional,
    spec_of,
    tensors_in,
)
from autotp.errors import VerificationError
from autotp.graph import Node, Operand, Value
from autotp.mesh import Mesh
from autotp.placement import is_valid
from autotp.rewrite.localise import LocalCall, localise
from autotp.rules.registry import rule_for
from autotp.rules.strategy import Strategy
from autotp.runtime.local_ops import local_operator
from autotp.runtime.local_ops_find import find_operator
from autotp.runtime.simulate import run_ranks

# By the least precise floating dtype in a sample, relative to the largest element; of half precision four last places.
TOLERANCE = {
    torch.float64: 1e-9, torch.complex128: 1e-9, torch.float32: 1e-5, torch.complex64: 1e-5,
    **{dtype: 4 * torch.finfo(dtype).eps for dtype in (torch.float16, torch.bfloat16, torch.complex32)},
}  # fmt: skip


class Case:
    """A sample with its node, its rule and what the whole operator computes. Raises RuleError as `rule_for` does."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.bound = sample.bound()
        self.operands = [t.detach().clone() for t in tensors_in(self.bound)]
        count = itertools.count()
        arguments = {n: literal(map_tensors(v, lambda _: Operand(next(count)))) for n, v in self.bound.items()}
        self.specs = tuple(map(spec_of, self.operands))
        inputs = tuple(Value(f"x{i}") for i in range(len(self.operands)))
        whole = call(sample.op, self._with([t.clone() for t in self.operands]))
        self.node = Node("sample", "op", sample.op, inputs, tuple(map(spec_of, whole)), arguments)
        self.rule = rule_for(self.node, self.specs, sample.tiles)
        self.is_drawn = self.rule.local.get("*") == "seeded"
        self.shapes_only = sample.shapes_only or self.is_drawn
        fixed = {*sample.mutated, *sample.constant}
        trained = [is_float(t) and i not in fixed and not self.shapes_only for i, t in enumerate(self.operands)]
        self.leaves = [t.clone().requires_grad_(wanted) for t, wanted in zip(self.operands, trained, strict=True)]
        self.results = call(sample.op, self._with(self.leaves))
        self.result_gradients = [torch.randn_like(t) if is_float(t) else None for t in self.results]
        self.tolerance = max((TOLERANCE.get(t.dtype, 0.0) for t in (*self.operands, *self.results)), default=0.0)
        self.gradients = differentiate(self.results, self.leaves, self.result_gradients)

    def _with(self, tensors: Sequence[Tensor]) -> dict[str, Any]:
        """The arguments of the sample with these tensors."""
        rest = iter(tensors)
        return {name: map_tensors(value, lambda _: next(rest)) for name, value in self.bound.items()}

    def _local_arguments(self, local: LocalCall, tensors: Sequence[Tensor]) -> dict[str, Any]:
        if local.op == self.node.op:
            return {**self._with(tensors), **local.arguments}
        names = [a.name for a in find_operator(local.op)._schema.arguments if str(a.type) == "Tensor"]
        return {**dict(zip(names, tensors, strict=True)), **local.arguments}

    def check(self, options: Sequence[Option], mesh: Mesh) -> None:
        """Run one strategy (an option per mesh axis) on all ranks.

        Raises VerificationError that names the strategy where ranks and whole disagree.
        """
        operands = tuple(tuple(option[1][i] for option in options) for i in range(len(self.specs)))
        results = tuple(tuple(option[2][i] for option in options) for i in range(len(self.node.outputs)))
        strategy = Strategy(tuple(option[0] for option in options), operands, results)
        title = f"{self.sample.op}: {self.rule} under {_describe(strategy)} on {mesh}"
        for spec, placement in zip((*self.specs, *self.node.outputs), (*operands, *results), strict=True):
            if not is_valid(spec.shape, placement, mesh):
                raise VerificationError(f"{title}: no placement of {spec}: {placement}")
        try:
            runs = self._run(strategy, mesh)
        except Exception as error:
            raise VerificationError(f"{title}: {type(error).__name__}: {error}") from error
        wrong = self._wrong(strategy, runs, mesh)
        if wrong:
            raise VerificationError(f"{title}: {wrong}")

    def _run(self, strategy: Strategy, mesh: Mesh) -> "list[Run]":
        ranks = range(mesh.num_ranks)
        values = [scatter(t, p, mesh, "P") for t, p in zip(self.operands, strategy.operands, strict=True)]
        wanted = [scatter(g, p, mesh, "B") for g, p in zip(self.result_gradients, strategy.results, strict=True)]
        calls = [localise(self.node, self.rule, strategy, mesh, mesh.coordinates(rank)) for rank in ranks]

        def run(rank: int, communicators: Mapping[str, Any]) -> Run:
            local = calls[rank]
            leaves = [
                v[rank].clone().requires_grad_(leaf.requires_grad) for v, leaf in zip(values, self.leaves, strict=True)
            ]
            arguments = self._local_arguments(local, leaves)
            if local.local:
                named = {axis: communicators[mesh.names[axis]] for axis in local.axes}
                module = local_operator(local.local, local.constants, named)
                made = module(*positional(local.op, arguments), **keyword_only(local.op, arguments))
                made = (made,) if isinstance(made, Tensor) else tuple(made)
            else:
                made = call(local.op, arguments)
            found = differentiate(made, leaves, [w[rank] if w else None for w in wanted])
            return [t.detach() for t in made], found, [t.detach() for t in leaves]

        return run_ranks(mesh, run) if any(c.axes for c in calls) else [run(rank, {}) for rank in ranks]

    def _wrong(self, strategy: Strategy, runs: "Sequence[Run]", mesh: Mesh) -> str:
        for i, (whole, placement) in enumerate(zip(self.results, strategy.results, strict=True)):
            parts = [made[i] for made, _, _ in runs]
            compared = "copies" if self.is_drawn else "shapes" if self.shapes_only else "values"
            wrong = compare(whole.detach(), parts, placement, mesh, "P", self.tolerance, compared=compared)
            if wrong := wrong or (same_draws(parts, placement, mesh) if self.is_drawn else ""):
                return f"result {i}: {wrong}"
        for i, placement in enumerate(strategy.operands):
            gradient = self.gradients[i]
            found = [part for _, gradients, _ in runs if (part := gradients[i]) is not None]
            if gradient is not None and (wrong := compare(gradient, found, placement, mesh, "B", self.tolerance)):
                return f"gradient of operand {i}: {wrong}"
            if i in self.sample.mutated:
                parts = [leaves[i] for _, _, leaves in runs]
                if wrong := compare(self.leaves[i].detach(), parts, placement, mesh, "P", self.tolerance):
                    return f"operand {i} afterwards: {wrong}"
        return ""


Run = tuple[list[Tensor], list[Tensor | None], list[Tensor]]  # results, gradients of operands, operands afterwards


def _describe(strategy: Strategy) -> str:
    return ", ".join(str(dict(choice.cut.items())) if choice.cut else str(choice) for choice in strategy.choices)
