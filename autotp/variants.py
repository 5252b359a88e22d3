"""Other graphs of a model that runs in parallel, on the same parameters: in evaluation, and for inputs of other sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from autotp.capture.build import fake_copy
from autotp.capture.evaluation import Evaluation, evaluation
from autotp.capture.export import Captured, capture
from autotp.errors import CaptureError, PlanError
from autotp.planning.replan import replan
from autotp.plans import Plan
from autotp.rewrite.rewrite import rewrite
from autotp.runtime.communicator import Communicator
from autotp.runtime.local_ops_find import find_operator
from autotp.runtime.module import ParallelModule
from autotp.runtime.reductions import Reductions

DYNAMIC = {"batch": 0, "seq": 1}  # the dim of every input that has this name
Shapes = tuple[tuple[int, ...], ...]


def dynamic_dims(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """`"batch,seq"` as names, in order. Raises PlanError for others."""
    found = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names or ())
    unknown = [name for name in found if name not in DYNAMIC]
    if unknown:
        raise PlanError(f"unknown dynamic dims {', '.join(unknown)}: choose among {', '.join(DYNAMIC)}")
    return tuple(name for name in DYNAMIC if name in found)


class Source:
    """A model without the memory of its parameters, what was captured of it and what was planned. One for all ranks."""

    def __init__(self, model: nn.Module, captured: Captured, plan: Plan) -> None:
        self._model, self._fake_mode = fake_copy(model)
        self.plan, self.dynamic = plan, dynamic_dims(plan.model.get("dynamic"))
        self.shapes = _shapes(captured)
        self._plans: dict[Shapes, tuple[Captured, Plan]] = {self.shapes: (captured, plan)}
        self._evaluations: dict[Shapes, Evaluation] = {}

    def planned(self, shapes: Shapes) -> tuple[Captured, Plan]:
        """The capture with inputs of these sizes, and a plan for it. Raises PlanError for sizes that may not differ."""
        if shapes not in self._plans:
            self._check(shapes)
            captured = self._capture(shapes, is_evaluated=False)
            self._plans[shapes] = (captured, replan(captured, self.plan))
        return self._plans[shapes]

    def evaluation(self, shapes: Shapes) -> Evaluation:
        """How the graph in training with inputs of these sizes becomes the one in evaluation."""
        if shapes not in self._evaluations:
            captured, _ = self.planned(shapes)
            try:
                evaluated = self._capture(shapes, is_evaluated=True)
                self._evaluations[shapes] = evaluation(captured.module.graph, evaluated.module.graph)
            except CaptureError as error:
                raise PlanError(f"this module was planned for training and cannot be evaluated: {error}") from error
        return self._evaluations[shapes]

    def _check(self, shapes: Shapes) -> None:
        """What is called `batch` or `seq` may differ from the example's, and all inputs that had one size have one now."""
        free = {DYNAMIC[name] for name in self.dynamic}
        for expected, found in zip(self.shapes, shapes, strict=True):
            wrong = len(expected) != len(found) or any(
                a != b and dim not in free for dim, (a, b) in enumerate(zip(expected, found, strict=True))
            )
            if wrong:
                hint = (
                    f"only {' and '.join(self.dynamic)} may differ" if self.dynamic else "plan with dynamic='batch,seq'"
                )
                raise PlanError(f"an input of shape {list(found)}; the plan was made for {list(expected)}: {hint}")

    def _capture(self, shapes: Shapes, *, is_evaluated: bool) -> Captured:
        call = self._plans[self.shapes][0].inputs
        args, kwargs = call.example(shapes)
        if args and kwargs:
            raise PlanError("a model with positional-only inputs beside others runs as it was captured only")
        return capture(
            self._model, args or kwargs, mode=self.plan.mode, outputs=self.plan.model.get("outputs", "all"),
            fake_mode=self._fake_mode, is_evaluated=is_evaluated,
        )  # fmt: skip


