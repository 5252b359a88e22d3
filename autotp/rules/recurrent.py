"""Recurrent networks. Only the batch may be cut.

A cut hidden state would have to be gathered after every time step, inside the operator: its matrix products and the
gates between them cannot be run apart.
"""

from autotp.graph import Operand
from autotp.rules.call import Call, RuleFunction
from autotp.rules.indexing import nothing_split
from autotp.rules.notation import Tokens, build, unread
from autotp.rules.rule import OpRule


def layers(call: Call) -> OpRule:
    """lstm, gru, rnn_tanh, rnn_relu over padded sequences; packed ones (with batch sizes) are whole."""
    if "batch_sizes" in call.node.arguments:
        return nothing_split(call)
    is_random = call.literal("dropout", 0.0) > 0 and call.literal("train") and call.literal("num_layers", 1) > 1
    local = {"*": "seeded"} if is_random else None
    rows: list[Tokens] = [unread(call, i) for i in range(len(call.specs))]
    has_batch = len(call.shape("input")) == 3
    row: Tokens = (("n",), ("t",)) if call.literal("batch_first") else (("t",), ("n",))
    row = row if has_batch else (("t",),)
    rows[0] = (*row, ("i",))
    state = (("layer",), ("n",)) if has_batch else (("layer",),)
    hidden = call.node.argument("hx")
    for k, operand in enumerate(hidden if isinstance(hidden, tuple) else (hidden,)):
        rows[operand.index] = (*state, (f"h{k}",))
    results: list[Tokens] = [(*row, ("o",)), *((*state, (f"h{k}",)) for k in range(len(call.results) - 1))]
    products = sum(
        call.specs[item.index].shape[0] * call.specs[item.index].shape[1]
        for item in call.node.argument("params")
        if isinstance(item, Operand) and len(call.specs[item.index].shape) == 2
    )
    letters = {letter for one in [*rows, *results] for dim in one for letter in dim}
    work = (2.0 * products, ("t", "n"))
    return build(call, rows, results, whole=letters - {"n"}, local=local, work=work)


def cell(call: Call) -> OpRule:
    """One time step."""
    rows: list[Tokens] = [unread(call, i) for i in range(len(call.specs))]
    hidden = call.node.argument("hx")
    states = [operand.index for operand in (hidden if isinstance(hidden, tuple) else (hidden,))]
    has_batch = len(call.shape("input")) == 2
    for k, index in enumerate((0, *states)):
        rows[index] = (("n",), (f"x{k}",)) if has_batch else ((f"x{k}",),)
    results: list[Tokens] = [(("n",), ("h",)) if has_batch else (("h",),)] * len(call.results)
    letters = {letter for one in [*rows, *results] for dim in one for letter in dim}
    gates = call.shape("w_ih")[0] * (call.shape("w_ih")[1] + call.shape("w_hh")[1])
    return build(call, rows, results, whole=letters - {"n"}, work=(2.0 * gates, ("n",)))


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(["lstm", "gru", "rnn_tanh", "rnn_relu"], layers),
    **dict.fromkeys(["lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"], cell),
}
