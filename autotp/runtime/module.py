"""The module a user runs: one rank's part of a model, called as the model is called."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from autotp.errors import AutoTPError, PlanError
from autotp.mesh import Mesh
from autotp.placement import Placement, near_equal
from autotp.runtime.communicator import Communicator, check_axes
from autotp.runtime.layout import Layout
from autotp.runtime.norms import by_axes, total_norm
from autotp.runtime.reductions import Reductions


class Signature(Protocol):
    """How the model is called: its arguments to flat tensors, and flat results to what it returns."""

    def flatten_inputs(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], check_shapes: bool = True
    ) -> list[Tensor]: ...

    def unflatten_outputs(self, outputs: Sequence[Tensor]) -> Any: ...


class Variants(Protocol):
    """Other graphs of the model on the same parameters: in evaluation, and for inputs of other sizes."""

    @property
    def is_dynamic(self) -> bool: ...

    def find(self, inputs: Sequence[Tensor] | None, is_training: bool) -> tuple[torch.fx.GraphModule, Signature]: ...

    def forget(self) -> None: ...


@dataclass(frozen=True)
class Sharding:
    """What a rank has of the model: by qualified name the placement and whole shape of parameters and buffers."""

    mesh: Mesh
    rank: int
    placements: Mapping[str, Placement]
    shapes: Mapping[str, tuple[int, ...]]
    input_shapes: tuple[tuple[int, ...], ...]
    mode: str

    @property
    def coordinates(self) -> tuple[int, ...]:
        return self.mesh.coordinates(self.rank)


class ParallelModule(nn.Module):
    """One rank's part of a model: takes and returns what the model does, whole on every rank.

    Names of parameters, buffers and `state_dict` keys are the model's; tensors are this rank's shards. It trains with
    any optimizer that treats elements alone. Planned for training it can be evaluated as well: `eval()` and `train()` do
    what they do to the model. Planned with `dynamic` it takes inputs of other sizes; it plans for them when they first
    come, which takes about as long as the first plan did. With `inputs="local"` every rank of `batch_axis` passes its
    own part of the batch: dim 0 of every batched input, near-equal parts in the order of ranks.
    """

    def __init__(
        self,
        graph_module: torch.fx.GraphModule,
        sharding: Sharding,
        signature: Signature,
        communicators: Mapping[str, Communicator],
        *,
        inputs: str = "whole",
        batch_axis: str = "dp",
        reductions: Reductions | None = None,
    ) -> None:
        super().__init__()
        check_axes(sharding.mesh, communicators)
        if inputs not in ("whole", "local"):
            raise AutoTPError(f"inputs are 'whole' or 'local', not {inputs!r}")
        if inputs == "local" and batch_axis not in communicators:
            raise PlanError(f"inputs='local' needs a mesh axis {batch_axis!r} over which the batch is divided")
        self.communicators = communicators
        self.reductions = reductions or Reductions()
        self._signature = signature
        self.variants: Variants | None = None
        self._batch = communicators[batch_axis] if inputs == "local" else None
        self.training = sharding.mode == "train"
        self.adopt(graph_module, sharding)

    def adopt(self, graph_module: torch.fx.GraphModule, sharding: Sharding) -> None:
        """Run this code on these shards from now on; what the module held before is let go."""
        self.sharding = sharding
        # Shared, not copied: what is loaded into or moved with this module is what the code runs on. The graph module
        # itself is no child, so that names stay those of the model.
        self.__dict__["_graph_module"] = graph_module
        self._parameters = graph_module._parameters
        self._buffers = graph_module._buffers
        self._non_persistent_buffers_set = graph_module._non_persistent_buffers_set
        called = {node.target for node in graph_module.graph.nodes if node.op == "call_module"}
        self._modules = {name: child for name, child in graph_module._modules.items() if name not in called}

    @property
    def signature(self) -> Signature:
        """How the model is called."""
        return self._signature

    @property
    def graph_module(self) -> torch.fx.GraphModule:
        """The rewritten graph, with the redistributions as modules."""
        found: torch.fx.GraphModule = self.__dict__["_graph_module"]
        return found

    @property
    def code(self) -> str:
        """The Python code that this rank runs."""
        return self.graph_module.code

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        graph_module, signature = self.graph_module, self._signature
        if self._batch is None:
            is_dynamic = self.variants is not None and self.variants.is_dynamic
            flat = signature.flatten_inputs(args, kwargs, check_shapes=not is_dynamic)
        else:
            local = self._signature.flatten_inputs(args, kwargs, check_shapes=False)
            if torch.is_grad_enabled() and any(x.requires_grad for x in local):
                raise AutoTPError(
                    "an input that requires a gradient must be whole: build the module with inputs='whole'"
                )
            flat = [
                _gather_batch(x, shape, self._batch) for x, shape in zip(local, self.sharding.input_shapes, strict=True)
            ]
        is_other = self.training != (self.sharding.mode == "train")
        if self.variants is not None and (
            is_other or any(tuple(x.shape) != shape for x, shape in zip(flat, self.sharding.input_shapes, strict=True))
        ):
            graph_module, signature = self.variants.find(flat, self.training)
        if self.sharding.mode == "infer":
            with torch.no_grad():  # the plan has no backward collectives: a gradient through it would be wrong
                return signature.unflatten_outputs(graph_module(*flat))
        return signature.unflatten_outputs(graph_module(*flat))

    def train(self, mode: bool = True) -> "ParallelModule":
        """As on the model. Raises PlanError for training of what was planned for inference, and for evaluation where the
        model does more than to leave out dropout and to use its running statistics."""
        is_planned = self.sharding.mode == "train"
        if mode and not is_planned:
            raise PlanError("this module was planned for mode 'infer': plan again with mode='train', which does both")
        if not mode and is_planned:
            if self.variants is None:
                raise PlanError("this module was built for training alone: build it by autotp.parallelize")
            self.variants.find(None, False)
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> "ParallelModule":
        if self.variants is not None:
            self.variants.forget()
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def no_sync(self) -> AbstractContextManager[None]:
        """Around the backward passes of all but the last micro-batch of a step: partial sums of parameters' gradients are
        kept on each rank, and added up over ranks once, by the backward pass of the last one:

            with module.no_sync():
                for batch in batches[:-1]:
                    loss(module(batch)).backward()
            loss(module(batches[-1])).backward()

        Every rank must use it alike. Meanwhile `.grad` is not complete, and what is kept takes room beside it, in the
        shape in which parameters are used: whole where ZeRO has shards. Compiled modules add up every time.
        """
        return self.reductions.held()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As on the model; what `no_sync` kept is gone too."""
        self.reductions.forget()
        super().zero_grad(set_to_none)

    def clip_grad_norm_(self, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
        """Scale gradients so that the norm of the whole model's is at most `max_norm`; returns the norm before.

        As torch.nn.utils.clip_grad_norm_, but shards are added up over ranks, and replicated and tied parameters
        counted once. Every rank must call it. Raises AutoTPError if asked to where the norm is not finite.
        """
        total = self.gradient_norm(norm_type)
        if error_if_nonfinite and not bool(torch.isfinite(total)):
            raise AutoTPError(
                f"the gradient norm of order {norm_type} is {total.item()}, so gradients cannot be clipped"
            )
        scale = (max_norm / (total + 1e-6)).clamp(max=1.0)
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(scale.to(parameter.grad.device, parameter.grad.dtype))
        return total

    def gradient_norm(self, norm_type: float = 2.0) -> Tensor:
        """The norm of the whole model's gradient, the same on every rank. Every rank must call it.

        Raises AutoTPError between the micro-batches of `no_sync`.
        """
        self.reductions.check_reduced()
        gradients = (
            (parameter.grad.detach(), self.sharding.placements[name])
            for name, parameter in self.named_parameters()
            if parameter.grad is not None
        )
        return total_norm(by_axes(gradients, self.sharding.mesh.names), norm_type, self.communicators)

    def gradients_are_finite(self) -> bool:
        """Whether the gradients of all ranks are finite: what loss scaling asks. Every rank must call it."""
        return bool(torch.isfinite(self.gradient_norm(float("inf"))))


def _gather_batch(x: Tensor, whole: tuple[int, ...], communicator: Communicator) -> Tensor:
    """The whole batch from every rank's part; an input of whole shape is taken as it is."""
    if not whole or tuple(x.shape) == whole:
        return x
    sizes = near_equal(whole[0], communicator.size)
    expected = (sizes[communicator.rank], *whole[1:])
    if tuple(x.shape) != expected:
        raise AutoTPError(
            f"an input of shape {tuple(x.shape)} on rank {communicator.rank} of axis {communicator.axis}: with "
            f"inputs='local' it must be {expected}, this rank's part of {whole}"
        )
    layout = Layout(0, (sizes,), communicator.size)
    return layout.joined(communicator.all_gather(layout.padded(x)))
