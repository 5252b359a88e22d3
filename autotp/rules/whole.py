"""Operators that cannot be split at all, and why."""

from autotp.graph import Node
from autotp.rules.call import Call, RuleFunction
from autotp.rules.indexing import nothing_split
from autotp.rules.rule import OpRule

REASONS: dict[str, str] = {
    "the shape of the result depends on values": """
        argwhere nonzero nonzero_numpy bincount masked_select _unique2 unique_consecutive unique_dim combinations""",
    "counts over all elements": "histc histogram hash_tensor nonzero_static",
    "elements are addressed by their position in memory": """
        as_strided as_strided_copy as_strided_scatter empty_strided new_empty_strided empty_permuted""",
    "elements are addressed by their position in the whole tensor": "put masked_scatter",
    "values depend on the position: every rank makes all of it, and a slice costs nothing": """
        arange linspace logspace eye scalar_tensor tril_indices triu_indices hann_window hamming_window
        bartlett_window blackman_window kaiser_window""",
    "every element of the result reads all of the operand": """
        cov corrcoef pdist dist linalg_tensorinv linalg_tensorsolve trace""",
    "pieces of several operands alternate in the result": "block_diag cartesian_prod",
    "segments end where another tensor says": "segment_reduce",
    "a form for one kernel, which torch.export does not emit": """
        native_batch_norm native_group_norm max_pool2d_with_indices_backward _chunk_cat
        _linear_cross_entropy_batch_chunked _linear_cross_entropy_batch_chunked_no_reduction""",
}
WHOLE: dict[str, str] = {name: reason for reason, names in REASONS.items() for name in names.split()}
# These have rules that leave every dim whole, or all that torch's samples have.
OTHERS: dict[str, str] = {
    "diag": "positions in two dims are compared",
    "randperm": "one draw orders all elements",
    **dict.fromkeys(
        [
            *(
                "max",
                "min",
                "amax",
                "amin",
                "argmax",
                "argmin",
                "any",
                "all",
                "prod",
                "var",
                "std",
                "var_mean",
                "std_mean",
            ),
            *("median", "nanmedian", "nanmean", "quantile", "nanquantile", "linalg_norm", "linalg_matrix_norm"),
        ],
        "what it reduces is whole, and here that is everything",
    ),
    **dict.fromkeys(["tensor_split", "repeat_interleave"], "where parts begin is in a tensor"),
    **dict.fromkeys(["atleast_1d", "atleast_2d", "atleast_3d"], "several tensors of unlike dims at once"),
    "ctc_loss": "lengths given as literals say where every sample begins",
    "diagflat": "positions in two dims are compared",
}


def drawn(call: Call) -> OpRule:
    """Drawn as a whole, under a seed that all ranks share."""
    found = nothing_split(call)
    return OpRule(found.operands, found.results, found.extents, whole=found.whole, local={"*": "seeded"})


RULES: dict[str, RuleFunction] = {**dict.fromkeys(WHOLE, nothing_split), "randperm": drawn}


def reason_of(op: str) -> str:
    """Why an operator, by its full name, is never split; empty for one that is, or that has no rule."""
    name = Node("", "op", op).short_op
    return WHOLE.get(name, OTHERS.get(name, ""))
