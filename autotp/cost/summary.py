"""What a solution costs, where, and how much of the work it splits: the numbers of a plan's summary."""

from collections.abc import Iterator, Mapping
from typing import Any

from autotp.cost.compute import optimizer_time_s
from autotp.cost.local import Coordinates, local_numel
from autotp.cost.memory import saved_bytes_extra, work_bytes
from autotp.cost.operators import OperatorPrices
from autotp.cost.problem import PlanningProblem
from autotp.cost.training import Training, parameter_parts
from autotp.graph import Node
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.profile import DeviceProfile
from autotp.mesh import Mesh
from autotp.placement import B, R
from autotp.rules.rule import OpRule, letters_of
from autotp.rules.strategy import Strategy
from autotp.solver.problem import Flow, Solution


class Summary:
    """Adds up the predictions of one solution, seconds and bytes."""

    def __init__(
        self,
        planning: PlanningProblem,
        solution: Solution,
        rules: Mapping[str, OpRule],
        mesh: Mesh,
        cluster: ClusterProfile,
        training: Training,
    ) -> None:
        self._planning, self._solution, self._rules = planning, solution, rules
        self._mesh, self._cluster, self._training = mesh, cluster, training
        self._graph = planning.graph
        self._operators = OperatorPrices(planning.graph, rules, mesh, cluster, training)

    def _chosen(self) -> Iterator[tuple[Node, Strategy, int]]:
        """(representative node, its strategy, occurrences)."""
        planning = self._planning
        for choices, strategies, index in zip(
            planning.problem.nodes, planning.strategies, self._solution.choices, strict=True
        ):
            yield planning.graph[choices.name], strategies[index], choices.count

    def _compute(self, node: Node, strategy: Strategy, device: DeviceProfile, at: Coordinates) -> tuple[float, ...]:
        """Seconds of a step at a site without communication: forward, backward, optimizer."""
        training = self._training
        if node.kind == "op":
            forward_s, backward_s = self._operators.alone(node, strategy, device, at)
            return training.accumulation * forward_s, training.accumulation * backward_s, 0.0
        if node.kind == "parameter" and training.mode == "train" and node.outputs[0].has_gradient:
            numel, dtype = local_numel(node.outputs[0].shape, strategy.results[0], at), node.outputs[0].dtype
            return 0.0, 0.0, optimizer_time_s(numel, dtype, training, device)
        return 0.0, 0.0, 0.0

    def _slowest(self, node: Node, strategy: Strategy) -> tuple[float, ...]:
        """What `_compute` gives at the site that takes longest, which is the one the others wait for."""
        return max((self._compute(node, strategy, site.device, site.at) for site in self._planning.sites), key=sum)

    def predicted(self) -> dict[str, Any]:
        """Step time and memory, whole and by part. What is sent beside computing counts as far as it is exposed."""
        parts = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}
        by_op: dict[str, float] = {}
        inner_s = 0.0
        for node, strategy, count in self._chosen():
            seconds = self._slowest(node, strategy)
            for name, one in zip(parts, seconds, strict=True):
                parts[name] += count * one
            if node.kind == "op":
                by_op[node.short_op] = by_op.get(node.short_op, 0.0) + count * sum(seconds)
                inner_s += count * sum(self._inner(node, strategy))
        moves_s = self._moves_by_kind()
        communication_s = sum(moves_s.values()) + inner_s
        compute_s, exposed_s = sum(parts.values()), communication_s - self._hidden_s()
        memory = [self.memory(rank) for rank in range(self._mesh.num_ranks)]
        return {
            "step_s": compute_s + exposed_s,
            "compute_s": compute_s,
            "communication_s": communication_s,
            "exposed_communication_s": exposed_s,
            "memory_bytes": [sum(one.values()) for one in memory],
            "compute_parts_s": parts,
            "compute_by_op_s": dict(sorted(by_op.items(), key=lambda item: (-item[1], item[0]))),
            "communication_by_kind_s": {**moves_s, "inside_operators": inner_s},
            "memory_parts_bytes": memory,
        }

    def operator_times(self) -> dict[str, tuple[float, float]]:
        """(forward, backward) seconds of one run of every representative operator, communication inside it included."""
        found = {}
        for node, strategy, _ in self._chosen():
            if node.kind == "op":
                seconds, inner = self._slowest(node, strategy), self._inner(node, strategy)
                forward_s, backward_s = (
                    (a + b) / self._training.accumulation for a, b in zip(seconds[:2], inner, strict=True)
                )
                found[node.name] = (forward_s, backward_s)
        return found

    def _inner(self, node: Node, strategy: Strategy) -> tuple[float, float]:
        """Seconds of a step of the communication inside a node's local operator."""
        found = [self._operators.inside(node, strategy, site.device) for site in self._planning.sites]
        forward_s, backward_s = max(found, key=sum)
        return self._training.accumulation * forward_s, self._training.accumulation * backward_s

    def balance(self, step_s: float) -> dict[str, list[float]]:
        """Per rank: seconds it computes, and the shares of a step of `step_s` seconds in which it does and does not."""
        compute_s = []
        for rank in range(self._mesh.num_ranks):
            device, at = self._cluster.device(rank), self._mesh.coordinates(rank)
            compute_s.append(sum(n * sum(self._compute(node, s, device, at)) for node, s, n in self._chosen()))
        return {
            "compute_s": compute_s,
            "busy_share": [seconds / step_s for seconds in compute_s],
            "idle_share": [1 - seconds / step_s for seconds in compute_s],
        }

    def alone_s(self, device: DeviceProfile) -> float:
        """Seconds of the step if one device of this kind did all of it, memory aside."""
        whole = {
            name: found[0] for name, found in zip(self._planning.node_names, self._planning.strategies, strict=True)
        }
        return sum(n * sum(self._compute(node, whole[node.name], device, None)) for node, _, n in self._chosen())

    def combined_speed_bound_s(self) -> float:
        """No step is faster than all devices' speeds added up, if nothing is ever sent (launches do not divide)."""
        speeds = [1 / max(1e-12, self.alone_s(self._cluster.device(rank))) for rank in range(self._mesh.num_ranks)]
        return 1 / sum(speeds)

    def single_device_s(self) -> float:
        """Seconds of the step on the fastest device of the mesh alone."""
        names = self._cluster.device_names(self._mesh)
        return min(self.alone_s(self._cluster.device_profiles[name]) for name in names)

    def _moves_by_kind(self) -> dict[str, float]:
        found: dict[str, float] = {}
        planning, training = self._planning, self._training
        for flow, graph, arcs in zip(planning.problem.flows, planning.state_graphs, self._solution.arcs, strict=True):
            for arc in arcs:
                price = graph.prices[arc]
                is_reduced = price.reduced_s and self._is_parameter(flow)
                times = training.num_reductions if is_reduced else training.accumulation
                forward_s = training.accumulation * (price.forward_s + price.again_s)
                for action, seconds in ((price.forward, forward_s), (price.backward, times * price.backward_s)):
                    if seconds:
                        found[action] = found.get(action, 0.0) + flow.count * seconds
        return dict(sorted(found.items()))

    def _is_parameter(self, flow: Flow) -> bool:
        return self._planning.graph[self._planning.node_names[flow.producer]].kind == "parameter"

    def _hidden_s(self) -> float:
        """Seconds of a step's communication that computing hides."""
        problem, solution = self._planning.problem, self._solution
        beside_s = [
            flow.count * float(flow.arc_beside_s[list(arcs)].sum())
            for flow, arcs in zip(problem.flows, solution.arcs, strict=True)
            if flow.arc_beside_s is not None
        ]
        return sum(beside_s) - problem.exposed_s(solution.choices, solution.arcs)

    def memory(self, rank: int) -> dict[str, int]:
        """Bytes on one rank by what they are for: the sum is the predicted peak."""
        training, at = self._training, self._mesh.coordinates(rank)
        total = {"parameters": 0, "gradients": 0, "optimizer": 0, "activations": 0, "transient": 0}
        for node, strategy, count in self._chosen():
            specs = self._planning.graph.input_specs(node)
            if node.kind in ("parameter", "buffer"):
                spec = node.outputs[0]
                numel = local_numel(spec.shape, strategy.results[0], at)
                parts = parameter_parts(numel, spec.dtype, training, trainable=spec.has_gradient)
                for name, num_bytes in parts.items():
                    total[name] += count * num_bytes
            elif node.kind == "op":
                if training.mode == "train" and node.name not in self._operators.regions:
                    total["activations"] += count * int(saved_bytes_extra(node, strategy, specs, at))
                work = int(work_bytes(node, strategy, specs, training.mode, at))
                total["transient"] = max(total["transient"], work)
        total["activations"] += self._saved_bytes(rank)
        total["process"] = int(self._cluster.device(rank).process_bytes)
        return total

    def _saved_bytes(self, rank: int) -> int:
        """Bytes of tensors kept for backward; a parameter in its own placement is not kept twice."""
        planning, coordinates, total = self._planning, self._mesh.coordinates(rank), 0
        for flow, graph in zip(planning.problem.flows, planning.state_graphs, strict=True):
            producer = planning.graph[planning.node_names[flow.producer]]
            own = set()
            if producer.kind in ("parameter", "buffer"):
                own = {int(flow.saved_class[flow.makes[self._solution.choices[flow.producer]]])}
            kept: dict[int, int] = {}
            for consumer in flow.consumers:
                if consumer.saves:
                    state = int(consumer.wants[self._solution.choices[consumer.node]])
                    kept.setdefault(int(flow.saved_class[state]), state)
            spec = producer.outputs[int(flow.name.partition("#")[2] or 0)]
            for saved_class, state in kept.items():
                if saved_class not in own:
                    placement = tuple(R if s == B else s for s in graph.placements[state])
                    numel = local_numel(spec.shape, placement, coordinates)
                    total += flow.count * spec.item_bytes * numel
        return total

    def split_matmul_flops_fraction(self) -> float:
        """Share of the matmul FLOPs that are divided over every mesh axis larger than one."""
        whole = split = 0.0
        for node, strategy, count in self._chosen():
            rule = self._rules.get(node.name)
            if rule is None or not rule.work[0]:
                continue
            scale, letters = rule.work
            flops = count * scale
            for letter in letters:
                flops *= rule.extents[letter]
            whole += flops
            axes = [choice for choice, size in zip(strategy.choices, self._mesh.sizes, strict=True) if size > 1]
            if axes and all(choice.kind == "cut" and letters_of(choice.cut) & set(letters) for choice in axes):
                split += flops
        return split / whole if whole else 0.0
