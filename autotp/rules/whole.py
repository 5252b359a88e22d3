"""Operators that cannot be split at all, and why."""

from autotp.graph import Node
from autotp.rules.call import RuleFunction
from autotp.rules.indexing import nothing_split

REASONS: dict[str, str] = {
    "the shape of the result depends on values": """
        argwhere nonzero nonzero_numpy bincount masked_select unique _unique2 unique_consecutive unique_dim combinations
        to_sparse""",
    "counts over all elements": "histc histogram histogramdd histogramdd_bin_edges hash_tensor nonzero_static",
    "elements are addressed by their position in memory": """
        as_strided as_strided_copy as_strided_scatter empty_strided new_empty_strided empty_permuted""",
    "elements are addressed by their position in the whole tensor": "put masked_scatter",
    "values depend on the position: every rank makes all of it, and a slice costs nothing": """
        arange linspace logspace eye scalar_tensor tril_indices triu_indices range vander hann_window hamming_window
        bartlett_window blackman_window kaiser_window""",
    "one draw orders all elements": "randperm",
    "every element of the result reads all of the operand": """
        cov corrcoef pdist dist linalg_tensorinv linalg_tensorsolve trace nuclear_norm""",
    "pieces of several operands alternate in the result": "block_diag cartesian_prod",
    "segments end where another tensor says": "segment_reduce",
    "elements keep their bytes, not their number": "view_as_complex_copy",
    "a form for one kernel, which torch.export does not emit": """
        native_batch_norm native_group_norm max_pool2d_with_indices_backward _chunk_cat
        _linear_cross_entropy_batch_chunked _linear_cross_entropy_batch_chunked_no_reduction""",
}
WHOLE: dict[str, str] = {name: reason for reason, names in REASONS.items() for name in names.split()}
# These have rules that leave every dim whole, or all that torch's samples have.
OTHERS: dict[str, str] = {
    "diag": "positions in two dims are compared",
    "diagflat": "positions in two dims are compared",
}
RULES: dict[str, RuleFunction] = dict.fromkeys(WHOLE, nothing_split)


def reason_of(op: str) -> str:
    """Why an operator, by its full name, is never split; empty for one that is, or that has no rule."""
    name = Node("", "op", op).short_op
    return WHOLE.get(name, OTHERS.get(name, ""))
