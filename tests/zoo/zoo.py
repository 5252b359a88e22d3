"""All models of the zoo, by name."""

import zoo_attention
import zoo_decoders
import zoo_encoders
import zoo_examples
import zoo_further
import zoo_others
from zoo_case import Case

ZOO: dict[str, Case] = {
    case.name: case
    for module in (zoo_decoders, zoo_encoders, zoo_attention, zoo_others, zoo_further, zoo_examples)
    for case in module.CASES
}

# Small ones of every kind, which every test run verifies.
FAST = (
    "gpt2-padded", "examples/moe", "convnext", "alibi-einsum", "diffusion-transformer", "perceiver", "graph-attention",
    "unet", "wavenet", "gru", "recommender", "two-towers",
)  # fmt: skip
