"""What to say when a model cannot be captured: which module, which line of its code, what went wrong, what helps."""

import re
from types import TracebackType
from typing import Any

from torch import nn

# What the error says (its type, a colon, its first line) and what usually helps; the first that fits.
REMEDIES = (
    (
        r"DataDependent|data-dependent",
        "what it does depends on the values in its tensors ({error}). Replace `if`s and loops over tensor values by masks "
        "or torch.where",
    ),
    (
        r"\.numpy\(\)",
        "it leaves torch on the way ({error}). Compute with torch operators, or make an operator of what is outside by "
        "torch.library.custom_op",
    ),
    (
        r"UnsupportedOperator|no fake impl|no meta|fake tensor|Meta tensors",
        "an operator does not say what shapes its results have ({error}). Register that by torch.library.register_fake, "
        "and how it may be split by autotp.register_rule",
    ),
    (
        r"not a known type|pytree",
        "it takes or returns an object of its own class ({error}). Use tensors, dicts, lists, tuples or dataclasses, or "
        "register the class by torch.utils._pytree.register_pytree_node",
    ),
    (r"[Ss]parse", "it uses sparse tensors ({error}). Use dense ones"),
    (r"FlexAttention|flex_attention", "{error}. Use torch.nn.functional.scaled_dot_product_attention"),
    (r"", "{error}. It must run with these inputs, and torch.export must be able to trace it"),
)


def explain(model: nn.Module, error: Exception) -> str:
    """One message about an error that torch.export raised for this model."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0].split('. ')[0].rstrip('.') if lines else ''}"
    remedy = next(remedy for pattern, remedy in REMEDIES if re.search(pattern, text))
    return f"the model cannot be captured{place_of(model, error.__traceback__)}: {remedy.format(error=text)}"


def place_of(model: nn.Module, trace: TracebackType | None) -> str:
    """` in module layers.3 (Block, file:line)`: the innermost code of one of the model's modules, torch's own aside."""
    names = {id(module): name for name, module in model.named_modules()}
    place = ""
    while trace is not None:
        code, owner = trace.tb_frame.f_code, _first_argument(trace)
        if id(owner) in names and "/torch/" not in code.co_filename.replace("\\", "/"):
            name = names[id(owner)]
            where = f"module {name}" if name else "the model's own forward"
            place = f" in {where} ({type(owner).__name__}, {code.co_filename}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place


def _first_argument(trace: TracebackType) -> Any:
    code = trace.tb_frame.f_code
    return trace.tb_frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
