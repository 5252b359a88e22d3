"""Runs an operator whole and on simulated ranks, under every choice its rule allows; compares values and gradients."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autotp.graph import Node, Operand, TensorSpec, Value
from autotp.mesh import Mesh
from autotp.placement import (
    B,
    Block,
    Blocks,
    P,
    Placement,
    R,
    State,
    held_spans,
    is_valid,
    local_shape,
    near_equal,
    nest,
)
from autotp.rewrite.localise import LocalCall, localise
from autotp.rules.registry import rule_for
from autotp.rules.rule import OpRule, states
from autotp.rules.strategy import Choice, Strategy
from autotp.runtime.local_ops import local_operator
from autotp.runtime.local_ops_find import find_operator
from autotp.runtime.simulate import run_ranks

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # by the least precise floating dtype in a sample


@dataclass(frozen=True)
class Sample:
    """A call of an operator. `tiles`: see `rule_for`. `is_random`: only shapes are compared."""

    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    tiles: tuple[int, ...] = ()
    is_random: bool = False
    mutated: tuple[int, ...] = ()  # operands written to
    constant: tuple[int, ...] = ()  # operands without gradient, besides integers and those written to
    min_cuts: int = 1  # letters that may be cut, at least: a rule that forbids everything is not right, it is useless


def bind(sample: Sample) -> dict[str, Any]:
    """Every argument of the schema by name."""
    schema = find_operator(sample.op)._schema
    bound = {a.name: a.default_value if a.has_default_value() else None for a in schema.arguments}
    names = [a.name for a in schema.arguments]
    return {**bound, **dict(zip(names, sample.args, strict=False)), **sample.kwargs}


def tensors_in(bound: Mapping[str, Any]) -> list[Tensor]:
    found = [item for value in bound.values() for item in (value if isinstance(value, (list, tuple)) else (value,))]
    return [item for item in found if isinstance(item, Tensor)]


def map_tensors(value: Any, change: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(item, change) for item in value)
    return change(value) if isinstance(value, Tensor) else value


def literal(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(literal, value))
    is_named = isinstance(value, (torch.dtype, torch.layout, torch.memory_format))
    return str(value).removeprefix("torch.") if is_named else value


def call(op: str, arguments: Mapping[str, Any]) -> tuple[Tensor, ...]:
    made = find_operator(op)(**arguments)
    return (made,) if isinstance(made, Tensor) else tuple(made)


def positional(op: str, arguments: Mapping[str, Any]) -> list[Any]:
    return [arguments[a.name] for a in find_operator(op)._schema.arguments if not a.kwarg_only]


def keyword_only(op: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {a.name: arguments[a.name] for a in find_operator(op)._schema.arguments if a.kwarg_only}


def spec_of(tensor: Tensor) -> TensorSpec:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorSpec(tuple(tensor.shape), dtype, tensor.is_floating_point())


class Case:
    """A sample with its node, its rule and what the whole operator computes."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.bound = bind(sample)
        self.operands = [t.clone() for t in tensors_in(self.bound)]
        fixed = {*sample.mutated, *sample.constant, *(range(99) if sample.is_random else ())}
        self.leaves = [
            t.clone().requires_grad_(t.is_floating_point() and i not in fixed) for i, t in enumerate(self.operands)
        ]
        self.results = call(sample.op, self._with(self.leaves))
        count = itertools.count()
        arguments = {n: literal(map_tensors(v, lambda _: Operand(next(count)))) for n, v in self.bound.items()}
        inputs = tuple(Value(f"x{i}") for i in range(len(self.operands)))
        outputs = tuple(map(spec_of, self.results))
        self.node = Node("sample", "op", sample.op, inputs, outputs, arguments)
        self.specs = tuple(map(spec_of, self.operands))
        self.rule = rule_for(self.node, self.specs, sample.tiles)
        self.result_gradients = [torch.randn_like(t) if t.is_floating_point() else None for t in self.results]
        self.tolerance = max(TOLERANCE.get(t.dtype, 0.0) for t in (*self.operands, *self.results))
        self.gradients = differentiate(self.results, self.leaves, self.result_gradients)

    def _with(self, tensors: Sequence[Tensor]) -> dict[str, Any]:
        """The arguments of the sample with these tensors."""
        rest = iter(tensors)
        return {name: map_tensors(value, lambda _: next(rest)) for name, value in self.bound.items()}

    def local_arguments(self, local: LocalCall, tensors: Sequence[Tensor]) -> dict[str, Any]:
        if local.op == self.node.op:
            return {**self._with(tensors), **local.arguments}
        names = [a.name for a in find_operator(local.op)._schema.arguments if str(a.type) == "Tensor"]
        return {**dict(zip(names, tensors, strict=True)), **local.arguments}

    def check(self, choices: Sequence[tuple[Choice, Sequence[State], Sequence[State]]], mesh: Mesh) -> None:
        """Run one strategy on all ranks. Raises AssertionError that names it where ranks and whole disagree."""
        operands = tuple(tuple(c[1][i] for c in choices) for i in range(len(self.specs)))
        results = tuple(tuple(c[2][i] for c in choices) for i in range(len(self.node.outputs)))
        strategy = Strategy(tuple(c[0] for c in choices), operands, results)
        title = f"{self.sample.op} {self.rule} under {describe(strategy)} on {mesh}"
        for spec, placement in zip((*self.specs, *self.node.outputs), (*operands, *results), strict=True):
            assert is_valid(spec.shape, placement, mesh), f"{title}: no placement of {spec}: {placement}"
        ranks = range(mesh.num_ranks)
        values = [scatter(t, p, mesh, "P") for t, p in zip(self.operands, operands, strict=True)]
        wanted = [scatter(g, p, mesh, "B") for g, p in zip(self.result_gradients, results, strict=True)]
        calls = [localise(self.node, self.rule, strategy, mesh, mesh.coordinates(rank)) for rank in ranks]

        def run(rank: int, communicators: Mapping[str, Any]) -> tuple[Any, ...]:
            local = calls[rank]
            leaves = [
                v[rank].clone().requires_grad_(leaf.requires_grad) for v, leaf in zip(values, self.leaves, strict=True)
            ]
            arguments = self.local_arguments(local, leaves)
            if local.local:
                named = {axis: communicators[mesh.names[axis]] for axis in local.axes}
                module = local_operator(local.local, local.constants, named)
                made = module(*positional(local.op, arguments), **keyword_only(local.op, arguments))
                made = (made,) if isinstance(made, Tensor) else tuple(made)
            else:
                made = call(local.op, arguments)
            found = differentiate(made, leaves, [w[rank] if w else None for w in wanted])
            return [t.detach() for t in made], found, [t.detach() for t in leaves]

        try:
            runs = run_ranks(mesh, run) if any(c.axes for c in calls) else [run(rank, {}) for rank in ranks]
        except Exception as error:
            raise AssertionError(f"{title}: {type(error).__name__}: {error}") from error
        for i, (whole, placement) in enumerate(zip(self.results, results, strict=True)):
            parts = [r[0][i] for r in runs]
            compare(
                whole.detach(),
                parts,
                placement,
                mesh,
                "P",
                f"{title}: result {i}",
                self.tolerance,
                self.sample.is_random,
            )
        for i, placement in enumerate(operands):
            parts, whole = [r[1][i] for r in runs], self.gradients[i]
            if whole is not None and not self.sample.is_random:
                compare(whole, parts, placement, mesh, "B", f"{title}: gradient of operand {i}", self.tolerance)
            if i in self.sample.mutated:
                parts = [r[2][i] for r in runs]
                compare(self.leaves[i], parts, placement, mesh, "P", f"{title}: operand {i} afterwards", self.tolerance)


