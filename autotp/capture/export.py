"""Capture: an nn.Module with example inputs becomes a planning Graph and the plain FX module that computes it."""

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram

from autotp.capture.build import device_of, fake_inputs
from autotp.capture.call import CallSpec, OutputSpec, Slot, bind, unbind
from autotp.capture.functionalize import functionalize
from autotp.capture.gradients import nodes_with_gradient
from autotp.capture.model_file import load_hf
from autotp.capture.noops import remove_noops
from autotp.capture.plain import Weights, plain_graph
from autotp.capture.planning import planning_graph
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
        return self.inputs.flatten(args, kwargs or {}, check_shapes)

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
) -> Captured:
    """Capture `model` called with `inputs` (a dict of keyword or a tuple of positional arguments).

    `mode` "train" follows gradients to parameters; "infer" captures evaluation, without any. `outputs` "loss" returns
    only the loss of what the model returns, where there is one. `fake_mode`: as from `build_fake`. The model is left as
    it was. Raises CaptureError, saying where, when the model's forward cannot be captured.
    """
    if mode not in ("train", "infer") or outputs not in ("all", "loss"):
        raise CaptureError(f"mode is train or infer and outputs is all or loss, not {mode!r} and {outputs!r}")
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})
    signature = inspect.signature(model.forward)
    call = CallSpec.of(signature, args, kwargs)
    values = bind(signature, args, kwargs)
    if fake_mode is not None:
        values = fake_inputs(values, fake_mode, device_of(model))
    program = _export(model, signature, values, mode == "train")
    weights = Weights(model)
    graph, constants = plain_graph(program, weights, mode == "train")
    returned = _outputs(program, graph, outputs)
    functionalize(graph)
    roots = _trained(graph, weights) if mode == "train" else []
    remove_noops(graph, nodes_with_gradient(graph, roots))
    graph.eliminate_dead_code()
    module = _module(model, graph, weights, constants)
    tied = {node.name: weights.names(str(node.target)) for node in module.graph.nodes if node.op == "get_attr"}
    roots = _trained(module.graph, weights) if mode == "train" else []
    return Captured(planning_graph(module.graph, weights, roots), module, mode, call, returned, tied)


def _trained(graph: fx.Graph, weights: Weights) -> list[fx.Node]:
    found = (n for n in graph.nodes if n.op == "get_attr" and n.target in weights.parameters)
    return [node for node in found if weights.parameters[str(node.target)].requires_grad]


# ---------------------------------------------------------------- export


def _export(
    model: nn.Module, signature: inspect.Signature, values: Mapping[str, Any], is_training: bool
) -> ExportedProgram:
    args, kwargs = unbind(signature, values)
    with _training_flags(model, is_training), _hugging_face(model, values), torch.set_grad_enabled(is_training):
        try:
            return torch.export.export(model, args, kwargs, strict=False)
        except Exception as error:
            raise CaptureError(_failure(model, error)) from error


@contextmanager
def _training_flags(model: nn.Module, is_training: bool) -> Iterator[None]:
    """In training or evaluation while capturing. A model in training keeps its modules that are not (a frozen norm)."""
    flags = {module: module.training for module in model.modules()}
    if model.training != is_training:
        model.train(is_training)
    try:
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag


def _hugging_face(model: nn.Module, values: Mapping[str, Any]) -> AbstractContextManager[None]:
    if "transformers" not in sys.modules:
        return nullcontext()
    hf = load_hf("a Hugging Face model")
    if not hf.is_pretrained(model):
        return nullcontext()
    return hf.plain_attention(model, "position_ids" in values)  # type: ignore[no-any-return]


def _failure(model: nn.Module, error: Exception) -> str:
    """One message: which module, which line of its code, what went wrong, and what usually helps."""
    names = {id(module): name for name, module in model.named_modules()}
    place = ""
    trace = error.__traceback__
    while trace is not None:
        owner = id(trace.tb_frame.f_locals.get("self"))
        if owner in names and "/torch/" not in trace.tb_frame.f_code.co_filename.replace("\\", "/"):
            code = trace.tb_frame.f_code
            where = f"module {names[owner]}" if names[owner] else "the model's own forward"
            place = (
                f" in {where} ({type(trace.tb_frame.f_locals['self']).__name__}, {code.co_filename}:{trace.tb_lineno})"
            )
        trace = trace.tb_next
    name = type(error).__name__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    if "DataDependent" in name or "data-dependent" in text:
        return (
            f"the model cannot be captured{place}: what it does depends on the values in its tensors "
            f"({name}: {text}). Replace `if`s and loops over tensor values by masks or torch.where"
        )
    return (
        f"the model cannot be captured{place}: {name}: {text}. It must run with these inputs, and torch.export must be "
        "able to trace it"
    )


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
