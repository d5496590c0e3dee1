"""The multiplicative LSTM over a sequence, as differentiable torch operators."""

from skdiscovery.ops.mlstm import mlstm, mlstm_packed
from skdiscovery.ops.runtime import flush_denormals, resolve_backend, resolve_device

__all__ = ["flush_denormals", "mlstm", "mlstm_packed", "resolve_backend", "resolve_device"]
