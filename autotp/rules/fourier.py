"""Fourier transforms: the transformed dims are whole."""

from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import rule
from autotp.rules.parts import rows_with_whole
from autotp.rules.rule import OpRule


def transform(call: Call) -> OpRule:
    """fft_fft and its family: along `dim`; without one, along the last dims (as many as `s` names) or all."""
    rank = len(call.specs[0].shape)
    dim = call.literal("dim")
    if dim is None and call.literal("s") is not None:
        dim = tuple(range(-len(call.literal("s")), 0))
    dims = range(rank) if dim is None else (dim,) if isinstance(dim, int) else dim
    # a transform to real numbers drops imaginary parts: partial sums pass all the same, the operator is linear
    return rows_with_whole(call, [d % rank for d in dims])


def stft(call: Call) -> OpRule:
    batch = "n " if len(call.specs[0].shape) == 2 else ""
    tail = "f u two" if len(call.results[0]) == len(call.specs[0].shape) + 2 else "f u"
    return rule(call, f"self[{batch}t] window[w] -> [{batch}{tail}]", whole=f"t w {tail}", linear=("self",))


def istft(call: Call) -> OpRule:
    batch = "n " if len(call.specs[0].shape) == 3 else ""
    return rule(call, f"self[{batch}f u] window[w] -> [{batch}t]", whole="t w f u", linear=("self",))


NAMES = [f"fft_{way}{kind}fft{n}" for way in ("", "i") for kind in ("", "r", "h") for n in ("", "2", "n")]

RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(NAMES, transform),
    **dict.fromkeys(["fft_fftshift", "fft_ifftshift"], transform),
    "stft": stft,
    "istft": istft,
}
