"""Collectives on one mesh axis, over real process groups.

Nothing here knows about gradients: these are the forward collectives only, called inside autograd Functions. They never
write to their input, because autograd may hand one gradient tensor to several branches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from autotp.errors import AutoTPError
from autotp.mesh import Mesh


class Call(NamedTuple):
    """One collective as a rank issued it: what a test compares between ranks. `shape` is that of the sent tensor."""

    collective: str
    axis: str
    dtype: str
    shape: tuple[int, ...]


class Clock(Protocol):
    """Told when a collective begins and when its result is there: who waits for whom is seen there."""

    def begin(self) -> None: ...

    def end(self) -> None: ...


class Communicator(Protocol):
    """The ranks that differ only along one axis. `rank` is the coordinate on that axis, `size` their number.

    Every rank of the group calls the same method in the same order. Results are new tensors, inputs stay as they are.
    If `trace` is a list, every call is appended to it; if there is a `clock`, it is told of every call.
    """

    axis: str
    rank: int
    size: int
    trace: list[Call] | None
    clock: Clock | None

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        """The elementwise `sum` or `max` over ranks."""
        ...

    def all_gather(self, x: Tensor) -> Tensor:
        """Tensors of equal shape, stacked: `[size, *x.shape]`."""
        ...

    def reduce_scatter(self, x: Tensor) -> Tensor:
        """Of `x[size, ...]` the sum over ranks of `x[rank]`."""
        ...

    def all_to_all(self, parts: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Send `parts[i]` to rank `i` and receive a tensor of `shapes[i]` from it. Shapes may differ, or be empty."""
        ...

    def broadcasts(self, x: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Every rank's tensor, of `shapes[i]` from rank `i`: one broadcast from each whose tensor is not empty."""
        ...

    def begin(self, collective: str, x: Tensor) -> Callable[[], Tensor]:
        """Begin an `all_reduce` (a sum) or a `reduce_scatter`; what is returned waits for the result. `x` stays as it is."""
        ...


@dataclass(eq=False)
class _Begun:
    """A collective under way; called for its result, once. `sent` has to live until then."""

    work: dist.Work
    result: Tensor
    sent: Tensor
    clock: Clock | None

    def __call__(self) -> Tensor:
        if self.clock is not None:
            self.clock.begin()
        self.work.wait()
        if self.clock is not None:
            self.clock.end()
        return self.result


_REDUCTIONS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}


