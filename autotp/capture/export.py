"""Capture: an nn.Module with example inputs becomes a planning Graph and the plain FX module that computes it."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram

from autotp.capture.build import device_of, fake_inputs
from autotp.capture.call import CallSpec, OutputSpec, Slot, bind
from autotp.capture.functionalize import functionalize
from autotp.capture.gradients import nodes_with_gradient
from autotp.capture.inputs import distinct
from autotp.capture.noops import remove_noops
from autotp.capture.plain import Weights, plain_graph
from autotp.capture.planning import planning_graph
from autotp.capture.tracing import trace
from autotp.errors import CaptureError
from autotp.graph import Graph


@dataclass(frozen=True)
class Captured:
    """What a model computes: `graph` to plan with, `module` to rewrite, and how calls map to their flat tensors.

    `module` is a plain FX module: flat tensors in (placeholders, in order), a flat tuple of tensors out, weights by
    `get_attr` under the model's own names, and the model's own Parameter objects. Node names are those of `graph`.
    `tied` gives all names of every parameter and buffer node.
    """

    graph: Graph
    module: fx.GraphModule
    mode: str
    inputs: CallSpec
    outputs: OutputSpec
    tied: Mapping[str, tuple[str, ...]]

    @property
    def fx_nodes(self) -> dict[str, fx.Node]:
        return {node.name: node for node in self.module.graph.nodes}

    def flatten_inputs(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, check_shapes: bool = True
    ) -> list[Tensor]:
        """The flat tensors of a call of the model; keywords in any order. Raises CaptureError where they do not fit."""
        flat = self.inputs.flatten(args, kwargs or {}, check_shapes)
        if self.mode == "train" and torch.is_grad_enabled():
            for x, path, needs in zip(flat, self.inputs.tensor_paths, self.inputs.needs_gradient, strict=True):
                if x.requires_grad and not needs:
                    raise CaptureError(
                        f"input {path} requires a gradient, and the model was captured without one for it: plan with an "
                        "example input that requires it (requires_grad_()), or detach this one"
                    )
        return flat

    def unflatten_outputs(self, tensors: Sequence[Tensor]) -> Any:
        """What the model returns, around the flat tensors that `module` returned."""
        return self.outputs.unflatten(tensors)


def capture(
    model: nn.Module,
    inputs: Mapping[str, Any] | Sequence[Any],
    *,
    mode: str = "train",
    outputs: str = "all",
    fake_mode: FakeTensorMode | None = None,
    is_evaluated: bool = False,
) -> Captured:
    """Capture `model` called with `inputs` (a dict of keyword or a tuple of positional arguments).

    `mode` "train" follows gradients to parameters; "infer" captures evaluation, without any. `outputs` "loss" returns
    only the loss of what the model returns, where there is one. `fake_mode`: as from `build_fake`. `is_evaluated`: with
    gradients, but without dropout and all else that a model does in training alone. The model is left as it was.
    Raises CaptureError, saying where, when the model's forward cannot be captured.
    """
    if mode not in ("train", "infer") or outputs not in ("all", "loss"):
        raise CaptureError(f"mode is train or infer and outputs is all or loss, not {mode!r} and {outputs!r}")
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})
    signature = inspect.signature(model.forward)
    call = CallSpec.of(signature, args, kwargs)
    values = bind(signature, args, kwargs)
    values = fake_inputs(values, fake_mode, device_of(model)) if fake_mode is not None else distinct(values)
    program = trace(
        model, signature, values, has_gradients=mode == "train", is_training=mode == "train" and not is_evaluated
    )
    weights = Weights(model)
    graph, constants = plain_graph(program, weights, mode == "train")
    returned = _outputs(program, graph, outputs)
    functionalize(graph)
    roots = _trained(graph, weights, call) if mode == "train" else []
    remove_noops(graph, nodes_with_gradient(graph, roots))
    graph.eliminate_dead_code()
    module = _module(model, graph, weights, constants)
    tied = {node.name: weights.names(str(node.target)) for node in module.graph.nodes if node.op == "get_attr"}
    roots = _trained(module.graph, weights, call) if mode == "train" else []
    return Captured(planning_graph(module.graph, weights, roots), module, mode, call, returned, tied)


def _trained(graph: fx.Graph, weights: Weights, call: CallSpec) -> list[fx.Node]:
    """Parameters that require a gradient, and inputs that do: those of a part of a larger model."""
    found = (n for n in graph.nodes if n.op == "get_attr" and n.target in weights.parameters)
    inputs = zip((n for n in graph.nodes if n.op == "placeholder"), call.needs_gradient, strict=True)
    parameters = [node for node in found if weights.parameters[str(node.target)].requires_grad]
    return [*(node for node, needs in inputs if needs), *parameters]


# ---------------------------------------------------------------- the plain module


def _outputs(program: ExportedProgram, graph: fx.Graph, outputs: str) -> OutputSpec:
    """The structure of what is returned; the graph's output becomes a flat tuple of its tensors."""
    output = next(iter(reversed(graph.nodes)))
    flat = list(output.args[0])
    spec = program.call_spec.out_spec
    assert spec is not None
    leaves = tuple(Slot(i) if isinstance(leaf, fx.Node) else leaf for i, leaf in enumerate(flat))
    returned = OutputSpec(spec, leaves)
    if outputs == "loss":
        returned = returned.select_loss()
    used = [leaf.index for leaf in returned.leaves if isinstance(leaf, Slot)]
    if not used:
        raise CaptureError("the model returns no tensor")
    output.args = (tuple(flat[index] for index in used),)
    renumbered = iter(range(len(used)))
    return OutputSpec(
        returned.spec, tuple(Slot(next(renumbered)) if isinstance(leaf, Slot) else leaf for leaf in returned.leaves)
    )


def _module(model: nn.Module, graph: fx.Graph, weights: Weights, constants: Mapping[str, Tensor]) -> fx.GraphModule:
    """A plain module around the graph that holds the model's own parameters and buffers under their own names."""
    graph.set_codegen(fx.graph.CodeGen())
    module = fx.GraphModule({}, fx.Graph(), class_name=type(model).__name__)
    state = set(model.state_dict(keep_vars=True))
    for name, tensor in (*weights.all.items(), *constants.items()):
        _attach(module, name, tensor, name in state)
    module.train(model.training)
    module.graph = graph
    module.graph.lint()
    return module


def _attach(root: nn.Module, name: str, tensor: Tensor, is_state: bool) -> None:
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        child = root._modules[part]
        assert child is not None
        root = child
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(last, tensor)
    else:
        root.register_buffer(last, tensor, persistent=is_state)
