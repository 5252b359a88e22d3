"""Softmax and normalisations: what is normalised over is whole."""

from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import build, letters_of, rule
from autotp.rules.rule import Inner, OpRule


def softmax(call: Call) -> OpRule:
    row = letters_of(len(call.specs[0].shape))
    return build(call, [row], [row], whole=[f"d{call.dim()}"])


def layer_norm(call: Call) -> OpRule:
    """layer_norm and rms_norm: the dims of `normalized_shape` are whole."""
    names = [f"n{i}" for i in range(len(call.literal("normalized_shape")))]
    n = " ".join(names)
    return rule(call, f"input[... {n}] weight[{n}] bias[{n}] -> [... {n}]", whole=n)


def group_norm(call: Call) -> OpRule:
    """Channels may be cut by groups."""
    return rule(
        call,
        "input[n (g c) *s] weight[(g c)] bias[(g c)] -> [n (g c) *s]",
        sizes={"g": call.literal("num_groups")},
        whole="c *s",
        local_sizes={"num_groups": "g"},
    )


def batch_norm(call: Call) -> OpRule:
    """In training the statistics are those of the whole batch: a local operator adds them up, forward and backward."""
    text = "input[n c *s] weight[c] bias[c] running_mean[c] running_var[c] -> [n c *s]"
    if not call.literal("training", False):
        return rule(call, text)
    item = max(4, call.specs[0].item_bytes)  # statistics are never in half precision
    inner = (
        Inner("all_reduce", "forward", ("c",), item),
        Inner("all_reduce", "forward", ("c",), item),
        Inner("all_reduce", "backward", ("sums", "c"), item),
    )
    local = {"n": "batch_norm", "*s": "batch_norm"}
    return rule(call, text, sizes={"sums": 2}, inner={"n": inner, "*s": inner}, local=local)


def instance_norm(call: Call) -> OpRule:
    """Statistics of every sample and channel. Running ones are means over the batch, which then is whole."""
    text = "input[n c *s] weight[c] bias[c] running_mean[c] running_var[c] -> [n c *s]"
    if not call.literal("use_input_stats", True):
        return rule(call, text)
    return rule(call, text, whole="*s" if call.index("running_mean") is None else "*s n")


def native_layer_norm(call: Call) -> OpRule:
    n = " ".join(f"n{i}" for i in range(len(call.literal("normalized_shape"))))
    ones = " ".join("1" for _ in n.split())
    return rule(call, f"input[... {n}] weight[{n}] bias[{n}] -> [... {n}][... {ones}][... {ones}]", whole=n)


def softmax_backward(call: Call) -> OpRule:
    row = letters_of(len(call.specs[0].shape))
    return build(call, [row, row], [row], whole=[f"d{call.dim()}"], linear=[frozenset((0,))])


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(["softmax", "log_softmax", "_softmax", "_log_softmax", "_safe_softmax"], softmax),
    **dict.fromkeys(["layer_norm", "rms_norm"], layer_norm),
    "native_layer_norm": native_layer_norm,
    **dict.fromkeys(["_softmax_backward_data", "_log_softmax_backward_data"], softmax_backward),
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "batch_norm": batch_norm,
}
