"""Graph, strategies and prices become numbers: builds the solver's Problem and keeps what its indices mean."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotp.cost.compute import optimizer_time_s
from autotp.cost.device import Site, sites_of
from autotp.cost.local import local_bytes, local_numel
from autotp.cost.memory import saved_bytes_extra, saved_operands, work_bytes
from autotp.cost.moves import MovePrices, StepPrice
from autotp.cost.operators import OperatorPrices
from autotp.cost.overlap import efficiency_of, overlap_of
from autotp.cost.states import StateGraph, ValueKind
from autotp.cost.training import Training, parameter_bytes
from autotp.graph import Graph, Node, TensorSpec, Value
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.placement import B, Placement, R, State
from autotp.redistribute import TABLE, Step
from autotp.rules.dims import DimAnalysis, Key
from autotp.rules.enumerate import Enumerator, Families, Shares, even_shares, is_balanced
from autotp.rules.rule import OpRule
from autotp.rules.strategy import Strategy
from autotp.solver.problem import Consumer, Floats, Flow, NodeChoices, Problem


@dataclass(frozen=True)
class PlanningProblem:
    """A Problem and the meaning of its indices: nodes are class representatives, flows are classes of values."""

    problem: Problem
    graph: Graph
    classes: Mapping[str, str]
    node_names: tuple[str, ...]
    strategies: tuple[tuple[Strategy, ...], ...]
    keys: tuple[tuple[tuple[Key, ...], ...], ...]
    flow_of: Mapping[Value, int]
    state_graphs: tuple[StateGraph, ...]
    sites: tuple[Site, ...]
    shares: Shares
    site_seconds: tuple[Floats, ...] = ()  # per node [strategies, sites]
    phase_seconds: tuple[
        Floats, ...
    ] = ()  # per node [strategies, sites, 2]: forward, and backward or optimizer; computing alone


class ProblemBuilder:
    """Builds the Problem of one graph on one mesh and cluster."""

    def __init__(
        self,
        graph: Graph,
        rules: Mapping[str, OpRule],
        classes: Mapping[str, str],
        mesh: Mesh,
        cluster: ClusterProfile,
        training: Training,
        shares: Shares | None = None,
        families: Families | None = None,
        analysis: DimAnalysis | None = None,
    ) -> None:
        self._graph, self._rules, self._classes = graph, rules, classes
        self._mesh, self._cluster, self._training = mesh, cluster, training
        self._sites, self._moves = sites_of(cluster, mesh), MovePrices(cluster, mesh, training.reduce_dtype)
        self._operators = OperatorPrices(graph, rules, mesh, cluster, training)
        self._efficiency = efficiency_of(cluster, mesh) if training.overlap and training.mode == "train" else 0.0
        self._shares = shares or even_shares(mesh)
        self.analysis = analysis or DimAnalysis(graph, rules, classes)
        self.enumerator = Enumerator(graph, rules, self.analysis, mesh, self._shares, families)
        self._state_graphs: dict[object, StateGraph] = {}
        self._written = graph.written()
        self._nodes = [node for node in graph if classes[node.name] == node.name]
        self._index = {node.name: index for index, node in enumerate(self._nodes)}
        pairs = [self.enumerator.strategies(node) for node in self._nodes]
        self._strategies = tuple(tuple(strategy for strategy, _ in pair) for pair in pairs)
        self._keys = tuple(tuple(key for _, key in pair) for pair in pairs)

    def candidates(self) -> Iterator[tuple[Node, tuple[Strategy, ...]]]:
        """The nodes that stand for all, each with the strategies that it is chosen from."""
        yield from zip(self._nodes, self._strategies, strict=True)

    def build(self) -> PlanningProblem:
        """The Problem without limits of memory."""
        counts: dict[str, int] = {}
        for name in self._classes.values():
            counts[name] = counts.get(name, 0) + 1
        priced = [
            self._choices(node, strategies, counts[node.name])
            for node, strategies in zip(self._nodes, self._strategies, strict=True)
        ]
        groups, flow_of = self._groups()
        flows, graphs = [], []
        for (value, consumers), count in groups.items():
            flow, states = self._flow(value, consumers, count)
            flows.append(flow)
            graphs.append(states)
        fixed = np.array([float(site.device.process_bytes) for site in self._sites])
        device_names = tuple(site.name for site in self._sites)
        overlap = None
        if self._efficiency:
            node_of = {name: self._index[representative] for name, representative in self._classes.items()}
            overlap = overlap_of(self._graph, self._efficiency, node_of, flow_of)
        problem = Problem(
            tuple(node for node, _ in priced), tuple(flows), np.full(len(fixed), np.inf), fixed, device_names, overlap
        )
        names = tuple(node.name for node in self._nodes)
        return PlanningProblem(
            problem, self._graph, self._classes, names, self._strategies, self._keys, flow_of, tuple(graphs),
            self._sites, self._shares, tuple(prices[:, :, 0] for _, prices in priced),
            tuple(prices[:, :, 4:] for _, prices in priced),
        )  # fmt: skip

    # ------------------------------------------------------------ nodes

    def _choices(self, node: Node, strategies: Sequence[Strategy], count: int) -> tuple[NodeChoices, Floats]:
        """Seconds are those of the site that takes longest, bytes are each site's own; and the prices of every site."""
        prices = np.array([[self._price(node, s, site) for site in self._sites] for s in strategies], dtype=np.float64)
        rank = np.arange(len(strategies))
        seconds = prices[:, :, 0]
        slowest = seconds.argmax(axis=1)
        beside = prices[rank, slowest, 3] if self._efficiency and prices[:, :, 3].any() else None
        choices = NodeChoices(node.name, seconds[rank, slowest], prices[:, :, 1], prices[:, :, 2], rank, count, beside)
        return choices, prices

    def _price(self, node: Node, strategy: Strategy, site: Site) -> tuple[float, float, float, float, float, float]:
        """At one site: seconds, bytes held for the step, bytes held while it runs, seconds beside which is sent; and of the
        seconds those that are computed in the forward, and in the backward or the optimizer's step."""
        device, at, training = site.device, site.at, self._training
        specs = self._graph.input_specs(node)
        if node.kind in ("parameter", "buffer"):
            spec = node.outputs[0]
            numel = local_numel(spec.shape, strategy.results[0], at)
            total = parameter_bytes(numel, spec.dtype, training, trainable=spec.has_gradient)
            step_s = 0.0
            if spec.has_gradient and training.mode == "train":
                step_s = optimizer_time_s(numel, spec.dtype, training, device)
            # The parameter itself is counted as a saved tensor (see _flow), so that what an operator keeps of it is free.
            return step_s, float(total - numel * spec.item_bytes), 0.0, 0.0, 0.0, step_s
        if node.kind != "op":
            return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        alone, times = self._operators.alone(node, strategy, device, at), training.accumulation
        micro_s = sum(alone) + sum(self._operators.inside(node, strategy, device))
        is_kept = training.mode == "train" and node.name not in self._operators.regions
        extra = saved_bytes_extra(node, strategy, specs, at) if is_kept else 0
        work = float(work_bytes(node, strategy, specs, training.mode, at))
        beside_s = training.num_reductions * alone[1]
        return times * micro_s, float(extra), work, beside_s, times * alone[0], times * alone[1]

    # ------------------------------------------------------------ values

    def _groups(self) -> tuple[dict[tuple[Value, tuple[tuple[str, int], ...]], int], dict[Value, int]]:
        """Values that flow alike, with how many there are, and the group of every value that anything reads."""
        groups: dict[tuple[Value, tuple[tuple[str, int], ...]], int] = {}
        member: dict[Value, tuple[Value, tuple[tuple[str, int], ...]]] = {}
        for value, readers in self._graph.consumers().items():
            consumers = tuple(sorted({(self._classes[node.name], index) for node, index in readers}))
            key = (Value(self._classes[value.node], value.index), consumers)
            groups[key] = groups.get(key, 0) + 1
            member[value] = key
        order = {key: index for index, key in enumerate(groups)}
        return groups, {value: order[key] for value, key in member.items()}

    def _flow(self, value: Value, readers: Sequence[tuple[str, int]], count: int) -> tuple[Flow, StateGraph]:
        producer = self._index[value.node]
        node, spec = self._nodes[producer], self._graph.spec(value)
        made = [strategy.results[value.index] for strategy in self._strategies[producer]]
        wanted = [[s.operands[index] for s in self._strategies[self._index[name]]] for name, index in readers]
        ends = {*made, *itertools.chain.from_iterable(wanted)}
        first = min(readers, key=lambda reader: self._index[reader[0]])[0]
        kind = ValueKind(first in self._operators.regions, node.kind == "parameter")
        if value in self._written:
            states = self._arcs(spec, tuple(sorted(ends)), (), kind)
        else:
            states = self._states(spec, ends, kind)
        untrained = [index for index, (name, _) in enumerate(readers) if spec.has_gradient and not self._trains(name)]
        if untrained:
            states = self._twice(states, spec, kind)
        half = len(states.placements) // 2
        # from the back, so that the first of two equal placements counts
        index_of = {placement: index for index, placement in reversed(list(enumerate(states.placements)))}
        stored = [tuple(R if s == B else s for s in placement) for placement in states.placements]
        kinds = {placement: index for index, placement in enumerate(dict.fromkeys(stored))}
        size = [[float(local_bytes(spec, placement, site.at)) for site in self._sites] for placement in kinds]
        is_training = self._training.mode == "train"
        consumers = []
        for position, ((name, index), wants) in enumerate(zip(readers, wanted, strict=True)):
            reader = self._graph[name]
            layer = half if position in untrained else 0
            kept = self._operators.is_kept(node, reader)
            if kept is None:
                kept = reader.kind == "op" and index in saved_operands(reader, self._graph.input_specs(reader))[0]
            saves = is_training and kept
            consumers.append(Consumer(self._index[name], np.array([layer + index_of[w] for w in wants]), saves))
        makes = np.array([index_of[placement] for placement in made])
        keeps_own = node.kind in ("parameter", "buffer") or (
            is_training
            and node.kind == "op"
            and node.name not in self._operators.regions
            and value.index in saved_operands(node, self._graph.input_specs(node))[1]
        )
        if keeps_own:  # as if the producer read its own result: shared with whoever saves it in the same placement
            consumers.append(Consumer(producer, makes, True))
        flow = Flow(
            str(value), producer, makes, len(states.placements), states.source, states.target, states.cost_s,
            tuple(consumers), np.array([kinds[placement] for placement in stored]), np.array(size), count,
            states.beside_s,
        )  # fmt: skip
        return flow, states

    def _states(self, spec: TensorSpec, ends: set[Placement], kind: ValueKind) -> StateGraph:
        """All placements made of the states that occur on each axis, and every one-axis step between them."""
        key = (spec, frozenset(ends), kind)
        if key not in self._state_graphs:
            per_axis = [sorted({R, *(placement[axis] for placement in ends)}) for axis in range(len(self._mesh.axes))]
            placements = tuple(
                placement
                for placement in itertools.product(*per_axis)
                if placement in ends or is_balanced(spec.shape, placement)
            )
            self._state_graphs[key] = self._arcs(spec, placements, per_axis, kind)
        return self._state_graphs[key]

    def _arcs(
        self,
        spec: TensorSpec,
        placements: Sequence[Placement],
        per_axis: Sequence[Sequence[State]],
        kind: ValueKind,
    ) -> StateGraph:
        index_of = {placement: index for index, placement in enumerate(placements)}
        steps, prices, ends = [], [], []
        for placement, (axis, states) in itertools.product(placements, enumerate(per_axis)):
            for state in states:
                target = (*placement[:axis], state, *placement[axis + 1 :])
                if (
                    state == placement[axis]
                    or target not in index_of
                    or (placement[axis].kind, state.kind) not in TABLE
                ):
                    continue
                step = Step(axis, placement, target)
                steps.append(step)
                prices.append(self._moves.of(step, spec, is_repeated=kind.is_repeated))
                ends.append((index_of[placement], index_of[target]))
        pairs = np.array(ends, dtype=np.int64).reshape(-1, 2)
        costs = self._costs(prices, kind)
        return StateGraph(tuple(placements), tuple(steps), tuple(prices), pairs[:, 0], pairs[:, 1], *costs)

    def _costs(self, prices: Sequence[StepPrice], kind: ValueKind) -> tuple[Floats, Floats | None]:
        """Seconds of a step, and apart from these the seconds that are sent beside something else, if any can be."""
        training, is_parameter = self._training, kind.is_parameter
        reduced = np.array([is_parameter * price.reduced_s for price in prices], dtype=np.float64)
        beside = np.array([is_parameter * price.beside_s for price in prices], dtype=np.float64)
        rest = np.array([price.total_s for price in prices], dtype=np.float64) - reduced
        if self._efficiency and beside.any():
            cost_s = training.accumulation * rest + training.num_reductions * (reduced - beside)
            return cost_s, training.num_reductions * beside
        return training.accumulation * rest + training.num_reductions * reduced, None

    def _trains(self, name: str) -> bool:
        """Whether a reader's gradient needs that of its operands."""
        node = self._graph[name]
        return node.kind == "output" or any(spec.has_gradient for spec in node.outputs)

    def _twice(self, states: StateGraph, spec: TensorSpec, kind: ValueKind) -> StateGraph:
        """The same states with and, behind them, without a gradient."""
        size = len(states.placements)
        steps = [step for step in states.steps if step is not None]
        untrained = tuple(
            self._moves.of(step, replace(spec, has_gradient=False), is_repeated=kind.is_repeated) for step in steps
        )
        free = (StepPrice("none", "none", 0.0, 0.0),) * size
        prices = (*states.prices, *untrained, *free)
        return StateGraph(
            states.placements * 2,
            (*steps, *steps, *(None,) * size),
            prices,
            np.concatenate([states.source, states.source + size, np.arange(size)]),
            np.concatenate([states.target, states.target + size, np.arange(size) + size]),
            *self._costs(prices, kind),
        )


def with_limit(planning: PlanningProblem, limit_bytes: Sequence[float] | float) -> PlanningProblem:
    """The same problem under other memory limits: bytes of every site, or the same for all."""
    limits = np.broadcast_to(np.asarray(limit_bytes, dtype=np.float64), planning.problem.limit_bytes.shape)
    return replace(planning, problem=replace(planning.problem, limit_bytes=limits.copy()))
