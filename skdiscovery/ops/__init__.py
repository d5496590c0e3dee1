"""The multiplicative LSTM over a sequence, as differentiable torch operators."""

from skdiscovery.ops.int8 import Int8Matrix, mlstm_packed_int8
from skdiscovery.ops.mlstm import mlstm, mlstm_packed
from skdiscovery.ops.runtime import (
    flush_denormals,
    has_narrow_products,
    own_arithmetic,
    resolve_backend,
    resolve_device,
)

__all__ = [
    "Int8Matrix",
    "flush_denormals",
    "has_narrow_products",
    "mlstm",
    "mlstm_packed",
    "mlstm_packed_int8",
    "own_arithmetic",
    "resolve_backend",
    "resolve_device",
]
