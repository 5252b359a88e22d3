"""Losses of vectors: one number per sample, which is made of a whole vector; then none, mean or sum of all samples."""

from autotp.rules.call import Call, RuleFunction
from autotp.rules.indexing import nothing_split
from autotp.rules.losses import MEAN
from autotp.rules.notation import rule
from autotp.rules.rule import OpRule


def _per_sample(call: Call, text: str, samples: str, whole: str, local: str = "mean_loss") -> OpRule:
    """`samples`: letters of the samples; they are in the result only where nothing is reduced."""
    reduction = call.literal("reduction", MEAN)
    if reduction == 0:
        return rule(call, f"{text} -> [{samples.replace('*i', '...')}]", whole=whole)
    local_ops = dict.fromkeys(samples.split(), local) if reduction == MEAN else None
    return rule(call, f"{text} -> []", summed=samples, whole=whole, local=local_ops)


def cosine_embedding(call: Call) -> OpRule:
    n = "n " if len(call.shape("target")) else ""
    return _per_sample(call, f"input1[{n}d] input2[{n}d] target[{n}]", n.strip(), "d")


def triplet_margin(call: Call) -> OpRule:
    return _per_sample(call, "anchor[... d] positive[... d] negative[... d]", "*i", "d")


def multi_margin(call: Call) -> OpRule:
    n = "n " if len(call.shape("self")) == 2 else ""
    if not n and len(call.shape("target")):
        return nothing_split(call)
    return _per_sample(call, f"self[{n}c] target[{n}] weight[c]", n.strip(), "c")


def multilabel_margin(call: Call) -> OpRule:
    n = "n " if len(call.shape("self")) == 2 else ""
    return _per_sample(call, f"self[{n}c] target[{n}c]", n.strip(), "c")


def ctc(call: Call) -> OpRule:
    """An alignment reads all time steps and classes of a sample. Lengths given as literals, or targets that are joined
    in one vector, say where every sample begins: then samples are whole too."""
    if call.index("input_lengths") is None or len(call.shape("targets")) != 2 or len(call.shape("log_probs")) != 3:
        return nothing_split(call)
    text = "log_probs[t n c] targets[n s] input_lengths[n] target_lengths[n]"
    return _per_sample(call, text, "n", "t c s", local="ctc_mean")


RULES: dict[str, RuleFunction] = {
    "cosine_embedding_loss": cosine_embedding,
    "triplet_margin_loss": triplet_margin,
    "multi_margin_loss": multi_margin,
    "multilabel_margin_loss": multilabel_margin,
    "ctc_loss": ctc,
}
