"""Move a running module from one plan to another of the same model and mesh, between two steps.

Everything new is made beside what is there; only when all ranks have all of it does anybody change. So where a rank dies
on the way the others keep what they had.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from autotp.capture.export import Captured
from autotp.errors import PlanError, RebalanceError
from autotp.placement import B, Placement, R, local_shape
from autotp.plans import Plan
from autotp.redistribute import TABLE, Step
from autotp.rewrite.parameters import placements_of
from autotp.rewrite.rewrite import check, rewrite
from autotp.runtime.module import ParallelModule
from autotp.runtime.moves import Redistribute

# Optimizer state that has an entry for every element of its parameter, by the names of torch.optim.
ELEMENTWISE = (
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "sum", "square_avg", "grad_avg",
    "acc_delta", "prev", "step_size", "ax",
)  # fmt: skip


def rebalance(module: ParallelModule, optimizer: torch.optim.Optimizer | None, plan: Plan) -> None:
    """Run `module` under another plan from the next step on: the same model, mesh and mode, other strategies or sizes.

    Every rank must call it with the same plan, between two steps. Parameters (the objects stay the same, so an
    optimizer keeps them), their gradients if there are any, buffers and the optimizer's state move to the new shards;
    no number changes. For the time of the move a rank holds old and new shards.

    Raises PlanError where the plan is not one of this model and mesh or the ranks' plans differ, and RebalanceError
    where a rank failed on the way. Then everything is as before.
    """
    captured = module.signature
    if not isinstance(captured, Captured):
        raise PlanError("this module was not made from a captured model, so it cannot be rewritten for another plan")
    check(captured.graph, plan)
    if plan.mesh != module.sharding.mesh or plan.mode != module.sharding.mode:
        raise PlanError(
            f"the module runs on {module.sharding.mesh} in mode {module.sharding.mode}, the plan is for {plan.mesh} in "
            f"mode {plan.mode}: only plans of the same mesh and mode can be exchanged while running"
        )
    module.reductions.check_reduced()
    module.reductions.forget()
    placements, _ = placements_of(captured.module, plan)
    staging = _Staging(module, optimizer, placements)
    try:
        staging.agree(plan)
        moved = staging.move()
        code = rewrite(
            captured.module,
            captured.graph,
            plan,
            module.sharding.rank,
            module.communicators,
            device=torch.device("meta"),
            reductions=module.reductions,
        )
        staging.agree(plan)  # all are done: from here on nothing is sent, and nothing can fail on one rank alone
    except RuntimeError as error:  # what torch.distributed raises where a peer is gone or too late
        raise RebalanceError(
            f"a rank failed while the module moved to another plan ({str(error).splitlines()[0]}): this rank keeps the "
            "old plan, its parameters and optimizer state are unchanged; start again from a checkpoint, or without it"
        ) from error
    for move in moved:
        move.commit(optimizer)
    _fill(code, {**dict(module.named_parameters(remove_duplicate=False)), **staging.buffers(moved)})
    module.adopt(code, replace(module.sharding, placements=placements))


@dataclass(frozen=True)
class _Moved:
    """What a parameter or buffer becomes: its elements, its gradient, and its entries in the optimizer's state."""

    name: str
    tensor: Tensor
    data: Tensor
    gradient: Tensor | None
    state: Mapping[str, Tensor]

    def commit(self, optimizer: torch.optim.Optimizer | None) -> None:
        if not isinstance(self.tensor, nn.Parameter):
            return
        self.tensor.grad = None  # of the old shape, which the new data would not go with
        if self.tensor.shape != self.data.shape:
            # autograd remembers the shape in which gradients arrive as long as any older graph lives (a loss that is
            # still looked at); only data of another dtype makes it forget
            other = torch.float32 if self.data.dtype == torch.float64 else torch.float64
            self.tensor.data = torch.empty(0, dtype=other, device=self.data.device)
        self.tensor.data = self.data
        self.tensor.grad = self.gradient
        if optimizer is not None and self.state:
            optimizer.state[self.tensor].update(self.state)


