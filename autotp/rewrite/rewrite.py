"""From a captured module and a plan to the code of one rank: local operators, and redistributions between them."""

import itertools
import operator as python_operator
from collections.abc import Collection, Mapping

import torch
from torch import fx, nn

from autotp.errors import PlanError
from autotp.graph import Graph, Node, Value
from autotp.placement import Placement, R, State, format_placement
from autotp.plans import Move, Plan
from autotp.redistribute import PADDED, TABLE, Step
from autotp.regions import region_of as region_of_nodes
from autotp.rewrite.emit import arguments_of, function_of
from autotp.rewrite.localise import localise
from autotp.rewrite.parameters import Init, shard_module
from autotp.rewrite.recompute import recompute
from autotp.rules.registry import rules_of
from autotp.runtime.communicator import Communicator, check_axes
from autotp.runtime.local_ops import local_operator
from autotp.runtime.moves import Redistribute
from autotp.runtime.reductions import Reductions

# They look at memory and not at elements only; a moved tensor need not have the strides of the captured one.
READS_MEMORY = frozenset({"aten.view_as_complex.default", "aten.view.dtype", "aten.as_strided.default"})


def rewrite(
    captured: fx.GraphModule,
    graph: Graph,
    plan: Plan,
    rank: int,
    communicators: Mapping[str, Communicator],
    *,
    init: Init | None = None,
    device: torch.device | None = None,
    tree: nn.Module | None = None,
    reductions: Reductions | None = None,
) -> fx.GraphModule:
    """The plan's module for one rank; `captured` is left as it is.

    The result's parameters and buffers are this rank's shards (see `shard_module` for `init` and `device`), or those of
    `tree`, which has them already; its child modules named `redistribute_...` the moves of the plan, each made once for
    all who read it. `reductions`: when parameters' gradients are added up over ranks, at once where None. Raises PlanError
    where the plan was made for another model or mesh.
    """
    check(graph, plan)
    check_axes(plan.mesh, communicators)
    tree = tree or shard_module(captured, plan, rank, init=init, device=device)
    names = [name for name, _ in tree.named_children()]
    rewriter = _Rewriter(graph, plan, rank, communicators, names, reductions)
    region_of = region_of_nodes(graph, checkpointing_of(plan))
    found: dict[int, list[fx.Node]] = {}
    for node in captured.graph.nodes:
        emitted = rewriter.add(node)
        region = region_of.get(owner_of(node))
        if region is not None:
            found.setdefault(region, []).extend(emitted)
    module = _with_tree(rewriter, tree)
    recompute(module, [nodes for _, nodes in sorted(found.items())])
    return module


def checkpointing_of(plan: Plan) -> str:
    """What the plan computes again in backward; nothing where it does not say, or is not for training."""
    return str(plan.summary.get("training", {}).get("checkpointing", "none")) if plan.mode == "train" else "none"


def owner_of(captured: fx.Node) -> str:
    """The operator that a captured node belongs to: a getitem to the call whose result it takes."""
    is_item = captured.op == "call_function" and captured.target is python_operator.getitem
    return str(captured.args[0]) if is_item else captured.name


def check(graph: Graph, plan: Plan) -> None:
    """Raise PlanError where a plan was not made for this graph."""
    if plan.fingerprint != graph.fingerprint():
        raise PlanError(
            f"the plan was made for another model, or another shape, dtype or mode of it (fingerprint "
            f"{plan.fingerprint}, this one has {graph.fingerprint()}): plan again"
        )
    missing = [node.name for node in graph if node.name not in plan.strategies]
    if missing:
        raise PlanError(f"the plan is not complete: it says nothing of {', '.join(missing[:5])}")


