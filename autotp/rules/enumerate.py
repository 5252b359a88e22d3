"""All strategies of a node on a mesh: every sensible choice per axis, and the placements that follow."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autotp.graph import FLOATS, Graph, Node, TensorSpec, Value
from autotp.mesh import Mesh
from autotp.placement import B, Blocks, P, Placement, R, State, largest_shape, shard
from autotp.rules.dims import Candidate, DimAnalysis, Key
from autotp.rules.rule import OpRule, letters_of, resolve, states
from autotp.rules.strategy import Choice, Strategy

IMBALANCE = 2.0  # where two axes cut one dim, the largest shard may be this many times the even share


@dataclass(frozen=True, slots=True)
class Option:
    """A choice on one axis with its states. `key`: the factors it cuts; `outer`: the option it is nested in, if any."""

    choice: Choice
    operands: tuple[State, ...]
    results: tuple[State, ...]
    key: Key = ()
    outer: "tuple[int, tuple[State, ...], tuple[State, ...]] | None" = None  # (axis, operands, results)
    division: int = 0  # which of the axis' divisions gave the sizes


# Per mesh axis one or more divisions: of each the share of every rank, as whole numbers.
Shares = tuple[tuple[tuple[int, ...], ...], ...]


def even_shares(mesh: Mesh) -> Shares:
    """Every rank of an axis gets the same, as nearly as granules allow."""
    return tuple(((1,) * size,) for size in mesh.sizes)


# What a choice divides, whatever the sizes: its text and the factors cut.
Family = tuple[str, Key]
# By node name, per axis: the only families that are looked at.
Families = Mapping[str, tuple[Family, ...]]


def family_of(strategy: Strategy, keys: Sequence[Key]) -> tuple[Family, ...]:
    """Per axis what a strategy divides."""
    return tuple((str(choice), key) for choice, key in zip(strategy.choices, keys, strict=True))


class Enumerator:
    """Strategies of the nodes of a graph, under every division of every axis; with `families` only those of these."""

    def __init__(
        self,
        graph: Graph,
        rules: Mapping[str, OpRule],
        analysis: DimAnalysis,
        mesh: Mesh,
        shares: Shares | None = None,
        families: Families | None = None,
    ) -> None:
        self._graph, self._rules, self._analysis, self._mesh = graph, rules, analysis, mesh
        self._shares = shares or even_shares(mesh)
        self._families = families
        self._divisions: dict[tuple[str, tuple[Placement, ...], tuple[Placement, ...]], tuple[int, ...]] = {}
        self._written = graph.written()

    def strategies(self, node: Node) -> tuple[tuple[Strategy, tuple[Key, ...]], ...]:
        """Distinct strategies in a stable order, the unsplit one first, each with the factors cut per axis."""
        if node.kind in ("input", "output"):
            whole = (R,) * len(self._mesh.axes)
            choices = (Choice("whole"),) * len(self._mesh.axes)
            strategy = Strategy(choices, (whole,) * len(node.inputs), (whole,) * len(node.outputs))
            return ((strategy, ((),) * len(self._mesh.axes)),)
        per_axis = [self._options(node, axis) for axis in range(len(self._mesh.axes))]
        found: dict[tuple[tuple[Placement, ...], tuple[Placement, ...]], tuple[Strategy, tuple[Key, ...]]] = {}
        specs = (*self._graph.input_specs(node), *node.outputs)
        for options in itertools.product(*per_axis):
            operands = tuple(zip(*(option.operands for option in options), strict=True))
            results = tuple(zip(*(option.results for option in options), strict=True))
            if (operands, results) in found or not _fits_together(options):
                continue
            if all(is_balanced(spec.shape, p) for spec, p in zip(specs, (*operands, *results), strict=True)):
                strategy = Strategy(tuple(option.choice for option in options), operands, results)
                found[operands, results] = (strategy, tuple(option.key for option in options))
                self._divisions[node.name, operands, results] = tuple(option.division for option in options)
        return tuple(found.values())

    def divisions(self, node: Node, strategy: Strategy) -> tuple[int, ...]:
        """Per axis which of its divisions gave the sizes of a strategy that `strategies` found; 0 where nothing is cut."""
        return self._divisions.get((node.name, strategy.operands, strategy.results), (0,) * len(self._mesh.axes))

    def _options(self, node: Node, axis: int) -> list[Option]:
        """Choices on one axis. A cut may also be nested inside the same cut on a later axis (ZeRO axes are innermost)."""
        num_ranks = self._mesh.sizes[axis]
        operand_specs = self._graph.input_specs(node)
        if num_ranks == 1:
            return [self._option(Choice("whole"), (R,) * len(operand_specs), (R,) * len(node.outputs), node)]
        plain = self._unsplit(node, operand_specs) + [
            replace(option, division=division)
            for value, index, dim, c in self._places(node)
            for division, shares in enumerate(self._shares[axis])
            for option in self._cut(node, value, index, dim, c, c.blocks(shares))
        ]
        nested = [
            option for later in range(axis + 1, len(self._mesh.axes)) for option in self._nested(node, axis, later)
        ]
        unique: dict[object, Option] = {}
        family = self._families[node.name][axis] if self._families is not None else None
        for option in [*plain, *nested]:
            if family is None or family == (str(option.choice), option.key):
                unique.setdefault((option.operands, option.results, option.outer), option)
        return list(unique.values())

    def _unsplit(self, node: Node, operand_specs: Sequence[TensorSpec]) -> list[Option]:
        num_operands, num_results = len(operand_specs), len(node.outputs)
        options = [self._option(Choice("whole"), (R,) * num_operands, (R,) * num_results, node)]
        if node.kind != "op":
            return options
        if any(spec.has_gradient for spec in operand_specs) and any(spec.has_gradient for spec in node.outputs):
            options.append(self._option(Choice("deferred"), (B,) * num_operands, (B,) * num_results, node))
        for carriers in self._rules[node.name].linear:
            made_by_operators = any(self._graph[node.inputs[index].node].kind == "op" for index in carriers)
            if not made_by_operators or node.outputs[0].dtype not in FLOATS:
                continue  # nobody makes partial sums of parameters, inputs or integers
            operands = tuple(P if index in carriers else B for index in range(num_operands))
            options.append(self._option(Choice("partial", None, carriers), operands, (P,) * num_results, node))
        return options

    def _places(self, node: Node) -> list[tuple[Value, int, int, Candidate]]:
        """Every (value, position among operands and results, dim, candidate); with families only of the factors they cut."""
        wanted = None if self._families is None else {key for _, key in self._families[node.name]}
        values = [*node.inputs, *(Value(node.name, index) for index in range(len(node.outputs)))]
        return [
            (value, index, dim, candidate)
            for index, value in enumerate(values)
            for dim, extent in enumerate(self._graph.spec(value).shape)
            if extent > 1
            for candidate in self._analysis.candidates(value, dim)
            if wanted is None or candidate.key in wanted
        ]

    def _cut(
        self, node: Node, value: Value, index: int, dim: int, candidate: Candidate, blocks: Blocks | None
    ) -> list[Option]:
        if blocks is None:
            return []
        if node.kind != "op":  # a parameter or buffer: its shard is the whole story
            if node.kind == "buffer" and value not in self._written:
                return []  # few bytes, and a slice is free: only who writes to it needs it in shards
            option = self._option(Choice("cut", {str(dim): blocks}), (), (shard(dim, blocks),), node)
            return [Option(option.choice, (), option.results, candidate.key)]
        rule = self._rules[node.name]
        row = [*rule.operands, *rule.results][index]
        cut = resolve(row[dim], blocks, rule.extents, rule.runs)
        found = states(rule, cut) if cut else None
        if cut is None or found is None:
            return []
        option = self._option(Choice("cut", cut), *found, node)
        return [Option(option.choice, option.operands, option.results, candidate.key)]

    def _nested(self, node: Node, axis: int, later: int) -> list[Option]:
        sizes = self._mesh.sizes
        if sizes[later] == 1:
            return []
        options = []
        for value, index, dim, candidate in self._places(node):
            outer_blocks = candidate.blocks(self._shares[later][0])
            inner_blocks = candidate.nested(outer_blocks, self._shares[axis][0]) if outer_blocks else None
            if outer_blocks is None or inner_blocks is None:
                continue
            outer = self._cut(node, value, index, dim, candidate, outer_blocks)
            inner = self._cut(node, value, index, dim, candidate, inner_blocks)
            if outer and inner:
                where = (later, outer[0].operands, outer[0].results)
                options.append(Option(inner[0].choice, inner[0].operands, inner[0].results, candidate.key, where))
        return options

    def _option(self, choice: Choice, operands: Sequence[State], results: Sequence[State], node: Node) -> Option:
        """Where no gradient flows, `B` is `R`."""
        is_trained = any(spec.has_gradient for spec in node.outputs)
        ins = tuple(
            R if s == B and not (is_trained and spec.has_gradient) else s
            for s, spec in zip(operands, self._graph.input_specs(node), strict=False)
        )
        outs = tuple(
            R if s == B and not spec.has_gradient else s for s, spec in zip(results, node.outputs, strict=True)
        )
        return Option(choice, ins, outs)


def _fits_together(options: Sequence[Option]) -> bool:
    """A nested cut needs its outer one; two axes cut the same letters only when nested."""
    for option in options:
        if option.outer:
            axis, operands, results = option.outer
            if (options[axis].operands, options[axis].results) != (operands, results):
                return False
    for first, second in itertools.combinations(options, 2):
        cut_by_both = letters_of(first.choice.cut) & letters_of(second.choice.cut)
        if cut_by_both and not (first.outer or second.outer):
            return False
    return True


def is_balanced(shape: Sequence[int], placement: Placement) -> bool:
    """Whether cuts of one dim on several axes divide it about as finely as they should."""
    for dim, extent in enumerate(shape):
        ways = [len(state.blocks[0]) for state in placement if state.kind == "S" and state.dim == dim]
        if len(ways) > 1:
            even = extent
            for n in ways:
                even = -(-even // n)
            if largest_shape(shape, placement)[dim] > IMBALANCE * even:
                return False
    return True