def describe(strategy: Strategy) -> str:
    return ", ".join(str(dict(choice.cut.items())) if choice.cut else str(choice) for choice in strategy.choices)


def differentiate(
    results: Sequence[Tensor], leaves: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Gradients of the leaves that want one, zeros where a result does not depend on them."""
    pairs = [(r, g) for r, g in zip(results, gradients, strict=True) if r.requires_grad and g is not None]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    if not pairs or not wanted:
        return [torch.zeros_like(leaf) if leaf.requires_grad else None for leaf in leaves]
    outputs, given = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, given, allow_unused=True, materialize_grads=True))
    return [next(found) if leaf.requires_grad else None for leaf in leaves]


# ---------------------------------------------------------------- whole tensors and what ranks have of them


def positions(shape: Sequence[int], placement: Placement, coordinates: Sequence[int]) -> list[Tensor]:
    """Indices of the elements that a rank holds, per dim."""
    held = [held_spans(extent, dim, placement, coordinates) for dim, extent in enumerate(shape)]
    return [
        torch.tensor([i for start, n in spans for i in range(start, start + n)], dtype=torch.long) for spans in held
    ]


def part_of(whole: Tensor, placement: Placement, coordinates: Sequence[int]) -> Tensor:
    for dim, index in enumerate(positions(whole.shape, placement, coordinates)):
        whole = whole.index_select(dim, index)
    return whole


def scatter(whole: Tensor | None, placement: Placement, mesh: Mesh, partial: str) -> list[Tensor]:
    """Every rank's tensor; along axes whose state is `partial`, random parts that add up to the whole."""
    if whole is None:
        return []
    whole = whole.detach()
    axes = [axis for axis, state in enumerate(placement) if state.kind == partial]
    keys = list(itertools.product(*(range(mesh.sizes[axis]) for axis in axes)))
    parts = dict.fromkeys(keys, whole)
    if axes:
        assert whole.dtype != torch.bool, "partial sums of booleans"
        for key in keys[:-1]:
            parts[key] = torch.randn_like(whole) if whole.is_floating_point() else torch.randint_like(whole, 0, 5)
        parts[keys[-1]] = whole - sum(parts[key] for key in keys[:-1])
    coordinates = [mesh.coordinates(rank) for rank in range(mesh.num_ranks)]
    return [part_of(parts[tuple(c[axis] for axis in axes)], placement, c) for c in coordinates]


def compare(
    whole: Tensor,
    parts: Sequence[Tensor],
    placement: Placement,
    mesh: Mesh,
    partial: str,
    title: str,
    tolerance: float,
    shape_only: bool = False,
) -> None:
    """Put the ranks' parts together by their states: shards in place, `partial` added, copies equal."""
    total = torch.zeros(whole.shape, dtype=whole.dtype if whole.dtype != torch.bool else torch.long)
    copies: dict[tuple[int, ...], Tensor] = {}
    for rank, part in enumerate(parts):
        c = mesh.coordinates(rank)
        expected = local_shape(whole.shape, placement, c)
        assert tuple(part.shape) == expected, f"{title}: rank {rank} has shape {tuple(part.shape)}, not {expected}"
        assert part.dtype == whole.dtype, f"{title}: rank {rank} has {part.dtype}, not {whole.dtype}"
        copied = [axis for axis, state in enumerate(placement) if state.kind not in ("S", partial)]
        key = tuple(0 if axis in copied else k for axis, k in enumerate(c))
        if key == c:
            copies[key] = part
            index = torch.meshgrid(*positions(whole.shape, placement, c), indexing="ij") if whole.dim() else ()
            total[index] += part
        elif not shape_only:
            check_close(copies[key], part, f"{title}: rank {rank} has another copy", tolerance)
    if not shape_only:
        check_close(whole.to(total.dtype), total, title, tolerance)


def check_close(whole: Tensor, found: Tensor, title: str, tolerance: float) -> None:
    if not whole.is_floating_point():
        assert torch.equal(whole, found), f"{title}: {found} instead of {whole}"
        return
    assert torch.equal(whole.isfinite(), found.isfinite()), f"{title}: not finite: {found} instead of {whole}"
    close = torch.allclose(whole, found, rtol=tolerance, atol=tolerance, equal_nan=True)
    assert close, f"{title}: off by {(whole - found).abs().nan_to_num().max()}:\n{found}\ninstead of\n{whole}"


# ---------------------------------------------------------------- what a rule allows


def groups_of(rule: OpRule) -> list[tuple[str, ...]]:
    """Letters that are cut together: alone, or with the other parts of a concatenation."""
    sets = [frozenset((letter,)) for letter in rule.extents]
    rows = [dim for row in (*rule.operands, *rule.results) for dim in row]
    used = {letter for dim in rows for letter in dim.letters}
    for dim in rows:
        if dim.is_concat:
            joined = frozenset().union(*(s for s in sets if s & set(dim.letters)))
            sets = [s for s in sets if not s & joined] + [joined]
    return [tuple(sorted(s)) for s in sets if s <= used and not s & rule.whole]


def layouts(extent: int, num_ranks: int) -> list[Blocks]:
    """Near-equal, lopsided, with an empty rank, and in two blocks."""
    skewed: Block = (1, extent - 1) if num_ranks == 2 else (extent - 1, 0, 1)
    found: list[Blocks] = [(near_equal(extent, num_ranks),), (skewed,)]
    if num_ranks == 2:
        found.append(((0, extent),))
    half = extent // 2
    found.append((near_equal(half, num_ranks), near_equal(extent - half, num_ranks)[::-1]))
    return found


Option = tuple[Choice, tuple[State, ...], tuple[State, ...]]


def cuts(case: Case, num_ranks: int) -> Iterator[Option]:
    for letters in groups_of(case.rule):
        for which in range(3 + (num_ranks == 2)):
            cut = {letter: layouts(case.rule.extents[letter], num_ranks)[which] for letter in letters}
            yield option_of(case, cut)


def option_of(case: Case, cut: Mapping[str, Blocks]) -> Option:
    found = states(case.rule, cut)
    assert found is not None, f"{case.sample.op} {case.rule}: {cut} is neither whole nor allowed"
    return Choice("cut", cut), *found


def unsplit(case: Case) -> Iterator[Option]:
    """Whole, deferred, and every set of operands that may carry partial sums."""
    num_operands, num_results = len(case.specs), len(case.node.outputs)
    yield Choice("whole"), (R,) * num_operands, (R,) * num_results
    if not case.rule.local.get("*"):
        yield Choice("deferred"), (B,) * num_operands, (B,) * num_results
    for carriers in case.rule.linear:
        operands = tuple(P if i in carriers else B for i in range(num_operands))
        yield Choice("partial", None, carriers), operands, (P,) * num_results


def pairs(case: Case, mesh: Mesh, limit: int = 12) -> Iterator[tuple[Option, Option]]:
    """On two axes: different letters, a letter cut twice, and partial sums of a cut operator."""
    groups = groups_of(case.rule)
    first, second = mesh.sizes
    even = [
        [option_of(case, {x: (near_equal(case.rule.extents[x], n),) for x in letters}) for letters in groups]
        for n in (first, second)
    ]
    found = [(a, b) for a, b in itertools.product(*even) if not set(a[0].cut) & set(b[0].cut)]
    step = max(1, len(found) // limit)
    yield from found[::step]
    for letters, outer in zip(groups, even[1], strict=True):
        inner = {x: nest((1,) * first, outer[0].cut[x], 1) for x in letters}
        yield option_of(case, inner), outer
    for partial in list(unsplit(case))[2:]:
        yield from ((partial, b) for b in even[1] if not any(s.kind == "P" for s in b[1] + b[2]))
