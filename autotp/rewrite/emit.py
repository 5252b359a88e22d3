"""One operator's call on one rank: the arguments of the captured call, with local literals and moved operands."""

from collections.abc import Sequence
from typing import Any

from torch import fx

from autotp.errors import PlanError
from autotp.graph import Node, Operand
from autotp.rewrite.localise import LocalCall
from autotp.runtime.local_ops_find import find_operator


def arguments_of(
    captured: fx.Node, node: Node, call: LocalCall, operands: Sequence[fx.Node]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of the local call.

    Literals are those of the captured call unless the local call changes them; tensors are `operands`.
    """
    schema = find_operator(call.op)._schema.arguments
    if call.op == node.op:
        bound = _literals(captured, schema) | dict(call.arguments)
        bound |= {name: _filled(value, operands) for name, value in node.arguments.items() if _has_operand(value)}
    else:
        tensors = iter(operands)
        bound = {arg.name: next(tensors) for arg in schema if "Tensor" in str(arg.type)} | dict(call.arguments)
    unknown = set(bound) - {arg.name for arg in schema}
    if unknown:
        raise PlanError(f"{call.op} ({node.name}) has no arguments {', '.join(sorted(unknown))}")
    given = [arg for arg in schema if not arg.kwarg_only]
    while given and given[-1].name not in bound:
        given.pop()
    positional = tuple(bound.get(arg.name, arg.default_value) for arg in given)
    return positional, {arg.name: bound[arg.name] for arg in schema if arg.kwarg_only and arg.name in bound}


def _literals(captured: fx.Node, schema: Sequence[Any]) -> dict[str, Any]:
    given = dict(zip((arg.name for arg in schema), captured.args, strict=False)) | dict(captured.kwargs)
    return {name: value for name, value in given.items() if not _has_node(value)}


def _has_node(value: Any) -> bool:
    return isinstance(value, fx.Node) or (isinstance(value, list | tuple) and any(map(_has_node, value)))


def _has_operand(value: Any) -> bool:
    return isinstance(value, Operand) or (isinstance(value, tuple) and any(map(_has_operand, value)))


def _filled(value: Any, operands: Sequence[fx.Node]) -> Any:
    if isinstance(value, Operand):
        return operands[value.index]
    return [_filled(item, operands) for item in value] if isinstance(value, tuple) else value
