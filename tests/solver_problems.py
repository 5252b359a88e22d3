"""Problems for the tests of the solver: small random ones, and large ones shaped like a model on one or two axes."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from autotp.solver.problem import Consumer, Flow, NodeChoices, Overlap, Problem

# one axis: R B P S0 S1 ...; from, to -> does it cost anything
COSTLY = {
    ("R", "S"): 1, ("R", "B"): 1, ("R", "P"): 0, ("S", "R"): 1, ("S", "B"): 2, ("S", "S"): 1.2, ("S", "P"): 0,
    ("P", "R"): 1, ("P", "S"): 2, ("P", "B"): 2, ("B", "R"): 0, ("B", "S"): 0, ("B", "P"): 0,
}  # fmt: skip


def axis_arcs(num_shards: int) -> list[tuple[int, int, float]]:
    """(from, to, price) of the states of one axis: 0 = R, 1 = B, 2 = P, 3... = shards."""
    kinds = ["R", "B", "P"] + ["S"] * num_shards
    pairs = itertools.permutations(range(len(kinds)), 2)
    return [(i, j, COSTLY[kinds[i], kinds[j]]) for i, j in pairs]


def mesh_arcs(axes: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Sources, targets and prices of one-axis steps over the product of the axes' states; later axes are cheaper."""
    sizes = [3 + shards for shards in axes]
    sources, targets, prices = [], [], []
    for axis, shards in enumerate(axes):
        for state in itertools.product(*map(range, sizes)):
            for i, j, price in axis_arcs(shards):
                if state[axis] == i:
                    # what other axes have split is smaller here
                    split = sum(s >= 3 for a, s in enumerate(state) if a != axis)
                    target = (*state[:axis], j, *state[axis + 1 :])
                    sources.append(int(np.ravel_multi_index(state, sizes)))
                    targets.append(int(np.ravel_multi_index(target, sizes)))
                    prices.append(price * 4.0 ** (len(axes) - 1 - axis) * 0.25**split)
    return np.array(sources), np.array(targets), np.array(prices, dtype=float), int(np.prod(sizes))


def random_problem(seed: int, *, max_combinations: int = 400) -> Problem:
    """A small valid problem, one axis or two, with everything a real one has."""
    rng = np.random.default_rng(seed)
    num_devices = int(rng.integers(1, 3))
    num_nodes = int(rng.integers(2, 7))
    sizes: list[int] = []
    for _ in range(num_nodes):
        room = max_combinations // int(np.prod(sizes or [1]))
        sizes.append(int(rng.integers(1, max(1, min(5, room)) + 1)))
    nodes = []
    for v, size in enumerate(sizes):
        nodes.append(
            NodeChoices(
                name=f"n{v}",
                cost_s=rng.choice([0.0, 1e-4, 2e-4, 5e-4], size) + rng.random(size) * 1e-4 * rng.integers(0, 2),
                memory_bytes=np.round(rng.random((size, num_devices)) * 1e9) * rng.integers(0, 2, (size, 1)),
                work_bytes=np.round(rng.random((size, num_devices)) * 1e9) * rng.integers(0, 2, (size, 1)),
                rank=rng.permutation(size),
                count=int(rng.choice([1, 1, 3])),
            )
        )
    flows = [_random_flow(rng, f"f{u}", sizes, num_devices) for u in range(int(rng.integers(1, num_nodes + 2)))]
    infinite = np.full(num_devices, np.inf)
    return Problem(
        tuple(nodes), tuple(flows), infinite, np.round(rng.random(num_devices) * 1e8), ("a", "b")[:num_devices]
    )


def with_overlap(problem: Problem, seed: int, *, is_alike: bool = True) -> Problem:
    """The same, where some of what nodes compute can hide what arcs send: the same share of every arc of a flow, so that
    no other tree is better where much is hidden, or (not `is_alike`) of some of its arcs only."""
    rng = np.random.default_rng(seed)
    nodes = tuple(
        dataclasses.replace(node, beside_s=node.cost_s * rng.random(len(node.cost_s)) * rng.integers(0, 2))
        for node in problem.nodes
    )
    flows = []
    for flow in problem.flows:
        share = rng.choice([0.3, 0.8, 1.0]) * (1 if is_alike else rng.integers(0, 2, len(flow.arc_cost_s)))
        beside = np.where(np.isfinite(flow.arc_cost_s), flow.arc_cost_s, 0.0) * share
        if rng.random() < 0.7:
            flow = dataclasses.replace(flow, arc_cost_s=flow.arc_cost_s - beside, arc_beside_s=beside)
        flows.append(flow)
    num_points = int(rng.integers(1, 4))
    counts = [np.array([one.count for one in some]) for some in (nodes, flows)]
    after, begun = (np.floor((many + 1) * rng.random((num_points, len(many)))) for many in counts)
    efficiency = float(rng.choice([0.0, 0.5, 0.9, 1.0]))
    none = Overlap(efficiency, np.vstack([after, 0 * after[:1]]), np.vstack([begun, 0 * begun[:1]]))
    return dataclasses.replace(problem, nodes=nodes, flows=tuple(flows), overlap=none)


