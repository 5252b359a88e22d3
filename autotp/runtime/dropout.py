"""Dropout switched off on both sides of a comparison: whole and sharded models draw different numbers by design."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode

from autotp.runtime.local_ops_find import find_operator

PROBABILITIES = ("p", "dropout_p", "dropout")  # the argument's name in torch's schemas


class NoDropout(TorchFunctionMode):
    """While active, every dropout of torch.nn.functional keeps everything."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        arguments = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if "dropout" in name and args:
            return args[0]
        # Position of `dropout_p`; what a Python function calls inside is not seen here.
        position = {"scaled_dot_product_attention": 4, "multi_head_attention_forward": 10}.get(name)
        if position is not None and position < len(args):
            args = (*args[:position], 0.0, *args[position + 1 :])
        elif position is not None:
            arguments["dropout_p"] = 0.0
        return func(*args, **arguments)


def without_dropout(module: fx.GraphModule) -> None:
    """Set the probability of every dropout in a rewritten graph to zero, in place."""
    for node in module.graph.nodes:
        op = _operator(module, node)
        if op is None:
            continue
        for position, argument in enumerate(op._schema.arguments):
            wanted = argument.name in PROBABILITIES and ("dropout" in str(op) or argument.name == "dropout_p")
            if wanted and argument.name in node.kwargs:
                node.update_kwarg(argument.name, 0.0)
            elif wanted and position < len(node.args):
                node.update_arg(position, 0.0)
    module.recompile()


def _operator(module: fx.GraphModule, node: fx.Node) -> "torch._ops.OpOverload | None":
    if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
        return node.target
    name = getattr(module.get_submodule(str(node.target)), "op", None) if node.op == "call_module" else None
    return find_operator(name) if isinstance(name, str) else None
