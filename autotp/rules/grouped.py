"""Products of many matrices in one operator, one per group of rows: the experts of a mixture."""

from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import rule
from autotp.rules.rule import OpRule

ALIGNMENT_BYTES = 16  # what torch._grouped_mm wants of its strides


def grouped_mm(call: Call) -> OpRule:
    """Offsets say where every group ends. Rows are whole; groups may be cut, which masks the rows of other ranks:
    every rank reads all offsets.
    """
    left, right = ("self", "mat2") if "self" in call.node.arguments else ("input", "weight")
    granule = max(1, ALIGNMENT_BYTES // call.specs[0].item_bytes) if left == "self" else 1
    sizes = {"ka": granule, "na": granule, "ma": granule}
    k, n, m = "(k ka)", "(n na)", "(m ma)"
    ranks = len(call.shape(left)), len(call.shape(right))
    linear, aligned = (left, right), " ka na ma"
    if call.index("offs") is None:
        text = f"{left}[g m {k}] {right}[g {k} {n}] bias[g {n}] -> [g m {n}]"
        work = (2.0, "g m n na k ka")
        return rule(call, text, sizes=sizes, summed="k", whole=aligned, additive="bias", linear=linear, work=work)
    if ranks == (2, 2):  # a sum over the rows of every group: a gradient of the others
        text = f"{left}[{m} t] {right}[t {n}] offs[e] bias[g {n}] -> [g {m} {n}]"
        return rule(call, text, sizes=sizes, whole="t g e" + aligned, linear=linear, work=(2.0, "t m ma n na"))
    if ranks == (3, 2):
        text = f"{left}[g m {k}] {right}[{k} t] offs[e] bias[g t] -> [m t]"
        return rule(call, text, sizes=sizes, summed="k", whole="t g e" + aligned, linear=linear, work=(2.0, "t m k ka"))
    text = f"{left}[t {k}] {right}[g {k} {n}] offs[e] bias[g {n}] -> [t {n}]"
    is_masked = call.index("bias") is None
    return rule(
        call,
        text,
        sizes=sizes,
        summed="k g" if is_masked else "k",
        whole=("t e" if is_masked else "t e g") + aligned,
        linear=linear,
        local={"g": "grouped_mm"} if is_masked else None,
        work=(2.0, "t k ka n na"),
    )


RULES: dict[str, RuleFunction] = dict.fromkeys(["_grouped_mm", "grouped_mm_fallback"], grouped_mm)
