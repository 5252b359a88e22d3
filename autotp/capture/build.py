"""Build a model of any size without its memory: parameters are fake, buffers real.

Parameters go to the meta device as they are registered, so that initialisation costs nothing, while buffers (rotary
tables, masks, running statistics) keep their values; then meta parameters become fake tensors of the device the plan
will run on, because models branch on the device of their parameters.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakIdKeyDictionary

from autotp.errors import CaptureError


def build_fake(
    build: Callable[[], nn.Module], dtype: torch.dtype | None = None, device: str = "cpu"
) -> tuple[nn.Module, FakeTensorMode]:
    """The model that `build` makes, with fake parameters on `device`, and the mode they belong to.

    `dtype` becomes the default dtype while building; afterwards float parameters and float buffers of the state_dict
    are cast to it. Other float buffers keep theirs: rotary tables lose their meaning in bfloat16. Tied parameters stay
    tied.
    Raises CaptureError where this torch cannot have tensors of `device`.
    """
    check_device(device)
    with default_dtype(dtype), parameters_on_meta():
        model = build()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake: dict[int, nn.Parameter] = {}
    with mode:
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    if id(parameter) not in fake:
                        fake[id(parameter)] = _fake_parameter(parameter, dtype, device)
                    module._parameters[name] = fake[id(parameter)]
    _place_buffers(model, dtype, device)
    return model, mode


def fake_copy(model: nn.Module) -> tuple[nn.Module, FakeTensorMode]:
    """A copy of a model that holds nothing but its buffers, and the mode of its fake parameters.

    A model whose parameters are fake already is returned as it is.
    """
    parameters = list(model.parameters())
    mode = next((p.fake_mode for p in parameters if isinstance(p, FakeTensor)), None)
    if mode is not None:
        return model, mode
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        fake = {id(p): _fake_parameter(p, None, str(p.device)) for p in parameters}
    copied = copy.deepcopy(model, dict(fake))  # what the memo has is not copied
    return copied, mode


def check_device(device: str) -> None:
    """Raise CaptureError where a tensor on this device, fake ones included, would abort the process."""
    kind = torch.device(device).type
    if kind == "cuda" and not torch.cuda.is_available():
        raise CaptureError(
            "cannot capture for CUDA: this torch sees no CUDA device; capture for the device cpu instead"
        )


@contextmanager
def default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    """Tensors are made in `dtype` by default inside; None changes nothing."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype or before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Parameters lose their storage as they are registered; buffers are untouched."""
    register = nn.Module.register_parameter
    # A parameter registered twice is tied, and must become one meta parameter. Keys are weak: nothing is kept alive.
    on_meta = WeakIdKeyDictionary()

    def to_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, param)
        if param is not None and param.device.type != "meta":
            if param not in on_meta:
                on_meta[param] = nn.Parameter(param.data.to("meta"), requires_grad=param.requires_grad)
            self._parameters[name] = on_meta[param]

    nn.Module.register_parameter = to_meta  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _fake_parameter(parameter: nn.Parameter, dtype: torch.dtype | None, device: str) -> nn.Parameter:
    dtype = dtype if dtype and parameter.is_floating_point() else parameter.dtype
    data = torch.empty_strided(parameter.shape, parameter.stride(), dtype=dtype, device=device)
    return nn.Parameter(data, requires_grad=parameter.requires_grad)


def _place_buffers(model: nn.Module, dtype: torch.dtype | None, device: str) -> None:
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                is_state = name not in module._non_persistent_buffers_set
                to = dtype if dtype and is_state and buffer.is_floating_point() else buffer.dtype
                module._buffers[name] = buffer.to(device=device, dtype=to)


def cast_floats(inputs: Any, dtype: torch.dtype | None) -> Any:
    """The same nested inputs with every float tensor in `dtype`; None changes nothing."""
    return pytree.tree_map_only(Tensor, lambda t: t.to(dtype) if dtype and t.is_floating_point() else t, inputs)


def device_of(model: nn.Module) -> torch.device:
    """The device of the parameters, or cpu where there are none."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def fake_inputs(inputs: Mapping[str, Any], mode: FakeTensorMode, device: torch.device) -> dict[str, Any]:
    """The same inputs as fake tensors on `device`: shapes and dtypes only."""

    def fake(tensor: Tensor) -> Tensor:
        with mode:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

    return dict(pytree.tree_map_only(Tensor, fake, dict(inputs)))
