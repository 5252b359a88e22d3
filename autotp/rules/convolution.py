"""Convolutions and pooling: batch and channels may be cut, space may not."""

from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import rule
from autotp.rules.rule import OpRule


def convolution(call: Call) -> OpRule:
    """Groups are a factor of input and output channels, major; the kernel has one input factor, not repeated."""
    weight = call.shape("weight")
    batch = "n " if len(call.shape("input")) == len(weight) else ""
    groups = call.literal("groups", 1)
    space = " ".join(f"k{i}" for i in range(len(weight) - 2))
    return rule(
        call,
        f"input[{batch}(g c) *s] weight[(g o) c {space}] bias[(g o)] -> [{batch}(g o) *t]",
        sizes={"g": groups, "c": weight[1], "o": weight[0] // groups},
        summed="c",
        whole=f"*s *t {space}",
        additive="bias",
        linear=("input bias", "weight bias"),
        local_sizes={"groups": "g"},
        work=(2.0, f"n g o c {space} *t"),
    )


def transposed_convolution(call: Call) -> OpRule:
    weight = call.shape("weight")
    batch = "n " if len(call.shape("input")) == len(weight) else ""
    groups = call.literal("groups", 1)
    space = " ".join(f"k{i}" for i in range(len(weight) - 2))
    return rule(
        call,
        f"input[{batch}(g c) *s] weight[(g c) o {space}] bias[(g o)] -> [{batch}(g o) *t]",
        sizes={"g": groups, "c": weight[0] // groups, "o": weight[1]},
        summed="c",
        whole=f"*s *t {space}",
        additive="bias",
        linear=("input bias", "weight bias"),
        local_sizes={"groups": "g"},
        work=(2.0, f"n g o c {space} *s"),
    )


def pooling(call: Call) -> OpRule:
    """The last dims are pooled; averages are linear."""
    num_space = int(call.node.short_op.partition("pool")[2][0])
    name = "input" if "input" in call.node.arguments else "self"
    before = " ".join(f"s{i}" for i in range(num_space))
    after = " ".join(f"t{i}" for i in range(num_space))
    return rule(
        call,
        f"{name}[... {before}] -> " + f"[... {after}]" * len(call.results),
        whole=f"{before} {after}",
        linear=(name,) if "avg" in call.node.short_op else (),
    )


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(["conv1d", "conv2d", "conv3d"], convolution),
    **dict.fromkeys(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"], transposed_convolution),
    **dict.fromkeys(
        [f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)]
        + ["max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices"],
        pooling,
    ),
}
