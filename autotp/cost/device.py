"""Where prices hold: the devices of a mesh, and which ranks must be looked at one by one."""

from dataclasses import dataclass

from autotp.cost.local import Coordinates
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.profile import DeviceProfile
from autotp.mesh import Mesh

MAX_SITES = 32  # ranks that are priced one by one


@dataclass(frozen=True, slots=True)
class Site:
    """A device, and the coordinates of the rank on it; None stands for all ranks, each with the largest shards."""

    name: str
    device: DeviceProfile
    at: Coordinates = None


def slowest_device(cluster: ClusterProfile, mesh: Mesh) -> DeviceProfile:
    """The device that everybody waits for in a step that moves as many bytes on all: the one of least bandwidth."""
    names = cluster.device_names(mesh)
    return min((cluster.device_profiles[name] for name in names), key=lambda d: (d.memory_bytes_per_s, d.name))


def sites_of(cluster: ClusterProfile, mesh: Mesh) -> tuple[Site, ...]:
    """One site for equal devices; one per rank for unlike ones, or per kind of device on a mesh of many ranks."""
    names = cluster.device_names(mesh)
    if len(names) == 1:
        return (Site(names[0], cluster.device_profiles[names[0]]),)
    if mesh.num_ranks > MAX_SITES:
        return tuple(Site(name, cluster.device_profiles[name]) for name in names)
    return tuple(
        Site(f"rank {rank} ({cluster.devices[rank]})", cluster.device(rank), mesh.coordinates(rank))
        for rank in range(mesh.num_ranks)
    )
