"""Where and how torch works: device, precision, backend, denormal numbers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from skdiscovery.ops import extension
from skdiscovery.ops.recipes import CompiledBackend

BACKENDS = ("auto", "torch", "cpp", "cuda")
BACKEND_VARIABLE = "SKDISCOVERY_BACKEND"

_CPU = torch.device("cpu")
_GRAIN_SIZE = 2**15  # elements that torch wakes another thread for
_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
}
PRECISIONS = ("auto", *_DTYPES)
_COMPILED: dict[str, CompiledBackend] = {"cpu": "cpp", "cuda": "cuda"}


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
        torch.zeros(1, device=resolved).item()  # "meta" takes numbers and gives none back
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]  # of "mps", torch says a page
        raise ValueError(f"Device {str(device)!r} is not available: {reason}") from error
    return resolved


def copied_to(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU's on a device, without waiting for what is under way there."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def resolve_backend(backend: str = "auto", device: torch.device = _CPU) -> str:
    """Return the backend that runs the mLSTM on a device, after loading its kernels.

    Parameters
    ----------
    backend : {"auto", "torch", "cpp", "cuda"}, default="auto"
        "auto" is what the environment variable ``SKDISCOVERY_BACKEND`` names or, without it, the
        fastest that is available.
    device : torch.device, default=torch.device("cpu")
        Where it is to run.

    Raises
    ------
    ValueError
        If a backend is named that is not available, not for the device, or not known.
    """
    if backend == "auto":
        backend = os.environ.get(BACKEND_VARIABLE) or "auto"
    if backend not in BACKENDS:
        raise ValueError(
            f"Unknown backend {backend!r}: expected one of {list(BACKENDS)}, as parameter or in "
            f"the environment variable {BACKEND_VARIABLE}."
        )
    compiled = _COMPILED.get(device.type)
    if backend == "torch" or (backend == "auto" and compiled is None):
        return "torch"
    if compiled is None or backend not in ("auto", compiled):
        raise ValueError(f"Backend {backend!r} does not run on device {str(device)!r}.")
    outcome = extension.load(compiled)
    if outcome.library is not None:
        return compiled
    if backend == "auto":
        return "torch"
    raise ValueError(
        f"Backend {backend!r} is not available: use 'auto' or 'torch'. Reason: {outcome.reason}"
    )


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the recurrent products; "auto" is bfloat16 on a GPU, else float32.

    Raises
    ------
    ValueError
        If it is not known, or "int8" and the device is not the CPU.
    """
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if precision == "int8" and device.type != "cpu":
        raise ValueError(
            f"Precision 'int8' is for the CPU, got device {str(device)!r}: use device='cpu' or "
            "precision='bfloat16'."
        )
    if precision not in _DTYPES:
        raise ValueError(f"Unknown precision {precision!r}: expected one of {list(PRECISIONS)}.")
    return _DTYPES[precision]


def has_narrow_products() -> bool:
    """Return whether torch's products of bfloat16 and of int8 are worth it on this CPU.

    Without AVX-512 they take many times as long as float32's.
    """
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


@contextmanager
def own_arithmetic(device: torch.device) -> Iterator[None]:
    """Compute in our own precision, whatever ``torch.autocast`` a caller is in; flush denormals."""
    with torch.autocast(device.type, enabled=False), flush_denormals():
        yield


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Treat denormal numbers as zero on the CPU, where each costs a hundred normal ones.

    On the thread that calls, and in the compiled kernels on all that work for it.
    """
    # Threads inherit for good what they find when torch starts them: let that not be this.
    torch.ones(torch.get_num_threads() * _GRAIN_SIZE, dtype=torch.uint8, device=_CPU)
    smallest = torch.tensor(1e-310, dtype=torch.float64, device=_CPU)
    was_flushing = bool(smallest * 1.0 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushing)
