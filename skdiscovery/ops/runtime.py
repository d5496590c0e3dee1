"""Where and how torch works: device, precision, backend, denormal numbers."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

logger = logging.getLogger("skdiscovery")

BACKENDS = ("auto", "torch", "cpp", "cuda")


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the torch device for a name; "auto" is the first GPU if there is one, else the CPU.

    Raises
    ------
    ValueError
        If the name is not a device, or the device is not available.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"Device {str(device)!r} is not available: {reason}") from error
    return resolved


def resolve_backend(backend: str = "auto") -> str:
    """Return the backend that runs the mLSTM; "auto" takes the fastest that is available.

    Raises
    ------
    ValueError
        If a backend is named that is not available, or not known.
    """
    if backend not in BACKENDS:
        raise ValueError(f"Unknown backend {backend!r}: expected one of {list(BACKENDS)}.")
    missing = "this version of skdiscovery has no compiled kernels"
    if backend in ("cpp", "cuda"):
        raise ValueError(
            f"Backend {backend!r} is not available: {missing}. Use backend='auto' or 'torch'."
        )
    if backend == "auto":
        logger.info("backend 'torch': %s", missing)
    return "torch"


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the recurrent products; "auto" is bfloat16 on a GPU, else float32."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}[
        precision
    ]


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Treat denormal numbers as zero on the CPU, where each costs a hundred normal ones."""
    smallest = torch.tensor(1e-310, dtype=torch.float64)
    was_flushing = bool(smallest * 1.0 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushing)
