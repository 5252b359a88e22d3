"""The dimension analysis on captured modules: where a weight may be cut."""

import torch
from torch import Tensor, nn

from autotp.capture.export import capture
from autotp.graph import Graph, Value
from autotp.rules.dims import DimAnalysis
from autotp.rules.registry import rules_of


def layouts(module: nn.Module, *inputs: Tensor) -> dict[str, list[tuple[tuple[int, int], ...]]]:
    """Every layout proposed for the first dim of every parameter, by name."""
    graph: Graph = capture(module, inputs, mode="train").graph
    analysis = DimAnalysis(graph, rules_of(graph), {node.name: node.name for node in graph})
    return {
        node.target: [candidate.layout for candidate in analysis.candidates(Value(node.name), 0)]
        for node in graph
        if node.kind == "parameter"
    }


class Fused(nn.Module):
    """One projection that is divided in several ways; `how` names the layout."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.qkv, self.out = how, nn.Linear(24, 48), nn.Linear(16, 24)

    def forward(self, x: Tensor) -> Tensor:
        b, s, _ = x.shape
        y = self.qkv(x)
        if self.how == "chunk":
            q, k, v = (part.view(b, s, 4, 4).transpose(1, 2) for part in y.chunk(3, -1))
        elif self.how == "view":  # (3 h d)
            q, k, v = y.view(b, s, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        elif self.how == "neox":  # (h 3 d)
            q, k, v = (part.transpose(1, 2) for part in y.view(b, s, 4, 12).chunk(3, -1))
        else:  # q of 4 heads, k and v of 2, all of 6
            q, k, v = y.split([24, 12, 12], -1)
            q, k, v = (part.view(b, s, -1, 6).transpose(1, 2) for part in (q, k, v))
            attention = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            return attention.transpose(1, 2).reshape(b, s, 24)
        attention = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(attention.transpose(1, 2).reshape(b, s, 16))


def test_fused_projections_are_cut_by_heads_in_every_block() -> None:
    x = torch.randn(2, 3, 24)
    assert ((16, 4),) * 3 in layouts(Fused("chunk"), x)["qkv.weight"]
    assert ((16, 4),) * 3 in layouts(Fused("view"), x)["qkv.weight"]
    assert ((48, 12),) in layouts(Fused("neox"), x)["qkv.weight"]
    assert ((24, 12), (12, 6), (12, 6)) in layouts(Fused("unequal"), x)["qkv.weight"]


def test_column_and_row_of_a_two_layer_perceptron_share_their_factor() -> None:
    module = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 6))
    graph = capture(module, (torch.randn(2, 6),), mode="train").graph
    analysis = DimAnalysis(graph, rules_of(graph), {node.name: node.name for node in graph})
    first, second = (next(n.name for n in graph if n.target == t) for t in ("0.weight", "2.weight"))
    find = analysis.terms.find
    assert find(analysis.row(Value(first))[0]) == find(analysis.row(Value(second))[1])
    assert find(analysis.row(Value(first))[1]) != find(analysis.row(Value(second))[0])


def test_sizes_are_whole_granules() -> None:
    for layout in layouts(Fused("chunk"), torch.randn(2, 3, 24))["qkv.weight"]:
        assert sum(length for length, _ in layout) == 48
        assert all(length % granule == 0 for length, granule in layout)
