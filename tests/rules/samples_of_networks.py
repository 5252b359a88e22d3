"""Samples of operators that op_db has not: recurrent networks, groups of matrices, and what convolutional models use."""

import torch
import transformers.integrations.moe  # noqa: F401 - defines its operator for grouped products
from rules_samples import draw, f, ints, mask, op, positive
from torch import Tensor

from autotp.check.sample import Sample


def weights(gates: int, width: int, hidden: int, layers: int, directions: int = 1) -> list[Tensor]:
    """Parameters as torch.nn lists them: of every layer and direction input, hidden, and two biases."""
    found = []
    for layer in range(layers):
        inputs = width if layer == 0 else hidden * directions
        for _ in range(directions):
            found += [f(gates * hidden, inputs), f(gates * hidden, hidden), f(gates * hidden), f(gates * hidden)]
    return found


def aligned(*shape: int) -> Tensor:
    """torch's grouped product knows no float64."""
    return torch.randn(shape, dtype=torch.float32)


RECURRENT = [
    op("lstm.input", f(5, 4, 3), [f(2, 4, 6), f(2, 4, 6)], weights(4, 3, 6, 2), True, 2, 0.0, True, False, False),
    op("lstm.input", f(4, 5, 3), [f(2, 4, 6), f(2, 4, 6)], weights(4, 3, 6, 1, 2), True, 1, 0.0, True, True, True),
    draw("lstm.input", f(5, 4, 3), [f(2, 4, 6), f(2, 4, 6)], weights(4, 3, 6, 2), True, 2, 0.5, True, False, False),
    op("gru.input", f(5, 4, 3), f(1, 4, 6), weights(3, 3, 6, 1), True, 1, 0.0, True, False, False),
    op("gru.input", f(4, 5, 3), f(1, 4, 6), weights(3, 3, 6, 1), True, 1, 0.0, True, False, True),
    op("rnn_tanh.input", f(5, 4, 3), f(1, 4, 6), weights(1, 3, 6, 1), True, 1, 0.0, True, False, False),
    op("rnn_relu.input", f(5, 4, 3), f(1, 4, 6), weights(1, 3, 6, 1), True, 1, 0.0, True, False, False),
    op("lstm_cell", f(4, 3), [f(4, 6), f(4, 6)], *weights(4, 3, 6, 1)),
    op("gru_cell", f(4, 3), f(4, 6), *weights(3, 3, 6, 1)),
    op("rnn_tanh_cell", f(4, 3), f(4, 6), *weights(1, 3, 6, 1)),
    op("rnn_relu_cell", f(4, 3), f(4, 6), *weights(1, 3, 6, 1)),
]

ENDS = torch.tensor([3, 3, 10, 16], dtype=torch.int32)  # one group is empty
GROUPED = [
    op("_grouped_mm", aligned(16, 24), aligned(4, 24, 32), ENDS, min_cuts=3),
    Sample("transformers.grouped_mm_fallback.default", (f(16, 3), f(4, 3, 5), ENDS), min_cuts=3),
    op("_grouped_mm", aligned(24, 16), aligned(16, 32), ENDS, min_cuts=2),
    op("_grouped_mm", aligned(4, 8, 24), aligned(4, 24, 32), min_cuts=4),
]

