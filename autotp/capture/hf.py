"""What Hugging Face models need: loading from a config, and a capture without caches and needless masks.

This module imports transformers; it is loaded by name, and only where a model of theirs is at hand.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import transformers
from torch import Tensor, nn
from transformers import masking_utils

from autotp.errors import CaptureError


def is_pretrained(model: nn.Module) -> bool:
    return any(isinstance(module, transformers.PreTrainedModel) for module in model.modules())


@contextmanager
def plain_attention(model: nn.Module, has_positions: bool) -> Iterator[None]:
    """While capturing: no cache, and causal attention says `is_causal` instead of carrying a mask of S x S.

    transformers always builds the mask under export, because an exported program may be called with other lengths and
    other positions. Ours is not: shapes are checked, and where the caller gives no positions they are 0 ... S-1, so no
    sequences are packed. Sliding windows and padding masks are still built by their own code.
    """
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, transformers.PreTrainedModel)}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(masking_utils, "is_torchdynamo_exporting", lambda: False))
        if isinstance(model, transformers.PreTrainedModel) and not has_positions:
            stack.enter_context(mock.patch.object(masking_utils, "find_packed_sequence_indices", lambda _: None))
        for config in configs.values():
            if getattr(config, "use_cache", False):
                stack.enter_context(mock.patch.object(config, "use_cache", False))
        yield


def causal_lm(path: str) -> nn.Module:
    """An untrained causal language model of this config (a config.json or a folder with one), in the config's dtype."""
    config = _config(path)
    try:
        return transformers.AutoModelForCausalLM.from_config(config)  # type: ignore[no-any-return, no-untyped-call]
    except ValueError as error:
        raise CaptureError(f"{path}: transformers has no causal language model for it: {error}") from error


def causal_lm_inputs(path: str, batch: int | None, seq: int | None) -> dict[str, Tensor]:
    """Random tokens and labels; 1 sequence of min(2048, the model's positions) by default."""
    config = _config(path).get_text_config()
    longest = getattr(config, "max_position_embeddings", None) or 2048
    shape = (batch or 1, seq or min(2048, longest))
    if shape[1] > longest:
        raise CaptureError(f"{path}: a sequence of {shape[1]} is longer than the model's {longest} positions")
    ids = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids.clone()}


def _config(path: str) -> Any:
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    name = "config.json" if os.path.isdir(path) else os.path.basename(path)
    try:
        return transformers.AutoConfig.from_pretrained(folder, _configuration_file=name)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise CaptureError(f"{path}: transformers cannot read this config: {error}") from error
