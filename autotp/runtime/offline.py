"""The place of a rank without the other ranks: enough to build a module that is read, not run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from torch import Tensor

from autotp.errors import AutoTPError
from autotp.mesh import Mesh
from autotp.runtime.communicator import Call, Clock, Communicator


@dataclass
class OfflineCommunicator:
    """A Communicator that knows its rank and size; every collective raises AutoTPError."""

    axis: str
    rank: int
    size: int
    trace: list[Call] | None = None
    clock: Clock | None = None

    def _refuse(self) -> NoReturn:
        raise AutoTPError(f"this module was built to be read: it has no other ranks on axis {self.axis} to talk to")

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        self._refuse()

    def all_gather(self, x: Tensor) -> Tensor:
        self._refuse()

    def reduce_scatter(self, x: Tensor) -> Tensor:
        self._refuse()

    def all_to_all(self, parts: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        self._refuse()

    def begin(self, collective: str, x: Tensor) -> Callable[[], Tensor]:
        self._refuse()

    def broadcasts(self, x: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        self._refuse()


def offline(mesh: Mesh, rank: int) -> dict[str, Communicator]:
    """Communicators of one rank of a mesh, by axis."""
    places = mesh.coordinates(rank)
    return {name: OfflineCommunicator(name, places[axis], size) for axis, (name, size) in enumerate(mesh.axes)}