class _Rewriter:
    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        rank: int,
        communicators: Mapping[str, Communicator],
        names: Collection[str],
        reductions: Reductions | None,
    ) -> None:
        self.planned, self.plan, self.rank, self.reductions = graph, plan, rank, reductions
        self.communicators = communicators
        self.names = names
        self.rules = rules_of(graph)
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}
        self._calls: dict[str, fx.Node] = {}
        self._placed: dict[tuple[Value, Placement], fx.Node] = {}
        self._moves = {value: {move.step.target: move for move in moves} for value, moves in plan.moves.items()}

    def add(self, captured: fx.Node) -> list[fx.Node]:
        """Emit one node of the captured graph, after the moves that it needs first; all that was emitted."""
        before = len(self.graph.nodes)
        self._add(captured)
        added = len(self.graph.nodes) - before
        return list(itertools.islice(reversed(self.graph.nodes), added))[::-1]

    def _add(self, captured: fx.Node) -> None:
        if captured.op == "call_function" and captured.target is python_operator.getitem:
            self._add_item(captured)
            return
        node = self.planned.nodes.get(captured.name)
        if node is None:
            raise PlanError(f"the captured graph has a node {captured.name} that the planning graph has not")
        if captured.op == "placeholder":
            self._made(node, self.graph.placeholder(captured.name))
            self._enter(node)
        elif captured.op == "get_attr":
            self._made(node, self.graph.create_node("get_attr", captured.target, name=captured.name))
        elif captured.op == "output":
            self.graph.output(tuple(self._operands(node)))
        else:
            self._made(node, self._add_call(captured, node))

    def _add_call(self, captured: fx.Node, node: Node) -> fx.Node:
        strategy = self.plan.strategies[node.name]
        coordinates = self.plan.mesh.coordinates(self.rank)
        call = localise(node, self.rules[node.name], strategy, self.plan.mesh, coordinates)
        operands = self._operands(node)
        for index in sorted(node.writes):
            if strategy.operands[index] != self._made_placement(node.inputs[index]):
                raise PlanError(
                    f"{node.op} ({node.name}) writes to {node.inputs[index]}, so that may not be redistributed"
                )
        if node.op in READS_MEMORY:
            operands = [self.graph.call_function(torch.ops.aten.contiguous.default, (operand,)) for operand in operands]
        args, kwargs = arguments_of(captured, node, call, operands)
        if not call.local:
            return self.graph.create_node("call_function", function_of(call.op), args, kwargs, name=captured.name)
        communicators = {axis: self.communicators[self.plan.mesh.names[axis]] for axis in call.axes}
        module = local_operator(call.local, call.constants, communicators)
        target = self._add_module(f"{node.name}_{call.local}_shard", module)
        return self.graph.create_node("call_module", target, args, kwargs, name=captured.name)

    def _add_item(self, captured: fx.Node) -> None:
        source, index = captured.args
        assert isinstance(source, fx.Node) and isinstance(index, int)
        value = Value(source.name, index)
        if source.name not in self._calls or index >= len(self.planned[source.name].outputs):
            raise PlanError(f"the captured graph reads {value}, which the planning graph has not")
        args = (self._calls[source.name], index)
        item = self.graph.create_node("call_function", python_operator.getitem, args, name=captured.name)
        self._placed[value, self._made_placement(value)] = item

    def _made(self, node: Node, emitted: fx.Node) -> None:
        self._calls[node.name] = emitted
        if node.outputs:  # of an operator with several results this is replaced by the first one's getitem
            value = Value(node.name)
            self._placed[value, self._made_placement(value)] = emitted

    def _enter(self, node: Node) -> None:
        """Inputs come whole: cut this one where the plan has it in shards."""
        value = Value(node.name)
        made = self._made_placement(value)
        placement: Placement = (R,) * len(made)
        emitted = self._placed.pop((value, made))
        for axis, state in enumerate(made):
            if state != R:
                step = Step(axis, placement, (*placement[:axis], state, *placement[axis + 1 :]))
                emitted = self._emit(value, step, TABLE[R.kind, state.kind][0], "none", emitted)
                placement = step.target
        self._placed[value, made] = emitted

    def _made_placement(self, value: Value) -> Placement:
        return self.plan.strategies[value.node].results[value.index]

    def _operands(self, node: Node) -> list[fx.Node]:
        """A node's operands at the placements that its strategy wants."""
        wanted = self.plan.strategies[node.name].operands
        if len(wanted) != len(node.inputs):
            raise PlanError(f"the plan has {len(wanted)} operands for {node.name}, the model {len(node.inputs)}")
        return [self._take(value, placement) for value, placement in zip(node.inputs, wanted, strict=True)]

    def _take(self, value: Value, placement: Placement) -> fx.Node:
        """A value at a placement, by the moves of the plan that are not made yet."""
        path: list[Move] = []
        at = placement
        while (value, at) not in self._placed:
            move = self._moves.get(value, {}).get(at)
            if move is None or len(path) > len(self._moves[value]):
                raise PlanError(f"the plan has no way from {value} as it is made to '{format_placement(placement)}'")
            path.append(move)
            at = move.step.source
        for move in reversed(path):
            source = self._placed[value, move.step.source]
            self._placed[value, move.step.target] = self._emit(
                value, move.step, move.forward, move.backward, source, (move.forward_by, move.backward_by)
            )
        return self._placed[value, placement]

    def _emit(
        self,
        value: Value,
        step: Step,
        forward: str,
        backward: str,
        source: fx.Node,
        by: tuple[str, str] = (PADDED, PADDED),
    ) -> fx.Node:
        if forward == backward == "none":
            return source
        axis = self.plan.mesh.names[step.axis]
        shape, plan = self.planned.spec(value).shape, self.plan
        reductions = self.reductions if self.planned[value.node].kind == "parameter" else None
        among = (plan.mesh, self.rank, self.communicators[axis])
        move = Redistribute(step, forward, backward, shape, *among, plan.reduce_dtype, reductions, by)
        states = "_to_".join(map(_short, (step.source[step.axis], step.target[step.axis])))
        name = value.node + (f"_{value.index}" if value.index else "")
        return self.graph.call_module(self._add_module(f"redistribute_{name}_{axis}_{states}", move), (source,))

    def _add_module(self, name: str, module: nn.Module) -> str:
        while name in self.modules or name in self.names:
            name += "_"
        self.modules[name] = module
        return name


def _short(state: State) -> str:
    return f"S{state.dim}" if state.kind == "S" else state.kind


def _with_tree(rewriter: _Rewriter, tree: nn.Module) -> fx.GraphModule:
    """A graph module that shares the tree's modules: where a parameter is replaced, the code sees it."""
    root = nn.Module()
    root.__dict__.update({name: dict(getattr(tree, name)) for name in ("_parameters", "_buffers", "_modules")})
    for name, module in rewriter.modules.items():
        root.add_module(name, module)
    result = fx.GraphModule(root, rewriter.graph, class_name="ParallelGraph")
    for name, child in tree.named_children():
        result.add_module(name, child)
    result._parameters, result._buffers = tree._parameters, tree._buffers
    result._non_persistent_buffers_set = tree._non_persistent_buffers_set
    return result