class _Staging:
    """The new shards of one rank, made in an order that all ranks share."""

    def __init__(
        self, module: ParallelModule, optimizer: torch.optim.Optimizer | None, placements: Mapping[str, Placement]
    ) -> None:
        self._module, self._optimizer, self._placements = module, optimizer, placements
        self._sharding = module.sharding
        self._tensors: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}

    def agree(self, plan: Plan) -> None:
        """Wait for all ranks, and see that they mean the same. Raises PlanError."""
        decisions = [(name, strategy.operands, strategy.results) for name, strategy in plan.strategies.items()]
        steps = [(value, [move.step for move in moves]) for value, moves in plan.moves.items()]
        digest = int(hashlib.sha256(repr((decisions, steps)).encode()).hexdigest()[:12], 16)
        low, high = self._largest(torch.tensor([-digest, digest], dtype=torch.int64)).tolist()
        if -low != high:
            raise PlanError("the ranks were given different plans: make one on rank 0 and broadcast it")

    def _largest(self, x: Tensor) -> Tensor:
        device = next(iter(self._tensors.values())).device
        x = x.to(device)
        for communicator in self._module.communicators.values():
            x = communicator.all_reduce(x, "max")
        return x

    def move(self) -> list[_Moved]:
        kept = {name: self._state_of(name, tensor) for name, tensor in self._tensors.items()}
        present = torch.tensor(
            [[tensor.grad is not None, *(key in kept[name] for key in ELEMENTWISE)]
             for name, tensor in self._tensors.items()], dtype=torch.int64,
        )  # fmt: skip
        step = torch.tensor([self._step_of(tensor) for tensor in self._tensors.values()], dtype=torch.int64)
        # a rank whose shard was empty may have no state, yet get elements that have
        on_any = self._largest(present).bool().tolist()
        steps = self._largest(step).tolist()
        moved = []
        for (name, tensor), (has_gradient, *keys), number in zip(self._tensors.items(), on_any, steps, strict=True):
            gradient = None
            if has_gradient:
                if B in self._sharding.placements[name]:
                    raise PlanError(f"the gradient of {name} is partial sums: rebalance after the optimizer's step")
                gradient = self._moved(name, tensor.grad if tensor.grad is not None else torch.zeros_like(tensor))
            state = {
                key: self._moved(name, kept[name].get(key, torch.zeros_like(tensor, requires_grad=False)))
                for key, is_there in zip(ELEMENTWISE, keys, strict=True)
                if is_there
            }
            if state and number >= 0 and "step" not in self._own_state(tensor):
                state["step"] = torch.tensor(float(number))
            moved.append(_Moved(name, tensor, self._moved(name, tensor.detach()), gradient, state))
        return moved

    def _own_state(self, tensor: Tensor) -> Mapping[str, object]:
        return self._optimizer.state.get(tensor, {}) if self._optimizer is not None else {}

    def _step_of(self, tensor: Tensor) -> int:
        step = self._own_state(tensor).get("step", -1)
        return int(step.item()) if isinstance(step, Tensor) else int(step)  # type: ignore[call-overload]

    def _state_of(self, name: str, tensor: Tensor) -> dict[str, Tensor]:
        """The optimizer's state with one entry per element. Raises PlanError for state of another shape."""
        found = {}
        for key, value in self._own_state(tensor).items():
            if not isinstance(value, Tensor) or (value.dim() == 0 and key not in ELEMENTWISE):
                continue
            if value.shape != tensor.shape or key not in ELEMENTWISE:
                raise PlanError(
                    f"the optimizer keeps {key!r} of shape {tuple(value.shape)} for {name} of shape "
                    f"{tuple(tensor.shape)}: only optimizers that treat elements alone can be moved"
                )
            found[key] = value
        return found

    def _moved(self, name: str, tensor: Tensor) -> Tensor:
        """A shard at the new placement, axis by axis; the tensor itself where nothing changes."""
        sharding, shape = self._sharding, self._sharding.shapes[name]
        placement, wanted = (tuple(R if s == B else s for s in p)
                             for p in (sharding.placements[name], self._placements[name]))  # fmt: skip
        if placement == wanted:
            return tensor
        tensor = tensor.detach()
        for axis, axis_name in enumerate(sharding.mesh.names):
            if placement[axis] != wanted[axis]:
                target = (*placement[:axis], wanted[axis], *placement[axis + 1 :])
                forward, _ = TABLE[placement[axis].kind, wanted[axis].kind]
                communicator = self._module.communicators[axis_name]
                step = Step(axis, placement, target)
                tensor = Redistribute(step, forward, "none", shape, sharding.mesh, sharding.rank, communicator)(tensor)
                placement = target
        expected = local_shape(shape, wanted, sharding.coordinates)
        if tuple(tensor.shape) != expected:
            raise PlanError(f"{name} became {tuple(tensor.shape)}, its new placement makes it {expected}")
        return tensor.detach().clone(memory_format=torch.contiguous_format)

    def buffers(self, moved: list[_Moved]) -> dict[str, Tensor]:
        new = {id(move.tensor): move.data for move in moved}
        return {name: new[id(buffer)] for name, buffer in self._module.named_buffers(remove_duplicate=False)}


def _fill(code: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors in the place of a module's own, by qualified name."""
    for path, owner in code.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for home in (owner._parameters, owner._buffers):
            for name, old in home.items():
                if old is not None and prefix + name in tensors:
                    home[name] = tensors[prefix + name]
