"""Matrix functions of a batch of matrices: matrices are handled one by one, so that batch dims may be cut.

The matrices themselves are whole: a factorisation, an inverse or a norm reads all of a matrix for every element it makes.
"""

import math

from autotp.rules.call import Call, RuleFunction
from autotp.rules.indexing import nothing_split
from autotp.rules.notation import Tokens, build, letters_of
from autotp.rules.rule import OpRule


def _batched(num_whole: int) -> RuleFunction:
    """A rule whose first operand has so many whole dims at its end; operands that broadcast over the batch stop it."""

    def function(call: Call) -> OpRule:
        batch = call.specs[0].shape[: max(0, len(call.specs[0].shape) - num_whole)]
        shapes = [spec.shape for spec in call.specs] + list(call.results)
        # some results are empty placeholders unless they are asked for
        copied = [i for i, shape in enumerate(call.results) if shape == (0,) and len(batch) > 0]
        tensors = [s for i, s in enumerate(shapes) if i - len(call.specs) not in copied or i < len(call.specs)]
        if math.prod(batch) == 0 or any(shape[: len(batch)] != batch for shape in tensors):
            return nothing_split(call)
        leading = letters_of(len(batch), "b")
        rows: list[Tokens] = []
        whole: list[str] = []
        for i, shape in enumerate(shapes):
            is_empty = i - len(call.specs) in copied and i >= len(call.specs)
            rest = letters_of(len(shape) if is_empty else len(shape) - len(batch), f"m{i}_")
            whole += [letter for dim in rest for letter in dim]
            rows.append(rest if is_empty else (*leading, *rest))
        count = len(call.specs)
        return build(call, rows[:count], rows[count:], whole=whole, copied=copied)

    return function


MATRICES = """
    cholesky cholesky_inverse cholesky_solve linalg_cholesky linalg_cholesky_ex linalg_cond linalg_det linalg_eig
    linalg_eigh linalg_eigvals linalg_eigvalsh linalg_householder_product linalg_inv linalg_inv_ex linalg_ldl_factor
    linalg_ldl_factor_ex linalg_ldl_solve linalg_lstsq linalg_lu linalg_lu_factor linalg_lu_factor_ex linalg_lu_solve
    linalg_matrix_power linalg_matrix_rank linalg_pinv linalg_qr linalg_slogdet linalg_solve linalg_solve_ex
    linalg_solve_triangular linalg_svd linalg_svdvals logdet lu_solve lu_unpack matrix_exp ormqr pinverse qr svd
    triangular_solve geqrf _lu_with_info inverse det slogdet
    """

RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(MATRICES.split(), _batched(2)),
    "linalg_vander": _batched(1),
}
