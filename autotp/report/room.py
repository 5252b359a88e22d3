"""How much room memory leaves: every device against its own limit."""

from dataclasses import dataclass

from autotp.plans import Plan


@dataclass(frozen=True, slots=True)
class Room:
    """What a rank is predicted to hold, and may hold."""

    rank: int
    device: str
    held_bytes: float
    limit_bytes: float

    @property
    def free_bytes(self) -> float:
        return self.limit_bytes - self.held_bytes


def rooms(plan: Plan) -> list[Room]:
    """One per rank, in order."""
    held, solver = plan.summary["predicted"]["memory_bytes"], plan.summary["solver"]
    limits = solver.get("memory_limits_bytes") or [solver["memory_limit_bytes"]] * len(held)
    devices = plan.cluster["devices"][: len(held)]
    return [Room(rank, *row) for rank, row in enumerate(zip(devices, held, limits, strict=True))]


def least_room(plan: Plan) -> Room:
    """The rank that is nearest to its limit, or the most above it; of equal ones the first."""
    return min(rooms(plan), key=lambda room: room.free_bytes)


def has_one_limit(plan: Plan) -> bool:
    """Whether all devices may hold the same, so that the fullest one has the least room."""
    return len({room.limit_bytes for room in rooms(plan)}) == 1


def whose(plan: Plan) -> str:
    """`the fullest device`, or on unlike devices which one: `rank 2 (RTX-4090), the device with the least room,`."""
    if has_one_limit(plan):
        return "the fullest device"
    room = least_room(plan)
    return f"rank {room.rank} ({room.device}), the device with the least room,"
