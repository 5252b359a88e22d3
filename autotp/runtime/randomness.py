"""Randomness taken out of both sides of a comparison: whole and sharded models draw different numbers by design.

Dropout keeps everything, and every other draw is a fixed value that its distribution allows.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from autotp.runtime.local_ops_find import find_operator
from autotp.runtime.local_ops_random import Seeded
from autotp.runtime.recompute import Recomputed

PROBABILITIES = ("p", "dropout_p", "dropout")  # the argument's name in torch's schemas
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")  # they drop out between layers
# What every element becomes. Stochastic depth adds a uniform number to what it keeps, and takes the floor: kept.
VALUES = {
    "rand": 0.5, "rand_like": 0.5, "uniform": 0.5, "randn": 0.5, "randn_like": 0.5, "normal": 0.5, "normal_functional": 0.5,
    "bernoulli": 1.0, "exponential": 1.0, "randint": 0.0, "randint_like": 0.0,
}  # fmt: skip


class WithoutRandomness(TorchFunctionMode):
    """While active, every dropout of torch.nn.functional keeps everything, and other draws are fixed."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        arguments = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if "dropout" in name and args:
            return args[0]
        # Position of `dropout_p`; what a Python function calls inside is not seen here.
        position = {"scaled_dot_product_attention": 4, "multi_head_attention_forward": 10}.get(name)
        if name in RECURRENT:  # of packed sequences the weights come one argument later
            position = 5 if isinstance(args[2], list | tuple) else 6
        if position is not None and position < len(args):
            args = (*args[:position], 0.0, *args[position + 1 :])
        elif position is not None:
            arguments["dropout_p"] = 0.0
        return _fixed(name, func(*args, **arguments))


def _fixed(name: str, drawn: Any) -> Any:
    """What an operator of this name gives, instead of what it drew; the result itself where it draws nothing."""
    name = name.rstrip("_")
    with torch.no_grad():
        if name in VALUES:
            return drawn.fill_(VALUES[name])
        if name == "randperm":
            return drawn.copy_(torch.arange(len(drawn), dtype=drawn.dtype, device=drawn.device))
    return drawn


class FixedDraws(nn.Module):
    """Stands for a random operator: the same call, of which every draw is fixed."""

    def __init__(self, op: str) -> None:
        super().__init__()
        self.op = op
        self._operator = find_operator(op)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        fixed: Tensor = _fixed(self.op.split(".")[1], self._operator(*args, **kwargs))
        return fixed


def without_randomness(module: fx.GraphModule) -> None:
    """Set the probability of every dropout in a rewritten graph to zero and fix all other draws, in place."""
    for node in module.graph.nodes:
        op = _operator(module, node)
        if op is None:
            continue
        for position, argument in enumerate(op._schema.arguments):
            wanted = argument.name in PROBABILITIES and _drops_by(op, argument.name)
            if wanted and argument.name in node.kwargs:
                node.update_kwarg(argument.name, 0.0)
            elif wanted and position < len(node.args):
                node.update_arg(position, 0.0)
        name = op.overloadpacket.__name__.rstrip("_")
        if node.op == "call_module" and (name in VALUES or name == "randperm"):
            module.set_submodule(str(node.target), FixedDraws(module.get_submodule(str(node.target)).op))  # type: ignore[arg-type]
    module.recompile()
    for child in module.children():
        if isinstance(child, Recomputed):
            without_randomness(child.region)


def _drops_by(op: "torch._ops.OpOverload", argument: str) -> bool:
    name = op.overloadpacket.__name__
    return "dropout" in str(op) or argument == "dropout_p" or (argument == "dropout" and name in RECURRENT)


def _operator(module: fx.GraphModule, node: fx.Node) -> "torch._ops.OpOverload | None":
    if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
        return node.target
    found = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    return find_operator(found.op) if isinstance(found, Seeded) else None
