"""Which device a homogeneous price is for."""

from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.profile import DeviceProfile
from autotp.mesh import Mesh


def slowest_device(cluster: ClusterProfile, mesh: Mesh) -> DeviceProfile:
    """The device that everybody waits for: near-equal shards take longest on the one with the lowest memory bandwidth.

    Shards sized for unlike devices are not planned yet, so one device stands for all.
    """
    names = cluster.device_names(mesh)
    return min((cluster.device_profiles[name] for name in names), key=lambda d: (d.memory_bytes_per_s, d.name))