def _random_flow(rng: np.random.Generator, name: str, sizes: list[int], num_devices: int) -> Flow:
    kind = rng.integers(0, 4)
    if kind == 0:  # an arbitrary sparse graph, some states out of reach
        num_states = int(rng.integers(2, 7))
        pairs = np.array(list(itertools.permutations(range(num_states), 2)))
        pairs = pairs[rng.random(len(pairs)) < 0.5]
        source, target = pairs[:, 0].reshape(-1), pairs[:, 1].reshape(-1)
        cost = rng.choice([0.0, 0.0, 1.0, 1.5, 2.0, 3.0, np.inf], len(pairs))
    else:
        source, target, cost, num_states = mesh_arcs([int(rng.integers(1, 3))] if kind < 3 else [1, 1])
        cost = cost * rng.choice([0.7, 1.0])
    producer = int(rng.integers(0, len(sizes)))
    consumers = []
    for _ in range(int(rng.integers(1, 5))):
        node = int(rng.integers(0, len(sizes)))  # may be the producer itself, or another operand of the same node
        consumers.append(Consumer(node, rng.integers(0, num_states, sizes[node]), bool(rng.integers(0, 2))))
    num_classes = int(rng.integers(1, num_states + 1))
    return Flow(
        name=name,
        producer=producer,
        makes=rng.integers(0, num_states, sizes[producer]),
        num_states=num_states,
        arc_source=source.astype(np.int64),
        arc_target=target.astype(np.int64),
        arc_cost_s=cost * 1e-4,
        consumers=tuple(consumers),
        saved_class=np.append(np.arange(num_classes), rng.integers(0, num_classes, num_states - num_classes)),
        saved_bytes=np.round(rng.random((num_classes, num_devices)) * 1e9),
        count=int(rng.choice([1, 1, 2])),
    )


def large_problem(num_layers: int, axes: Sequence[int], *, seed: int = 0) -> Problem:
    """A chain of transformer-like layers on a mesh; strategies are products of one choice per axis."""
    rng = np.random.default_rng(seed)
    source, target, price, num_states = mesh_arcs(axes)
    sizes = [3 + shards for shards in axes]
    nodes: list[NodeChoices] = []
    readers: dict[int, list[Consumer]] = {}
    made: dict[int, np.ndarray] = {}
    weight: dict[int, float] = {}

    def add(inputs: Sequence[int], per_axis: Sequence[Sequence[Sequence[int]]], cost: float, held: float) -> int:
        """per_axis[a]: the choices on axis a as (state of operand 0, ..., state of the result)."""
        options = list(itertools.product(*per_axis))
        ways = np.array([np.prod([4.0 if any(s >= 3 for s in row) else 1.0 for row in option]) for option in options])
        node = len(nodes)
        columns = [
            np.array([np.ravel_multi_index([row[i] for row in option], sizes) for option in options])
            for i in range(len(inputs) + 1)
        ]
        nodes.append(
            NodeChoices(
                f"n{node}",
                cost / ways * (1 + 1e-3 * rng.random()),
                (held / ways)[:, None],
                (1e7 / ways)[:, None],
                np.arange(len(options)),
            )
        )
        for operand, value in enumerate(inputs):
            readers.setdefault(value, []).append(Consumer(node, columns[operand], cost > 2e-4))
        made[node] = columns[-1]
        weight[node] = 1e-4 * (0.5 + rng.random()) if held == 0 else 2e-5
        return node

    def leaf(held: float) -> int:
        return add([], [[(s,) for s in range(3 + shards) if s not in (1, 2)] for shards in axes], 1e-5, held)

    def pointwise(inputs: Sequence[int], cost: float) -> int:
        n = len(inputs) + 1
        return add(inputs, [[(s,) * n for s in range(3 + shards)] for shards in axes], cost, 0)

    def linear(x: int, cost: float) -> int:
        w = leaf(1e9)
        per_axis = []
        for shards in axes:
            rows = [(0, 0, 0), (1, 1, 1), (1, 3, 3), (3, 4, 2)]
            rows += [(s, 1, s) for s in range(4, 3 + shards)] + [(2, 1, 2), (1, 2, 2)]
            per_axis.append(rows)
        return add([x, w], per_axis, cost, 0)

    x = pointwise([leaf(1e9)], 1e-5)
    for _ in range(num_layers):
        y = pointwise([pointwise([x], 1e-4), leaf(1e6)], 1e-4)
        q, k, v = (linear(y, 5e-4) for _ in range(3))
        q, k, v = (pointwise([pointwise([value], 5e-5)], 5e-5) for value in (q, k, v))
        rows = [[(s, s, s, s) for s in range(3 + shards) if s not in (1, 2)] for shards in axes]
        a = add([q, k, v], rows, 6e-4, 0)
        x = pointwise([x, linear(pointwise([a], 2e-5), 5e-4)], 5e-5)
        y = pointwise([pointwise([x], 1e-4), leaf(1e6)], 1e-4)
        u = pointwise([pointwise([linear(y, 1e-3)], 1e-4), linear(y, 1e-3)], 1e-4)
        x = pointwise([x, linear(u, 1e-3)], 5e-5)
    add([linear(pointwise([x], 1e-4), 2e-3)], [[(0, 0)] + [(s, 2) for s in range(3, 3 + n)] for n in axes], 1e-4, 0)
    flows = [
        Flow(
            f"v{u}", u, made[u], num_states, source, target, price * weight[u], tuple(consumers),
            np.arange(num_states) % 7, np.full((7, 1), 1e7) * np.arange(1, 8)[:, None],
        )
        for u, consumers in readers.items()
    ]  # fmt: skip
    return Problem(tuple(nodes), tuple(flows), np.array([np.inf]), np.array([1e9]))
