"""What a step consists of, and the bytes of parameters: their gradients, and what the optimizer keeps."""

from collections.abc import Sequence
from dataclasses import dataclass

from autotp.errors import AutoTPError
from autotp.graph import ITEM_BYTES

# Tensors of the parameter's shape that an optimizer keeps (torch.optim with its default arguments).
OPTIMIZER_STATES = {"none": 0, "sgd": 0, "adamw": 2}


def num_states(optimizer: str) -> int:
    """State tensors per parameter. Raises AutoTPError for an unknown optimizer."""
    if optimizer not in OPTIMIZER_STATES:
        raise AutoTPError(f"unknown optimizer {optimizer!r}: known are {', '.join(OPTIMIZER_STATES)}")
    return OPTIMIZER_STATES[optimizer]


def bytes_of(dtype: str) -> int:
    """Bytes of one element. Raises AutoTPError for a dtype that is not torch's name of one."""
    if dtype not in ITEM_BYTES:
        raise AutoTPError(f"unknown dtype {dtype!r}: known are {', '.join(ITEM_BYTES)}")
    return ITEM_BYTES[dtype]


@dataclass(frozen=True, slots=True)
class Training:
    """What a step consists of.

    `optimizer`: none, sgd or adamw. `state_dtype`, `gradient_dtype`: of its state and of gradients, the parameter's where
    None. `has_master`: the optimizer also keeps a float32 copy of parameters of another dtype. `accumulation`: forwards
    and backwards (of the example's batch each) per optimizer step. `checkpointing`: what is computed again in backward:
    `none`, `selective` (the core of attention) or `full` (every block). `is_compiled`: pointwise operators are fused.
    `reduce_dtype`: in which partial sums in half precision are added up over ranks, their own where None.
    `overlap`: parameters' gradients are added up over ranks beside the rest of the backward pass; `reduce_once`: once per
    step and not once per micro-batch, which takes `module.no_sync()` around the others.
    """

    mode: str = "train"
    optimizer: str = "adamw"
    state_dtype: str | None = None
    gradient_dtype: str | None = None
    has_master: bool = False
    accumulation: int = 1
    checkpointing: str = "none"
    is_compiled: bool = False
    reduce_dtype: str | None = None
    overlap: bool = False
    reduce_once: bool = False

    @property
    def num_reductions(self) -> int:
        """How many times per step parameters' gradients are added up over ranks."""
        return 1 if self.reduce_once else self.accumulation


def optimizer_state_bytes(numel: int, dtype: str, training: Training) -> int:
    """Bytes that the optimizer keeps for `numel` elements of a trained parameter."""
    state = num_states(training.optimizer) * bytes_of(training.state_dtype or dtype)
    has_master = training.has_master and training.optimizer != "none" and dtype != "float32"
    return numel * (state + has_master * ITEM_BYTES["float32"])


def step_transient_bytes(parameters: Sequence[tuple[int, str]], training: Training, device_kind: str) -> int:
    """Bytes that the step of an optimizer holds for a moment, for parameters of (elements, dtype).

    AdamW makes the root of the second moment: of all parameters at once where torch.optim's `foreach` is the default, on
    a GPU; of one at a time, twice, on a CPU. SGD updates in place.
    """
    if training.optimizer != "adamw":
        return 0
    sizes = [numel * bytes_of(training.state_dtype or dtype) for numel, dtype in parameters]
    return sum(sizes) if device_kind == "cuda" else 2 * max(sizes, default=0)


def parameter_parts(numel: int, dtype: str, training: Training, *, trainable: bool) -> dict[str, int]:
    """Bytes of `numel` local elements: `parameters`, `gradients`, `optimizer` (its state)."""
    is_trained = trainable and training.mode == "train"
    return {
        "parameters": numel * bytes_of(dtype),
        "gradients": numel * bytes_of(training.gradient_dtype or dtype) * is_trained,
        "optimizer": optimizer_state_bytes(numel, dtype, training) * is_trained,
    }


def parameter_bytes(numel: int, dtype: str, training: Training, *, trainable: bool) -> int:
    """The sum of `parameter_parts`."""
    return sum(parameter_parts(numel, dtype, training, trainable=trainable).values())
