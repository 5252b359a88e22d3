"""Tracing a model by torch.export, and what to say when that fails."""

import inspect
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.export import ExportedProgram, _trace

from autotp.capture.call import register_dataclasses, unbind
from autotp.capture.failures import explain, place_of
from autotp.capture.model_file import load_hf
from autotp.capture.own_gradients import OwnGradientError, checked
from autotp.errors import CaptureError

# They tell what the exception tells as well, with a print of everything traced so far.
TALKERS = ("torch.export._trace", "torch.fx.experimental.symbolic_shapes")


def trace(
    model: nn.Module,
    signature: inspect.Signature,
    values: Mapping[str, Any],
    *,
    has_gradients: bool,
    is_training: bool,
) -> ExportedProgram:
    """Export a model called with these named values, its training flags on or off.

    Raises CaptureError, saying where, when that fails.
    """
    args, kwargs = unbind(signature, values)
    with (
        _training_flags(model, is_training),
        _hugging_face(model, values),
        _quiet(),
        _known_results(model),
        checked(),
        torch.set_grad_enabled(has_gradients),
        torch.autocast("cpu", enabled=False),  # around a capture it would be half in the graph
        torch.autocast("cuda", enabled=False),
    ):
        try:
            return torch.export.export(model, args, kwargs, strict=False)
        except OwnGradientError as error:
            raise CaptureError(
                f"the model cannot be captured{place_of(model, error.__traceback__)}: {error}"
            ) from error
        except Exception as error:
            raise CaptureError(explain(model, error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch.export says on the way, and without questions to tensors that it cannot answer."""
    with ExitStack() as stack:
        # It prints the graph traced so far when it fails.
        stack.enter_context(mock.patch.object(_trace, "print", _say_nothing, create=True))
        for name in TALKERS:
            stack.enter_context(mock.patch.object(logging.getLogger(name), "disabled", True))
        # nn.Transformer compares its mask with a causal one to save time; without the answer it uses the mask.
        stack.enter_context(mock.patch.object(nn.modules.transformer, "_detect_is_causal_mask", _as_told))
        # Distributions look whether their parameters are allowed, which changes no number.
        stack.enter_context(mock.patch.object(torch.distributions.Distribution, "_validate_args", False))
        stack.enter_context(warnings.catch_warnings())
        # nn.LSTM sets its list of weights, which are all parameters, while it runs.
        warnings.filterwarnings("ignore", message="The tensor attributes? .*_flat_weights")
        yield


@contextmanager
def _known_results(model: nn.Module) -> Iterator[None]:
    """Dataclasses that the model returns become known before torch.export looks into them."""
    handle = model.register_forward_hook(lambda *call: register_dataclasses(call[-1]))
    try:
        yield
    finally:
        handle.remove()


def _say_nothing(*args: Any, **kwargs: Any) -> None:
    pass


def _as_told(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
    return bool(is_causal)


@contextmanager
def _training_flags(model: nn.Module, is_training: bool) -> Iterator[None]:
    """In training or evaluation while capturing. A model in training keeps its modules that are not (a frozen norm)."""
    flags = {module: module.training for module in model.modules()}
    if model.training != is_training:
        model.train(is_training)
    try:
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag


def _hugging_face(model: nn.Module, values: Mapping[str, Any]) -> AbstractContextManager[None]:
    if "transformers" not in sys.modules:
        return nullcontext()
    hf = load_hf("a Hugging Face model")
    if not hf.is_pretrained(model):
        return nullcontext()
    return hf.plain_attention(model, "position_ids" in values)  # type: ignore[no-any-return]
