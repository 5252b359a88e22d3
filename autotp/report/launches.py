"""How many operators a step launches, and how long launching them takes."""

from autotp.plans import Plan


def num_launches(plan: Plan) -> int:
    """Forward and backward of every operator that takes time, on one device: backward counts once, so this is the least."""
    nodes = [node for node in plan.nodes.values() if node.kind == "op"]
    return sum((node.forward_s > 0) + (node.backward_s > 0) for node in nodes)


def launch_s(plan: Plan) -> float:
    """Seconds of launching them on the device of the mesh that is slowest at it."""
    devices = plan.cluster["devices"][: plan.mesh.num_ranks]
    return num_launches(plan) * float(max(plan.cluster["device_profiles"][name]["launch_s"] for name in devices))
