"""Consumers of a flow, without repetition."""

from autotp.solver.problem import Consumer, Flow


def merged(flow: Flow) -> list[Consumer]:
    """Two operands of one node that always want the same state are one consumer, which saves if either does."""
    found: dict[tuple[int, bytes], Consumer] = {}
    for c in flow.consumers:
        key = (c.node, c.wants.tobytes())
        found[key] = Consumer(c.node, c.wants, c.saves or (key in found and found[key].saves))
    return list(found.values())