class GroupCommunicator:
    """A Communicator over a torch.distributed process group.

    Compilers are given functional collectives, which they understand; else the group is called itself, which saves a
    tenth of a millisecond of Python per call.
    """

    def __init__(self, group: dist.ProcessGroup, axis: str) -> None:
        self.axis = axis
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self.trace: list[Call] | None = None
        self.clock: Clock | None = None
        self._name = group.group_name

    @property
    def _group(self) -> dist.ProcessGroup:
        # Looked up, not kept: a group that outlives destroy_process_group aborts the process as it ends.
        found: dist.ProcessGroup = dist.distributed_c10d._resolve_process_group(self._name)  # type: ignore[attr-defined]
        return found

    def _trace(self, collective: str, x: Tensor) -> None:
        if self.trace is not None:
            self.trace.append(Call(collective, self.axis, str(x.dtype), tuple(x.shape)))

    def _record(self, collective: str, x: Tensor) -> None:
        self._trace(collective, x)
        if self.clock is not None:
            self.clock.begin()

    def _done(self, work: dist.Work, result: Tensor) -> Tensor:
        work.wait()
        if self.clock is not None:
            self.clock.end()
        return result

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        self._record("all_reduce", x)
        if torch.compiler.is_compiling():
            return _wait(torch.ops._c10d_functional.all_reduce(x.contiguous(), op, self._name))
        result = x.clone(memory_format=torch.contiguous_format)
        return self._done(self._group.allreduce([result], _REDUCTIONS[op]), result)

    def all_gather(self, x: Tensor) -> Tensor:
        self._record("all_gather", x)
        # one more dim, so that the ranks' tensors are stacked and not joined along dim 0
        x = x.contiguous().unsqueeze(0)
        if torch.compiler.is_compiling():
            return _wait(torch.ops._c10d_functional.all_gather_into_tensor(x, self.size, self._name))
        result = x.new_empty((self.size, *x.shape[1:]))
        return self._done(self._group._allgather_base(result, x), result)

    def reduce_scatter(self, x: Tensor) -> Tensor:
        self._record("reduce_scatter", x)
        x = x.contiguous()
        if torch.compiler.is_compiling():
            return _wait(torch.ops._c10d_functional.reduce_scatter_tensor(x, "sum", self.size, self._name)).squeeze(0)
        result = x.new_empty((1, *x.shape[1:]))
        return self._done(self._group._reduce_scatter_base(result, x, dist.ReduceScatterOptions()), result).squeeze(0)

    def all_to_all(self, parts: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        sent = torch.cat([part.reshape(-1) for part in parts])
        self._record("all_to_all", sent)
        into, out_of = [torch.Size(shape).numel() for shape in shapes], [part.numel() for part in parts]
        if torch.compiler.is_compiling():
            received = _wait(torch.ops._c10d_functional.all_to_all_single(sent, into, out_of, self._name))
        else:
            result = sent.new_empty(sum(into))
            received = self._done(self._group.alltoall_base(result, sent, into, out_of), result)
        return [piece.view(tuple(shape)) for piece, shape in zip(torch.split(received, into), shapes, strict=True)]

    def begin(self, collective: str, x: Tensor) -> Callable[[], Tensor]:
        self._trace(collective, x)
        if collective == "all_reduce":
            result = x.clone(memory_format=torch.contiguous_format)
            return _Begun(self._group.allreduce([result], dist.ReduceOp.SUM), result, result, self.clock)
        x = x.contiguous()
        result = x.new_empty((1, *x.shape[1:]))
        work = self._group._reduce_scatter_base(result, x, dist.ReduceScatterOptions())
        return _Begun(work, result.squeeze(0), x, self.clock)

    def broadcasts(self, x: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        found = [x.new_empty(tuple(shape)) for shape in shapes]
        found[self.rank] = x.clone(memory_format=torch.contiguous_format)
        roots = [root for root, tensor in enumerate(found) if tensor.numel()]
        for root in roots:
            self._trace("broadcast", found[root])
        if torch.compiler.is_compiling():
            for root in roots:
                found[root] = _wait(torch.ops._c10d_functional.broadcast(found[root], root, self._name))
            return found
        if self.clock is not None:
            self.clock.begin()
        works = []
        for root in roots:
            options = dist.BroadcastOptions()
            options.rootRank = root
            works.append(self._group.broadcast([found[root]], options))
        for work in works:
            work.wait()
        if self.clock is not None:
            self.clock.end()
        return found


def _wait(x: Tensor) -> Tensor:
    done: Tensor = torch.ops._c10d_functional.wait_tensor(x)
    return done


def init_mesh(mesh: Mesh, device_type: str = "cpu") -> DeviceMesh:
    """The DeviceMesh of a mesh, over the process group that is already initialised.

    Called by every rank; all ranks create the groups of all axes in the same order. Raises AutoTPError where the number
    of processes is not the mesh's.
    """
    if not dist.is_initialized():
        raise AutoTPError(
            "torch.distributed is not initialised: call torch.distributed.init_process_group, e.g. by torchrun"
        )
    if dist.get_world_size() != mesh.num_ranks:
        raise AutoTPError(f"the mesh {mesh} needs {mesh.num_ranks} processes, but {dist.get_world_size()} were started")
    return init_device_mesh(device_type, mesh.sizes, mesh_dim_names=mesh.names)


def communicators_of(device_mesh: DeviceMesh) -> dict[str, Communicator]:
    """A communicator per axis, by name. Raises AutoTPError where the DeviceMesh has no axis names."""
    names = device_mesh.mesh_dim_names
    if names is None:
        raise AutoTPError("the DeviceMesh has no axis names: pass mesh_dim_names=('tp',), the names of the plan's mesh")
    return {name: GroupCommunicator(device_mesh.get_group(name), name) for name in names}


def check_axes(mesh: Mesh, communicators: Mapping[str, Communicator]) -> None:
    """Raise AutoTPError unless there is a communicator of the right size for every axis of the mesh."""
    sizes = {name: communicator.size for name, communicator in communicators.items()}
    if sizes != dict(mesh.axes):
        found = ",".join(f"{name}={size}" for name, size in sizes.items())
        raise AutoTPError(f"the plan is for the mesh {mesh}, but it is run on {found}")