BAGS = torch.tensor([0, 2, 5])
OTHERS = [
    op("_weight_norm", f(4, 3, 2), f(4, 1, 1)),
    op("_weight_norm_interface", f(4, 3, 2), f(4, 1, 1)),
    op("chain_matmul", [f(3, 4), f(4, 5), f(5, 2)], min_cuts=4),
    op("col2im", f(2, 12, 4), (3, 3), (2, 2), (1, 1), (0, 0), (1, 1), min_cuts=2),
    op("native_channel_shuffle", f(2, 6, 2, 2), 3, constant=(0,), min_cuts=3),
    *(op(f"reflection_pad{n}d", f(2, 3, *(4,) * n), (1, 1) * n, min_cuts=2) for n in (1, 2, 3)),
    *(op(f"replication_pad{n}d", f(2, 3, *(4,) * n), (1, 1) * n, min_cuts=2) for n in (1, 2, 3)),
    op("upsample_nearest3d", f(2, 3, 2, 2, 2), (4, 4, 4), min_cuts=2),
    op("index_put", f(4, 5), [mask(4, 5)], torch.tensor(0.5, dtype=torch.float64), min_cuts=2),
    op("index_put", f(4, 5), [mask(4)], torch.tensor(0.5, dtype=torch.float64), min_cuts=2),
    op("index_put", f(4, 5), [None, ints(5, 3)], f(4, 3), True, min_cuts=2),
    op("instance_norm", f(4, 3, 5), f(3), f(3), f(3), positive(3), True, 0.1, 1e-5, False, mutated=(3, 4)),
    op("instance_norm", f(4, 3, 5), f(3), f(3), f(3), positive(3), False, 0.1, 1e-5, False, mutated=(3, 4), min_cuts=3),
    op("im2col", f(2, 3, 4, 4), (2, 2), (1, 1), (0, 0), (1, 1), min_cuts=2),
    op("conv3d.padding", f(2, 3, 4, 4, 4), f(2, 3, 3, 3, 3), f(2), (1, 1, 1), "same", min_cuts=3),
    op("dstack", [f(2, 3, 4), f(2, 3, 4)], min_cuts=3),
    op("gradient.scalarint", f(3, 4), dim=0),
    op("gradient.scalarrayint", f(3, 4), spacing=[2.0], dim=1),
    op("linalg_lu_solve", f(3, 2, 2), torch.tensor([[1, 2]] * 3, dtype=torch.int32), f(3, 2, 4)),
    op("linalg_solve_triangular", f(3, 2, 2).triu() + 2 * torch.eye(2), f(3, 2, 4), upper=True),
    op("ormqr", f(3, 4, 2), f(3, 2), f(3, 4, 5), constant=(0, 1, 2)),
    op("svd", f(3, 4, 2)),
    op("grid_sampler_2d", f(2, 3, 4, 4), f(2, 3, 2, 2).tanh(), 0, 0, False, min_cuts=4),
    op("grid_sampler_3d", f(2, 3, 3, 3, 3), f(2, 2, 2, 2, 3).tanh(), 0, 0, False, min_cuts=4),
    op("cross", f(5, 3, 2), f(5, 3, 2), min_cuts=2),
    op("glu", f(3, 8, 2), 1, min_cuts=3),
    op("embedding_bag.padding_idx", f(7, 4), ints(7, 9), BAGS, False, 0, False, None, False, 2, min_cuts=2),
    op("embedding_bag.padding_idx", f(7, 4), ints(7, 9), BAGS, False, 1, False, None, False, -1, min_cuts=2),
    *(draw(name, torch.ones(8, 12)) for name in ("uniform", "exponential", "normal_functional")),
    *(draw(name, torch.ones(8, 12)) for name in ("cauchy", "log_normal", "random")),
    draw("geometric", torch.ones(8, 12), 0.5),
    draw("poisson", torch.full((8, 12), 3.0)),
    draw("binomial", torch.full((8, 12), 9.0), torch.full((8, 12), 0.5)),
    draw("_standard_gamma", torch.full((8, 12), 2.0)),
    Sample("aten.randperm.default", (7,), shapes_only=True, min_cuts=0),
    *(op(name, f(3, 2, 2)) for name in ("det", "inverse", "slogdet")),
    op("_log_softmax_backward_data", f(2, 3), f(2, 3), 1, torch.float64, constant=(0, 1)),
    op("_prelu_kernel", f(2, 3), f(3), min_cuts=2),
    op("_unsafe_index.Tensor", f(4, 5, 3), [ints(4, 2, 3)], min_cuts=4),
    op("_unsafe_index_put", f(4, 5), [None, ints(5, 3)], f(4, 3), True, min_cuts=2),
    op("_upsample_nearest_exact2d", f(2, 3, 2, 2), (4, 4), min_cuts=2),
    op("_upsample_nearest_exact3d", f(2, 3, 2, 2, 2), (4, 4, 4), min_cuts=2),
    op("_upsample_bicubic2d_aa", f(2, 3, 2, 2), (4, 4), False, min_cuts=2),
    op("select_copy.int", f(2, 3, 4), 1, -1, min_cuts=2),
    op("slice_copy.Tensor", f(2, 6), 1, 0, 3, tiles=(0, 3, 6), min_cuts=2),
    op("split_copy.Tensor", f(2, 6), 2, -1, min_cuts=2),
    op("unsafe_split_with_sizes", f(2, 9), (4, 2, 3), -1, min_cuts=2),
    op("unique_dim", ints(3, 6), 0, min_cuts=0),
    *(op(f"{name}_window", 5, min_cuts=0) for name in ("hann", "hamming", "bartlett", "blackman", "kaiser")),
    draw("alpha_dropout", torch.ones(8, 12), 0.5, True),
    draw("feature_dropout", torch.ones(8, 12, 2), 0.5, True),
    draw("multinomial", torch.ones(8, 12), 6),
]  # fmt: skip

SAMPLES = [*RECURRENT, *GROUPED, *OTHERS]