class Variants:
    """One rank's graphs of a source, made when they are first needed. All ranks must need them in the same order."""

    def __init__(
        self,
        source: Source,
        main: fx.GraphModule,
        rank: int,
        communicators: Mapping[str, Communicator],
        reductions: Reductions,
    ) -> None:
        self._source, self._main, self._rank, self._communicators = source, main, rank, communicators
        self._reductions = reductions
        self._made: dict[tuple[Shapes, bool], tuple[fx.GraphModule, Captured]] = {}

    @property
    def is_dynamic(self) -> bool:
        """Whether inputs of other sizes than the captured ones are welcome."""
        return bool(self._source.dynamic)

    def forget(self) -> None:
        """Make all graphs anew: what they share with the module was replaced."""
        self._made.clear()

    def find(self, inputs: Sequence[Tensor] | None, is_training: bool) -> tuple[fx.GraphModule, Captured]:
        """The graph for flat inputs of these sizes (the captured ones without), in training or in evaluation.

        Raises PlanError where there is none.
        """
        shapes = self._source.shapes if inputs is None else tuple(tuple(x.shape) for x in inputs)
        if (shapes, is_training) not in self._made:
            self._made[shapes, is_training] = self._make(shapes, is_training)
        return self._made[shapes, is_training]

    def _make(self, shapes: Shapes, is_training: bool) -> tuple[fx.GraphModule, Captured]:
        captured, plan = self._source.planned(shapes)
        if not is_training and plan.mode == "train":
            module, _ = self.find([torch.empty(shape, device="meta") for shape in shapes], True)
            return _evaluated(module, captured, self._source.evaluation(shapes)), captured
        if shapes == self._source.shapes:
            return self._main, captured
        tree = _own_tree(self._main, captured)
        module = rewrite(
            captured.module, captured.graph, plan, self._rank, self._communicators, tree=tree,
            reductions=self._reductions,
        )  # fmt: skip
        return module, captured


def with_variants(module: ParallelModule, source: Source) -> ParallelModule:
    """The module, which finds its other graphs in `source`."""
    module.variants = Variants(
        source, module.graph_module, module.sharding.rank, module.communicators, module.reductions
    )
    return module


def _shapes(captured: Captured) -> Shapes:
    return tuple(node.outputs[0].shape for node in captured.graph if node.kind == "input")


def _own_tree(main: fx.GraphModule, captured: Captured) -> nn.Module:
    """The module's own parameters and buffers, and the constants of another capture."""
    called = {node.target for node in main.graph.nodes if node.op == "call_module"}
    tree = nn.Module()
    tree._modules = {name: child for name, child in main._modules.items() if name not in called}
    tree._parameters = main._parameters
    device = next((p.device for p in main.parameters()), torch.device("cpu"))
    known = {name.rpartition(".")[2] for names in captured.tied.values() for name in names}
    constants = {
        name: buffer.to(device)
        for name, buffer in captured.module._buffers.items()
        if buffer is not None and (name not in main._buffers or name not in known)
    }
    tree._buffers = {**main._buffers, **constants}
    tree._non_persistent_buffers_set = main._non_persistent_buffers_set
    return tree


def _evaluated(module: fx.GraphModule, captured: Captured, changes: Evaluation) -> fx.GraphModule:
    """A rewritten graph in evaluation, around the same modules and tensors."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    for node in reversed(list(graph.nodes)):
        for name, value in changes.arguments.get(node.name, {}).items():
            _set_argument(captured.graph[node.name].op, node, name, value)
        if node.name in changes.removed and not node.users:
            graph.erase_node(node)
    result = fx.GraphModule(module, graph, class_name="EvaluatedGraph")
    result._modules, result._parameters, result._buffers = module._modules, module._parameters, module._buffers
    return result


def _set_argument(op: str, node: fx.Node, name: str, value: Any) -> None:
    """Change an argument of a call, which passes those of the operator, also where a local one stands for it."""
    index = [argument.name for argument in find_operator(op)._schema.arguments].index(name)
    if index < len(node.args):
        node.update_arg(index, value)
    else:
        node.update_kwarg(name, value)
