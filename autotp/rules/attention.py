"""Attention in one operator."""

from dataclasses import replace

from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import rule
from autotp.rules.rule import OpRule


def attention(call: Call) -> OpRule:
    """Keys are whole, queries too where the mask is causal; grouped queries are heads times group.

    Query heads can also be cut without regard to groups, by ranks that share key heads: more ranks than key heads.
    """
    grouped = bool(call.literal("enable_gqa", False))
    has_heads = len(call.shape("query")) > 2
    heads, head = ("(h g)", "h") if grouped else ("h", "h") if has_heads else ("", "")
    text = (
        f"query[... {heads} q d] key[... {head} k d] value[... {head} k e] attn_mask[... {heads} q k] "
        f"-> [... {heads} q e]"
    )
    random = call.literal("dropout_p", 0.0) > 0
    causal = bool(call.literal("is_causal", False))
    shapes = {name: call.shape(name) for name in ("query", "key", "value")}
    batch = "*i h g q k"
    # 2 operations for every element of q kᵀ (d terms) and of p v (e terms)
    width = shapes["query"][-1] + shapes["value"][-1]
    found = rule(
        call,
        text,
        sizes={"h": shapes["key"][-3]} if grouped else None,
        # draws over q k are shared by all columns of the values
        whole="k d" + " q" * causal + " e" * random,
        linear=() if random else ("value",),
        local={"*": "seeded"} if random else None,
        work=(2.0 * width, batch),
    )
    is_shared = grouped and {"h", "g"} <= set(found.extents)
    return replace(found, runs=("h*g",), local={**found.local, "h*g": "shared_heads"}) if is_shared else found


RULES: dict[str, RuleFunction] = {"scaled_dot_product_attention": attention}
