"""Images made larger, smaller or rearranged: batch and channels may be cut, space mostly not."""

from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import build, letters_of, rule
from autotp.rules.parts import rows_with_whole
from autotp.rules.rule import OpRule

FIRST = (frozenset((0,)),)


def interpolation(call: Call) -> OpRule:
    """Resizing: every mode is a weighted sum of neighbours in space."""
    return rule(call, "input[n c *s] self[n c *s] -> [n c *t]", whole="*s *t", linear=("input", "self"))


def grid_sample(call: Call) -> OpRule:
    """Samples at the positions of a grid: those may be cut, the image may not."""
    return rule(call, "input[n c *s] grid[n *t xy] -> [n c *t]", whole="*s xy", linear=("input",))


def pixel_shuffle(call: Call) -> OpRule:
    """`[(c a b) h w] -> [c (h a) (w b)]`: channels and space may be cut."""
    r = call.literal("upscale_factor")
    sizes = {"a": r, "b": r}
    return rule(call, "self[... (c a b) h w] -> [... c (h a) (w b)]", sizes=sizes, whole="a b", linear=("self",))


def pixel_unshuffle(call: Call) -> OpRule:
    r = call.literal("downscale_factor")
    sizes = {"a": r, "b": r}
    return rule(call, "self[... c (h a) (w b)] -> [... (c a b) h w]", sizes=sizes, whole="a b", linear=("self",))


def channel_shuffle(call: Call) -> OpRule:
    return rule(
        call, "self[n (g c) *s] -> [n (c g) *s]", sizes={"g": call.literal("groups")}, linear=("self",),
        local_sizes={"groups": "g"},
    )  # fmt: skip


def im2col(call: Call) -> OpRule:
    """Patches become columns: every channel has its own rows of the result."""
    batch = "n " if len(call.specs[0].shape) == 4 else ""
    return rule(
        call, f"self[{batch}c h w] -> [{batch}(c k) l]", sizes={"c": call.specs[0].shape[-3]}, whole="h w k l",
        linear=("self",),
    )  # fmt: skip


def col2im(call: Call) -> OpRule:
    batch = "n " if len(call.specs[0].shape) == 3 else ""
    return rule(
        call, f"self[{batch}(c k) l] -> [{batch}c h w]", sizes={"c": call.results[0][-3]}, whole="h w k l",
        linear=("self",),
    )  # fmt: skip


def unpool(call: Call) -> OpRule:
    num_space = int(call.node.short_op[-2])
    before, after = (" ".join(f"{name}{i}" for i in range(num_space)) for name in "st")
    return rule(call, f"self[... {before}] indices[... {before}] -> [... {after}]", whole=f"{before} {after}")


def fractional_pool(call: Call) -> OpRule:
    """Where it pools is drawn per sample and channel, before the operator."""
    num_space = int(call.node.short_op[-2])
    batch = "n " if len(call.specs[0].shape) == num_space + 2 else ""
    before, after = (" ".join(f"{name}{i}" for i in range(num_space)) for name in "st")
    draws = "n c xy" if batch else "one c xy"
    return rule(
        call, f"self[{batch}c {before}] random_samples[{draws}] -> [{batch}c {after}][{batch}c {after}]",
        whole=f"{before} {after} xy",
    )  # fmt: skip


def unfold(call: Call) -> OpRule:
    """Windows along a dim become a new last dim."""
    row = letters_of(len(call.specs[0].shape))
    if not row:
        return build(call, [row], [(("window",),)], whole=["window"], linear=FIRST)
    dim = call.dim("dimension")
    result = tuple(("place",) if i == dim else letter for i, letter in enumerate(row))
    return build(call, [row], [(*result, ("window",))], whole=[f"d{dim}", "place", "window"], linear=FIRST)


def space_padded(call: Call) -> OpRule:
    """Reflection and replication repeat elements at the ends of the last dims."""
    num_space = int(call.node.short_op[-2])
    rank = len(call.specs[0].shape)
    return rows_with_whole(call, range(rank - num_space, rank))


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(
        [
            *(f"upsample_nearest{n}d" for n in (1, 2, 3)),
            *(f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)),
            *("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"),
            *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
        ],
        interpolation,
    ),
    **dict.fromkeys(["grid_sampler", "grid_sampler_2d", "grid_sampler_3d"], grid_sample),
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    **dict.fromkeys(["channel_shuffle", "native_channel_shuffle"], channel_shuffle),
    "im2col": im2col,
    "col2im": col2im,
    **dict.fromkeys(["max_unpool2d", "max_unpool3d"], unpool),
    **dict.fromkeys(["fractional_max_pool2d", "fractional_max_pool3d"], fractional_pool),
    **dict.fromkeys(["unfold", "unfold_copy"], unfold),
    **dict.fromkeys([f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)], space_padded),
}
