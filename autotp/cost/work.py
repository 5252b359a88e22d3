"""What one rank computes of an operator, and the seconds of its kernels: a product by its curve, all else by the roofline.

The roofline model is Williams et al. 2009: the larger of arithmetic and memory traffic. Every rate is a profile's.
"""

from dataclasses import dataclass
from functools import lru_cache

from autotp.cost.local import Coordinates, local_extents
from autotp.graph import ITEM_BYTES
from autotp.hardware.curves import MatmulCurve
from autotp.hardware.profile import DeviceProfile
from autotp.rules.rule import OpRule
from autotp.rules.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Product:
    """The local sizes of `batch` products [m, k] x [k, n]."""

    m: int
    n: int
    k: int
    batch: int

    def gradient_of(self, is_left: bool) -> "Product":
        """The product that makes the gradient of the left or the right factor."""
        if is_left:
            return Product(self.m, self.k, self.n, self.batch)
        return Product(self.k, self.n, self.m, self.batch)


@dataclass(frozen=True, slots=True)
class Work:
    """One operator on one device. `flops_s`: seconds of the forward's arithmetic at the profile's rate."""

    op: str
    device: DeviceProfile
    flops_s: float
    product: Product | None
    dtype: str
    launches: bool = True  # False where a compiler fuses it into another operator's kernel

    def forward_s(self, num_bytes: float) -> float:
        """Seconds of the forward, which moves so many bytes."""
        return self._kernel_s(self.product, self.flops_s, num_bytes, self.op)

    def gradient_s(self, is_left: bool, num_bytes: float) -> float:
        """Seconds of the product that makes a factor's gradient."""
        product = self.product and self.product.gradient_of(is_left)
        return self._kernel_s(product, self.flops_s, num_bytes, f"{self.op}.backward")

    def backward_s(self, flops_factor: float, num_bytes: float) -> float:
        """Seconds of a backward of `flops_factor` times the forward's arithmetic."""
        return self._kernel_s(None, self.flops_s * flops_factor, num_bytes, f"{self.op}.backward")

    def _kernel_s(self, product: Product | None, flops_s: float, num_bytes: float, name: str) -> float:
        device, factor = self.device, self.device.operator_factors.get(name, 1.0)
        curve = device.matmul_curves.get(self.dtype)
        if product is not None and curve is not None:
            return max(factor * _product_s(curve, product, ITEM_BYTES[self.dtype]), device.host_operator_s)
        seconds = factor * max(flops_s, num_bytes / device.memory_bytes_per_s)
        return max(seconds + device.launch_s, device.host_operator_s) if self.launches else seconds


@lru_cache(maxsize=1 << 16)
def _product_s(curve: MatmulCurve, product: Product, item_bytes: int) -> float:
    return curve.time_s(product.m, product.n, product.k, item_bytes, product.batch)


def local_product(rule: OpRule, factors: tuple[int, int], strategy: Strategy, at: Coordinates = None) -> Product | None:
    """The product that a rank computes, read off the rule: a letter of both factors and the result is batch, one of both
    factors alone is k. None for what is no plain product, as a convolution with more than its channels summed."""
    scale, letters = rule.work
    left, right, result = (
        {letter for dim in row for letter in dim.letters}
        for row in (rule.operands[factors[0]], rule.operands[factors[1]], rule.results[0])
    )
    parts = (left & result - right, right & result - left, left & right - result, left & right & result)
    if scale != 2.0 or sum(map(len, parts)) != len(letters) or not set().union(*parts) <= set(letters):
        return None
    return Product(*(local_extents(rule, strategy, part, at=at) for part in parts))
