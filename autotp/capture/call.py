"""How a model is called: nested arguments to a flat list of tensors and back, whatever the order of keywords."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from autotp.errors import CaptureError


@dataclass(frozen=True)
class Slot:
    """Stands for the `index`-th flat tensor inside a structure."""

    index: int


@dataclass(frozen=True)
class CallSpec:
    """The inputs a model was captured with: names, structure, shapes; values of those that are not tensors."""

    signature: inspect.Signature
    names: tuple[str, ...]
    spec: pytree.TreeSpec
    leaves: tuple[Any, ...]  # a tensor's (shape, dtype), or the value of what is not a tensor
    paths: tuple[str, ...]  # where every leaf is, for messages
    is_tensor: tuple[bool, ...]
    needs_gradient: tuple[bool, ...]  # of every tensor

    @classmethod
    def of(cls, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> "CallSpec":
        values = bind(signature, args, kwargs)
        register_dataclasses(values)
        pairs, spec = pytree.tree_flatten_with_path(values)
        return cls(
            signature,
            tuple(values),
            spec,
            tuple((tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf for _, leaf in pairs),
            tuple(_path(path) for path, _ in pairs),
            tuple(isinstance(leaf, Tensor) for _, leaf in pairs),
            tuple(leaf.requires_grad for _, leaf in pairs if isinstance(leaf, Tensor)),
        )

    @property
    def tensor_paths(self) -> tuple[str, ...]:
        """Where every tensor is."""
        return tuple(path for path, is_tensor in zip(self.paths, self.is_tensor, strict=True) if is_tensor)

    def flatten(self, args: Sequence[Any], kwargs: Mapping[str, Any], check_shapes: bool = True) -> list[Tensor]:
        """The flat tensors of a call, in the order of the captured module's placeholders.

        Raises CaptureError naming the inputs that are missing, extra, of another shape or dtype, or another constant.
        """
        values = bind(self.signature, args, kwargs)
        missing = [name for name in self.names if name not in values]
        extra = [name for name in values if name not in self.names]
        if missing or extra:
            raise CaptureError(
                f"the model was captured with the inputs {', '.join(self.names)}"
                + (f"; missing: {', '.join(missing)}" if missing else "")
                + (f"; not captured: {', '.join(extra)}" if extra else "")
            )
        leaves, spec = pytree.tree_flatten({name: values[name] for name in self.names})
        if spec != self.spec:
            raise CaptureError(
                f"the inputs are nested otherwise than when the model was captured: {spec} is not {self.spec}"
            )
        for leaf, expected, path, is_tensor in zip(leaves, self.leaves, self.paths, self.is_tensor, strict=True):
            _check_leaf(leaf, expected, path, is_tensor, check_shapes)
        return [leaf for leaf, is_tensor in zip(leaves, self.is_tensor, strict=True) if is_tensor]

    def example(self, shapes: Sequence[Sequence[int]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments as those of the capture, but of zeros in these shapes: one for every tensor."""
        rest = iter(zip(shapes, self.needs_gradient, strict=True))

        def zeros(dtype: torch.dtype) -> Tensor:
            shape, needs_gradient = next(rest)
            return torch.zeros(tuple(shape), dtype=dtype, requires_grad=needs_gradient)

        leaves = [
            zeros(leaf[1]) if is_tensor else leaf for leaf, is_tensor in zip(self.leaves, self.is_tensor, strict=True)
        ]
        return unbind(self.signature, pytree.tree_unflatten(leaves, self.spec))


def _check_leaf(leaf: Any, expected: Any, path: str, is_tensor: bool, check_shapes: bool) -> None:
    if is_tensor != isinstance(leaf, Tensor):
        was = "a tensor" if is_tensor else repr(expected)
        raise CaptureError(f"input {path} was {was} when the model was captured, and is {_describe(leaf)} now")
    if not is_tensor and leaf != expected:
        raise CaptureError(f"input {path} was {expected!r} when the model was captured, and is {leaf!r} now")
    if is_tensor:
        shape, dtype = expected
        if leaf.dtype != dtype or len(leaf.shape) != len(shape) or (check_shapes and tuple(leaf.shape) != shape):
            raise CaptureError(f"input {path} is {_describe(leaf)}; the model was captured with {dtype} {list(shape)}")


def _describe(leaf: Any) -> str:
    return f"{leaf.dtype} {list(leaf.shape)}" if isinstance(leaf, Tensor) else repr(leaf)


def register_dataclasses(nested: Any) -> None:
    """Let pytree, and so torch.export, look into every dataclass inside nested values."""
    for leaf in pytree.tree_leaves(nested):
        if is_dataclass(leaf) and not isinstance(leaf, type):
            torch.export.register_dataclass(type(leaf))
            register_dataclasses(leaf)


def bind(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument by its name in the signature, in its order; what is None by default and by value is left out.

    Raises CaptureError where the arguments do not fit the signature.
    """
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise CaptureError(f"the inputs do not fit the model's forward{signature}: {error}") from error
    values: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        parameter = signature.parameters[name]
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            values.update({key: item for key, item in sorted(value.items()) if item is not None})
        elif value is not None or parameter.default is not None:
            values[name] = value
    return values


def unbind(signature: inspect.Signature, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments that pass the named values: by keyword wherever the signature allows."""
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    variadic = next((n for n, kind in kinds.items() if kind is inspect.Parameter.VAR_POSITIONAL and n in values), None)
    args: list[Any] = []
    rest = dict(values)
    for name, kind in kinds.items():
        if name == variadic:
            args += rest.pop(name)
        elif name in rest and (
            kind is inspect.Parameter.POSITIONAL_ONLY
            or (variadic is not None and kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)
        ):
            args.append(rest.pop(name))
    return tuple(args), rest


def _path(path: Sequence[Any]) -> str:
    first, *rest = path
    return str(getattr(first, "key", first)) + pytree.keystr(tuple(rest))


@dataclass(frozen=True)
class OutputSpec:
    """What a model returns: the structure, its constants, and which flat tensor goes where."""

    spec: pytree.TreeSpec
    leaves: tuple[Any, ...]  # a Slot for a tensor, or a constant

    @property
    def num_tensors(self) -> int:
        return len({leaf.index for leaf in self.leaves if isinstance(leaf, Slot)})

    @property
    def structure(self) -> Any:
        """What is returned, with a Slot where a tensor is."""
        return pytree.tree_unflatten(list(self.leaves), self.spec)

    def unflatten(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The original structure around these flat tensors."""
        leaves = [tensors[leaf.index] if isinstance(leaf, Slot) else leaf for leaf in self.leaves]
        return pytree.tree_unflatten(leaves, self.spec)

    def select_loss(self) -> "OutputSpec":
        """The part that is trained: the `loss` of what is returned where it has one, else everything."""
        returned = self.structure
        loss = returned.get("loss") if isinstance(returned, Mapping) else getattr(returned, "loss", None)
        if not isinstance(loss, Slot):
            return self
        leaves, spec = pytree.tree_flatten(loss)
        return OutputSpec(spec, tuple(leaves))
