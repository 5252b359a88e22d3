"""Sums of looked-up rows."""

from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import rule
from autotp.rules.rule import OpRule

MAX = 2  # torch's number of `mode`; 0 is sum, 1 is mean


def embedding_bag(call: Call) -> OpRule:
    """A cut of the vocabulary masks the rows of other ranks: partial sums. Where bags end is a matter of all indices.

    The other three results are what the backward needs: the same on every rank.
    """
    is_max = call.literal("mode", 0) == MAX
    by_frequency = call.literal("scale_grad_by_freq", False) or call.literal("sparse", False)
    largest = "[b2 d]" if is_max and len(call.results[3]) == 2 else "[b2]"
    return rule(
        call,
        f"weight[v d] indices[*i] offsets[o] per_sample_weights[*i] -> [b d][i2][b1]{largest}",
        summed="" if is_max or by_frequency else "v",
        whole="*i o b i2 b1 b2" + " v" * (is_max or by_frequency),
        local={"v": "embedding_bag"},
        copied=(1, 2, 3),
    )


RULES: dict[str, RuleFunction] = {"embedding_bag": embedding_bag}
