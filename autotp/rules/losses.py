"""Losses. A mean is a sum over a count that all ranks agree on, never a local mean."""

from autotp.graph import FLOATS
from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import rule
from autotp.rules.rule import Inner, OpRule

MEAN = 1  # torch's numbers of `reduction`; 0 is none, 2 is sum


def cross_entropy(call: Call) -> OpRule:
    """Classes may be cut (three sums inside), tokens too; `weight` and class probabilities keep classes whole."""
    reduction = call.literal("reduction", MEAN)
    has_batch = len(call.shape("self")) > 1
    soft = call.specs[call.index("target") or 1].dtype in FLOATS
    row = "n c *s" if has_batch else "c"
    target = row if soft else row.replace("c", "").strip()
    tokens = ("n", "*s")
    result = target if not soft else row.replace("c", "")
    text = f"self[{row}] target[{target}] weight[c] -> [{result if reduction == 0 else ''}]"
    item = max(4, call.specs[0].item_bytes)
    each = ("n", *_run(call))
    classes = (Inner("all_reduce", "forward", each, item), Inner("all_reduce", "forward", ("sums", *each), item))
    inner: dict[str, tuple[Inner, ...]] = {} if soft or call.index("weight") is not None else {"c": classes}
    local = {"c": "cross_entropy"} if inner else {}
    if reduction == MEAN:
        local |= dict.fromkeys(tokens, "cross_entropy")
        if not soft:
            inner |= dict.fromkeys(tokens, (Inner("all_reduce", "forward", (), item),))
    return rule(
        call,
        text,
        sizes={"sums": 3 if call.literal("label_smoothing", 0.0) else 2},
        summed="" if reduction == 0 else " ".join(tokens),
        whole="" if "c" in inner else "c",
        inner=inner,
        local=local,
    )


def _run(call: Call) -> tuple[str, ...]:
    return tuple(f"s{k}" for k in range(len(call.specs[0].shape) - 2))


def nll_loss(call: Call) -> OpRule:
    reduction = call.literal("reduction", MEAN)
    row, target = ("n c *s", "n *s") if len(call.shape("self")) > 1 else ("c", "")
    tokens = ("n", "*s")
    is_mean = reduction == MEAN
    return rule(
        call,
        f"self[{row}] target[{target}] weight[c] -> [{target if reduction == 0 else ''}]",
        summed="" if reduction == 0 else "n *s",
        whole="c",
        inner=dict.fromkeys(tokens, (Inner("all_reduce", "forward", (), 4),)) if is_mean else None,
        local=dict.fromkeys(tokens, "nll_loss") if is_mean else None,
    )


def elementwise_loss(call: Call) -> OpRule:
    """A loss of every element, then none, mean or sum of all."""
    reduction = call.literal("reduction", MEAN)
    text = "self[...] input[...] input1[...] input2[...] target[...] weight[...] pos_weight[...] -> "
    if reduction == 0:
        return rule(call, text + "[...]")
    return rule(call, text + "[]", summed="*i", local={"*i": "mean_loss"} if reduction == MEAN else None)


RULES: dict[str, RuleFunction] = {
    "cross_entropy_loss": cross_entropy,
    **dict.fromkeys(["nll_loss", "nll_loss_nd"], nll_loss),
    **dict.fromkeys(
        [
            "mse_loss",
            "l1_loss",
            "smooth_l1_loss",
            "huber_loss",
            "kl_div",
            "binary_cross_entropy",
            "binary_cross_entropy_with_logits",
            "soft_margin_loss",
            *("margin_ranking_loss", "hinge_embedding_loss", "poisson_nll_loss"),
        ],
        elementwise_loss,
    ),
}
